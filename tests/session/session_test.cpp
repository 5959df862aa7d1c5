// Sessions: what is kept from turn to turn and from picture to picture changes nothing; errors lose nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "core/error.h"
#include "llm/language_context.h"
#include "llm/prompt.h"
#include "media/image_decoder.h"
#include "preprocess/clip_image_processor.h"
#include "session/model_impl.h"
#include "support/golden_model.h"

namespace llava_mini {
namespace {

using test::golden_path;

const SamplingOptions kShort{.max_tokens = 8, .temperature = 0, .ignore_eos = false};

std::shared_ptr<Model> load(KvType prefusion_kv = KvType::kF32, uint64_t cache_bytes = uint64_t{64} << 20) {
    return Model::load({.model = test::golden_model(),
                        .threads = 2,
                        .prefusion_kv = prefusion_kv,
                        .image_cache_bytes = cache_bytes});
}

Picture picture(const char* name) {
    return Model::read_picture(golden_path(std::string("pictures/") + name));
}

const SessionOptions kParity{.context = 1024, .kv_type = KvType::kF32};

std::string error_of(const std::function<void()>& work) {
    try {
        work();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

std::string stripped(const std::string& text) {
    const size_t begin = std::min(text.find_first_not_of(" \t\r\n"), text.size());
    return text.substr(begin, text.find_last_not_of(" \t\r\n") + 1 - begin);
}

// The third turn of a conversation with everything kept, against the whole conversation computed at once:
// earlier answers plain and hidden from the pre-fusion, all fused text in one run, all rows in one prefill.
TEST(Session, ThirdTurnEqualsTheConversationComputedAtOnce) {
    const auto model = load();
    Session session(model, kParity);
    session.add_image(picture("photo_640x480.jpg"));
    const std::vector<std::string> questions = {"What is in this picture?", "How many boats are there?",
                                                "Why?"};
    std::vector<Answer> answers;
    for (const std::string& question : questions) answers.push_back(session.ask(question, kShort));
    EXPECT_EQ(answers[0].cached_tokens, 0);
    // Everything up to the last token of the earlier answer is in the cache.
    EXPECT_GE(answers[1].cached_tokens, answers[0].prompt_tokens + answers[0].generated_tokens - 1);
    EXPECT_GE(answers[2].cached_tokens, answers[1].prompt_tokens + answers[1].generated_tokens - 1);

    // At once.
    Model::Impl& impl = model->impl();
    Timings timings;
    bool cached = false;
    const std::vector pictures{impl.encode(picture("photo_640x480.jpg"), {}, false, timings, cached)};
    EXPECT_TRUE(cached);
    Session replay(model, kParity);
    std::vector<Turn> turns{{{"system", impl.pipeline.hparams().system_prompt}}};
    std::vector<int32_t> last_answer;
    for (size_t turn = 0; turn < questions.size(); ++turn) {
        turns.push_back({{"user", (turn == 0 ? "<image>\n" : "") + questions[turn]}});
        const std::vector<PromptToken> prompt =
            tokenize_conversation(*impl.language, impl.chat_template, turns);
        std::vector<int32_t> fused_ids;
        for (const PromptToken& token : prompt) {
            if (token.kind == SegmentKind::kFused) fused_ids.push_back(token.id);
        }
        const Matrix fused = impl.pipeline.fuse_text(fused_ids, pictures, nullptr, timings);
        std::vector<float> rows;
        int64_t next = 0;
        for (const PromptToken& token : prompt) {
            const Matrix plain =
                token.kind == SegmentKind::kPlain ? impl.pipeline.embed({{token.id}}) : Matrix();
            const auto row = token.kind == SegmentKind::kImage
                                 ? std::span<const float>(pictures[0]->vision_tokens.data)
                             : token.kind == SegmentKind::kPlain ? std::span<const float>(plain.data)
                                                                 : fused.row(next++);
            rows.insert(rows.end(), row.begin(), row.end());
        }
        LanguageContext context(impl.language, {.n_ctx = 1024,
                                                .threads = 2,
                                                .kv_type = GGML_TYPE_F32,
                                                .flash_attention = FlashAttention::kOff,
                                                .stop = nullptr,
                                                .tap = {}});
        const auto n = static_cast<int>(rows.size()) / impl.language->n_embd();
        EXPECT_EQ(n, answers[turn].prompt_tokens);
        ASSERT_TRUE(context.decode_embeddings(rows.data(), n, true));
        last_answer.clear();
        while (static_cast<int>(last_answer.size()) < kShort.max_tokens) {
            const auto logits = context.logits();
            const auto id =
                static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
            last_answer.push_back(id);
            if (impl.language->is_end(id)) break;
            ASSERT_TRUE(context.decode_tokens({{id}}, true));
        }
        EXPECT_EQ(stripped(impl.language->detokenize(last_answer)), answers[turn].text) << "turn " << turn;
        turns.push_back({{"assistant", answers[turn].text}, last_answer});
    }
}

TEST(Session, FusionContinuedTurnByTurnEqualsFusionAtOnce) {
    const auto model = load();
    Pipeline& pipeline = model->impl().pipeline;
    Timings timings;
    bool cached = false;
    const std::vector pictures{model->impl().encode(picture("photo_640x480.jpg"), {}, false, timings, cached),
                               model->impl().encode(picture("tall_333x777.png"), {}, false, timings, cached)};
    const std::vector<int32_t> ids{768, 54,  322, 284, 281, 406, 413, 30,
                                   777, 774, 285, 82,  535, 83,  775, 198};
    const Matrix whole = pipeline.fuse_text(ids, pictures, nullptr, timings);
    TextFusion state;
    double worst = 0;
    for (size_t begin = 0; begin < ids.size(); begin += 5) {
        const size_t count = std::min<size_t>(5, ids.size() - begin);
        const Matrix part =
            pipeline.fuse_text(std::span(ids).subspan(begin, count), pictures, &state, timings);
        const std::span expected(whole.data.data() + begin * static_cast<size_t>(whole.cols),
                                 part.data.size());
        worst = std::max(worst, test::max_difference(part.data, expected));
    }
    EXPECT_EQ(state.rows, static_cast<int64_t>(ids.size()));
    EXPECT_LT(worst, 2e-5);  // rows of other counts go through other kernels: rounding only
}

TEST(Session, ACachedPictureGivesTheSameAnswer) {
    const auto model = load(KvType::kF16);
    Answer first, second;
    for (Answer* answer : {&first, &second}) {
        Session session(model);
        session.add_image(picture("photo_640x480.jpg"));
        *answer = session.ask("What is in this picture?", kShort);
    }
    EXPECT_EQ(first.pictures_cached, 0);
    EXPECT_GT(first.timings.vision_tower, 0);
    EXPECT_EQ(second.pictures_cached, 1);
    EXPECT_EQ(second.timings.vision_tower, 0);
    EXPECT_EQ(first.text, second.text);
    EXPECT_EQ(first.prompt_tokens, second.prompt_tokens);

    // Other settings, another encoding.
    Session session(model);
    session.add_image(picture("photo_640x480.jpg"), {.aspect_ratio = "square"});
    EXPECT_EQ(session.ask("What is in this picture?", kShort).pictures_cached, 0);
}

TEST(Session, WithoutRoomInTheCachePicturesAreEncodedAgain) {
    const auto model = load(KvType::kF16, /*cache_bytes=*/1000);
    for (int i = 0; i < 2; ++i) {
        Session session(model);
        session.add_image(picture("tiny_17x5.png"));
        EXPECT_EQ(session.ask("What is it?", kShort).pictures_cached, 0);
    }
    EXPECT_EQ(model->impl().image_cache.bytes(), 0u);
}

TEST(Session, ViewsEncodedTogetherEqualViewsEncodedAlone) {
    const auto model = load();
    Pipeline& pipeline = model->impl().pipeline;
    const VisionHparams& hp = pipeline.hparams();
    const Image image = decode_image(picture("photo_640x480.jpg").bytes);
    const PixelValues views = preprocess_image(image, hp, {.image_aspect_ratio = "", .resolution_ratio = 2});
    Timings timings;
    EncodingTrace together, alone;
    pipeline.encode_image(views, 0, {}, timings, &together);
    const size_t values = views.data.size() / static_cast<size_t>(views.views);
    for (int view = 0; view < views.views; ++view) {
        PixelValues one{1, views.size, {}};
        const auto begin = views.data.begin() + static_cast<ptrdiff_t>(values) * view;
        one.data.assign(begin, begin + static_cast<ptrdiff_t>(values));
        pipeline.encode_image(one, 0, {}, timings, &alone);
        EXPECT_LT(test::max_difference(alone.features.views[0].data,
                                       together.features.views[static_cast<size_t>(view)].data),
                  2e-5);
    }
}

TEST(Session, EveryStageCanBeTapped) {
    const auto model = load();
    Pipeline& pipeline = model->impl().pipeline;
    std::map<std::string, int64_t> rows;
    pipeline.backends().set_tap([&](const ggml_tensor* tensor) { rows[tensor->name] = ggml_nrows(tensor); });
    Session session(model);
    session.add_image(picture("photo_640x480.jpg"));
    session.ask("What?", {.max_tokens = 1});
    pipeline.backends().set_tap({});
    const int64_t patches = pipeline.hparams().patches();
    EXPECT_EQ(rows["v.pre_ln"], patches + 1);
    EXPECT_EQ(rows["v.blk.2.out"], patches + 1);
    EXPECT_EQ(rows["vision_features"], patches);
    EXPECT_EQ(rows["compressor_out"], 1);
    EXPECT_EQ(rows["projected"], patches + 1);
    EXPECT_GT(rows["prefusion.blk.0.out"], 1);  // the text's rows, which came last
    EXPECT_GT(rows["prefusion.blk.1.attn_residual"], 1);
    EXPECT_EQ(rows.count("v.blk.3.out"), 0u);  // CLIP's last layer is not computed
}

TEST(Session, SeveralPicturesGiveOneTokenGroupEach) {
    const auto model = load();
    Session session(model, kParity);
    session.add_image(picture("photo_640x480.jpg"));
    session.add_image(picture("tall_333x777.png"));
    const Answer both = session.ask("What differs?", kShort);
    EXPECT_EQ(both.vision_tokens, 2);
    session.reset();
    session.add_image(picture("tall_333x777.png"));
    session.add_image(picture("photo_640x480.jpg"));
    const Answer other_order = session.ask("What differs?", kShort);
    EXPECT_EQ(other_order.pictures_cached, 2);
    EXPECT_EQ(other_order.prompt_tokens, both.prompt_tokens);
    session.reset();
    EXPECT_EQ(session.pictures(), 0);
    EXPECT_EQ(session.ask("What differs?", kShort).vision_tokens, 0);
}

TEST(Session, APictureAddedLaterCountsFromTheFirstQuestionOn) {
    const auto model = load();
    Session late(model, kParity);
    late.ask("Hello", {.max_tokens = 1, .grammar = "root ::= \"a\""});
    late.add_image(picture("photo_640x480.jpg"));
    const Answer answer = late.ask("What is in this picture?", kShort);
    EXPECT_EQ(answer.cached_tokens, 0);
    EXPECT_EQ(answer.vision_tokens, 1);
}

TEST(Session, APromptLongerThanTheContextIsRefusedAndNothingIsLost) {
    const auto model = load();
    Session session(model, {.context = 256});
    session.add_image(picture("tiny_17x5.png"));
    const Answer before = session.ask("What?", kShort);
    std::string long_question;
    for (int i = 0; i < 300; ++i) long_question += "many words ";
    const std::string message = error_of([&] { session.ask(long_question, kShort); });
    EXPECT_THAT(message, testing::HasSubstr("the context has room for 256"));
    EXPECT_THAT(message, testing::ContainsRegex("the prompt has [0-9]+ tokens"));
    EXPECT_EQ(session.turns().size(), 1u);
    const Answer after = session.ask("Why?", kShort);
    EXPECT_GE(after.cached_tokens, before.prompt_tokens);
}

TEST(Session, AFullContextEndsTheAnswer) {
    const auto model = load();
    Session session(model, {.context = 160});
    const Answer answer = session.ask("What?", {.max_tokens = 0, .ignore_eos = true});
    EXPECT_EQ(answer.stop, StopReason::kContextFull);
    EXPECT_EQ(session.context_used(), session.context_size());
}

TEST(Session, ACallerCanStopAnAnswerAndGoOn) {
    const auto model = load();
    Session session(model);
    int pieces = 0;
    const SamplingOptions endless{.max_tokens = 50, .ignore_eos = true};
    const Answer stopped = session.ask("What?", endless, [&](std::string_view) { return ++pieces < 3; });
    EXPECT_EQ(stopped.stop, StopReason::kStopped);
    EXPECT_EQ(pieces, 3);
    EXPECT_EQ(session.ask("Why?", kShort).cached_tokens > 0, true);
}

TEST(Session, StopFromAnotherThread) {
    const auto model = load();
    Session session(model);
    std::thread stopper;
    const Answer answer =
        session.ask("What?", {.max_tokens = 500, .ignore_eos = true}, [&](std::string_view) {
            if (!stopper.joinable()) stopper = std::thread([&] { session.stop(); });
            return true;
        });
    stopper.join();
    EXPECT_EQ(answer.stop, StopReason::kStopped);
    EXPECT_LT(answer.generated_tokens, 500);
}

TEST(Session, BadQuestionsAreRefused) {
    const auto model = load();
    Session session(model);
    EXPECT_THAT(error_of([&] { session.ask(" \n", kShort); }), testing::HasSubstr("empty"));
    EXPECT_THAT(error_of([&] { session.ask("<image> what?", kShort); }), testing::HasSubstr("no picture"));
    session.add_image(picture("tiny_17x5.png"));
    EXPECT_NE(error_of([&] { session.ask("<image> or <image>?", kShort); }), "");
    EXPECT_NE(error_of([&] { session.ask("What?", {.grammar = "root ::= ("}); }), "");
    EXPECT_EQ(session.turns().size(), 0u);
    EXPECT_NE(error_of([&] { session.add_image({"rubbish", {1, 2, 3}}); }), "");
    EXPECT_EQ(session.pictures(), 1);
    EXPECT_NE(error_of([&] { session.add_image(picture("tiny_17x5.png"), {.vision_tokens = 4}); }), "");
}

TEST(Session, QuirksFuseTheWholeConversationAnew) {
    const auto model = load();
    SessionOptions options = kParity;
    options.official_quirks = true;
    Session session(model, options);
    session.add_image(picture("photo_640x480.jpg"));
    session.ask("What is in this picture!", kShort);
    EXPECT_EQ(session.ask("Why?", kShort).cached_tokens, 0);
}

TEST(Session, SessionsInSeveralThreadsShareAModel) {
    const auto model = load();
    Session alone(model, kParity);
    alone.add_image(picture("photo_640x480.jpg"));
    const std::string expected = alone.ask("What is in this picture?", kShort).text;
    std::vector<std::string> answers(3);
    std::vector<std::thread> threads;
    for (std::string& answer : answers) {
        threads.emplace_back([&] {
            Session session(model, kParity);
            session.add_image(picture("photo_640x480.jpg"));
            answer = session.ask("What is in this picture?", kShort).text;
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::string& answer : answers) EXPECT_EQ(answer, expected);
}

}  // namespace
}  // namespace llava_mini
