#include "media/gif.h"

#include <cstddef>

namespace llava_mini {

std::vector<uint8_t> opaque_gif(std::span<const uint8_t> gif) {
    constexpr size_t kFlags = 10, kBackground = 11, kHeader = 13;  // of the screen descriptor
    std::vector<uint8_t> result(gif.begin(), gif.end());
    if (result.size() < kHeader) return result;
    const auto byte = [&](size_t at) -> unsigned { return at < result.size() ? result[at] : 0u; };

    result[kBackground] = 0;
    const bool has_palette = (byte(kFlags) & 0x80) != 0;
    size_t at = kHeader + (has_palette ? size_t{3} << ((byte(kFlags) & 7) + 1) : 0);
    while (byte(at) == 0x21) {  // extensions before the first picture: 0x21, label, sub-blocks, 0
        if (byte(at + 1) == 0xF9 && byte(at + 2) == 4 && at + 6 < result.size()) {  // graphic control
            if ((result[at + 3] & 1) != 0) result[kBackground] = result[at + 6];
            result[at + 3] &= 0xFE;
        }
        at += 2;
        while (byte(at) != 0) at += 1 + byte(at);
        ++at;
    }
    return result;
}

}  // namespace llava_mini
