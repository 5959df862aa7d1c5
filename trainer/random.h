// Numbers from a seed and a counter: nothing is kept, so any position of a run can be reached at once.
#pragma once

#include <cstdint>

namespace llava_mini::trainer {

/// SplitMix64's mixing of a state (Steele, Lea, Flood 2014).
inline uint64_t mix(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/// A key for `what` of the item `number`.
inline uint64_t key_of(uint64_t seed, uint64_t what, uint64_t number) {
    return mix(mix(mix(seed) ^ what) ^ number);
}

/// From [0, 1).
inline double unit(uint64_t key) {
    return static_cast<double>(key >> 11) * 0x1.0p-53;
}

}  // namespace llava_mini::trainer
