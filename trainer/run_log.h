// A run's log.jsonl: one JSON object a line, appended.
#pragma once

#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "data/sample.h"

namespace llava_mini::trainer {

/// Thread-safe.
class RunLog {
  public:
    /// Of several processes only the first one is `active`; the others log nothing but bad samples.
    RunLog(std::filesystem::path file, bool active) : file_(std::move(file)), active_(active) {}

    /// Throws Error(kSystem) if it cannot be written.
    void write(const nlohmann::ordered_json& entry);
    /// A sample of a source that cannot be used; each is logged once.
    void skipped(const std::string& source, const SkippedSample& sample);

  private:
    void append(const nlohmann::ordered_json& entry);

    const std::filesystem::path file_;
    const bool active_;
    std::mutex mutex_;
    std::set<std::pair<std::string, uint64_t>> seen_;
};

/// All samples that a log says were skipped, by source and place: whatever process and session met them.
std::vector<std::pair<std::string, SkippedSample>> skipped_samples(const std::filesystem::path& log);

}  // namespace llava_mini::trainer
