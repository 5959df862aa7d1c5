#include "core/hash.h"

#include <fmt/format.h>
#include <xxhash.h>

namespace llava_mini {

std::string Hash128::hex() const {
    return fmt::format("{:016x}{:016x}", high, low);
}

Hash128 hash_bytes(std::span<const uint8_t> bytes, uint64_t seed) {
    const XXH128_hash_t h = XXH3_128bits_withSeed(bytes.data(), bytes.size(), seed);
    return {h.low64, h.high64};
}

}  // namespace llava_mini
