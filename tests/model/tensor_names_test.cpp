#include "model/tensor_names.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "support/test_data.h"

namespace llava_mini {
namespace {

VisionHparams tiny_vision() {
    VisionHparams hp;
    hp.n_layer = 2;
    hp.n_embd = 256;
    hp.n_ff = 128;
    hp.n_head = 4;
    hp.compressor_grids = {1};
    hp.prefusion.n_layer = 2;
    hp.prefusion.n_embd = 64;
    hp.prefusion.n_ff = 160;
    hp.prefusion.n_head = 4;
    hp.prefusion.n_head_kv = 2;
    hp.prefusion.head_dim = 16;
    hp.prefusion.n_vocab = 1024;
    return hp;
}

std::map<std::string, TensorSpec> by_gguf_name(const std::vector<TensorSpec>& specs) {
    std::map<std::string, TensorSpec> map;
    std::set<std::string> checkpoint;
    for (const TensorSpec& spec : specs) {
        EXPECT_TRUE(map.emplace(spec.gguf, spec).second) << spec.gguf << " twice";
        EXPECT_TRUE(checkpoint.insert(spec.checkpoint).second) << spec.checkpoint << " twice";
        EXPECT_LT(spec.gguf.size(), 64u) << "GGUF names have at most 63 bytes";
        EXPECT_EQ(spec.keep == Keep::kFull, spec.shape.size() == 1 ||
                                                spec.gguf.find("position") != std::string::npos ||
                                                spec.gguf.find("query") != std::string::npos ||
                                                spec.gguf.find("pos_embed") != std::string::npos)
            << spec.gguf;
    }
    return map;
}

TEST(TensorNames, NamesAreUniqueAndVectorsStayWhole) {
    const VisionHparams hp = tiny_vision();
    EXPECT_EQ(by_gguf_name(tower_tensors(hp)).size(), 5u + 2 * 16);
    EXPECT_EQ(by_gguf_name(bridge_tensors(hp)).size(), 2u + 4 + 4 + 4 + 2 * 9);
    EXPECT_EQ(by_gguf_name(language_tensors(hp.prefusion)).size(), 3u + 2 * 9);
}

TEST(TensorNames, OnlyQueriesAndKeysOfTheLanguageModelAreInterleaved) {
    const VisionHparams hp = tiny_vision();
    for (const TensorSpec& spec : bridge_tensors(hp)) EXPECT_EQ(spec.interleave_heads, 0) << spec.gguf;
    for (const auto& [name, spec] : by_gguf_name(language_tensors(hp.prefusion))) {
        const int expected = name.ends_with("attn_q.weight") ? 4 : name.ends_with("attn_k.weight") ? 2 : 0;
        EXPECT_EQ(spec.interleave_heads, expected) << name;
    }
}

TEST(TensorNames, SeveralGridsHaveNamesOfTheirOwn) {
    VisionHparams hp = tiny_vision();
    hp.compressor_grids = {1, 3};
    const auto specs = by_gguf_name(bridge_tensors(hp));
    EXPECT_EQ(specs.at("compressor.3.query").checkpoint, "compressor.query.3");
    EXPECT_EQ(specs.at("compressor.3.query").shape, (std::vector<int64_t>{9, 256}));
    EXPECT_EQ(specs.at("compressor.1.pos_embed").checkpoint, "compressor.pos_embed.1");
    hp.compressor_grids = {3};
    EXPECT_EQ(by_gguf_name(bridge_tensors(hp)).at("compressor.3.query").checkpoint, "compressor.query");
}

TEST(TensorNames, TiedEmbeddingsHaveNoOutputMatrix) {
    LlamaHparams hp = tiny_vision().prefusion;
    hp.tied_embeddings = true;
    EXPECT_FALSE(by_gguf_name(language_tensors(hp)).contains("output.weight"));
}

TEST(RopeFactors, EqualTheRecordedFrequencies) {
    struct Case {
        const char* file;
        int head_dim;
        float theta, factor, context;
    };
    for (const Case& c : {Case{"unit/rope/tiny_a_inv_freq.npy", 16, 5e5f, 8.0f, 8192.0f},
                          Case{"unit/rope/llama31_8b_inv_freq.npy", 128, 5e5f, 8.0f, 8192.0f},
                          Case{"unit/rope/head16_factor4_ctx2048_inv_freq.npy", 16, 5e5f, 4.0f, 2048.0f}}) {
        const auto recorded = read_npy(test::golden_path(c.file)).as_float();
        const auto factors = llama3_rope_freq_factors(c.head_dim, c.theta, c.factor, 1.0f, 4.0f, c.context);
        ASSERT_EQ(factors.size(), recorded.size()) << c.file;
        for (size_t i = 0; i < factors.size(); ++i) {
            const double frequency = std::pow(double{c.theta}, -2.0 * static_cast<double>(i) / c.head_dim);
            EXPECT_NEAR(frequency / factors[i] / recorded[i], 1.0, 1e-6) << c.file << " " << i;
        }
    }
}

}  // namespace
}  // namespace llava_mini
