#include "llm/language_model.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "llava_mini/error.hpp"
#include "llm/models.h"
#include "llm/token_embeddings.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

nlohmann::json recorded_tokens() {
    return nlohmann::json::parse(std::ifstream(test::golden_path("unit/tokens.json")));
}

TEST(LanguageModel, TokenizesAsRecorded) {
    const auto model = test::tiny_model();
    for (const auto& entry : recorded_tokens()) {
        const std::string text = entry.at("text");
        EXPECT_EQ(model->tokenize(text, /*parse_special=*/true),
                  entry.at("plain").get<std::vector<int32_t>>())
            << "'" << text << "'";
    }
}

TEST(LanguageModel, DetokenizesAsRecorded) {
    const auto model = test::tiny_model();
    for (const auto& entry : recorded_tokens()) {
        EXPECT_EQ(model->detokenize(entry.at("plain").get<std::vector<int32_t>>()),
                  entry.at("decoded").get<std::string>());
    }
}

TEST(LanguageModel, ControlTokensAreLettersUnlessParsed) {
    const auto model = test::tiny_model();
    EXPECT_EQ(model->tokenize("<|eot_id|>", true), std::vector<int32_t>{777});
    const std::vector<int32_t> letters = model->tokenize("<|eot_id|>", false);
    EXPECT_GT(letters.size(), 3u);
    EXPECT_EQ(model->detokenize(letters), "<|eot_id|>");
    EXPECT_EQ(model->token_bytes(777), "");
    EXPECT_EQ(model->token_bytes(777, /*with_control=*/true), "<|eot_id|>");
}

TEST(LanguageModel, KnowsItsSpecialTokens) {
    const auto model = test::tiny_model();
    EXPECT_EQ(model->n_vocab(), 1024);
    EXPECT_EQ(model->n_embd(), 64);
    EXPECT_EQ(model->hparams().n_head_kv, 2);
    EXPECT_EQ(model->bos(), 768);
    EXPECT_TRUE(model->adds_bos());
    for (const int32_t end : {769, 776, 777}) EXPECT_TRUE(model->is_end(end)) << end;
    for (const int32_t other : {0, 768, 774, 775, -200, 5000}) EXPECT_FALSE(model->is_end(other)) << other;
    EXPECT_EQ(model->token_text(768), "<|begin_of_text|>");
    EXPECT_EQ(model->control_tokens().size(), 256u);
    for (const auto& token : model->control_tokens()) EXPECT_EQ(model->token_text(token.id), token.text);
}

TEST(LanguageModel, TextThatIsNoUtf8IsTokenizedToo) {
    const auto model = test::tiny_model();
    for (const char* text : {"\xFF\xFE", "a\xE2\x82", "\xED\xA0\x80", "\xC0\xAF"}) {
        EXPECT_FALSE(model->tokenize(text, true).empty());
    }
    EXPECT_EQ(model->tokenize(std::string_view("a\0b", 3), true).size(), 3u);
}

TEST(LanguageModel, IdsOutsideTheVocabularyAreErrors) {
    const auto model = test::tiny_model();
    for (const int32_t id : {-1, -200, 1024, INT32_MAX, INT32_MIN}) {
        EXPECT_THROW(model->token_bytes(id), Error) << id;
        EXPECT_EQ(model->token_text(id), "");
        EXPECT_FALSE(model->is_token(id));
    }
}

TEST(LanguageModel, TokenizerServesManyThreads) {
    const auto model = test::tiny_model();
    const std::string text = "Look at the harbour, the wooden pier and the three boats.";
    const auto expected = model->tokenize(text, true);
    std::vector<std::vector<int32_t>> results(4);
    std::vector<std::thread> threads;
    for (auto& result : results) {
        threads.emplace_back([&] {
            for (int i = 0; i < 50; ++i) result = model->tokenize(text, true);
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& result : results) EXPECT_EQ(result, expected);
}

TEST(LanguageModel, LoadingReportsProgressAndCanBeStopped) {
    uint64_t last = 0;
    const LanguageModel loaded(test::tiny_language_gguf(), {},
                               [&](uint64_t done, uint64_t total, std::string_view) {
                                   EXPECT_EQ(total, 1000u);
                                   last = done;
                                   return true;
                               });
    EXPECT_EQ(last, 1000u);
    EXPECT_GT(loaded.weight_bytes(), 100000u);
    EXPECT_THROW(LanguageModel(test::tiny_language_gguf(), {},
                               [](uint64_t, uint64_t, std::string_view) { return false; }),
                 Error);
}

TEST(TokenEmbeddings, EqualTheRecordedEmbeddings) {
    // A prompt without a picture is not fused, so its recorded embeddings are the plain rows.
    const auto ids64 = read_npy(test::golden_path("cases/text_only/input_ids.npy")).as_int64();
    const std::vector<int32_t> ids(ids64.begin(), ids64.end());
    const TokenEmbeddings embeddings(test::tiny_language_gguf());
    const Matrix rows = embeddings.rows(ids);
    const auto recorded = read_npy(test::golden_path("cases/text_only/inputs_embeds.npy")).as_float();
    EXPECT_EQ(rows.rows, static_cast<int64_t>(ids.size()));
    EXPECT_EQ(test::max_difference(rows.data, recorded), 0.0);
}

TEST(TokenEmbeddings, OutsideTheVocabularyIsAnError) {
    const TokenEmbeddings embeddings(test::tiny_language_gguf());
    EXPECT_EQ(embeddings.n_vocab(), 1024);
    std::vector<float> row(static_cast<size_t>(embeddings.n_embd()));
    embeddings.row(1023, row.data());
    for (const int32_t id : {-200, -1, 1024}) EXPECT_THROW(embeddings.row(id, row.data()), Error) << id;
    EXPECT_EQ(embeddings.rows({}).rows, 0);
}

TEST(TokenEmbeddings, FileWithoutTheMatrixIsAnError) {
    const test::TempDir dir;
    EXPECT_THROW(TokenEmbeddings(dir / "missing.gguf"), Error);
    EXPECT_THROW(TokenEmbeddings(dir.write("noise.gguf", "GGUF but not really")), Error);
}

}  // namespace
}  // namespace llava_mini
