// Training on data in the official format: pictures, clips as files and folders, text, and bad samples.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <fstream>

#include "core/file.h"
#include "data/dataset_writer.h"
#include "support/error_text.h"
#include "support/test_video.h"
#include "trainer/small_run.h"
#include "trainer/sources.h"

namespace llava_mini::trainer {
namespace {

using namespace test_support;
using nlohmann::json;
using testing::HasSubstr;

// Every third sample is a clip, every fourth text.
class Mixed : public SampleSource {
  public:
    uint64_t size() const override { return UINT64_MAX; }
    Sample sample(uint64_t number) const override {
        Sample sample = Squares(number % 3 == 2, number % 4 == 3).sample(number);
        sample.id = std::to_string(number);
        return sample;
    }
};

class Official : public testing::Test {
  protected:
    // A data set written as `llava-mini scenes --out` does, to which a video's file, a sample with a damaged
    // picture and one without its picture are added.
    void SetUp() override {
        write_initial_checkpoint(base_, small_options(write_small_tokenizer(dir_ / "tokenizer")));
        write_dataset(Mixed(), 0, 12, data_);
        json samples = json::parse(read_text_file(data_ / "samples.json", 1 << 24));
        test::write_test_video(data_ / "film.avi", {.frames = 30});
        dir_.write("data/broken.png", "no picture");
        const json turns = {{{"from", "human"}, {"value", "<image>\nwhat?"}},
                            {{"from", "gpt"}, {"value", "this"}}};
        samples.push_back({{"id", "film"}, {"video", "film.avi"}, {"conversations", turns}});
        samples.push_back({{"id", "bad"}, {"image", "broken.png"}, {"conversations", turns}});
        samples.push_back({{"id", "lost"}, {"image", "none.png"}, {"conversations", turns}});
        dir_.write("data/samples.json", samples.dump());
    }

    RunEnd run(const std::string& name, const std::string& file, uint64_t stop_at = 0) {
        const Recipe recipe = parse_recipe(fmt::format(R"({{"name": "official", "seed": 5, "phases": [
              {{"name": "stage 2", "samples": 30, "batch": 2, "accumulate": 1, "clip": 0.5, "dialogue_share": 1,
                "lr": {{"compressor": 1e-3, "projector": 1e-3, "prefusion": 1e-3, "language": 1e-3}},
                "data": [{{"source": "official", "options": {{"file": "{}", "max_frames": 4}}}}]}}]}})",
                                                       file),
                                           "recipe");
        SmallModel small(base_);
        prepare_model(recipe, *small.model);
        const auto progress = [&](uint64_t done, uint64_t, std::string_view) {
            return stop_at == 0 || done < stop_at;
        };
        return run_recipe(recipe, *small.model, *small.tokenizer, make_source,
                          {dir_ / name, base_, 2, 5, progress});
    }
    std::string weights(const std::string& name) const {
        return read_text_file(dir_ / name / "model" / "model.safetensors", 1 << 28);
    }

    test::TempDir dir_;
    std::filesystem::path base_ = dir_ / "base", data_ = dir_ / "data";
};

TEST_F(Official, BadSamplesAreSkippedCountedAndListed) {
    const std::string file = (data_ / "samples.json").string();
    ASSERT_EQ(run("whole", file), RunEnd::kDone);
    const auto skipped = skipped_samples(dir_ / "whole" / "log.jsonl");
    ASSERT_EQ(skipped.size(), 2u);
    EXPECT_EQ(skipped[0].second.index, 13u);
    EXPECT_THAT(skipped[0].second.reason, testing::AllOf(HasSubstr("sample bad"), HasSubstr("broken.png")));
    EXPECT_EQ(skipped[1].second.index, 14u);
    EXPECT_EQ(skipped[1].second.id, "lost");
    EXPECT_THAT(skipped[1].second.reason, HasSubstr("none.png: no such file"));
    std::ifstream log(dir_ / "whole" / "log.jsonl");
    std::string line, last;
    while (std::getline(log, line)) last = line;
    EXPECT_EQ(json::parse(last)["skipped"], 2);

    // Passing over bad samples depends on nothing but their place.
    EXPECT_EQ(run("parts", file, 12), RunEnd::kStopped);
    EXPECT_EQ(run("parts", file), RunEnd::kDone);
    EXPECT_EQ(weights("whole"), weights("parts"));
    EXPECT_NE(weights("whole"), read_text_file(base_ / "model.safetensors", 1 << 28));
    EXPECT_EQ(skipped_samples(dir_ / "parts" / "log.jsonl").size(), 2u);
}

TEST_F(Official, ClipsAndTextAndPicturesArriveAsTheyAre) {
    DataSpec spec;
    spec.source = "official";
    spec.options = {{"file", (data_ / "samples.json").string()}, {"max_frames", 4}};
    const auto source = make_source(spec);
    ASSERT_EQ(source->size(), 14u);
    EXPECT_EQ(source->sample(0).frames.size(), 1u);
    EXPECT_EQ(source->sample(2).frames.size(), Mixed().sample(2).frames.size());
    EXPECT_EQ(source->sample(7).frames.size(), 0u);
    EXPECT_EQ(source->sample(12).frames.size(), 4u);
    SmallModel small(base_);
    QuestionTypes types;
    const ExampleMaker maker(*small.tokenizer, small.config.vision, types);
    const Example clip = maker.make(source->sample(12), {.dialogue_share = 1}, 0);
    EXPECT_EQ(clip.frames.size(), 4u);
    EXPECT_EQ(clip.conversations.size(), 1u);
}

TEST_F(Official, WhatCannotBeUsed) {
    const auto turns = R"("conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}])";
    dir_.write("data/all_bad.json", fmt::format(R"([{{"id": 1, "image": "broken.png", {0}}},
                                                    {{"id": 2, "image": "broken.png", {0}}}])",
                                                turns));
    EXPECT_THAT(test::error_text([&] { run("a", (data_ / "all_bad.json").string()); }),
                testing::AllOf(HasSubstr("2 samples in a row cannot be used"), HasSubstr("broken.png")));
    EXPECT_THAT(test::error_text([&] { run("a", (data_ / "nothing.json").string()); }),
                HasSubstr("nothing.json"));
    DataSpec spec;
    spec.source = "official";
    EXPECT_THAT(test::error_text([&] { make_source(spec); }), HasSubstr("file"));
    spec.options = {{"file", "x"}, {"folder", "y"}};
    EXPECT_THAT(test::error_text([&] { make_source(spec); }), HasSubstr("unknown option 'folder'"));
}

}  // namespace
}  // namespace llava_mini::trainer
