#include "llm/language_context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "llava_mini/error.hpp"
#include "llm/models.h"
#include "llm/token_embeddings.h"
#include "support/golden_model.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using ::testing::HasSubstr;

LanguageContextOptions parity_options() {
    LanguageContextOptions options;
    options.n_ctx = 512;
    options.threads = 1;
    options.kv_type = GGML_TYPE_F32;
    options.flash_attention = FlashAttention::kOff;
    return options;
}

std::vector<int32_t> golden_ids(const std::string& file) {
    const auto ids = read_npy(test::golden_path(file)).as_int64();
    return {ids.begin(), ids.end()};
}

int32_t likeliest(std::span<const float> logits) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::vector<float> logits_after(LanguageContext& context, std::span<const int32_t> ids) {
    EXPECT_TRUE(context.decode_tokens(ids, /*want_logits=*/true));
    return {context.logits().begin(), context.logits().end()};
}

// Recorded embeddings in, recorded logits and greedy continuation out.
void expect_recorded(const std::string& name) {
    LanguageContext context(test::tiny_model(), parity_options());
    const std::string dir = "cases/" + name + "/";
    const auto embeddings = read_npy(test::golden_path(dir + "inputs_embeds.npy")).as_float();
    const int n = static_cast<int>(embeddings.size()) / context.model().n_embd();
    ASSERT_TRUE(context.decode_embeddings(embeddings.data(), n, /*want_logits=*/true));
    EXPECT_EQ(context.n_past(), n);
    EXPECT_LE(test::max_difference(context.logits(),
                                   read_npy(test::golden_path(dir + "logits_last.npy")).as_float()),
              2e-4);
    const auto greedy_ids = golden_ids(dir + "greedy_ids.npy");
    const auto greedy_logits = read_npy(test::golden_path(dir + "greedy_logits.npy")).as_float();
    const auto n_vocab = static_cast<size_t>(context.model().n_vocab());
    for (size_t i = 0; i < greedy_ids.size(); ++i) {
        EXPECT_LE(
            test::max_difference(context.logits(), std::span(greedy_logits).subspan(i * n_vocab, n_vocab)),
            2e-4);
        const int32_t id = likeliest(context.logits());
        EXPECT_EQ(id, greedy_ids[i]) << "token " << i;
        ASSERT_TRUE(context.decode_tokens({&id, 1}, /*want_logits=*/true));
    }
}

TEST(LanguageContext, RecordedTextOnly) {
    expect_recorded("text_only");
}
TEST(LanguageContext, RecordedConversation) {
    expect_recorded("multi_turn");
}
TEST(LanguageContext, RecordedLongPrompt) {
    expect_recorded("single_long");
}

TEST(LanguageContext, TokensAndTheirEmbeddingsAreTheSame) {
    const auto ids = golden_ids("cases/text_only/input_ids.npy");
    LanguageContext by_token(test::tiny_model(), parity_options()),
        by_row(test::tiny_model(), parity_options());
    const Matrix rows = TokenEmbeddings(test::tiny_language_gguf()).rows(ids);
    ASSERT_TRUE(by_row.decode_embeddings(rows.data.data(), static_cast<int>(rows.rows), true));
    EXPECT_EQ(test::max_difference(logits_after(by_token, ids), by_row.logits()), 0.0);
}

TEST(LanguageContext, TokensAndTheirEmbeddingsAreTheSameInEveryType) {
    const auto ids = golden_ids("cases/text_only/input_ids.npy");
    for (const ggml_type type : {GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0}) {
        const auto file = test::golden_model(type) / kLanguageFile;
        const auto model = std::make_shared<const LanguageModel>(file);
        LanguageContext by_token(model, parity_options()), by_row(model, parity_options());
        const Matrix rows = TokenEmbeddings(file).rows(ids);
        ASSERT_TRUE(by_row.decode_embeddings(rows.data.data(), static_cast<int>(rows.rows), true));
        EXPECT_EQ(test::max_difference(logits_after(by_token, ids), by_row.logits()), 0.0)
            << ggml_type_name(type);
    }
}

TEST(LanguageContext, BatchesOfAnySizeAgree) {
    const auto ids = golden_ids("cases/text_only/input_ids.npy");
    LanguageContext whole(test::tiny_model(), parity_options());
    const auto expected = logits_after(whole, ids);
    for (const int n_batch : {1, 7, 64}) {
        LanguageContextOptions options = parity_options();
        options.n_batch = n_batch;
        LanguageContext context(test::tiny_model(), options);
        EXPECT_LE(test::max_difference(logits_after(context, ids), expected), 5e-6) << n_batch;
        EXPECT_EQ(context.n_past(), static_cast<int>(ids.size()));
    }
}

TEST(LanguageContext, KeptPrefixEqualsRecomputed) {
    const auto ids = golden_ids("cases/text_only/input_ids.npy");
    LanguageContext context(test::tiny_model(), parity_options()),
        fresh(test::tiny_model(), parity_options());
    const std::vector<int32_t> other(40, 100);
    logits_after(context, std::span(ids).first(50));
    logits_after(context, other);
    context.keep_prefix(50);
    EXPECT_EQ(context.n_past(), 50);
    logits_after(fresh, std::span(ids).first(50));
    EXPECT_EQ(test::max_difference(logits_after(context, std::span(ids).subspan(50)),
                                   logits_after(fresh, std::span(ids).subspan(50))),
              0.0);
    context.keep_prefix(0);
    EXPECT_EQ(context.n_past(), 0);
    EXPECT_LE(test::max_difference(logits_after(context, ids), fresh.logits()), 5e-6);
    context.keep_prefix(1000);  // nothing to forget
    EXPECT_EQ(context.n_past(), static_cast<int>(ids.size()));
    EXPECT_THROW(context.keep_prefix(-1), Error);
}

TEST(LanguageContext, HalfPrecisionCacheAndFlashAttentionStayClose) {
    const auto ids = golden_ids("cases/text_only/input_ids.npy");
    LanguageContext exact(test::tiny_model(), parity_options());
    const auto expected = logits_after(exact, ids);
    for (const auto& [type, attention] :
         {std::pair(GGML_TYPE_F32, FlashAttention::kOn), std::pair(GGML_TYPE_F16, FlashAttention::kOff),
          std::pair(GGML_TYPE_F16, FlashAttention::kAuto)}) {
        LanguageContextOptions options = parity_options();
        options.kv_type = type;
        options.flash_attention = attention;
        LanguageContext context(test::tiny_model(), options);
        EXPECT_LE(test::max_difference(logits_after(context, ids), expected), 2e-2);
    }
}

TEST(LanguageContext, CountsItsCache) {
    LanguageContextOptions options = parity_options();
    LanguageContext f32(test::tiny_model(), options);
    EXPECT_EQ(f32.kv_bytes_per_position(), 3u * 2 * 2 * 16 * 4);  // layers, K and V, heads, width, bytes
    options.kv_type = GGML_TYPE_F16;
    LanguageContext f16(test::tiny_model(), options);
    EXPECT_EQ(f16.kv_bytes_per_position(), 3u * 2 * 2 * 16 * 2);
    options.n_ctx = 0;
    options.kv_type = GGML_TYPE_F16;
    EXPECT_EQ(LanguageContext(test::tiny_model(), options).n_ctx(), 131072);
}

TEST(LanguageContext, TooLongPromptNamesBothNumbers) {
    LanguageContextOptions options = parity_options();
    options.n_ctx = 20;
    LanguageContext context(test::tiny_model(), options);
    const std::vector<int32_t> ids(15, 5);
    ASSERT_TRUE(context.decode_tokens(ids, false));
    try {
        context.decode_tokens(ids, true);
        FAIL() << "no error";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kInput);
        EXPECT_THAT(error.what(), HasSubstr("30"));
        EXPECT_THAT(error.what(), HasSubstr("20"));
    }
    EXPECT_EQ(context.n_past(), 15);
    EXPECT_TRUE(context.decode_tokens(std::span(ids).first(5), true));  // exactly full
    EXPECT_EQ(context.n_past(), 20);
    EXPECT_THROW(context.decode_tokens(std::span(ids).first(1), true), Error);
}

TEST(LanguageContext, OddInputIsHandled) {
    LanguageContext context(test::tiny_model(), parity_options());
    EXPECT_TRUE(context.decode_tokens({}, true));
    EXPECT_TRUE(context.logits().empty());
    EXPECT_TRUE(context.decode_embeddings(nullptr, 0, true));
    EXPECT_THROW(context.decode_embeddings(nullptr, -1, true), Error);
    for (const int32_t id : {-200, -1, 1024, INT32_MAX}) {
        EXPECT_THROW(context.decode_tokens({&id, 1}, true), Error) << id;
    }
    EXPECT_EQ(context.n_past(), 0);
    const std::vector<float> rows(64, std::nanf(""));
    EXPECT_TRUE(context.decode_embeddings(rows.data(), 1, true));
    EXPECT_EQ(context.logits().size(), 1024u);
}

TEST(LanguageContext, StopFlagLeavesTheCacheAsItWas) {
    std::atomic<bool> stop = false;
    LanguageContextOptions options = parity_options();
    options.stop = &stop;
    options.n_batch = 16;
    int seen = 0;
    options.tap = [&](ggml_tensor*, bool ask) {  // stops in the third batch
        if (!ask && ++seen == 250) stop = true;
        return true;
    };
    const auto ids = golden_ids("cases/text_only/input_ids.npy");
    LanguageContext context(test::tiny_model(), options);
    const std::vector<int32_t> start(10, 5);
    ASSERT_TRUE(context.decode_tokens(start, false));
    seen = 0;
    EXPECT_FALSE(context.decode_tokens(ids, true));
    EXPECT_TRUE(context.logits().empty());
    EXPECT_EQ(context.n_past(), 10);

    stop = false;
    LanguageContext fresh(test::tiny_model(), parity_options());
    ASSERT_TRUE(fresh.decode_tokens(start, false));
    EXPECT_LE(test::max_difference(logits_after(context, ids), logits_after(fresh, ids)), 5e-6);
}

TEST(LanguageContext, TapSeesEveryLayer) {
    std::vector<std::string> layers;
    LanguageContextOptions options = parity_options();
    options.tap = [&](ggml_tensor* tensor, bool ask) {
        const std::string name = tensor->name;
        if (ask) return name.starts_with("l_out-") || name == "result_norm";
        layers.push_back(name);
        return true;
    };
    LanguageContext context(test::tiny_model(), options);
    logits_after(context, std::vector<int32_t>{768, 5, 6});
    EXPECT_THAT(layers, ::testing::ElementsAre("l_out-0", "l_out-1", "l_out-2", "result_norm"));
}

TEST(LanguageContext, OptionsThatMakeNoSenseAreErrors) {
    const auto expect_error = [](LanguageContextOptions options) {
        EXPECT_THROW(LanguageContext(test::tiny_model(), options), Error);
    };
    LanguageContextOptions options = parity_options();
    options.kv_type = GGML_TYPE_Q8_0;  // with flash attention off
    expect_error(options);
    options.flash_attention = FlashAttention::kAuto;  // heads of 16 hold no block of 32
    expect_error(options);
    options.kv_type = GGML_TYPE_I32;
    expect_error(options);
    options = parity_options();
    options.n_batch = 0;
    expect_error(options);
    options = parity_options();
    options.n_ctx = -1;
    expect_error(options);
    EXPECT_EQ(parse_kv_type("q8_0"), GGML_TYPE_Q8_0);
    EXPECT_THROW(parse_kv_type("q3"), Error);
}

TEST(LanguageContext, ContextsOfOneModelRunAtTheSameTime) {
    const auto ids = golden_ids("cases/text_only/input_ids.npy");
    LanguageContext alone(test::tiny_model(), parity_options());
    const auto expected = logits_after(alone, ids);
    std::vector<std::vector<float>> results(3);
    std::vector<std::thread> threads;
    for (auto& result : results) {
        threads.emplace_back([&] {
            LanguageContext context(test::tiny_model(), parity_options());
            result = logits_after(context, ids);
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& result : results) EXPECT_EQ(test::max_difference(result, expected), 0.0);
}

TEST(LanguageContext, ThreadsCanBeChanged) {
    LanguageContext context(test::tiny_model(), parity_options());
    context.set_threads(1);
    EXPECT_EQ(context.threads(), 1);
    const auto ids = golden_ids("cases/text_only/input_ids.npy");
    const auto one = logits_after(context, ids);
    context.keep_prefix(0);
    context.set_threads(2);
    EXPECT_LE(test::max_difference(logits_after(context, ids), one), 5e-6);
}

}  // namespace
}  // namespace llava_mini
