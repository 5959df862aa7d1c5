#include "model/hparams.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>

#include "support/error_text.h"

namespace llava_mini {
namespace {

using ::testing::HasSubstr;

struct FreeGguf {
    void operator()(gguf_context* gguf) const { gguf_free(gguf); }
};
using Gguf = std::unique_ptr<gguf_context, FreeGguf>;

VisionHparams some_hparams() {
    VisionHparams hp;
    hp.name = "some model";
    hp.image_size = 28;
    hp.patch_size = 14;
    hp.n_layer = 5;
    hp.n_embd = 256;
    hp.n_ff = 512;
    hp.n_head = 4;
    hp.layer_norm_eps = 1e-6f;
    hp.activation = "gelu";
    hp.image_mean = {0.5f, 0.25f, 0.125f};
    hp.image_std = {1.0f, 2.0f, 4.0f};
    hp.image_aspect_ratio = "pad";
    hp.resolution_ratio = 2;
    hp.compressor_grids = {2, 1};
    hp.compressor_head_dim = 64;
    hp.prefusion.n_layer = 3;
    hp.prefusion.n_embd = 96;
    hp.prefusion.n_ff = 160;
    hp.prefusion.n_head = 6;
    hp.prefusion.n_head_kv = 2;
    hp.prefusion.head_dim = 24;
    hp.prefusion.rms_eps = 1e-6f;
    hp.prefusion.rope_theta = 500000.0f;
    hp.prefusion.rope_linear_factor = 2.0f;
    hp.max_prompt_tokens = 2048;
    hp.system_prompt = "Be \xc3\xbc helpful.\n";
    return hp;
}

Gguf written(const VisionHparams& hp) {
    Gguf gguf(gguf_init_empty());
    write_vision_hparams(gguf.get(), hp);
    return gguf;
}

TEST(VisionHparams, ReadAsWritten) {
    const VisionHparams hp = some_hparams();
    const VisionHparams read = read_vision_hparams(written(hp).get(), "file");
    EXPECT_EQ(read.name, hp.name);
    EXPECT_EQ(read.image_size, hp.image_size);
    EXPECT_EQ(read.patch_size, hp.patch_size);
    EXPECT_EQ(read.n_layer, hp.n_layer);
    EXPECT_EQ(read.n_embd, hp.n_embd);
    EXPECT_EQ(read.n_ff, hp.n_ff);
    EXPECT_EQ(read.n_head, hp.n_head);
    EXPECT_EQ(read.layer_norm_eps, hp.layer_norm_eps);
    EXPECT_EQ(read.activation, hp.activation);
    EXPECT_EQ(read.image_mean, hp.image_mean);
    EXPECT_EQ(read.image_std, hp.image_std);
    EXPECT_EQ(read.image_aspect_ratio, hp.image_aspect_ratio);
    EXPECT_EQ(read.resolution_ratio, hp.resolution_ratio);
    EXPECT_EQ(read.compressor_grids, hp.compressor_grids);
    EXPECT_EQ(read.compressor_head_dim, hp.compressor_head_dim);
    EXPECT_EQ(read.prefusion.n_layer, hp.prefusion.n_layer);
    EXPECT_EQ(read.prefusion.n_embd, hp.prefusion.n_embd);
    EXPECT_EQ(read.prefusion.n_ff, hp.prefusion.n_ff);
    EXPECT_EQ(read.prefusion.n_head, hp.prefusion.n_head);
    EXPECT_EQ(read.prefusion.n_head_kv, hp.prefusion.n_head_kv);
    EXPECT_EQ(read.prefusion.head_dim, hp.prefusion.head_dim);
    EXPECT_EQ(read.prefusion.rms_eps, hp.prefusion.rms_eps);
    EXPECT_EQ(read.prefusion.rope_theta, hp.prefusion.rope_theta);
    EXPECT_EQ(read.prefusion.rope_linear_factor, hp.prefusion.rope_linear_factor);
    EXPECT_EQ(read.max_prompt_tokens, hp.max_prompt_tokens);
    EXPECT_EQ(read.system_prompt, hp.system_prompt);
}

TEST(VisionHparams, NoCompressorAndNoPrefusion) {
    VisionHparams hp = some_hparams();
    hp.compressor_grids.clear();
    hp.prefusion.n_layer = 0;
    const VisionHparams read = read_vision_hparams(written(hp).get(), "file");
    EXPECT_TRUE(read.compressor_grids.empty());
    EXPECT_EQ(read.prefusion.n_layer, 0);
    EXPECT_EQ(read.vision_tokens(1), 4);
}

struct Malformed {
    const char* name;
    std::function<void(gguf_context*)> bend;
    const char* expected;
};

class MalformedHparams : public ::testing::TestWithParam<Malformed> {};

TEST_P(MalformedHparams, IsRejectedWithOneClearLine) {
    const Gguf gguf = written(some_hparams());
    GetParam().bend(gguf.get());
    const std::string text = test::error_text([&] { read_vision_hparams(gguf.get(), "file"); });
    EXPECT_THAT(text, ::testing::StartsWith("file: "));
    EXPECT_THAT(text, HasSubstr(GetParam().expected));
}

Malformed number(const char* name, const char* key, uint32_t value, const char* expected) {
    return {name, [=](gguf_context* gguf) { gguf_set_val_u32(gguf, key, value); }, expected};
}

Malformed fraction(const char* name, const char* key, float value, const char* expected) {
    return {name, [=](gguf_context* gguf) { gguf_set_val_f32(gguf, key, value); }, expected};
}

Malformed removed(const char* name, const char* key) {
    return {name, [=](gguf_context* gguf) { gguf_remove_key(gguf, key); }, key};
}

template <typename T>
Malformed list(const char* name, const char* key, gguf_type type, std::vector<T> values,
               const char* expected) {
    return {name,
            [=](gguf_context* gguf) { gguf_set_arr_data(gguf, key, type, values.data(), values.size()); },
            expected};
}

INSTANTIATE_TEST_SUITE_P(
    Table, MalformedHparams,
    ::testing::Values(
        Malformed{"empty",
                  [](gguf_context* gguf) {
                      while (gguf_get_n_kv(gguf) > 0)
                          gguf_remove_key(gguf, std::string(gguf_get_key(gguf, 0)).c_str());
                  },
                  "general.architecture is missing"},
        Malformed{"other_architecture",
                  [](gguf_context* gguf) { gguf_set_val_str(gguf, "general.architecture", "clip"); },
                  "general.architecture: expected \"llava-mini\", found \"clip\""},
        number("version_too_new", "llava-mini.version", kVisionGgufVersion + 1, "update the program"),
        number("version_zero", "llava-mini.version", 0, "llava-mini.version"),
        number("version_huge", "llava-mini.version", UINT32_MAX, "llava-mini.version"),
        removed("no_version", "llava-mini.version"),
        removed("no_width", "llava-mini.vision.embedding_length"),
        removed("no_layers", "llava-mini.prefusion.block_count"),
        removed("no_head_dim", "llava-mini.compressor.head_dim"),
        removed("no_prompt", "llava-mini.system_prompt"), removed("no_mean", "llava-mini.vision.image_mean"),
        Malformed{
            "width_is_text",
            [](gguf_context* gguf) { gguf_set_val_str(gguf, "llava-mini.vision.embedding_length", "256"); },
            "expected type u32, found str"},
        Malformed{
            "width_is_64_bits",
            [](gguf_context* gguf) { gguf_set_val_u64(gguf, "llava-mini.vision.embedding_length", 256); },
            "expected type u32, found u64"},
        number("width_zero", "llava-mini.vision.embedding_length", 0, "expected a number from 1"),
        number("width_huge", "llava-mini.vision.embedding_length", UINT32_MAX, "expected a number from 1"),
        number("layers_zero", "llava-mini.vision.block_count", 0, "block_count"),
        number("layers_huge", "llava-mini.vision.block_count", 1u << 31, "block_count"),
        number("patch_does_not_divide", "llava-mini.vision.patch_size", 13, "a multiple of"),
        number("heads_do_not_divide", "llava-mini.vision.attention.head_count", 3, "a multiple of"),
        number("image_huge", "llava-mini.vision.image_size", 1u << 30, "image_size"),
        number("ratio_zero", "llava-mini.preprocess.resolution_ratio", 0, "resolution_ratio"),
        number("compressor_heads_do_not_divide", "llava-mini.compressor.head_dim", 100, "a divisor of"),
        number("kv_heads_do_not_divide", "llava-mini.prefusion.attention.head_count_kv", 4, "a multiple of"),
        number("odd_heads", "llava-mini.prefusion.attention.key_length", 25, "an even number"),
        number("prompt_huge", "llava-mini.max_prompt_tokens", UINT32_MAX, "max_prompt_tokens"),
        fraction("eps_nan", "llava-mini.vision.attention.layer_norm_epsilon", NAN, "layer_norm_epsilon"),
        fraction("theta_zero", "llava-mini.prefusion.rope.freq_base", 0.0f, "freq_base"),
        fraction("theta_infinite", "llava-mini.prefusion.rope.freq_base", INFINITY, "freq_base"),
        fraction("linear_negative", "llava-mini.prefusion.rope.scaling.factor", -1.0f, "scaling.factor"),
        Malformed{"activation_unknown",
                  [](gguf_context* gguf) { gguf_set_val_str(gguf, "llava-mini.vision.activation", "relu"); },
                  "expected \"quick_gelu\" or \"gelu\", found \"relu\""},
        list<float>("mean_of_two", "llava-mini.vision.image_mean", GGUF_TYPE_FLOAT32, {0.5f, 0.5f},
                    "3 numbers"),
        list<uint32_t>("mean_of_integers", "llava-mini.vision.image_mean", GGUF_TYPE_UINT32, {1, 2, 3},
                       "an array of f32"),
        list<float>("std_zero", "llava-mini.vision.image_std", GGUF_TYPE_FLOAT32, {1.0f, 0.0f, 1.0f},
                    "image_std"),
        list<uint32_t>("grid_zero", "llava-mini.compressor.grids", GGUF_TYPE_UINT32, {1, 0},
                       "different numbers"),
        list<uint32_t>("grid_twice", "llava-mini.compressor.grids", GGUF_TYPE_UINT32, {2, 2},
                       "different numbers"),
        list<uint32_t>("grid_huge", "llava-mini.compressor.grids", GGUF_TYPE_UINT32, {100000},
                       "different numbers"),
        list<uint32_t>("grids_empty", "llava-mini.compressor.grids", GGUF_TYPE_UINT32, {}, "1 to 64 numbers"),
        list<uint32_t>("grids_many", "llava-mini.compressor.grids", GGUF_TYPE_UINT32,
                       std::vector<uint32_t>(65, 1), "1 to 64 numbers")),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace llava_mini
