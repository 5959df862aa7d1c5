#include "convert/synth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "convert/convert.h"
#include "convert/gguf_values.h"
#include "convert/language_vocabulary.h"
#include "convert/model_info.h"
#include "convert/safetensors.h"
#include "core/file.h"
#include "model/vision_weights.h"
#include "support/error_text.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using test::error_text;
using ::testing::HasSubstr;

// Logits of one token by libllama.
std::vector<float> logits_of(const std::filesystem::path& language_gguf, llama_token token) {
    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    llama_model* model = llama_model_load_from_file(language_gguf.c_str(), model_params);
    if (model == nullptr) return {};
    llama_context_params context_params = llama_context_default_params();
    context_params.n_ctx = 64;
    context_params.n_threads = context_params.n_threads_batch = 1;
    llama_context* context = llama_init_from_model(model, context_params);
    std::vector<float> logits;
    if (llama_decode(context, llama_batch_get_one(&token, 1)) == 0) {
        const float* data = llama_get_logits_ith(context, -1);
        logits.assign(data, data + llama_vocab_n_tokens(llama_model_get_vocab(model)));
    }
    llama_free(context);
    llama_model_free(model);
    return logits;
}

class Synth : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {};

TEST_P(Synth, MakesModelsThatLoadAndGiveFiniteNumbers) {
    const test::TempDir dir;
    const auto [shape, type] = GetParam();
    SynthOptions options;
    options.out = dir.path();
    synthesize_gguf(find_synth_shape(shape), parse_tensor_type(type), options);
    const GgufFile vision(dir / kVisionFile);
    const VisionHparams hp = read_vision_hparams(vision.metadata(), vision.name());
    checked_vision_tensors(vision, hp);
    for (const GgufTensor& tensor : vision.tensors()) {
        for (const float value : test::gguf_values(vision, tensor.name))
            ASSERT_LT(std::fabs(value), 9) << tensor.name;
    }
    const std::vector<float> logits = logits_of(dir / kLanguageFile, 300);
    ASSERT_EQ(logits.size(), 1024u);
    double square = 0;
    for (const float logit : logits) {
        ASSERT_TRUE(std::isfinite(logit));
        square += double{logit} * logit;
    }
    EXPECT_GT(square / 1024, 1e-3);
    EXPECT_LT(square / 1024, 1e3);
}

INSTANTIATE_TEST_SUITE_P(Table, Synth,
                         ::testing::Combine(::testing::Values("llava-mini-small", "llava-v1.5-small"),
                                            ::testing::Values("f16", "q8_0", "q4_0", "q4_k")));

TEST(SynthCheckpoint, ConvertsIntoTheSameShape) {
    for (const char* name : {"llava-mini-small", "llava-v1.5-small"}) {
        const test::TempDir dir;
        const SynthShape& shape = find_synth_shape(name);
        SynthOptions options;
        options.out = dir / "checkpoint";
        synthesize_checkpoint(shape, 2'000'000, options);
        EXPECT_FALSE(std::filesystem::exists(options.out / "model.safetensors"));
        EXPECT_TRUE(std::filesystem::exists(options.out / "model.safetensors.index.json"));
        ConvertOptions convert;
        convert.checkpoint = options.out;
        convert.out = dir / "converted";
        convert.type = GGML_TYPE_BF16;
        convert_checkpoint(convert);

        const GgufFile vision(convert.out / kVisionFile), language(convert.out / kLanguageFile);
        const VisionHparams hp = read_vision_hparams(vision.metadata(), vision.name());
        EXPECT_EQ(hp.n_layer, shape.vision.n_layer);
        EXPECT_EQ(hp.n_head, shape.vision.n_head);
        EXPECT_EQ(hp.compressor_grids, shape.vision.compressor_grids);
        EXPECT_EQ(hp.prefusion.n_layer, shape.vision.prefusion.n_layer);
        EXPECT_EQ(language.find("rope_freqs.weight") != nullptr, !shape.language.rope_freq_factors.empty());
        const test::LanguageVocabulary vocabulary(convert.out / kLanguageFile);
        EXPECT_EQ(llama_vocab_n_tokens(vocabulary.get()), 1024);
        EXPECT_FALSE(vocabulary.chat_template().empty());
        EXPECT_FALSE(vocabulary.tokens("What is shown in this picture?").empty());
    }
}

TEST(Synth, SameSeedSameModel) {
    const test::TempDir dir;
    for (const auto& [folder, seed] : {std::pair{"a", 1}, std::pair{"b", 1}, std::pair{"c", 2}}) {
        SynthOptions options;
        options.out = dir / folder;
        options.seed = static_cast<uint64_t>(seed);
        synthesize_gguf(find_synth_shape("llava-v1.5-small"), GGML_TYPE_Q8_0, options);
    }
    const auto content = [&](const char* folder) { return read_file(dir / folder / kVisionFile, 1 << 24); };
    EXPECT_EQ(content("a"), content("b"));
    EXPECT_NE(content("a"), content("c"));
}

TEST(Synth, CanBeStoppedAndLeavesNothing) {
    const test::TempDir dir;
    SynthOptions options;
    options.out = dir / "out";
    options.progress = [](uint64_t done, uint64_t total, std::string_view) { return done < total / 2; };
    const SynthShape& shape = find_synth_shape("llava-mini-small");
    EXPECT_THAT(error_text([&] { synthesize_gguf(shape, GGML_TYPE_F16, options); }),
                HasSubstr("interrupted"));
    EXPECT_FALSE(std::filesystem::exists(options.out));
    EXPECT_THAT(error_text([&] { synthesize_checkpoint(shape, 1'000'000, options); }),
                HasSubstr("interrupted"));
    EXPECT_FALSE(std::filesystem::exists(options.out));
}

TEST(SynthShapes, AreThoseOfTheRealModels) {
    EXPECT_THAT(error_text([] { find_synth_shape("gpt"); }),
                HasSubstr("llava-mini-llama-3.1-8b, llava-v1.5-7b"));
    const SynthShape& mini = find_synth_shape("llava-mini-llama-3.1-8b");
    int64_t parameters = 0;
    for (const TensorSpec& spec : language_tensors(mini.language)) {
        int64_t count = 1;
        for (const int64_t dimension : spec.shape) count *= dimension;
        parameters += count;
    }
    EXPECT_EQ(parameters, 8'030'261'248);  // Llama 3.1 8B
    EXPECT_EQ(mini.vision.patches(), 576);
    EXPECT_EQ(mini.vision.compressor_heads(), 8);
    const auto recorded = read_npy(test::golden_path("unit/rope/llama31_8b_inv_freq.npy")).as_float();
    ASSERT_EQ(recorded.size(), mini.language.rope_freq_factors.size());
    for (size_t i = 0; i < recorded.size(); ++i) {
        const double frequency = std::pow(500000.0, -2.0 * static_cast<double>(i) / 128.0);
        EXPECT_NEAR(frequency / mini.language.rope_freq_factors[i] / recorded[i], 1.0, 1e-6);
    }
    const SynthShape& plain = find_synth_shape("llava-v1.5-7b");
    EXPECT_TRUE(plain.vision.compressor_grids.empty());
    EXPECT_EQ(plain.vision.prefusion.n_layer, 0);
    EXPECT_EQ(plain.language.n_head_kv, 32);
}

TEST(ModelInfo, CostsOfAPicture) {
    const SynthShape& mini = find_synth_shape("llava-mini-llama-3.1-8b");
    const PictureCost one = picture_cost(mini.vision, &mini.language, 1, 1);
    EXPECT_EQ(one.vision_tokens, 1);
    EXPECT_EQ(one.kv_cache_f16, 128u * 1024);  // 32 layers, keys and values, 8 heads of 128, 2 bytes
    EXPECT_EQ(one.kv_cache_q8_0, 68u * 1024);  // 34 bytes for 32 numbers
    // 577 positions in 4 layers, and one token of 4096 floats
    EXPECT_EQ(one.image_cache_f16, 577u * 4 * 2 * 1024 * 2 + 4096 * 4);
    EXPECT_EQ(picture_cost(mini.vision, &mini.language, 1, 2).image_cache_f16,
              (5u * 576 + 1) * 4 * 2 * 1024 * 2 + 4096 * 4);
    EXPECT_EQ(picture_cost(mini.vision, &mini.language, 3, 1).vision_tokens, 9);
    EXPECT_FALSE(picture_cost(mini.vision, nullptr, 1, 1).kv_cache_f16.has_value());

    const SynthShape& plain = find_synth_shape("llava-v1.5-7b");
    const PictureCost all = picture_cost(plain.vision, &plain.language, 0, 1);
    EXPECT_EQ(all.vision_tokens, 576);
    EXPECT_EQ(all.kv_cache_f16, 576u * 512 * 1024);
    EXPECT_EQ(all.grid_side, 0);

    VisionHparams several = mini.vision;
    several.compressor_grids = {2, 1};
    several.resolution_ratio = 2;
    const auto costs = picture_costs(several, &mini.language);
    ASSERT_EQ(costs.size(), 4u);
    EXPECT_EQ(costs[0].vision_tokens, 4);
    EXPECT_EQ(costs[1].resolution_ratio, 2);
    EXPECT_EQ(costs[3].vision_tokens, 1);
}

TEST(ModelInfo, TypesOfAFile) {
    const test::TempDir dir;
    SynthOptions options;
    options.out = dir.path();
    synthesize_gguf(find_synth_shape("llava-mini-small"), GGML_TYPE_Q4_0, options);
    const GgufFile file(dir / kLanguageFile);
    const auto totals = type_totals(file);
    ASSERT_TRUE(totals.contains("q4_0"));
    EXPECT_EQ(totals.at("q4_0").tensors, 15);
    EXPECT_EQ(totals.at("q6_K").tensors, 1);
    EXPECT_EQ(totals.at("q6_K").parameters, 1024 * 256);
    EXPECT_EQ(totals.at("q6_K").bytes, 1024u * 210);
}

}  // namespace
}  // namespace llava_mini
