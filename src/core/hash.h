// Content hashes (XXH3, 128 bits): keys of caches and fingerprints of models. Not cryptographic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace llava_mini {

struct Hash128 {
    uint64_t low = 0, high = 0;
    bool operator==(const Hash128&) const = default;
    auto operator<=>(const Hash128&) const = default;
    /// 32 hexadecimal digits.
    std::string hex() const;
};

/// Hash of bytes, continued from `seed` (use one hash's `low` as the next one's seed to chain).
Hash128 hash_bytes(std::span<const uint8_t> bytes, uint64_t seed = 0);

}  // namespace llava_mini

template <>
struct std::hash<llava_mini::Hash128> {
    size_t operator()(const llava_mini::Hash128& h) const noexcept { return static_cast<size_t>(h.low); }
};
