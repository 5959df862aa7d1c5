// The frame of evaluations: the model of the recordings knows nothing, its answers only have to be its own.
#include "eval/runner.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/file.h"
#include "media/picture_writer.h"
#include "scenes/generator.h"
#include "support/error_text.h"
#include "support/golden_model.h"

namespace llava_mini::eval {
namespace {

using test::error_text;
using ::testing::HasSubstr;

class RunnerTest : public ::testing::Test {
  protected:
    RunnerTest()
        : model(Model::load({.model = test::golden_model(), .threads = 1})),
          source({.split = scenes::Split::kTest,
                  .samples = 1000,
                  .clip = {.min_frames = 2, .max_frames = 3},
                  .clip_share = 0.3,
                  .min_turns = 2,
                  .max_turns = 2}) {
        options.samples = 6;
        options.model_id = "golden";
        options.session.context = 512;
        options.session.threads = 1;
        options.sampling.max_tokens = 4;
    }

    static std::vector<std::string> texts(const std::vector<Prediction>& predictions) {
        std::vector<std::string> list;
        for (const Prediction& p : predictions) list.push_back(p.question_id + " " + p.prompt + " " + p.text);
        return list;
    }

    std::shared_ptr<Model> model;
    scenes::SceneGenerator source;
    RunOptions options;
};

TEST_F(RunnerTest, AnswersAreThoseOfASession) {
    const std::vector<Prediction> predictions = run(model, source, options);
    size_t i = 0;
    int clips = 0;
    for (uint64_t number = 0; number < options.samples; ++number) {
        const Sample sample = source.sample(number);
        for (size_t turn = 0; turn < sample.turns.size(); ++turn, ++i) {
            ASSERT_LT(i, predictions.size());
            EXPECT_EQ(predictions[i].question_id, fmt::format("{}/{}", sample.id, turn));
            EXPECT_EQ(predictions[i].answer, sample.turns[turn].answer);
            EXPECT_EQ(predictions[i].type, sample.turns[turn].type);
            Session session(model, options.session);
            if (sample.frames.size() == 1) session.add_image({"picture", encode_png(sample.frames[0])});
            clips += sample.frames.size() > 1 ? 1 : 0;
            if (sample.frames.size() > 1) {
                session.add_video({"clip", static_cast<int64_t>(sample.frames.size()),
                                   [&](int64_t frame) { return sample.frames[static_cast<size_t>(frame)]; }});
            }
            EXPECT_EQ(session.ask(sample.turns[turn].question, options.sampling).text, predictions[i].text);
        }
    }
    EXPECT_EQ(i, predictions.size());
    EXPECT_GT(clips, 0);
}

// As if they came from an index: the first question about a clip is fused with all its frames, the others with few.
TEST_F(RunnerTest, FusionFrames) {
    options.fusion_frames = 1;
    const std::vector<Prediction> predictions = run(model, source, options);
    size_t i = 0;
    int clips = 0;
    for (uint64_t number = 0; number < options.samples; ++number) {
        const Sample sample = source.sample(number);
        if (sample.frames.size() > 1) {
            ++clips;
            Session session(model, options.session);
            session.add_video({"clip", static_cast<int64_t>(sample.frames.size()),
                               [&](int64_t frame) { return sample.frames[static_cast<size_t>(frame)]; }},
                              {.fusion_frames = 1});
            for (size_t turn = 0; turn < sample.turns.size(); ++turn) {
                session.restart();
                EXPECT_EQ(session.ask(sample.turns[turn].question, options.sampling).text,
                          predictions.at(i + turn).text);
            }
        }
        i += sample.turns.size();
    }
    EXPECT_GT(clips, 0);

    // Taken up again within a clip, it asks all about the clip anew.
    const test::TempDir dir;
    options.out = dir / "answers.jsonl";
    std::string partial;
    for (size_t n = 0; n + 1 < predictions.size(); ++n) {
        const bool last_of_sample = predictions[n + 1].question_id.ends_with("/0");
        Prediction known = predictions[n];
        known.text = "known";
        if (!last_of_sample) partial += to_line(known, "golden, fusion frames 1, tokens at most 4");
    }
    dir.write("answers.jsonl.partial", partial);
    const std::vector<Prediction> again = run(model, source, options);
    ASSERT_EQ(again.size(), predictions.size());
    for (uint64_t number = 0, at = 0; number < options.samples; ++number) {
        const Sample sample = source.sample(number);
        for (size_t turn = 0; turn < sample.turns.size(); ++turn, ++at) {
            const bool known = sample.frames.size() == 1 && turn + 1 < sample.turns.size();
            EXPECT_EQ(again[at].text, known ? "known" : predictions[at].text) << again[at].question_id;
        }
    }
}

TEST_F(RunnerTest, JobsChangeNothing) {
    const auto one = texts(run(model, source, options));
    options.jobs = 3;
    EXPECT_EQ(texts(run(model, source, options)), one);
}

TEST_F(RunnerTest, InterruptedRunGoesOn) {
    const test::TempDir dir;
    options.out = dir / "answers.jsonl";
    const auto whole = texts(run(model, source, options));
    const std::string file = read_text_file(options.out, 1 << 20);
    EXPECT_FALSE(std::filesystem::exists(dir / "answers.jsonl.partial"));

    RunOptions again = options;
    again.out = dir / "again.jsonl";
    again.progress = [](uint64_t done, uint64_t, std::string_view) { return done < 3; };
    EXPECT_THAT(error_text([&] { run(model, source, again); }), HasSubstr("interrupted after "));
    EXPECT_FALSE(std::filesystem::exists(again.out));
    // As after a kill: the last line is cut off, and an answer tells whether it was taken over or asked anew.
    std::string partial = read_text_file(dir / "again.jsonl.partial", 1 << 20);
    const std::string mark = "\"text\":\"";
    partial.insert(partial.find(mark) + mark.size(), "taken over ");
    partial.resize(partial.size() - 5);
    dir.write("again.jsonl.partial", partial);
    int started_with = -1;
    again.progress = [&](uint64_t done, uint64_t, std::string_view) {
        if (started_with < 0) started_with = static_cast<int>(done);
        return true;
    };
    auto resumed = texts(run(model, source, again));
    const std::string taken = "taken over ";
    ASSERT_NE(resumed[0].find(taken), std::string::npos);
    resumed[0].erase(resumed[0].find(taken), taken.size());
    EXPECT_EQ(resumed, whole);

    again.model_id = "another";
    dir.write("again.jsonl.partial", file);
    EXPECT_THAT(error_text([&] { run(model, source, again); }),
                HasSubstr("model_id: expected another, tokens at most 4, found golden"));
    // Nor does a run with other settings take over what was answered without them.
    again.model_id = options.model_id;
    again.sampling.max_tokens = 5;
    EXPECT_THAT(error_text([&] { run(model, source, again); }),
                HasSubstr("model_id: expected golden, tokens at most 5, found golden"));
    EXPECT_EQ(read_text_file(dir / "again.jsonl.partial", 1 << 20), file);
}

TEST_F(RunnerTest, DamagedAnswers) {
    const test::TempDir dir;
    for (const auto& [text, wanted] : std::vector<std::pair<std::string, std::string>>{
             {"{\n", "line 1: not valid JSON"},
             {"{}\n", "model_id"},
             {R"({"model_id": "m", "question_id": "1", "prompt": "q", "text": "a"})"
              "\n",
              "metadata"},
             {"[]\n", "expected an object"}}) {
        const auto file = dir.write("answers.jsonl", text);
        EXPECT_THAT(error_text([&] { read_predictions(file, "m"); }), HasSubstr(wanted)) << text;
    }
}

TEST_F(RunnerTest, WrongRanges) {
    options.first = 999;
    EXPECT_THAT(error_text([&] { run(model, source, options); }),
                HasSubstr("samples 999 to 1005: there are 1000"));
    options = {.samples = 1, .jobs = 0};
    EXPECT_THAT(error_text([&] { run(model, source, options); }), HasSubstr("jobs: expected 1 to 1024"));
}

// A sample that cannot be read ends the run with its reason.
class Broken : public SampleSource {
  public:
    uint64_t size() const override { return 4; }
    Sample sample(uint64_t number) const override {
        throw Error(ErrorKind::kInput, fmt::format("sample {} is broken", number));
    }
};

TEST_F(RunnerTest, FailureOfASample) {
    options.samples = 4;
    options.jobs = 2;
    EXPECT_THAT(error_text([&] { run(model, Broken(), options); }), HasSubstr("is broken"));
}

}  // namespace
}  // namespace llava_mini::eval
