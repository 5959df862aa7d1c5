// Conversations about videos: the official result in one pass, in memory that does not grow.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/npy.h"
#include "llm/language_context.h"
#include "llm/position_attention.h"
#include "media/frame_sampler.h"
#include "media/image_decoder.h"
#include "session/model_impl.h"
#include "support/error_text.h"
#include "support/golden_model.h"
#include "support/test_video.h"
#include "video/video_pass.h"

namespace llava_mini::test {
namespace {

using testing::HasSubstr;

const SessionOptions kParity{.kv_type = KvType::kF32};

std::shared_ptr<Model> load(KvType prefusion_kv = KvType::kF32) {
    return Model::load({.model = golden_model(), .threads = 2, .prefusion_kv = prefusion_kv});
}

// The frames of the recordings.
GeneratedVideo golden_frames() {
    const auto raw = std::make_shared<const NpyArray>(read_npy(golden_path("video/raw_frames.npy")));
    return {"golden", 6, [raw](int64_t i) {
                const auto bytes = static_cast<ptrdiff_t>(raw->bytes.size() / 6);
                const auto from = raw->bytes.begin() + i * bytes;
                return Image{320, 180, {from, from + bytes}};
            }};
}

// The film of the recordings: 40 frames at 6.5 a second, those that are chosen as recorded.
std::string golden_film(const TempDir& dir) {
    const GeneratedVideo raw = golden_frames();
    const std::vector<int> recorded = {3, 9, 16, 23, 29, 35};
    TestVideo film{.width = 320, .height = 180, .frames = 40, .rate_num = 13, .rate_den = 2};
    film.picture = [&](int i) {
        const auto found = std::find(recorded.begin(), recorded.end(), i);
        if (found == recorded.end()) return numbered_picture(i, 320, 180);
        return raw.frame(found - recorded.begin());
    };
    write_test_video(dir / "film.mkv", film);
    return dir / "film.mkv";
}

void expect_the_official_answer(const Model& model, Session& session) {
    const Answer answer =
        session.ask("What happened in this video?", {.max_tokens = 16, .temperature = 0, .ignore_eos = true});
    EXPECT_EQ(answer.vision_tokens, 6);
    EXPECT_EQ(answer.prompt_tokens, 131);
    ASSERT_TRUE(answer.video.has_value());
    EXPECT_EQ(answer.video->frames, 6);
    std::vector<int32_t> recorded;
    for (const int64_t id : read_npy(golden_path("cases/video6/greedy_ids.npy")).as_int64()) {
        recorded.push_back(static_cast<int32_t>(id));
    }
    std::string expected = model.impl().language->detokenize(recorded);
    while (!expected.empty() && expected.back() == ' ') expected.pop_back();
    EXPECT_EQ(answer.text, expected);
}

TEST(Video, AnswersAsTheOfficialCode) {
    const TempDir dir;
    const auto model = load();
    Session session(model, kParity);
    EXPECT_EQ(session.add_video(golden_film(dir)).chosen, 6);
    expect_the_official_answer(*model, session);
}

TEST(Video, GeneratedFramesAnswerAsTheOfficialCode) {
    const auto model = load();
    Session session(model, kParity);
    const VideoFacts facts = session.add_video(golden_frames(), {.fps = 2});
    EXPECT_EQ(facts.chosen, 6);
    EXPECT_EQ(facts.seconds, 3);
    expect_the_official_answer(*model, session);
}

TEST(Video, GeneratedFramesAreCheckedAndStoppable) {
    const auto model = load(KvType::kF16);
    Session session(model);
    EXPECT_THAT(error_text([&] {
                    session.add_video(GeneratedVideo{"none", 0, golden_frames().frame});
                }),
                HasSubstr("none: 0 frames"));
    EXPECT_THAT(error_text([&] {
                    session.add_video(GeneratedVideo{"made", 3, {}});
                }),
                HasSubstr("whoever makes it"));
    GeneratedVideo wrong = golden_frames();
    wrong.frame = [right = wrong.frame](int64_t i) {
        return i < 2 ? right(i) : Image{4, 3, std::vector<uint8_t>(35)};
    };
    session.add_video(wrong);
    EXPECT_THAT(error_text([&] { session.ask("What?"); }), HasSubstr("frame 2: 4 x 3 pixels in 35 bytes"));
    session.reset();
    GeneratedVideo stopping = golden_frames();
    stopping.frame = [&, right = stopping.frame](int64_t i) {
        if (i == 3) session.stop();
        return right(i);
    };
    session.add_video(stopping);
    EXPECT_THAT(error_text([&] { session.ask("What?"); }), HasSubstr("interrupted"));
    EXPECT_TRUE(session.turns().empty());
}

TEST(Video, RestartedConversationsAnswerAsNewOnes) {
    const auto model = load();
    const SamplingOptions sampling{.max_tokens = 8};
    for (const int stay : {0, 6}) {
        Session fresh(model, kParity), restarted(model, kParity);
        fresh.add_video(golden_frames());
        restarted.add_video(golden_frames(), {.fusion_frames = stay});
        restarted.ask("Why is it so?", sampling);
        restarted.restart();
        EXPECT_TRUE(restarted.turns().empty());
        const Answer answer = restarted.ask("What happened?", sampling);
        EXPECT_EQ(answer.text, fresh.ask("What happened?", sampling).text);
        EXPECT_EQ(answer.cached_tokens > answer.vision_tokens, stay > 0);
        EXPECT_EQ(answer.timings.vision_tower > 0, stay == 0);
    }
}

TEST(Video, PassGivesTheRecordedRows) {
    const TempDir dir;
    const auto model = load();
    Pipeline& pipeline = model->impl().pipeline;
    PassText text;
    for (const int64_t id : read_npy(golden_path("cases/video6/input_ids.npy")).as_int64()) {
        text.ids.push_back(static_cast<int32_t>(std::max<int64_t>(id, 0)));
        text.visible.push_back(id > 0 ? 1 : 0);
    }
    Timings timings;
    const VideoOptions options;
    FrameEncoder encoder(pipeline, golden_film(dir), options, 1, 0, nullptr);
    const SeenVideo seen = run_video_pass(pipeline, encoder, options, text, /*f32=*/true, 0, timings);
    std::vector<float> tokens;
    seen.tokens.append_to(tokens, 0, seen.tokens.rows());
    EXPECT_LE(max_difference(tokens, read_npy(golden_path("cases/video6/vision_tokens.npy")).as_float()),
              2e-4);
    Matrix fused = seen.fused_rows;
    const NpyArray recorded = read_npy(golden_path("cases/video6/fused_text.npy"));
    std::vector<float> expected = recorded.as_float();
    for (size_t i = 0; i < text.visible.size(); ++i) {  // masked rows are plain embeddings there
        if (text.visible[i] != 0) continue;
        const auto row = fused.row(static_cast<int64_t>(i));
        std::copy(row.begin(), row.end(), expected.begin() + static_cast<ptrdiff_t>(i) * 64);
    }
    EXPECT_LE(max_difference(fused.data, expected), 2e-4);
}

TEST(Video, LaterQuestionsReadAgainOrUseTheFramesThatStayed) {
    const TempDir dir;
    const auto model = load();
    const std::string film = golden_film(dir);
    std::vector<std::string> answers;
    for (const int stay : {0, 6, 64}) {
        Session session(model, kParity);
        session.add_video(film, {.fusion_frames = stay});
        const Answer first = session.ask("What happened?", {.max_tokens = 8});
        const Answer second = session.ask("Why?", {.max_tokens = 8});
        answers.push_back(first.text + "|" + second.text);
        EXPECT_GE(second.cached_tokens, stay == 0 ? 0 : first.prompt_tokens);
        EXPECT_EQ(second.timings.vision_tower > 0, stay == 0);
    }
    // All six frames stayed: exact, too.
    EXPECT_EQ(answers[1], answers[0]);
    EXPECT_EQ(answers[2], answers[0]);
}

TEST(Video, FewFusionFramesStillGiveTheFirstAnswerExactly) {
    const TempDir dir;
    const auto model = load();
    const std::string film = golden_film(dir);
    Session exact(model, kParity), few(model, kParity);
    exact.add_video(film);
    few.add_video(film, {.fusion_frames = 2});
    const SamplingOptions sampling{.max_tokens = 8};
    EXPECT_EQ(exact.ask("What happened?", sampling).text, few.ask("What happened?", sampling).text);
    EXPECT_GT(few.ask("Why?", sampling).generated_tokens, 0);
}

TEST(Video, QuirksMaskAndReadAgain) {
    const TempDir dir;
    const auto model = load();
    SessionOptions options = kParity;
    options.official_quirks = true;
    Session session(model, options);
    session.add_video(golden_film(dir), {.fusion_frames = 6});
    EXPECT_EQ(session.ask("What happened in this video!", {.max_tokens = 4}).cached_tokens, 0);
    EXPECT_GT(session.ask("Why?", {.max_tokens = 4}).timings.vision_tower, 0);
}

TEST(Video, TheContextGrowsToTheVideoAndNoFurther) {
    const TempDir dir;
    write_test_video(dir / "long.mkv", {.codec = "libx264",
                                        .pixel_format = "yuv420p",
                                        .width = 16,
                                        .height = 16,
                                        .frames = 4100,
                                        .rate_num = 1,
                                        .gop = 250});
    const auto model = load(KvType::kF16);
    Session session(model);
    session.add_video(dir / "long.mkv", {.max_frames = 0});
    // The checkpoint's tokenizer_model_max_length. Refused before a frame was looked at.
    EXPECT_THAT(error_text([&] { session.ask("What?"); }), HasSubstr("has room for 4096"));
    Session small(model, {.context = 200});
    small.add_video(dir / "long.mkv", {.max_frames = 150});
    EXPECT_THAT(error_text([&] { small.ask("What?"); }), HasSubstr("has room for 200"));
}

TEST(Video, PlanAndProgressAreSaid) {
    const TempDir dir;
    write_test_video(dir / "v.mkv", {.frames = 120, .rate_num = 10});
    const auto model = load(KvType::kF16);
    Session session(model);
    std::vector<VideoPlan> plans;
    std::vector<uint64_t> done;
    VideoOptions options;
    options.on_plan = [&](const VideoPlan& plan) { plans.push_back(plan); };
    options.progress = [&](uint64_t frames, uint64_t total, std::string_view) {
        EXPECT_EQ(total, 12u);
        done.push_back(frames);
        return true;
    };
    session.add_video(dir / "v.mkv", options);
    session.ask("What?", {.max_tokens = 1});
    ASSERT_EQ(plans.size(), 1u);
    EXPECT_EQ(plans[0].facts.chosen, 12);
    EXPECT_GT(plans[0].seconds, 0);
    EXPECT_EQ(plans[0].token_bytes, 12u * 64 * 2);
    EXPECT_EQ(plans[0].kv_bytes, 12u * 3 * 2 * 32 * 2);  // layers, keys and values, 2 heads of 16, f16
    EXPECT_EQ(done.back(), 12u);

    options.progress = [](uint64_t frames, uint64_t, std::string_view) { return frames < 4; };
    Session stopped(model);
    stopped.add_video(dir / "v.mkv", options);
    EXPECT_THAT(error_text([&] { stopped.ask("What?"); }), HasSubstr("interrupted"));
    EXPECT_TRUE(stopped.turns().empty());
}

TEST(Video, WrongUsesAreRefused) {
    const TempDir dir;
    write_test_video(dir / "v.mkv", {.frames = 20, .rate_num = 10});
    const auto model = load(KvType::kF16);
    Session session(model);
    EXPECT_THAT(error_text([&] { session.add_video("missing.mp4"); }), HasSubstr("No such file"));
    session.add_image(Model::read_picture(golden_path("pictures/tiny_17x5.png")));
    EXPECT_THAT(error_text([&] { session.add_video(dir / "v.mkv"); }), HasSubstr("pictures or one video"));
    session.reset();
    session.add_video(dir / "v.mkv");
    EXPECT_THAT(
        error_text([&] { session.add_image(Model::read_picture(golden_path("pictures/tiny_17x5.png"))); }),
        HasSubstr("pictures or one video"));
    EXPECT_EQ(session.ask("What?", {.max_tokens = 1}).vision_tokens, 2);
}

TEST(Video, HighResolutionAndPicturePath) {
    const TempDir dir;
    write_test_video(dir / "v.mkv", {.width = 320, .height = 180, .frames = 20, .rate_num = 10});
    const auto model = load(KvType::kF16);
    std::set<std::string> answers;
    for (const VideoOptions& options : {VideoOptions{}, VideoOptions{.resolution_ratio = 2},
                                        VideoOptions{.resize = FrameResize::kPicture}}) {
        Session session(model);
        session.add_video(dir / "v.mkv", options);
        answers.insert(session.ask("What happened?", {.max_tokens = 16}).text);
    }
    EXPECT_EQ(answers.size(), 3u);
}

// The weights that the language model gives to frames, and a sheet of them.
TEST(Video, EvidenceIsTheAttentionToFrames) {
    const TempDir dir;
    const auto model = load(KvType::kF16);
    const std::string film = golden_film(dir);
    SessionOptions options;
    options.evidence = true;
    Session plain(model), watched(model, options);
    plain.add_video(film);
    watched.add_video(film, {.thumbnails = true});
    const Answer expected = plain.ask("What happened in this video?", {.max_tokens = 5});
    const Answer answer = watched.ask("What happened in this video?", {.max_tokens = 5});
    EXPECT_EQ(answer.text, expected.text);
    EXPECT_TRUE(expected.evidence.empty());
    ASSERT_EQ(answer.evidence.size(), 6u);
    double sum = 0;
    std::set<int64_t> frames;
    for (size_t i = 0; i < 6; ++i) {
        sum += answer.evidence[i].share;
        frames.insert(answer.evidence[i].frame);
        EXPECT_LE(answer.evidence[i].share, i > 0 ? answer.evidence[i - 1].share : 1.0);
    }
    EXPECT_NEAR(sum, 1, 1e-9);
    EXPECT_EQ(frames.size(), 6u);
    EXPECT_GT(answer.evidence[0].share, answer.evidence[5].share);
    const Image sheet = decode_image(watched.contact_sheet(answer.evidence));
    EXPECT_GT(sheet.width, 4 * 160);
    EXPECT_GT(sheet.height, 2 * 90);
    EXPECT_THAT(error_text([&] { plain.contact_sheet(answer.evidence); }),
                HasSubstr("no pictures of frames"));
}

TEST(PositionAttentions, AreWhatTheLayersGive) {
    const auto model = std::make_shared<LanguageModel>(golden_model() / "language.gguf");
    PositionAttention attention;
    LanguageContext context(model,
                            {.n_ctx = 256,
                             .flash_attention = FlashAttention::kOff,
                             .stop = nullptr,
                             .tap = [&](ggml_tensor* tensor, bool ask) { return attention(tensor, ask); }});
    const std::vector<int32_t> ids{768, 54, 322, 284};
    context.decode_tokens(ids, true);
    EXPECT_TRUE(attention.weights().empty());
    attention.on = true;
    context.decode_tokens({{281}}, true);
    double sum = 0, behind = 0;
    for (size_t i = 0; i < attention.weights().size(); ++i) (i < 5 ? sum : behind) += attention.weights()[i];
    EXPECT_NEAR(sum, 3 * 4, 1e-3);  // layers and heads, whose weights sum to 1
    EXPECT_EQ(behind, 0);

    // All rows of a batch are what its rows give one by one.
    const auto weights_of = [&](bool together) {
        context.keep_prefix(0);
        attention.clear();
        attention.every_row = together;
        for (const int32_t id : ids) {
            if (!together) context.decode_tokens({{id}}, true);
        }
        if (together) context.decode_tokens(ids, true);
        return std::vector<double>(attention.weights().begin(), attention.weights().begin() + 4);
    };
    const std::vector<double> one_by_one = weights_of(false), together = weights_of(true);
    for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(together[i], one_by_one[i], 1e-3);
}

TEST(FrameBatches, GiveWhatFramesAloneGive) {
    const auto model = load();
    Pipeline& pipeline = model->impl().pipeline;
    std::vector<PixelValues> frames;
    for (int i = 0; i < 3; ++i) {
        PixelValues pixels{1, 336, std::vector<float>(3 * 336 * 336)};
        for (size_t j = 0; j < pixels.data.size(); ++j) {
            pixels.data[j] = static_cast<float>((j * static_cast<size_t>(i + 3)) % 97) / 50 - 1;
        }
        frames.push_back(std::move(pixels));
    }
    Timings timings;
    const auto together = pipeline.encode_frames(frames, 1, timings);
    for (size_t i = 0; i < frames.size(); ++i) {
        const auto alone = pipeline.encode_image(frames[i], 1, {}, timings);
        EXPECT_LT(max_difference(alone->vision_tokens.data, together[i]->vision_tokens.data), 2e-5);
    }
}

TEST(BatchSizes, GrowWhileThatPays) {
    BatchSize size;
    const auto run = [&](int frames, double each) {
        EXPECT_EQ(size.next(), frames);
        size.took(frames, frames * each);
        size.took(frames, frames * each);
    };
    run(1, 1.0);
    run(2, 0.8);
    run(4, 0.79);  // not worth it
    EXPECT_EQ(size.next(), 2);
    run(2, 0.1);
    EXPECT_EQ(size.next(), 2);
}

TEST(FusionFrames, AreEvenlySpaced) {
    FusionFrameChoice known(100, 4);
    std::vector<int64_t> kept;
    for (int64_t i = 0; i < 100; ++i) {
        if (known.keeps(i)) kept.push_back(i);
    }
    EXPECT_EQ(kept, spread_frame_indices(100, 4));
    FusionFrameChoice unknown(0, 4);
    kept.clear();
    for (int64_t i = 0; i < 100; ++i) {
        if (unknown.keeps(i) && unknown.must_thin_out(kept.size())) {
            for (size_t j = 1; j < kept.size(); ++j) kept.erase(kept.begin() + static_cast<ptrdiff_t>(j));
        }
        if (unknown.keeps(i)) kept.push_back(i);
    }
    EXPECT_EQ(kept, (std::vector<int64_t>{0, 32, 64, 96}));
}

}  // namespace
}  // namespace llava_mini::test
