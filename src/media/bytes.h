// Reading numbers and tags out of untrusted bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace llava_mini {

enum class ByteOrder { kLittle, kBig };

/// Whether `text` stands at `offset`; false when the bytes end before.
inline bool has_text(std::span<const uint8_t> bytes, uint64_t offset, std::string_view text) {
    if (offset > bytes.size() || bytes.size() - offset < text.size()) return false;
    for (size_t i = 0; i < text.size(); ++i) {
        if (bytes[offset + i] != static_cast<uint8_t>(text[i])) return false;
    }
    return true;
}

/// An unsigned number of `n` <= 4 bytes at `offset`. Bytes behind the end read as zero, so that damage leads
/// to a tag, length or count of zero, never out of bounds.
inline uint32_t number_at(std::span<const uint8_t> bytes, uint64_t offset, int n, ByteOrder order) {
    uint32_t value = 0;
    for (int i = 0; i < n; ++i) {
        const uint64_t at = offset + static_cast<uint64_t>(order == ByteOrder::kBig ? i : n - 1 - i);
        value = value << 8 | (at < bytes.size() ? bytes[at] : 0u);
    }
    return value;
}

/// The content of the first chunk called `tag` of a RIFF list that starts at `begin` (a chunk: tag, length,
/// content, padding to an even length); empty when there is none or it reaches behind the end.
inline std::span<const uint8_t> riff_chunk(std::span<const uint8_t> bytes, uint64_t begin,
                                           std::string_view tag) {
    while (begin + 8 <= bytes.size()) {
        const uint64_t length = number_at(bytes, begin + 4, 4, ByteOrder::kLittle);
        if (length > bytes.size() - begin - 8) break;
        if (has_text(bytes, begin, tag)) return bytes.subspan(begin + 8, length);
        begin += 8 + length + length % 2;
    }
    return {};
}

/// The content of the first box called `tag` in a list of ISO base media boxes, as JPEG 2000 has them too (length,
/// tag, content; big-endian); empty when there is none or it reaches behind the end.
inline std::span<const uint8_t> iso_box(std::span<const uint8_t> bytes, std::string_view tag) {
    while (bytes.size() >= 8) {
        uint64_t length = number_at(bytes, 0, 4, ByteOrder::kBig), header = 8;
        if (length == 1) {  // in 64 bits
            length = uint64_t{number_at(bytes, 8, 4, ByteOrder::kBig)} << 32 |
                     number_at(bytes, 12, 4, ByteOrder::kBig);
            header = 16;
        } else if (length == 0) {  // to the end
            length = bytes.size();
        }
        if (length < header || length > bytes.size()) break;
        if (has_text(bytes, 4, tag)) return bytes.subspan(header, length - header);
        bytes = bytes.subspan(length);
    }
    return {};
}

}  // namespace llava_mini
