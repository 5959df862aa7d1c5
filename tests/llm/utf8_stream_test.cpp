#include "llm/utf8_stream.h"

#include <gtest/gtest.h>

namespace llava_mini {
namespace {

constexpr const char* kBad = "\xEF\xBF\xBD";

TEST(Utf8Stream, ReleasesWholeCharactersOnly) {
    const std::string text = "a\u00e9\u4f60\U0001F600z";
    for (size_t cut = 0; cut <= text.size(); ++cut) {
        Utf8Stream stream;
        std::string all = stream.push(text.substr(0, cut));
        for (size_t i = 0; i < all.size();) {  // whole characters so far
            const unsigned char lead = static_cast<unsigned char>(all[i]);
            i += lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
            ASSERT_LE(i, all.size());
        }
        all += stream.push(text.substr(cut));
        EXPECT_EQ(all + stream.finish(), text) << "cut at byte " << cut;
    }
}

TEST(Utf8Stream, OneByteAtATime) {
    const std::string text = "\u00fc\u20ac\U0001F6A4";
    Utf8Stream stream;
    std::string all;
    for (const char byte : text) all += stream.push({&byte, 1});
    EXPECT_EQ(all, text);
    EXPECT_EQ(stream.finish(), "");
}

// Expected values are Python's bytes.decode("utf-8", "replace").
TEST(Utf8Stream, ReplacesIllFormedBytes) {
    const struct {
        std::string bytes;
        int replacements;
        std::string rest;
    } cases[] = {
        {"\x80", 1, ""},
        {"\xC0\xAF", 2, ""},
        {"\xE2\x82", 1, ""},
        {"\xE2\x28", 1, "("},
        {"\xED\xA0\x80", 3, ""},
        {"\xF0\x80\x80\x80", 4, ""},
        {"\xF4\x90\x80\x80", 4, ""},
        {"\xF0\x9F\x98\xE4", 2, ""},
        {"\xFF\xFEok", 2, "ok"},
    };
    for (const auto& c : cases) {
        Utf8Stream stream;
        std::string expected;
        for (int i = 0; i < c.replacements; ++i) expected += kBad;
        const std::string released = stream.push(c.bytes);
        EXPECT_EQ(released + stream.finish(), expected + c.rest);
    }
}

TEST(Utf8Stream, UnfinishedSequenceIsReplacedAtTheEnd) {
    Utf8Stream stream;
    EXPECT_EQ(stream.push("ok\xF0\x9F"), "ok");
    EXPECT_EQ(stream.finish(), kBad);
    EXPECT_EQ(stream.push("again"), "again");
}

}  // namespace
}  // namespace llava_mini
