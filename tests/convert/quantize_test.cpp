#include "convert/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "convert/convert.h"
#include "convert/gguf_values.h"
#include "convert/language_vocabulary.h"
#include "convert/quantization.h"
#include "convert/synth.h"
#include "core/file.h"
#include "model/vision_weights.h"
#include "support/error_text.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using test::error_text;
using test::gguf_values;
using ::testing::HasSubstr;

TensorSpec matrix(const std::string& name, int64_t columns, Keep keep) {
    return {name, "", {8, columns}, keep};
}

TEST(StorageType, FollowsThePolicy) {
    const TensorSpec large = matrix("blk.0.attn_q.weight", 256, Keep::kQuantizable);
    const TensorSpec output = matrix("output.weight", 256, Keep::kQuantizable);
    const TensorSpec embeddings = matrix("token_embd.weight", 256, Keep::kQuantizable);
    EXPECT_EQ(storage_type(large, GGML_TYPE_Q4_0, false), GGML_TYPE_Q4_0);
    EXPECT_EQ(storage_type(output, GGML_TYPE_Q4_0, false), GGML_TYPE_Q6_K);
    EXPECT_EQ(storage_type(output, GGML_TYPE_Q5_K, false), GGML_TYPE_Q6_K);
    EXPECT_EQ(storage_type(output, GGML_TYPE_Q8_0, false), GGML_TYPE_Q8_0);
    EXPECT_EQ(storage_type(output, GGML_TYPE_F16, false), GGML_TYPE_F16);
    EXPECT_EQ(storage_type(embeddings, GGML_TYPE_Q4_0, false), GGML_TYPE_Q4_0);
    EXPECT_EQ(storage_type(embeddings, GGML_TYPE_Q4_0, true), GGML_TYPE_Q6_K);

    const TensorSpec tower = matrix("v.blk.0.attn_q.weight", 256, Keep::kAtLeastQ6);
    const TensorSpec prefusion = matrix("prefusion.blk.0.attn_q.weight", 256, Keep::kAtLeastQ5);
    EXPECT_EQ(storage_type(tower, GGML_TYPE_Q4_0, false), GGML_TYPE_Q6_K);
    EXPECT_EQ(storage_type(tower, GGML_TYPE_Q8_0, false), GGML_TYPE_Q8_0);
    EXPECT_EQ(storage_type(prefusion, GGML_TYPE_Q4_K, false), GGML_TYPE_Q5_K);
    EXPECT_EQ(storage_type(prefusion, GGML_TYPE_Q6_K, false), GGML_TYPE_Q6_K);
    EXPECT_EQ(storage_type(prefusion, GGML_TYPE_BF16, false), GGML_TYPE_BF16);

    // Rows that blocks do not divide.
    EXPECT_EQ(storage_type(matrix("a", 160, Keep::kQuantizable), GGML_TYPE_Q4_K, false), GGML_TYPE_Q8_0);
    EXPECT_EQ(storage_type(matrix("a", 100, Keep::kQuantizable), GGML_TYPE_Q4_K, false), GGML_TYPE_F16);
    EXPECT_EQ(storage_type(matrix("a", 100, Keep::kQuantizable), GGML_TYPE_Q4_0, false), GGML_TYPE_F16);
    EXPECT_EQ(storage_type(matrix("a", 100, Keep::kQuantizable), GGML_TYPE_BF16, false), GGML_TYPE_BF16);
    EXPECT_EQ(storage_type(matrix("output.weight", 160, Keep::kQuantizable), GGML_TYPE_Q4_0, false),
              GGML_TYPE_Q8_0);

    for (const ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16}) {
        EXPECT_EQ(storage_type(matrix("mm.0.weight", 256, Keep::kHalf), type, false), type);
    }
    EXPECT_EQ(storage_type(matrix("mm.0.weight", 256, Keep::kHalf), GGML_TYPE_Q4_0, false), GGML_TYPE_F16);
    for (const ggml_type type : {GGML_TYPE_F16, GGML_TYPE_Q4_0}) {
        EXPECT_EQ(storage_type(matrix("compressor.1.query", 256, Keep::kFull), type, false), GGML_TYPE_F32);
    }
}

TEST(TypeNames, AreUnderstoodInAnyCase) {
    EXPECT_EQ(parse_tensor_type("f16"), GGML_TYPE_F16);
    EXPECT_EQ(parse_tensor_type("Q8_0"), GGML_TYPE_Q8_0);
    EXPECT_EQ(parse_tensor_type("q4_K"), GGML_TYPE_Q4_K);
    EXPECT_EQ(parse_tensor_type("iq4_nl"), GGML_TYPE_IQ4_NL);
    EXPECT_EQ(parse_file_type("q4_k_m"), LLAMA_FTYPE_MOSTLY_Q4_K_M);
    EXPECT_EQ(parse_file_type("Q4_K"), LLAMA_FTYPE_MOSTLY_Q4_K_M);
    EXPECT_EQ(base_type(LLAMA_FTYPE_MOSTLY_Q4_K_M), GGML_TYPE_Q4_K);
    EXPECT_EQ(file_type_of(GGML_TYPE_Q8_0), LLAMA_FTYPE_MOSTLY_Q8_0);
    EXPECT_THAT(error_text([] { parse_tensor_type("q9"); }),
                HasSubstr("unknown; expected one of F32, F16, BF16"));
    EXPECT_THAT(error_text([] { parse_tensor_type("q4_k_m"); }), HasSubstr("llava-mini quantize"));
    EXPECT_THAT(error_text([] { parse_file_type("q9"); }), HasSubstr("Q4_K_M"));
    EXPECT_THROW(parse_file_type("iq2_xxs"), Error);
}

TEST(QuantizeRows, EveryTypeRoundTripsWithinItsPrecision) {
    constexpr int64_t kRows = 37, kColumns = 512;
    std::mt19937 random(11);
    std::normal_distribution<float> normal(0.0f, 0.02f);
    std::vector<float> values(kRows * kColumns);
    for (float& value : values) value = normal(random);
    // Relative root mean square errors of normally distributed weights.
    for (const auto& [name, bound] : std::map<std::string, double>{{"f32", 0},
                                                                   {"f16", 3e-4},
                                                                   {"bf16", 2.5e-3},
                                                                   {"q8_0", 7e-3},
                                                                   {"q6_k", 0.02},
                                                                   {"q5_k", 0.04},
                                                                   {"q5_1", 0.045},
                                                                   {"q5_0", 0.05},
                                                                   {"q4_k", 0.08},
                                                                   {"q4_1", 0.09},
                                                                   {"q4_0", 0.1},
                                                                   {"iq4_nl", 0.09},
                                                                   {"iq4_xs", 0.09},
                                                                   {"q3_k", 0.16},
                                                                   {"iq3_s", 0.18},
                                                                   {"q2_k", 0.35}}) {
        const ggml_type type = parse_tensor_type(name);
        std::vector<uint8_t> one(kRows * ggml_row_size(type, kColumns)), several(one.size());
        quantize_rows(type, values, kRows, kColumns, one, 1);
        quantize_rows(type, values, kRows, kColumns, several, 5);
        EXPECT_EQ(one, several) << name << ": the number of threads must not matter";
        std::vector<float> back(values.size()), back_several(values.size());
        dequantize_rows(type, one, kRows, kColumns, back, 1);
        dequantize_rows(type, one, kRows, kColumns, back_several, 3);
        EXPECT_EQ(back, back_several);
        double error = 0, norm = 0;
        for (size_t i = 0; i < values.size(); ++i) {
            error += std::pow(double{back[i]} - values[i], 2);
            norm += std::pow(double{values[i]}, 2);
        }
        EXPECT_LE(std::sqrt(error / norm), bound) << name;
    }
    std::vector<uint8_t> wrong(10);
    EXPECT_THROW(quantize_rows(GGML_TYPE_Q8_0, values, kRows, kColumns, wrong, 1), Error);
    EXPECT_THROW(dequantize_rows(GGML_TYPE_Q8_0, wrong, kRows, kColumns, values, 1), Error);
}

class Quantize : public ::testing::Test {
  protected:
    void SetUp() override {
        SynthOptions options;
        options.out = dir_.path();
        synthesize_gguf(find_synth_shape("llava-mini-small"), GGML_TYPE_F16, options);
    }
    QuantizeOptions options(const char* file, llama_ftype type) {
        QuantizeOptions out;
        out.in = dir_ / file;
        out.out = dir_ / "quantized.gguf";
        out.type = type;
        return out;
    }
    test::TempDir dir_;
};

TEST_F(Quantize, VisionFileKeepsMetadataAndSensitiveTensors) {
    const QuantizeOptions q = options(kVisionFile, LLAMA_FTYPE_MOSTLY_Q4_K_M);
    quantize_vision(q);
    const GgufFile before(q.in), after(q.out);
    const VisionHparams hp = read_vision_hparams(after.metadata(), after.name());
    checked_vision_tensors(after, hp);
    EXPECT_EQ(hp.name, "llava-mini-small");
    EXPECT_EQ(after.get_u32("general.file_type"), static_cast<uint32_t>(LLAMA_FTYPE_MOSTLY_Q4_K_M));
    EXPECT_EQ(after.find("prefusion.blk.0.ffn_up.weight")->type, GGML_TYPE_Q5_K);
    EXPECT_EQ(after.find("v.blk.1.attn_q.weight")->type, GGML_TYPE_Q6_K);
    for (const char* kept : {"v.patch_embd.weight", "mm.0.weight", "compressor.attn_qkv.weight"}) {
        EXPECT_EQ(after.find(kept)->type, GGML_TYPE_F16) << kept;
        EXPECT_EQ(gguf_values(after, kept), gguf_values(before, kept)) << kept;
    }
    for (const char* kept : {"compressor.1.query", "v.position_embd.weight", "prefusion.rope_freqs.weight"}) {
        EXPECT_EQ(after.find(kept)->type, GGML_TYPE_F32) << kept;
        EXPECT_EQ(gguf_values(after, kept), gguf_values(before, kept)) << kept;
    }
    const auto was = gguf_values(before, "prefusion.blk.0.ffn_up.weight");
    const auto is = gguf_values(after, "prefusion.blk.0.ffn_up.weight");
    EXPECT_LT(test::max_difference(was, is), 0.02);
    EXPECT_GT(test::max_difference(was, is), 0.0);
}

TEST_F(Quantize, LanguageFileByLibllama) {
    const QuantizeOptions q = options(kLanguageFile, LLAMA_FTYPE_MOSTLY_Q4_K_M);
    quantize_language(q);
    const GgufFile before(q.in), after(q.out);
    EXPECT_EQ(after.find("blk.0.attn_q.weight")->type, GGML_TYPE_Q4_K);
    EXPECT_EQ(after.find("output.weight")->type, GGML_TYPE_Q6_K);
    EXPECT_EQ(after.find("blk.0.attn_norm.weight")->type, GGML_TYPE_F32);
    EXPECT_LT(test::max_difference(gguf_values(before, "output.weight"), gguf_values(after, "output.weight")),
              0.003);
    EXPECT_EQ(llama_vocab_n_tokens(test::LanguageVocabulary(q.out).get()), 1024);
}

TEST_F(Quantize, InPlace) {
    QuantizeOptions q = options(kVisionFile, LLAMA_FTYPE_MOSTLY_Q8_0);
    q.out = q.in;
    const auto size = std::filesystem::file_size(q.in);
    quantize_vision(q);
    EXPECT_LT(std::filesystem::file_size(q.in), size);
    q.in = q.out = dir_ / kLanguageFile;
    quantize_language(q);
    EXPECT_EQ(GgufFile(q.out).find("blk.0.attn_q.weight")->type, GGML_TYPE_Q8_0);
}

TEST_F(Quantize, QuantizedFilesOnlyWhenAllowed) {
    for (const char* file : {kVisionFile, kLanguageFile}) {
        QuantizeOptions q = options(file, LLAMA_FTYPE_MOSTLY_Q8_0);
        const auto run = file == kVisionFile ? quantize_vision : quantize_language;
        q.out = q.in;
        run(q);
        const auto content = read_file(q.in, 1 << 24);
        q.type = LLAMA_FTYPE_MOSTLY_Q4_0;
        EXPECT_THAT(error_text([&] { run(q); }), HasSubstr("--allow-requantize"));
        EXPECT_EQ(read_file(q.in, 1 << 24), content);
        q.allow_requantize = true;
        run(q);
        EXPECT_LT(std::filesystem::file_size(q.in), content.size());
    }
}

TEST_F(Quantize, CanBeStoppedAndLeavesNothing) {
    for (const char* file : {kVisionFile, kLanguageFile}) {
        QuantizeOptions q = options(file, LLAMA_FTYPE_MOSTLY_Q8_0);
        int calls = 0;
        q.progress = [&](uint64_t, uint64_t, std::string_view) { return ++calls < 5; };
        EXPECT_THAT(error_text([&] { file == kVisionFile ? quantize_vision(q) : quantize_language(q); }),
                    HasSubstr("interrupted"));
        EXPECT_EQ(calls, 5);
        size_t files = 0;
        for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(dir_.path())) ++files;
        EXPECT_EQ(files, 2u) << file;
    }
}

TEST_F(Quantize, DamagedFiles) {
    const auto vision = dir_ / kVisionFile;
    std::filesystem::resize_file(vision, std::filesystem::file_size(vision) - 1000);
    EXPECT_THAT(error_text([&] { quantize_vision(options(kVisionFile, LLAMA_FTYPE_MOSTLY_Q8_0)); }),
                HasSubstr("truncated"));
    EXPECT_THAT(error_text([&] { quantize_vision(options(kLanguageFile, LLAMA_FTYPE_MOSTLY_Q8_0)); }),
                HasSubstr("general.architecture"));
    EXPECT_THAT(error_text([&] { quantize_language(options("missing.gguf", LLAMA_FTYPE_MOSTLY_Q8_0)); }),
                HasSubstr("cannot open"));
}

}  // namespace
}  // namespace llava_mini
