#include "data/conversation_dataset.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "core/file.h"
#include "data/dataset_writer.h"
#include "media/frame_sampler.h"
#include "media/picture_writer.h"
#include "support/error_text.h"
#include "support/test_data.h"
#include "support/test_video.h"

namespace llava_mini {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using ::testing::HasSubstr;

Image flat_picture(uint8_t grey, int width = 5, int height = 3) {
    return {width, height, std::vector<uint8_t>(static_cast<size_t>(3 * width * height), grey)};
}

void write_png(const fs::path& path, uint8_t grey) {
    AtomicFile file(path);
    file.write(encode_png(flat_picture(grey)));
    file.commit();
}

// A root with a picture and a clip of 12 frames.
class ConversationDatasetTest : public ::testing::Test {
  protected:
    ConversationDatasetTest() {
        write_png(dir / "a.png", 10);
        for (int i = 0; i < 12; ++i) write_png(dir / fmt::format("clip/{}.png", i), static_cast<uint8_t>(i));
        dir.write("clip/notes.txt", "no picture");
        dir.write("broken.png", "no picture at all");
        dir.write("film.mp4", "no film");
    }

    ConversationDataset load(const std::string& text, const std::string& name = "data.json",
                             const ConversationDatasetOptions& options = {}) {
        return {dir.write(name, text), dir.path(), options};
    }
    // The reason for which the one bad sample among two is skipped.
    std::string reason(const std::string& bad) {
        const ConversationDataset data = load("[" + bad + "," + good + "]");
        EXPECT_EQ(data.size(), 1u);
        EXPECT_EQ(data.skipped().size(), 1u);
        return data.skipped().empty() ? "" : data.skipped()[0].reason;
    }

    test::TempDir dir;
    const std::string good =
        R"({"id": "g", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]})";
};

TEST_F(ConversationDatasetTest, PicturesClipsAndText) {
    const ConversationDataset data = load(R"([
      {"id": 7, "image": "a.png", "extra": [1, {"deep": null}], "conversations": [
        {"from": "human", "value": "<image>\nwhat is this?"}, {"from": "gpt", "value": "a cat"},
        {"from": "human", "value": "where?"}, {"from": "gpt", "value": "there"}], "types": ["what", "where"]},
      {"id": "clip", "video": "clip", "conversations": [
        {"from": "human", "value": "what happens?\n<video>"}, {"from": "gpt", "value": "nothing"}]},
      {"conversations": [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}], "image": null}])");
    ASSERT_EQ(data.size(), 3u);
    EXPECT_TRUE(data.skipped().empty());
    const Sample picture = data.sample(0), clip = data.sample(1), text = data.sample(2);
    EXPECT_EQ(picture.id, "7");
    ASSERT_EQ(picture.frames.size(), 1u);
    EXPECT_EQ(picture.frames[0].rgb, flat_picture(10).rgb);
    ASSERT_EQ(picture.turns.size(), 2u);
    EXPECT_EQ(picture.turns[0].question, "what is this?");
    EXPECT_EQ(picture.turns[1].answer, "there");
    EXPECT_EQ(picture.turns[1].type, "where");
    EXPECT_EQ(clip.turns[0].question, "what happens?");
    ASSERT_EQ(clip.frames.size(), 12u);
    for (size_t i = 0; i < 12; ++i) EXPECT_EQ(clip.frames[i].rgb[0], i);  // 2 before 10
    EXPECT_EQ(text.id, "2");
    EXPECT_TRUE(text.frames.empty());
    EXPECT_THAT(error_text([&] { data.sample(3); }), HasSubstr("sample 3: there are 3"));
}

TEST_F(ConversationDatasetTest, LinesAndFewerFrames) {
    const std::string clip =
        R"({"id": "c", "video": "clip", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})";
    const ConversationDataset data =
        load(good + "\n\n{\"id\": \"cut of\n" + clip + "\n", "data.jsonl", {.max_frames = 4});
    ASSERT_EQ(data.size(), 2u);
    EXPECT_EQ(data.sample(1).frames.size(), 4u);
    ASSERT_EQ(data.skipped().size(), 1u);
    EXPECT_EQ(data.skipped()[0].index, 1u);
    EXPECT_EQ(data.skipped()[0].reason, "not valid JSON");
}

TEST_F(ConversationDatasetTest, BadSamplesAreSkippedWithTheirReason) {
    const std::string turns =
        R"("conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}])";
    EXPECT_THAT(reason("5"), HasSubstr("expected an object, found 5"));
    EXPECT_THAT(reason("{}"), HasSubstr("conversations"));
    EXPECT_THAT(reason(R"({"conversations": {}})"), HasSubstr("a list of 2 to"));
    EXPECT_THAT(reason(R"({"conversations": [{"from": "human", "value": "q"}]})"),
                HasSubstr("1 turns, expected pairs"));
    EXPECT_THAT(
        reason(R"({"conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "q"}]})"),
        HasSubstr("conversations[0]: from: expected human, found \"gpt\""));
    EXPECT_THAT(
        reason(R"({"conversations": [{"from": "human", "value": " "}, {"from": "gpt", "value": "a"}]})"),
        HasSubstr("value: empty"));
    EXPECT_THAT(
        reason(R"({"conversations": [{"from": "human", "value": 3}, {"from": "gpt", "value": "a"}]})"),
        HasSubstr("value"));
    EXPECT_THAT(reason(R"({"image": "a.png", "conversations": [{"from": "human", "value": "<image>\n"},
                           {"from": "gpt", "value": "a"}]})"),
                HasSubstr("an empty question"));
    EXPECT_THAT(
        reason(
            R"({"conversations": [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]})"),
        HasSubstr("a placeholder <image> but no picture"));
    EXPECT_THAT(
        reason(R"({"image": "a.png", "conversations": [{"from": "human", "value": "<image> q <image>"},
                           {"from": "gpt", "value": "a"}]})"),
        HasSubstr("2 placeholders"));
    EXPECT_THAT(reason(R"({"image": "none.png", )" + turns + "}"), HasSubstr("none.png: no such file"));
    EXPECT_THAT(reason(R"({"image": "../a.png", )" + turns + "}"),
                HasSubstr("expected a path below the root"));
    EXPECT_THAT(reason(R"({"image": "/etc/passwd", )" + turns + "}"),
                HasSubstr("expected a path below the root"));
    EXPECT_THAT(reason(R"({"image": ["a.png"], )" + turns + "}"), HasSubstr("image: expected"));
    EXPECT_THAT(reason(R"({"image": "a.png", "video": "clip", )" + turns + "}"),
                HasSubstr("both an image and a video"));
    EXPECT_THAT(reason(R"({"video": "nowhere", )" + turns + "}"), HasSubstr("No such file"));
    EXPECT_THAT(reason(R"({"types": ["a", "b"], )" + turns + "}"), HasSubstr("a list of 1 names"));
}

TEST_F(ConversationDatasetTest, DamagedFiles) {
    EXPECT_THAT(error_text([&] { load(""); }), HasSubstr("data.json: expected a JSON list of samples"));
    EXPECT_THAT(error_text([&] { load("[" + good); }), HasSubstr("not valid JSON"));
    EXPECT_THAT(error_text([&] { load("[" + good + "] x"); }), HasSubstr("not valid JSON"));
    EXPECT_THAT(error_text([&] { load("[]"); }), HasSubstr("no usable sample"));
    EXPECT_THAT(error_text([&] { load("[{}, {}]"); }),
                HasSubstr("the first of 2 bad ones: sample: the field conversations is missing"));
    EXPECT_THAT(error_text([&] { load("[" + std::string(1000, '[')); }), HasSubstr("nested deeper"));
    EXPECT_THAT(error_text([&] { ConversationDataset(dir.path(), dir.path()); }), HasSubstr("regular file"));
    EXPECT_THAT(error_text([&] { ConversationDataset(dir / "none.json", dir.path()); }),
                HasSubstr("none.json"));
}

TEST_F(ConversationDatasetTest, DamagedPictureNamesTheSample) {
    const ConversationDataset data = load(
        R"([{"id": "x", "image": "broken.png", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}])");
    EXPECT_THAT(error_text([&] { data.sample(0); }), HasSubstr("data.json: sample x: "));
    EXPECT_THAT(error_text([&] { data.sample(0); }), HasSubstr("broken.png"));
}

TEST_F(ConversationDatasetTest, VideoFilesGiveFramesSpreadOverTheWhole) {
    const auto sample = [](const std::string& file) {
        return R"({"id": ")" + file + R"(", "video": ")" + file +
               R"(", "conversations": [{"from": "human", "value": "<video>\nq"}, {"from": "gpt", "value": "a"}]})";
    };
    test::write_test_video(dir / "ten.avi", {.frames = 45});
    test::write_test_video(dir / "short.avi", {.frames = 5});
    const ConversationDataset data =
        load("[" + sample("ten.avi") + "," + sample("short.avi") + "," + sample("film.mp4") + "]",
             "data.json", {.max_frames = 8});
    ASSERT_EQ(data.size(), 3u);
    const auto numbers = [&](uint64_t number) {
        std::vector<int64_t> found;
        for (const Image& frame : data.sample(number).frames) found.push_back(test::number_in(frame));
        return found;
    };
    EXPECT_EQ(numbers(0), spread_frame_indices(45, 8));
    EXPECT_EQ(numbers(1), spread_frame_indices(5, 5));
    EXPECT_EQ(data.sample(0).turns[0].question, "q");
    EXPECT_THAT(error_text([&] { data.sample(2); }),
                ::testing::AllOf(HasSubstr("data.json: sample film.mp4: "), HasSubstr("film.mp4")));
}

// A source of a picture, a clip and a text.
class ThreeSamples : public SampleSource {
  public:
    uint64_t size() const override { return 3; }
    Sample sample(uint64_t number) const override {
        Sample sample;
        sample.id = fmt::format("s{}", number);
        for (uint64_t i = 0; i < std::array<uint64_t, 3>{1, 3, 0}[number]; ++i) {
            sample.frames.push_back(flat_picture(static_cast<uint8_t>(50 * i + number)));
        }
        sample.turns = {{"what?", "this \"thing\"", "what"}, {"why?", "because\nof it", "why"}};
        return sample;
    }
};

TEST(DatasetWriter, WhatIsWrittenIsReadBack) {
    const test::TempDir dir;
    const ThreeSamples source;
    write_dataset(source, 0, 3, dir / "out");
    const ConversationDataset data(dir / "out/samples.json", dir / "out");
    ASSERT_EQ(data.size(), 3u);
    for (uint64_t i = 0; i < 3; ++i) {
        const Sample wanted = source.sample(i), found = data.sample(i);
        EXPECT_EQ(found.id, wanted.id);
        ASSERT_EQ(found.frames.size(), wanted.frames.size());
        for (size_t f = 0; f < wanted.frames.size(); ++f)
            EXPECT_EQ(found.frames[f].rgb, wanted.frames[f].rgb);
        ASSERT_EQ(found.turns.size(), 2u);
        for (size_t t = 0; t < 2; ++t) {
            EXPECT_EQ(found.turns[t].question, wanted.turns[t].question);
            EXPECT_EQ(found.turns[t].answer, wanted.turns[t].answer);
            EXPECT_EQ(found.turns[t].type, wanted.turns[t].type);
        }
    }
    EXPECT_THAT(error_text([&] { write_dataset(source, 0, 1, dir / "out"); }), HasSubstr("is there already"));
}

TEST(DatasetWriter, InterruptionLeavesNothing) {
    const test::TempDir dir;
    const auto stop = [](uint64_t done, uint64_t, std::string_view) { return done < 2; };
    EXPECT_THAT(error_text([&] { write_dataset(ThreeSamples(), 0, 3, dir / "out", stop); }),
                HasSubstr("interrupted"));
    EXPECT_TRUE(fs::is_empty(dir.path()));
}

}  // namespace
}  // namespace llava_mini
