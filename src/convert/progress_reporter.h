// Counts what is done of long work, reports it, and stops the work when that is asked for.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "core/progress.h"

namespace llava_mini {

class ProgressReporter {
  public:
    /// `progress` may be empty and must outlive the reporter.
    ProgressReporter(const Progress& progress, uint64_t total) : progress_(progress), total_(total) {}

    /// Throws Error(kInput) if the work is to stop.
    void add(uint64_t amount, std::string_view label) {
        done_ += amount;
        if (progress_ && !progress_(done_, total_, label)) throw_input("interrupted while writing {}", label);
    }

  private:
    const Progress& progress_;
    uint64_t total_, done_ = 0;
};

}  // namespace llava_mini
