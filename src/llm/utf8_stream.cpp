#include "llm/utf8_stream.h"

#include <cstdint>

namespace llava_mini {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct Sequence {
    enum { kComplete, kUnfinished, kIllFormed } state;
    size_t length;  // bytes of the character, or of the ill-formed part
};

// Looks at the sequence at the start of `bytes` (not empty). Ranges of the second byte are those of table 3-7
// of the Unicode standard: they exclude overlong forms, surrogates and everything above U+10FFFF.
Sequence first_sequence(std::string_view bytes) {
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
    const uint8_t lead = byte(0);
    if (lead < 0x80) return {Sequence::kComplete, 1};
    if (lead < 0xC2 || lead > 0xF4) return {Sequence::kIllFormed, 1};
    const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    uint8_t low = 0x80, high = 0xBF;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
    for (size_t i = 1; i < length; ++i) {
        if (i == bytes.size()) return {Sequence::kUnfinished, i};
        if (byte(i) < low || byte(i) > high) return {Sequence::kIllFormed, i};
        low = 0x80;
        high = 0xBF;
    }
    return {Sequence::kComplete, length};
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
    pending_ += bytes;
    std::string released;
    std::string_view rest = pending_;
    while (!rest.empty()) {
        const Sequence sequence = first_sequence(rest);
        if (sequence.state == Sequence::kUnfinished) break;
        released += sequence.state == Sequence::kComplete ? rest.substr(0, sequence.length) : kReplacement;
        rest.remove_prefix(sequence.length);
    }
    pending_ = std::string(rest);
    return released;
}

std::string Utf8Stream::finish() {
    const bool unfinished = !pending_.empty();
    pending_.clear();
    return std::string(unfinished ? kReplacement : "");
}

}  // namespace llava_mini
