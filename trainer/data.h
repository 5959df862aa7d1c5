// Which sample comes when: sources by name, mixed and scheduled as a phase says.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "data/sample.h"
#include "trainer/recipe.h"

namespace llava_mini::trainer {

/// Makes a source of the recipe. Throws Error(kInput) or Error(kUsage) for one it does not know or options it
/// does not have.
using SourceFactory = std::function<std::shared_ptr<const SampleSource>(const DataSpec& spec)>;

/// The order of samples in a list of sources: a function of seed and position. Thread-safe.
class SampleOrder {
  public:
    SampleOrder(const std::vector<DataSpec>& specs, const SourceFactory& factory, uint64_t seed);

    /// Where a sample comes from.
    struct Place {
        const DataSpec* spec;
        const SampleSource* source;
        uint64_t number;  // in the source

        bool is_generated() const { return source->size() == UINT64_MAX; }
    };
    /// The sample at `position` of `total` positions of a phase that starts after `before` samples. A
    /// generator gives a new sample for every position of the run; a finite source is gone through in an
    /// order that differs from round to round. `attempt`: so many bad samples of the source have been passed
    /// over.
    Place place(uint64_t position, uint64_t total, uint64_t before, uint64_t attempt = 0) const;
    /// The sources in the order of the list.
    const std::vector<std::shared_ptr<const SampleSource>>& sources() const { return sources_; }

  private:
    std::vector<DataSpec> specs_;
    std::vector<std::shared_ptr<const SampleSource>> sources_;
    uint64_t seed_;
};

/// Where `index` of `size` goes in the shuffle with that key: a permutation without a table (a Feistel
/// network that is walked until it lands inside).
uint64_t shuffled(uint64_t index, uint64_t size, uint64_t key);

}  // namespace llava_mini::trainer
