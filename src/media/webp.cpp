#include "media/webp.h"

#include <string_view>

#include "media/bytes.h"

namespace llava_mini {
namespace {

constexpr uint64_t kFirstChunk = 12;  // behind "RIFF", length, "WEBP"

void append_number(std::vector<uint8_t>& bytes, uint32_t value) {
    for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<uint8_t>(value >> shift));
}

void append_text(std::vector<uint8_t>& bytes, std::string_view text) {
    bytes.insert(bytes.end(), text.begin(), text.end());
}

// A file of one chunk.
std::vector<uint8_t> wrapped(std::string_view tag, std::span<const uint8_t> content) {
    const auto length = static_cast<uint32_t>(content.size());
    std::vector<uint8_t> file;
    file.reserve(kFirstChunk + 8 + length + 1);
    append_text(file, "RIFF");
    append_number(file, 4 + 8 + length + length % 2);
    append_text(file, "WEBP");
    append_text(file, tag);
    append_number(file, length);
    file.insert(file.end(), content.begin(), content.end());
    if (length % 2 != 0) file.push_back(0);
    return file;
}

// The bit stream among the chunks that start at `begin`: lossy or lossless.
std::vector<uint8_t> bit_stream(std::span<const uint8_t> bytes, uint64_t begin) {
    for (const std::string_view tag : {"VP8 ", "VP8L"}) {
        const std::span<const uint8_t> content = riff_chunk(bytes, begin, tag);
        if (!content.empty()) return wrapped(tag, content);
    }
    return {};
}

}  // namespace

bool is_webp(std::span<const uint8_t> file) {
    return has_text(file, 0, "RIFF") && has_text(file, 8, "WEBP");
}

WebpPicture first_webp_picture(std::span<const uint8_t> webp) {
    const std::span<const uint8_t> frame = riff_chunk(webp, kFirstChunk, "ANMF");
    if (frame.empty()) return {.file = bit_stream(webp, kFirstChunk)};
    // Numbers of 24 bits: the frame's place is stored halved, sizes are stored less one.
    constexpr uint64_t kFrameHeader = 16;
    const std::span<const uint8_t> canvas = riff_chunk(webp, kFirstChunk, "VP8X");
    return {.file = bit_stream(frame, kFrameHeader),
            .canvas_width = number_at(canvas, 4, 3, ByteOrder::kLittle) + 1,
            .canvas_height = number_at(canvas, 7, 3, ByteOrder::kLittle) + 1,
            .x = number_at(frame, 0, 3, ByteOrder::kLittle) * 2,
            .y = number_at(frame, 3, 3, ByteOrder::kLittle) * 2};
}

}  // namespace llava_mini
