// Indices of videos: questions from them are answered as from the frames, and nothing that happens to the
// file or the video changes that.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "session/model_impl.h"
#include "support/error_text.h"
#include "support/golden_model.h"
#include "support/test_video.h"
#include "video/index_builder.h"
#include "video/video_pass.h"

namespace llava_mini::test {
namespace {

using testing::HasSubstr;

const SamplingOptions kShort{.max_tokens = 8};

std::shared_ptr<Model> load(KvType prefusion_kv = KvType::kF32, ggml_type type = GGML_TYPE_F32) {
    return Model::load({.model = golden_model(type), .threads = 2, .prefusion_kv = prefusion_kv});
}

// Frames that differ from each other, four a second.
std::filesystem::path film(const TempDir& dir, int seconds, const char* name = "film.ts") {
    return write_film(dir / name, seconds);
}

void cut(const std::filesystem::path& path, uint64_t bytes) {
    std::filesystem::resize_file(path, bytes);
}

struct Rows {
    std::vector<float> tokens, head;
    std::vector<double> seconds;
    size_t fusion_frames;
};

Rows rows_of(const Model& model, const std::filesystem::path& index) {
    Pipeline& pipeline = model.impl().pipeline;
    const SeenVideo seen =
        load_index(pipeline, pipeline.backends(), index, model.impl().fingerprint(), /*f32=*/true);
    Rows rows{{}, seen.fused_rows.data, seen.seconds, seen.fusion_frames.size()};
    seen.tokens.append_to(rows.tokens, 0, seen.tokens.rows());
    return rows;
}

void expect_same(const Rows& a, const Rows& b) {
    EXPECT_EQ(a.seconds, b.seconds);
    EXPECT_EQ(a.fusion_frames, b.fusion_frames);
    EXPECT_LE(max_difference(a.tokens, b.tokens), 2e-3);  // one step of f16 where batches differ
    EXPECT_LE(max_difference(a.head, b.head), 2e-5);
}

TEST(Index, AllFusionFramesAnswerAsThePass) {
    const TempDir dir;
    const auto video = film(dir, 12);
    for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kQ8_0}) {
        const auto model = load(type);
        const SessionOptions options{.kv_type = type == KvType::kQ8_0 ? KvType::kF16 : type};
        Session pass(model, options);
        pass.add_video(video.string());
        const Answer expected = pass.ask("What happens in it?", kShort);
        for (const bool state : {false, true}) {
            const auto index = dir / ("index" + std::to_string(static_cast<int>(type)) + (state ? "s" : ""));
            const IndexResult made =
                make_video_index(model, video, index, {.fusion_frames = 0, .language_state = state}, options);
            EXPECT_EQ(made.frames, 12);
            EXPECT_EQ(made.made, 12);
            Session session(model, options);
            session.add_index(index);
            const Answer answer = session.ask("What happens in it?", kShort);
            EXPECT_EQ(answer.text, expected.text);
            EXPECT_EQ(answer.prompt_tokens, expected.prompt_tokens);
            EXPECT_EQ(answer.timings.vision_tower, 0);
            EXPECT_EQ(answer.cached_tokens > 0, state);
            // A second question in the same conversation.
            EXPECT_GT(session.ask("Why?", kShort).cached_tokens, answer.prompt_tokens);
        }
    }
}

// Distances in the language model's input rows of a question, printed for docs/video.md.
TEST(Index, DistanceFromThePassIsBounded) {
    const TempDir dir;
    const auto video = film(dir, 16);
    struct Case {
        const char* name;
        KvType type;
        int fusion_frames;
        double bound;
    };
    for (const Case& c :
         {Case{"all, f32", KvType::kF32, 0, 2e-5}, Case{"all, f16", KvType::kF16, 0, 5e-3},
          Case{"all, q8_0", KvType::kQ8_0, 0, 5e-2}, Case{"4 of 16, f16", KvType::kF16, 4, 1.5}}) {
        const auto model = load(c.type), exact_model = load(KvType::kF32);
        Pipeline& pipeline = model->impl().pipeline;
        const auto index = dir / std::string(c.name);
        make_video_index(model, video, index, {.fusion_frames = c.fusion_frames});
        SeenVideo seen = load_index(pipeline, pipeline.backends(), index, model->impl().fingerprint(), true);
        PassText text{seen.fused_ids, {}};
        const std::vector<int32_t> question{198, 54, 322, 286, 427, 378, 595, 281, 406, 519, 30};
        text.ids.insert(text.ids.end(), question.begin(), question.end());
        Timings timings;
        const VideoOptions options;
        FrameEncoder encoder(exact_model->impl().pipeline, video.string(), options, 1, 0, nullptr);
        const SeenVideo pass =
            run_video_pass(exact_model->impl().pipeline, encoder, options, text, true, 0, timings);
        const Matrix fused = pipeline.fuse_text(question, seen.fusion_frames, &seen.fusion, timings);
        const std::span expected(pass.fused_rows.data.data() + seen.fused_ids.size() * 64, fused.data.size());
        const double distance = max_difference(fused.data, expected);
        std::printf("fused rows, %s: %.2g from the pass\n", c.name, distance);
        EXPECT_LE(distance, c.bound) << c.name;
    }
}

TEST(Index, FewFusionFramesAreEvenlySpaced) {
    const TempDir dir;
    const auto model = load(KvType::kF16);
    const auto video = film(dir, 12);
    make_video_index(model, video, dir / "index", {.fusion_frames = 3, .segment_frames = 5});
    const VideoIndexFile file(dir / "index");
    std::vector<int64_t> fusion;
    for (const IndexRecord* record : file.frames()) {
        for (const auto& frame : file.open(*record).fusion)
            fusion.push_back(record->first_frame + frame.frame);
    }
    EXPECT_THAT(fusion, testing::ElementsAre(2, 5, 9));
    EXPECT_EQ(file.frames().size(), 3u);
    Session session(model);
    session.add_index(dir / "index");
    EXPECT_GT(session.ask("What?", kShort).generated_tokens, 0);
}

// Whatever byte the file ends at, the work is gone on with and ends as if it had not been interrupted.
TEST(Index, IsResumedFromAnyLength) {
    const TempDir dir;
    const auto model = load();
    const auto video = film(dir, 10);
    const IndexOptions options{.fusion_frames = 4, .segment_frames = 3};
    make_video_index(model, video, dir / "whole", options);
    const Rows whole = rows_of(*model, dir / "whole");
    const uint64_t bytes = std::filesystem::file_size(dir / "whole");
    for (const double share : {0.05, 0.4, 0.75, 0.999}) {
        SCOPED_TRACE(share);
        std::filesystem::copy_file(dir / "whole", dir / "part",
                                   std::filesystem::copy_options::overwrite_existing);
        cut(dir / "part", static_cast<uint64_t>(static_cast<double>(bytes) * share));
        EXPECT_THAT(error_text([&] { rows_of(*model, dir / "part"); }), HasSubstr("not complete"));
        int64_t intact = 0;
        {
            const VideoIndexFile part(dir / "part");
            for (const IndexRecord* record : part.frames()) intact += record->frames;
        }
        const IndexResult result = make_video_index(model, video, dir / "part", options);
        EXPECT_EQ(result.frames, 10);
        EXPECT_EQ(result.made, 10 - intact);
        EXPECT_GT(intact, share < 0.1 ? -1 : 0);
        expect_same(rows_of(*model, dir / "part"), whole);
    }
    // Complete: nothing is done.
    EXPECT_EQ(make_video_index(model, video, dir / "whole", options).made, 0);
    EXPECT_EQ(std::filesystem::file_size(dir / "whole"), bytes);
}

TEST(Index, ADamagedPartIsMadeAgain) {
    const TempDir dir;
    const auto model = load();
    const auto video = film(dir, 12);
    const IndexOptions options{.fusion_frames = 4, .segment_frames = 3};
    make_video_index(model, video, dir / "index", options);
    const Rows whole = rows_of(*model, dir / "index");
    uint64_t at = 0;
    {
        const VideoIndexFile file(dir / "index");
        const auto frames = file.frames();
        at = std::filesystem::file_size(dir / "index") -
             static_cast<uint64_t>(frames[3]->payload.data() - frames[1]->payload.data()) - 1000;
    }
    std::fstream damage(dir / "index", std::ios::in | std::ios::out | std::ios::binary);
    damage.seekp(static_cast<std::streamoff>(at));
    damage.write("damage", 6);
    damage.close();
    EXPECT_THAT(error_text([&] { rows_of(*model, dir / "index"); }), HasSubstr("damaged behind frame"));
    EXPECT_EQ(make_video_index(model, video, dir / "index", options).made, 3);
    expect_same(rows_of(*model, dir / "index"), whole);
}

TEST(Index, AVideoThatGrewIsContinued) {
    const TempDir dir;
    const auto model = load();
    film(dir, 16, "long.ts");
    const uint64_t bytes = std::filesystem::file_size(dir / "long.ts");
    std::filesystem::copy_file(dir / "long.ts", dir / "film.ts");
    cut(dir / "film.ts", bytes / 2 / 188 * 188);
    const IndexOptions options{.fusion_frames = 4, .segment_frames = 4};
    const IndexResult first = make_video_index(model, dir / "film.ts", dir / "index", options);
    EXPECT_GT(first.frames, 5);
    EXPECT_LT(first.frames, 11);
    std::filesystem::copy_file(dir / "long.ts", dir / "film.ts",
                               std::filesystem::copy_options::overwrite_existing);
    // Interrupted after its first record.
    IndexOptions stopping = options;
    stopping.segment_frames = 4;
    stopping.video.progress = [&](uint64_t done, uint64_t, std::string_view) {
        return done < static_cast<uint64_t>(first.frames) + 3;
    };
    EXPECT_THAT(error_text([&] { make_video_index(model, dir / "film.ts", dir / "index", stopping); }),
                HasSubstr("interrupted"));
    const size_t before = rows_of(*model, dir / "index").seconds.size();
    EXPECT_EQ(before, static_cast<size_t>(first.frames));  // what was complete stays usable
    const IndexResult grown = make_video_index(model, dir / "film.ts", dir / "index", options);
    EXPECT_NEAR(static_cast<double>(grown.frames), 16, 1);
    const Rows rows = rows_of(*model, dir / "index");
    for (size_t i = 1; i < rows.seconds.size(); ++i) {
        EXPECT_NEAR(rows.seconds[i] - rows.seconds[i - 1], 1, 0.51) << i;
    }
    EXPECT_EQ(make_video_index(model, dir / "film.ts", dir / "index", options).made, 0);
    Session session(model);
    session.add_index(dir / "index");
    EXPECT_EQ(session.ask("What?", kShort).vision_tokens, grown.frames);
}

TEST(Index, BelongsToItsVideoModelAndSettings) {
    const TempDir dir;
    const auto model = load();
    const auto video = film(dir, 6);
    make_video_index(model, video, dir / "index");
    write_test_video(dir / "other.ts", {.codec = "mpeg4", .pixel_format = "yuv420p", .frames = 30});
    const auto making = [&](const std::shared_ptr<Model>& with, const char* name,
                            const IndexOptions& options = {}) {
        return error_text([&] { make_video_index(with, dir / name, dir / "index", options); });
    };
    EXPECT_THAT(making(model, "other.ts"), HasSubstr("another video (film.ts"));
    EXPECT_THAT(making(load(KvType::kF32, GGML_TYPE_F16), "film.ts"), HasSubstr("another model"));
    EXPECT_THAT(making(load(KvType::kF16), "film.ts"), HasSubstr("other settings"));
    IndexOptions faster;
    faster.video.fps = 2;
    EXPECT_THAT(making(model, "film.ts", faster), HasSubstr("other settings"));
    Session other(load(KvType::kF32, GGML_TYPE_F16));
    EXPECT_THAT(error_text([&] { other.add_index(dir / "index"); }), HasSubstr("another model"));
    Session session(model);
    EXPECT_THAT(error_text([&] { session.add_index(video); }), HasSubstr("not a video index"));
    EXPECT_THAT(error_text([&] { session.add_index(dir / "missing"); }), HasSubstr("missing"));
    EXPECT_THAT(error_text([&] { make_video_index(model, "-", dir / "new"); }), HasSubstr("cannot open"));
    session.add_index(dir / "index");
    EXPECT_GT(session.ask("What?", kShort).generated_tokens, 0);
}

}  // namespace
}  // namespace llava_mini::test
