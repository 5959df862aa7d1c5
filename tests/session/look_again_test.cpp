// Questions that are read twice: the second time fused with the frames alone that the first reading attended
// to most.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <thread>

#include "llm/language_context.h"
#include "session/session_impl.h"
#include "support/error_text.h"
#include "support/golden_model.h"
#include "support/test_video.h"
#include "video/video_pass.h"

namespace llava_mini::test {
namespace {

using testing::HasSubstr;

constexpr int kFrames = 8;
const char* const kQuestion = "What happens in it?";
// Logits of the recordings' model go from -10 to 10; batches of different sizes round differently.
constexpr double kRounding = 2e-3;

SessionOptions parity(int look_again) {
    SessionOptions options;
    options.kv_type = KvType::kF32;
    options.look_again = look_again;
    return options;
}

class LookAgain : public testing::Test {
  protected:
    LookAgain() : model(Model::load({.model = golden_model(), .threads = 1, .prefusion_kv = KvType::kF32})) {}

    std::filesystem::path film(const char* name = "film.ts", int seconds = kFrames) {
        return write_film(dir / name, seconds);
    }

    // The logits that choose the answer's first token.
    static std::vector<float> first_logits(Session& session, const std::string& question = kQuestion,
                                           Answer* answer = nullptr) {
        const Answer got = session.ask(question, {.max_tokens = 1});
        if (answer != nullptr) *answer = got;
        const auto logits = session.impl().context->logits();
        return {logits.begin(), logits.end()};
    }

    static std::vector<int64_t> frames_of(const Answer& answer) {
        std::vector<int64_t> frames;
        for (const FrameEvidence& frame : answer.looked_again) frames.push_back(frame.frame);
        return frames;
    }

    const TempDir dir;
    const std::shared_ptr<Model> model;
};

TEST_F(LookAgain, AtAllFramesIsThePlainPass) {
    const std::string video = film().string();
    Session plain(model, parity(0));
    plain.add_video(video);
    const std::vector<float> expected = first_logits(plain);
    make_video_index(model, video, dir / "few", {.fusion_frames = 3, .segment_frames = 5}, parity(0));
    make_video_index(model, video, dir / "all", {.fusion_frames = 0}, parity(0));
    for (const int frames : {kFrames, 1000}) {
        Session again(model, parity(frames)), kept(model, parity(frames)), few(model, parity(frames)),
            all(model, parity(frames));
        again.add_video(video);
        kept.add_video(video, {.fusion_frames = 3});
        few.add_index(dir / "few");
        all.add_index(dir / "all");
        for (Session* session : {&again, &kept, &few, &all}) {
            Answer answer;
            EXPECT_LE(max_difference(first_logits(*session, kQuestion, &answer), expected), kRounding);
            EXPECT_EQ(answer.looked_again.size(), static_cast<size_t>(kFrames));
            EXPECT_GT(answer.timings.look_again, 0);
            EXPECT_GT(answer.timings.time_to_first_token(), answer.timings.look_again);
            EXPECT_EQ(answer.vision_tokens, kFrames);
        }
    }
}

TEST_F(LookAgain, TheBestFramesAreFusedAloneAndNothingElseChanges) {
    const std::string video = film().string();
    Answer ranked, answer;
    Session everything(model, parity(kFrames)), two(model, parity(2));
    everything.add_video(video);
    two.add_video(video);
    first_logits(everything, kQuestion, &ranked);
    const std::vector<float> logits = first_logits(two, kQuestion, &answer);
    std::vector<int64_t> best = frames_of(ranked);
    best.resize(2);
    EXPECT_EQ(frames_of(answer), best);
    for (size_t i = 1; i < ranked.looked_again.size(); ++i) {
        EXPECT_LE(ranked.looked_again[i].share, ranked.looked_again[i - 1].share);
    }
    double total = 0;
    for (const FrameEvidence& frame : ranked.looked_again) total += frame.share;
    EXPECT_NEAR(total, 1, 1e-9);

    // By hand: the head of all frames, all vision tokens, the question's mean over the two.
    std::vector<Turn> turns;
    const std::string system = model->impl().pipeline.hparams().system_prompt;
    if (!system.empty()) turns.push_back({{"system", system}});
    turns.push_back({{"user", std::string(kImagePlaceholder) + "\n" + kQuestion}});
    PassText text;
    size_t head = 0;
    for (const PromptToken& token :
         tokenize_conversation(*model->impl().language, model->impl().chat_template, turns)) {
        if (token.kind == SegmentKind::kImage) head = text.ids.size();
        if (token.kind == SegmentKind::kFused) text.ids.push_back(token.id);
    }
    Pipeline& pipeline = model->impl().pipeline;
    Timings timings;
    const VideoOptions options{.fusion_frames = kFrames};
    FrameEncoder encoder(pipeline, video, options, 1, 0, nullptr);
    const SeenVideo seen = run_video_pass(pipeline, encoder, options, text, /*f32=*/true, 0, timings);
    const std::vector<std::shared_ptr<const ImageEncoding>> pair{
        seen.fusion_frames.at(static_cast<size_t>(best[0])),
        seen.fusion_frames.at(static_cast<size_t>(best[1]))};
    const Matrix fused = pipeline.fuse_text(text.ids, pair, nullptr, timings);
    const auto width = static_cast<size_t>(fused.cols);
    std::vector<float> rows(seen.fused_rows.data.begin(),
                            seen.fused_rows.data.begin() + static_cast<ptrdiff_t>(head * width));
    seen.tokens.append_to(rows, 0, kFrames);
    rows.insert(rows.end(), fused.data.begin() + static_cast<ptrdiff_t>(head * width), fused.data.end());
    LanguageContext context(model->impl().language, {.n_ctx = 512,
                                                     .threads = 1,
                                                     .kv_type = GGML_TYPE_F32,
                                                     .flash_attention = FlashAttention::kOff,
                                                     .stop = nullptr,
                                                     .tap = {}});
    context.decode_embeddings(rows.data(), static_cast<int>(rows.size() / width), true);
    const std::vector<float> expected(context.logits().begin(), context.logits().end());
    EXPECT_LE(max_difference(logits, expected), kRounding);
    Session plain(model, parity(0));
    plain.add_video(video);
    EXPECT_GT(max_difference(first_logits(plain), expected), 10 * kRounding);  // it does make a difference
}

TEST_F(LookAgain, FileIndexAndGeneratedFramesAgree) {
    const std::string video = film().string();
    VideoReader reader(video, {});
    std::vector<Image> pictures;
    while (auto frame = reader.next()) pictures.push_back(std::move(frame->image));
    int calls = 0;
    const GeneratedVideo made{"made", kFrames, [&](int64_t i) {
                                  ++calls;
                                  return pictures.at(static_cast<size_t>(i));
                              }};
    make_video_index(model, video, dir / "all", {.fusion_frames = 0}, parity(0));
    Session file(model, parity(3)), index(model, parity(3)), generated(model, parity(3));
    file.add_video(video);
    std::filesystem::remove(video);
    EXPECT_THAT(error_text([&] { file.ask(kQuestion); }), HasSubstr("No such file"));
    film();  // the same again
    file.reset();
    file.add_video(video);
    index.add_index(dir / "all");
    generated.add_video(made);
    Answer answers[3];
    const std::vector<float> expected = first_logits(file, kQuestion, &answers[0]);
    EXPECT_LE(max_difference(first_logits(index, kQuestion, &answers[1]), expected), 0.02);  // tokens in f16
    EXPECT_LE(max_difference(first_logits(generated, kQuestion, &answers[2]), expected), kRounding);
    EXPECT_EQ(frames_of(answers[1]), frames_of(answers[0]));
    EXPECT_EQ(frames_of(answers[2]), frames_of(answers[0]));
    EXPECT_EQ(calls, kFrames + 3);
}

TEST_F(LookAgain, EveryQuestionOfAConversation) {
    const std::string video = film().string();
    SessionOptions options = parity(2);
    options.evidence = true;
    Session session(model, options), fresh(model, options);
    session.add_video(video, {.fusion_frames = 4, .thumbnails = true});
    const SamplingOptions sampling{.max_tokens = 6};
    const Answer first = session.ask(kQuestion, sampling);
    const Answer second = session.ask("Why?", sampling);
    EXPECT_EQ(second.looked_again.size(), 2u);
    EXPECT_GE(second.cached_tokens, first.prompt_tokens);
    EXPECT_EQ(second.evidence.size(), static_cast<size_t>(kFrames));
    EXPECT_FALSE(session.contact_sheet(second.looked_again).empty());

    // Another conversation about it begins as if there had been none; what rows of the question before have
    // in common with it is not taken over, as they were fused with other frames.
    session.restart();
    fresh.add_video(video, {.fusion_frames = kFrames});
    session.reset();
    session.add_video(video, {.fusion_frames = kFrames});
    session.ask("What happens before it?", sampling);
    session.restart();
    Answer again, expected;
    const std::vector<float> logits = first_logits(session, kQuestion, &again);
    EXPECT_LE(max_difference(logits, first_logits(fresh, kQuestion, &expected)), kRounding);
    EXPECT_EQ(frames_of(again), frames_of(expected));
    EXPECT_GT(again.cached_tokens, kFrames);
}

TEST_F(LookAgain, AnIndexNeedsItsVideoUnlessItHasAllFrames) {
    const auto video = film();
    std::filesystem::create_directory(dir / "indices");
    const auto index = dir / "indices/few", all = dir / "indices/all";
    make_video_index(model, video, index, {.fusion_frames = 2}, parity(0));
    make_video_index(model, video, all, {.fusion_frames = 0}, parity(0));
    const auto add = [&](const std::filesystem::path& path) {
        Session session(model, parity(3));
        session.add_index(path);
    };
    const auto adding = [&](const std::filesystem::path& path) { return error_text([&] { add(path); }); };
    EXPECT_NO_THROW(add(index));
    std::filesystem::rename(video, dir / "indices/film.ts");  // beside the index
    EXPECT_NO_THROW(add(index));
    write_test_video(video, {.codec = "mpeg4", .pixel_format = "yuv420p", .frames = 20});
    EXPECT_NO_THROW(add(index));
    std::filesystem::rename(dir / "indices/film.ts", dir / "elsewhere.ts");
    EXPECT_THAT(adding(index), HasSubstr("is another one"));
    std::filesystem::remove(video);
    EXPECT_THAT(adding(index), HasSubstr("neither " + video.string() + " nor beside the index"));
    EXPECT_NO_THROW(add(all));
    Session plain(model, parity(0));  // asks nothing of it
    plain.add_index(index);
    EXPECT_GT(plain.ask(kQuestion, {.max_tokens = 2}).generated_tokens, 0);
}

TEST_F(LookAgain, AVideoThatGrewHasTheOldFramesStill) {
    film("long.ts", 2 * kFrames);
    std::filesystem::copy_file(dir / "long.ts", dir / "film.ts");
    std::filesystem::resize_file(dir / "film.ts",
                                 std::filesystem::file_size(dir / "long.ts") / 2 / 188 * 188);
    make_video_index(model, dir / "film.ts", dir / "index", {.fusion_frames = 2}, parity(0));
    Session before(model, parity(100)), after(model, parity(100));
    before.add_index(dir / "index");
    const std::vector<float> expected = first_logits(before);
    std::filesystem::copy_file(dir / "long.ts", dir / "film.ts",
                               std::filesystem::copy_options::overwrite_existing);
    after.add_index(dir / "index");
    EXPECT_LE(max_difference(first_logits(after), expected), kRounding);
}

TEST_F(LookAgain, WrongUses) {
    const auto video = film();
    const auto pipe = dir / "pipe.ts";
    ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
    std::thread writer([&] {
        std::ofstream out(pipe, std::ios::binary);
        const std::vector<uint8_t> bytes = read_file(video, 1 << 24);
        out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    });
    Session session(model, parity(3));
    try {
        session.add_video(pipe.string());
        ADD_FAILURE() << "a pipe was accepted";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kUsage);
        EXPECT_THAT(error.what(), HasSubstr("which only files allow"));
    }
    writer.join();
    session.add_video(video.string());  // it is as it was
    SessionOptions quirks = parity(3);
    quirks.official_quirks = true;
    EXPECT_THAT(error_text([&] { Session(model, quirks); }), HasSubstr("quirks"));
    EXPECT_THAT(error_text([&] { Session(model, parity(-1)); }), HasSubstr("-1 frames"));
    SessionOptions quantized = parity(3);
    quantized.kv_type = KvType::kQ8_0;
    EXPECT_THAT(error_text([&] { Session(model, quantized); }), HasSubstr("flash"));
    int frames = 0;
    VideoOptions stopping;
    stopping.progress = [&](uint64_t, uint64_t, std::string_view label) {
        return label != "frames again" || ++frames < 2;
    };
    session.reset();
    session.add_video(video.string(), stopping);
    EXPECT_THAT(error_text([&] { session.ask(kQuestion); }), HasSubstr("interrupted after 2 of 3"));
    EXPECT_TRUE(session.turns().empty());
    EXPECT_EQ(session.context_used(), 0);
}

}  // namespace
}  // namespace llava_mini::test
