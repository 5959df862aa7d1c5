// The index's file: what is written is read, what is damaged is found, what is malformed is refused.
#include "video/index_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "core/error.h"
#include "support/error_text.h"
#include "support/test_data.h"
#include "video/index_layout.h"

namespace llava_mini::test {
namespace {

using testing::HasSubstr;

IndexMeta small_meta() {
    IndexMeta meta;
    meta.model = "small";
    meta.model_hash = {1, 2};
    meta.settings = "fps 1";
    meta.views = {FrameResize::kPicture, 2, 1, "pad"};
    meta.width = 4;
    meta.tokens_per_frame = 1;
    meta.vision_positions = 3;
    meta.layers = 2;
    meta.kv_width = 8;
    meta.fusion_frames = 2;
    meta.segment_frames = 2;
    meta.head_ids = {5, 6, 7};
    return meta;
}

FramesContent content_of(const IndexMeta& meta, int frames, int first) {
    FramesContent content;
    for (int i = 0; i < frames; ++i) {
        content.seconds.push_back(first + i);
        for (int j = 0; j < 4; ++j) content.tokens.push_back(static_cast<ggml_fp16_t>(100 * (first + i) + j));
        content.thumbnails.push_back(std::vector<uint8_t>(static_cast<size_t>(first + i + 1), 7));
    }
    content.head_sum.assign(12, first + 0.5);
    content.fusion.push_back(
        {frames - 1, std::vector<uint8_t>(meta.kv_bytes(3), 3), std::vector<uint8_t>(meta.kv_bytes(3), 4)});
    return content;
}

std::filesystem::path write_small(const TempDir& dir) {
    const IndexMeta meta = small_meta();
    VideoIndexWriter writer(dir / "index", meta);
    writer.append(VideoIdentity{"v.mp4", 1000, {3, 4}, {5, 6}, "/films/v.mp4"});
    writer.append(meta, 0, content_of(meta, 2, 0));
    writer.append(meta, 2, content_of(meta, 2, 2));
    writer.append(meta, 4, content_of(meta, 1, 4));
    writer.append_state(5, std::vector<uint8_t>{1, 2, 3});
    writer.append_end(5);
    return dir / "index";
}

std::vector<uint8_t> bytes_of(const std::filesystem::path& path) {
    return read_file(path, 1 << 24);
}

TEST(IndexFile, GivesBackWhatWasWritten) {
    const TempDir dir;
    const VideoIndexFile file(write_small(dir));
    EXPECT_EQ(file.meta().head_ids, (std::vector<int32_t>{5, 6, 7}));
    EXPECT_EQ(file.meta().kv_type, GGML_TYPE_F16);
    ASSERT_EQ(file.records().size(), 6u);
    EXPECT_EQ(file.video(*file.last(IndexRecordKind::kVideo)).end.high, 6u);
    EXPECT_EQ(file.video(*file.last(IndexRecordKind::kVideo)).path, "/films/v.mp4");
    ASSERT_TRUE(file.meta().views.has_value());
    EXPECT_EQ(file.meta().views->resize, FrameResize::kPicture);
    EXPECT_EQ(file.meta().views->resolution_ratio, 2);
    EXPECT_EQ(file.meta().views->grid_side, 1);
    EXPECT_EQ(file.meta().views->aspect_ratio, "pad");
    EXPECT_EQ(file.last(IndexRecordKind::kLanguageState)->payload.size(), 3u);
    EXPECT_EQ(file.last(IndexRecordKind::kEnd)->frames, 5);
    const auto frames = file.frames();
    ASSERT_EQ(frames.size(), 3u);
    const IndexFrames second = file.open(*frames[1]);
    EXPECT_THAT(second.seconds, testing::ElementsAre(2, 3));
    EXPECT_EQ(second.tokens[5], 301);
    EXPECT_EQ(second.head_sum[11], 2.5);
    EXPECT_EQ(second.thumbnails[1].size(), 4u);
    ASSERT_EQ(second.fusion.size(), 1u);
    EXPECT_EQ(second.fusion[0].frame, 1);
    EXPECT_EQ(second.fusion[0].vision_kv[0], 3);
    EXPECT_EQ(second.fusion[0].head_kv.size(), file.meta().kv_bytes(3));
    EXPECT_EQ(file.end_of_records(), bytes_of(dir / "index").size());
}

// Killed at any byte, a writer leaves a file of which whole records are read, and only those.
TEST(IndexFile, EveryBeginningIsReadUpToItsLastWholeRecord) {
    const TempDir dir;
    const std::vector<uint8_t> bytes = bytes_of(write_small(dir));
    size_t before = 0;
    for (size_t size = 0; size <= bytes.size(); size += size < 700 ? 1 : 37) {
        const std::vector<uint8_t> part(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
        try {
            const VideoIndexFile file(part, "part");
            EXPECT_GE(file.records().size(), before);
            EXPECT_LE(file.end_of_records(), size);
            before = file.records().size();
            for (const IndexRecord& record : file.records()) EXPECT_TRUE(record.intact);
        } catch (const Error&) {
            EXPECT_LT(size, 700u);  // the header
        }
    }
    EXPECT_GE(before, 5u);
}

TEST(IndexFile, ADamagedRecordIsFoundAndItsReplacementTaken) {
    const TempDir dir;
    const auto path = write_small(dir);
    std::vector<uint8_t> bytes = bytes_of(path);
    const VideoIndexFile good(bytes, "good");
    const auto at = static_cast<size_t>(good.frames()[1]->payload.data() - bytes.data());
    bytes[at + 10] ^= 1;
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    {
        const VideoIndexFile damaged(path);
        EXPECT_EQ(damaged.records().size(), 6u);
        EXPECT_EQ(damaged.frames().size(), 1u);
        VideoIndexWriter(path, damaged.end_of_records())
            .append(small_meta(), 2, content_of(small_meta(), 2, 2));
    }
    const VideoIndexFile repaired(path);
    EXPECT_EQ(repaired.frames().size(), 3u);
    EXPECT_EQ(repaired.open(*repaired.frames()[1]).seconds[0], 2);
}

TEST(IndexFile, TwoWritersAreNotLetIn) {
    const TempDir dir;
    const auto path = write_small(dir);
    const VideoIndexWriter first(path, VideoIndexFile(path).end_of_records());
    EXPECT_THAT(error_text([&] { VideoIndexWriter(path, 0); }), HasSubstr("another process"));
}

TEST(MalformedIndex, IsRefusedInOneLine) {
    const TempDir dir;
    const std::vector<uint8_t> good = bytes_of(write_small(dir));
    const auto with = [&](size_t at, uint8_t value) {
        std::vector<uint8_t> bytes = good;
        bytes[at] = value;
        return bytes;
    };
    const struct {
        std::vector<uint8_t> bytes;
        const char* message;
    } table[] = {{{}, "only 0 bytes"},
                 {std::vector<uint8_t>(64, 'x'), "not a video index"},
                 {with(8, 9), "version 9"},
                 {with(13, 0xFF), "ends in its header"},
                 {with(70, '!'), "description is damaged"}};
    for (const auto& [bytes, message] : table) {
        EXPECT_THAT(error_text([&, &bytes = bytes] { VideoIndexFile(bytes, "bad"); }),
                    testing::AllOf(HasSubstr("bad"), HasSubstr(message)));
    }
}

// Contents with right checksums that do not hold what they should.
TEST(MalformedIndex, RecordsAreNotBelieved) {
    const TempDir dir;
    const IndexMeta meta = small_meta();
    const auto opening = [&](auto change) {
        const std::filesystem::path path = dir / "bad";
        std::filesystem::remove(path);
        FramesContent content = content_of(meta, 2, 0);
        change(content);
        VideoIndexWriter(path, meta).append(meta, 0, content);
        const VideoIndexFile file(path);
        return error_text([&] { file.open(file.records().at(0)); });
    };
    EXPECT_THAT(opening([](FramesContent& c) { c.fusion[0].frame = 2; }), HasSubstr("outside its record"));
    EXPECT_THAT(opening([](FramesContent& c) { c.fusion[0].head_kv.clear(); }), HasSubstr("ends before"));
    IndexMeta wrong = small_meta();
    wrong.kv_type = GGML_TYPE_Q8_0;  // blocks of 32, wider than K/V
    const std::filesystem::path path = dir / "wrong";
    { const VideoIndexWriter writer(path, wrong); }
    EXPECT_THAT(error_text([&] { VideoIndexFile file(path); }), HasSubstr("out of range"));
}

// A description whose hash is right, with one of its values written otherwise.
std::vector<uint8_t> index_with(const std::string& value, const std::string& other) {
    using namespace index_layout;
    const TempDir dir;
    { const VideoIndexWriter writer(dir / "index", small_meta()); }
    const std::vector<uint8_t> bytes = bytes_of(dir / "index");
    FileHeader header;
    std::memcpy(&header, bytes.data(), sizeof(header));
    std::string text(bytes.begin() + sizeof(header), bytes.begin() + sizeof(header) + header.meta_bytes);
    text.replace(text.find(value), value.size(), other);
    header.meta_bytes = static_cast<uint32_t>(text.size());
    header.meta_hash = hash_bytes({reinterpret_cast<const uint8_t*>(text.data()), text.size()}).low;
    std::vector<uint8_t> changed(sizeof(header));
    std::memcpy(changed.data(), &header, sizeof(header));
    changed.insert(changed.end(), text.begin(), text.end());
    changed.resize(padded(changed.size()));
    return changed;
}

TEST(MalformedIndex, NumbersThatAreNoIntegersAreRefused) {
    const auto opening = [](const std::string& value, const std::string& other) {
        return error_text([&] { VideoIndexFile file(index_with(value, other), "bad"); });
    };
    for (const char* value : {"\"width\":4", "\"layers\":2", "\"kv_width\":8", "\"grid_side\":1"}) {
        const std::string name = std::string(value).substr(0, std::string(value).find(':'));
        EXPECT_THAT(opening(value, name + ":1e88"), HasSubstr("where an integer is expected"));
        EXPECT_THAT(opening(value, name + ":-4294967295"), HasSubstr("out of range"));
    }
    EXPECT_THAT(opening("[5,6,7]", "[5,1e88,7]"), HasSubstr("where an integer is expected"));
    for (const char* other : {"[5,4294967301,7]", "[5,-1,7]", "5", "{\"a\":5}"}) {
        EXPECT_THAT(opening("[5,6,7]", other), HasSubstr("out of range")) << other;
    }
    EXPECT_THAT(opening("\"model_hash\":[1,2]", "\"model_hash\":[1,1e88]"),
                HasSubstr("where an integer is expected"));
}

}  // namespace
}  // namespace llava_mini::test
