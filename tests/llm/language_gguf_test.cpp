#include "llm/language_gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>

#include "llava_mini/error.hpp"
#include "llm/models.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

using Edit = std::function<void(gguf_context*)>;

// The message with which loading the edited model fails.
std::string error_of(const Edit& edit) {
    const test::TempDir dir;
    const auto path = dir / "edited.gguf";
    test::write_edited_gguf(path, edit);
    try {
        const LanguageModel model(path);
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kInput);
        EXPECT_THAT(error.what(), HasSubstr("edited.gguf"));
        EXPECT_THAT(error.what(), Not(HasSubstr("\n")));
        return error.what();
    }
    return "no error";
}

TEST(LanguageGguf, ReadsTheDimensions) {
    const LlamaHparams hp = read_language_hparams(GgufFile(test::tiny_language_gguf()));
    EXPECT_EQ(hp.n_layer, 3);
    EXPECT_EQ(hp.n_embd, 64);
    EXPECT_EQ(hp.n_ff, 160);
    EXPECT_EQ(hp.n_head, 4);
    EXPECT_EQ(hp.n_head_kv, 2);
    EXPECT_EQ(hp.head_dim, 16);
    EXPECT_EQ(hp.n_vocab, 1024);
    EXPECT_EQ(hp.n_ctx_train, 131072);
    EXPECT_FLOAT_EQ(hp.rope_theta, 5e5f);
    EXPECT_FALSE(hp.tied_embeddings);
}

TEST(LanguageGguf, DamagedMetadataIsAnError) {
    const struct {
        const char* expected;
        Edit edit;
    } cases[] = {
        {"'llava-mini', expected 'llama'",
         [](gguf_context* g) { gguf_set_val_str(g, "general.architecture", "llava-mini"); }},
        {"'qwen2', expected 'llama'",
         [](gguf_context* g) { gguf_set_val_str(g, "general.architecture", "qwen2"); }},
        {"'general.architecture' is missing",
         [](gguf_context* g) { gguf_remove_key(g, "general.architecture"); }},
        {"'general.architecture' has type u32",
         [](gguf_context* g) { gguf_set_val_u32(g, "general.architecture", 1); }},
        {"split GGUF", [](gguf_context* g) { gguf_set_val_u16(g, "split.count", 2); }},
        {"'llama.block_count' is 0", [](gguf_context* g) { gguf_set_val_u32(g, "llama.block_count", 0); }},
        {"'llama.block_count' is 4294967295",
         [](gguf_context* g) { gguf_set_val_u32(g, "llama.block_count", UINT32_MAX); }},
        {"blk.3.attn_norm.weight is missing",
         [](gguf_context* g) { gguf_set_val_u32(g, "llama.block_count", 4); }},
        {"'llama.attention.head_count' is 0",
         [](gguf_context* g) { gguf_set_val_u32(g, "llama.attention.head_count", 0); }},
        {"4 attention heads cannot share 3",
         [](gguf_context* g) { gguf_set_val_u32(g, "llama.attention.head_count_kv", 3); }},
        {"one even number", [](gguf_context* g) { gguf_set_val_u32(g, "llama.rope.dimension_count", 8); }},
        {"one even number", [](gguf_context* g) { gguf_set_val_u32(g, "llama.attention.value_length", 8); }},
        {"blk.0.attn_q.weight has shape [64, 64], expected [128, 64]",
         [](gguf_context* g) {
             gguf_set_val_u32(g, "llama.attention.key_length", 32);
             gguf_set_val_u32(g, "llama.attention.value_length", 32);
             gguf_set_val_u32(g, "llama.rope.dimension_count", 32);
         }},
        {"'llama.embedding_length' has type i32",
         [](gguf_context* g) { gguf_set_val_i32(g, "llama.embedding_length", 64); }},
        {"'llama.expert_count' belongs to no model",
         [](gguf_context* g) { gguf_set_val_u32(g, "llama.expert_count", 8); }},
        {"'llama.odd?\?[31mkey' belongs to no model",  // control characters are not echoed
         [](gguf_context* g) { gguf_set_val_u32(g, "llama.odd\n\x1b[31mkey", 1); }},
        {"'yarn', expected 'none' or 'linear'",
         [](gguf_context* g) { gguf_set_val_str(g, "llama.rope.scaling.type", "yarn"); }},
        {"'llama.attention.layer_norm_rms_epsilon' is -1, expected 0 to 1",
         [](gguf_context* g) { gguf_set_val_f32(g, "llama.attention.layer_norm_rms_epsilon", -1); }},
        {"'llama.attention.layer_norm_rms_epsilon' is nan",
         [](gguf_context* g) { gguf_set_val_f32(g, "llama.attention.layer_norm_rms_epsilon", NAN); }},
        {"'llama.rope.freq_base' is 0",
         [](gguf_context* g) { gguf_set_val_f32(g, "llama.rope.freq_base", 0); }},
        {"'llama.rope.scaling.factor' is inf",
         [](gguf_context* g) { gguf_set_val_f32(g, "llama.rope.scaling.factor", INFINITY); }},
        {"'tokenizer.chat_template' has type",
         [](gguf_context* g) { gguf_set_val_u32(g, "tokenizer.chat_template", 1); }},
        {"the tokenizer is 'bert'",
         [](gguf_context* g) { gguf_set_val_str(g, "tokenizer.ggml.model", "bert"); }},
        {"'tokenizer.ggml.tokens' is missing",
         [](gguf_context* g) { gguf_remove_key(g, "tokenizer.ggml.tokens"); }},
        {"'tokenizer.ggml.tokens' is not an array of str",
         [](gguf_context* g) { gguf_set_val_str(g, "tokenizer.ggml.tokens", "a"); }},
        {"token_embd.weight has shape [1024, 64], expected [2, 64]",
         [](gguf_context* g) {
             const char* two[] = {"a", "b"};
             gguf_set_arr_str(g, "tokenizer.ggml.tokens", two, 2);
             gguf_remove_key(g, "tokenizer.ggml.token_type");
         }},
        {"'tokenizer.ggml.token_type' has 3 entries",
         [](gguf_context* g) {
             const int32_t three[] = {1, 1, 1};
             gguf_set_arr_data(g, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, three, 3);
         }},
        {"are the same text 'twice'",
         [](gguf_context* g) {
             std::vector<const char*> tokens(1024, "twice");
             gguf_set_arr_str(g, "tokenizer.ggml.tokens", tokens.data(), tokens.size());
         }},
        {"cannot find tokenizer merges",
         [](gguf_context* g) { gguf_remove_key(g, "tokenizer.ggml.merges"); }},
        {"unknown pre-tokenizer",
         [](gguf_context* g) { gguf_set_val_str(g, "tokenizer.ggml.pre", "nothing"); }},
    };
    for (const auto& c : cases) EXPECT_THAT(error_of(c.edit), HasSubstr(c.expected));
}

TEST(LanguageGguf, AllTensorProblemsAreInOneMessage) {
    const std::string message = error_of([](gguf_context* g) {
        gguf_set_val_u32(g, "llama.feed_forward_length", 128);
        gguf_set_tensor_type(g, "blk.1.attn_q.weight", GGML_TYPE_I32);
        gguf_set_tensor_type(g, "output_norm.weight", GGML_TYPE_F16);
    });
    EXPECT_THAT(message, HasSubstr("blk.0.ffn_gate.weight has shape [160, 64], expected [128, 64]"));
    EXPECT_THAT(message, HasSubstr("blk.2.ffn_down.weight has shape [64, 160], expected [64, 128]"));
    EXPECT_THAT(message, HasSubstr("blk.1.attn_q.weight has type i32"));
    EXPECT_THAT(message, HasSubstr("output_norm.weight has type f16"));
}

TEST(LanguageGguf, OddButHarmlessMetadataIsAccepted) {
    const test::TempDir dir;
    const auto path = dir / "odd.gguf";
    test::write_edited_gguf(path, [](gguf_context* g) {
        gguf_set_val_u32(g, "tokenizer.ggml.bos_token_id", 4000000000u);  // libllama keeps its default
        gguf_set_val_u32(g, "tokenizer.ggml.padding_token_id", 99999);
        gguf_set_val_str(g, "general.name", "odd\nname");
    });
    const LanguageModel model(path);
    EXPECT_TRUE(model.is_token(model.bos()));
}

TEST(LanguageGguf, FilesThatAreNoGgufAreErrors) {
    const test::TempDir dir;
    const std::string whole = read_text_file(test::tiny_language_gguf(), 1u << 24);
    for (const size_t size : {size_t{0}, size_t{3}, size_t{4}, size_t{24}, size_t{5000}, whole.size() - 1}) {
        EXPECT_THROW(LanguageModel(dir.write("cut.gguf", whole.substr(0, size))), Error) << size << " bytes";
    }
    EXPECT_THROW(LanguageModel(dir.write("text.gguf", "Once upon a time")), Error);
    EXPECT_THROW(LanguageModel(dir / "missing.gguf"), Error);
    EXPECT_THROW(LanguageModel(dir.path()), Error);
    ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
    EXPECT_THROW(LanguageModel(dir / "fifo"), Error);
}

}  // namespace
}  // namespace llava_mini
