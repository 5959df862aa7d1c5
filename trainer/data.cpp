#include "trainer/data.h"

#include <bit>

#include "core/error.h"
#include "trainer/random.h"

namespace llava_mini::trainer {

uint64_t shuffled(uint64_t index, uint64_t size, uint64_t key) {
    if (size < 2) return 0;
    const int half = (std::bit_width(size - 1) + 1) / 2;
    const uint64_t mask = (uint64_t{1} << half) - 1;
    do {
        uint64_t left = index >> half, right = index & mask;
        for (uint64_t round = 0; round < 4; ++round) {
            const uint64_t next = left ^ (key_of(key, round, right) & mask);
            left = right;
            right = next;
        }
        index = left << half | right;
    } while (index >= size);
    return index;
}

SampleOrder::SampleOrder(const std::vector<DataSpec>& specs, const SourceFactory& factory, uint64_t seed)
    : specs_(specs), seed_(seed) {
    for (const DataSpec& spec : specs) {
        sources_.push_back(factory(spec));
        if (sources_.back()->size() == 0) throw_input("data source '{}' has no samples", spec.source);
    }
}

SampleOrder::Place SampleOrder::place(uint64_t position, uint64_t total, uint64_t before,
                                      uint64_t attempt) const {
    const double done = static_cast<double>(position) / static_cast<double>(total);
    const auto active = [&](const DataSpec& spec) { return done >= spec.from && done < spec.to; };
    double weights = 0;
    for (const DataSpec& spec : specs_) weights += active(spec) ? spec.weight : 0.0;
    if (weights <= 0) throw_input("no data source is active at {:.3f} of a phase", done);
    const uint64_t number = before + position;
    double draw = unit(key_of(seed_, 11, number)) * weights;
    size_t chosen = specs_.size();
    for (size_t i = 0; i < specs_.size(); ++i) {
        if (!active(specs_[i]) || specs_[i].weight <= 0) continue;
        chosen = i;
        draw -= specs_[i].weight;
        if (draw < 0) break;
    }
    const SampleSource& source = *sources_[chosen];
    const uint64_t size = source.size();
    if (size == UINT64_MAX) return {&specs_[chosen], &source, number};
    return {&specs_[chosen], &source,
            (shuffled(number % size, size, mix(seed_ ^ number / size)) + attempt) % size};
}

}  // namespace llava_mini::trainer
