#include "convert/convert.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>

#include "convert/checkpoint_config.h"
#include "convert/gguf_values.h"
#include "convert/safetensors.h"
#include "convert/tiny_checkpoint.h"
#include "convert/vocabulary.h"
#include "core/file.h"
#include "model/vision_weights.h"
#include "support/error_text.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using test::error_text;
using test::gguf_values;
using test::tiny_values;
using test::TinyCheckpoint;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

struct Converted {
    explicit Converted(const ConvertOptions& options) {
        convert_checkpoint(options);
        language = std::make_unique<GgufFile>(options.out / kLanguageFile);
        vision = std::make_unique<GgufFile>(options.out / kVisionFile);
        hparams = read_vision_hparams(vision->metadata(), vision->name());
        checked_vision_tensors(*vision, hparams);
    }
    std::unique_ptr<GgufFile> language, vision;
    VisionHparams hparams;
};

Converted convert(const TinyCheckpoint& checkpoint, const test::TempDir& dir, ggml_type type = GGML_TYPE_F32,
                  int shards = 1) {
    ConvertOptions options;
    options.checkpoint = checkpoint.write(dir.path(), shards);
    options.out = dir / "out";
    options.type = type;
    return Converted(options);
}

std::vector<std::string> names_in(const std::filesystem::path& folder) {
    std::vector<std::string> names;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
        names.push_back(entry.path().filename().string());
    }
    return names;
}

// Rows of one head in the order of GGUF's `llama`: 0, half, 1, half + 1, ...
std::vector<float> interleaved(const std::vector<float>& rows, size_t heads, size_t columns) {
    const size_t head_dim = rows.size() / columns / heads, half = head_dim / 2;
    std::vector<float> out;
    for (size_t head = 0; head < heads; ++head) {
        for (size_t i = 0; i < half; ++i) {
            for (const size_t row : {head * head_dim + i, head * head_dim + half + i}) {
                out.insert(out.end(), rows.begin() + static_cast<std::ptrdiff_t>(row * columns),
                           rows.begin() + static_cast<std::ptrdiff_t>((row + 1) * columns));
            }
        }
    }
    return out;
}

std::vector<float> source_values(const SafetensorsReader& reader, const std::string& name) {
    const SafetensorsTensor* tensor = reader.find(name);
    if (tensor == nullptr) return {};
    std::vector<uint8_t> bytes(tensor->bytes);
    reader.read(*tensor, 0, bytes);
    std::vector<float> values(static_cast<size_t>(tensor->elements()));
    dequantize_rows(tensor->type(), bytes, 1, tensor->elements(), values, 1);
    return values;
}

TEST(Convert, GoldenCheckpointKeepsEveryValue) {
    const test::TempDir dir;
    ConvertOptions options;
    options.checkpoint = test::golden_path("models/llava-mini-tiny-a");
    options.out = dir / "out";
    options.type = GGML_TYPE_F32;
    const Converted converted(options);
    const SafetensorsReader checkpoint(options.checkpoint);
    const SafetensorsReader tower(test::golden_path("models/openai/clip-vit-tiny-a-patch14-336"));

    const std::map<std::string, std::string> plain = {
        {"token_embd.weight", "model.embed_tokens.weight"},
        {"output_norm.weight", "model.norm.weight"},
        {"output.weight", "lm_head.weight"},
        {"blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"},
        {"blk.1.attn_v.weight", "model.layers.1.self_attn.v_proj.weight"},
        {"blk.1.attn_output.weight", "model.layers.1.self_attn.o_proj.weight"},
        {"blk.2.ffn_norm.weight", "model.layers.2.post_attention_layernorm.weight"},
        {"blk.2.ffn_gate.weight", "model.layers.2.mlp.gate_proj.weight"},
        {"blk.2.ffn_up.weight", "model.layers.2.mlp.up_proj.weight"},
        {"blk.2.ffn_down.weight", "model.layers.2.mlp.down_proj.weight"}};
    for (const auto& [gguf, name] : plain) {
        ASSERT_FALSE(source_values(checkpoint, name).empty()) << name;
        EXPECT_EQ(gguf_values(*converted.language, gguf), source_values(checkpoint, name)) << name;
    }
    for (int layer = 0; layer < 3; ++layer) {
        const std::string from = fmt::format("model.layers.{}.self_attn.", layer),
                          to = fmt::format("blk.{}.", layer);
        const auto q = source_values(checkpoint, from + "q_proj.weight");
        EXPECT_EQ(gguf_values(*converted.language, to + "attn_q.weight"), interleaved(q, 4, 64));
        EXPECT_NE(gguf_values(*converted.language, to + "attn_q.weight"), q);
        EXPECT_EQ(gguf_values(*converted.language, to + "attn_k.weight"),
                  interleaved(source_values(checkpoint, from + "k_proj.weight"), 2, 64));
    }

    const std::map<std::string, std::string> bridge = {
        {"compressor.1.query", "compressor.query"},
        {"compressor.1.pos_embed", "compressor.pos_embed"},
        {"compressor.ln_q.weight", "compressor.ln_q.weight"},
        {"compressor.ln_kv.bias", "compressor.ln_kv.bias"},
        {"compressor.attn_qkv.weight", "compressor.attn.in_proj_weight"},
        {"compressor.attn_qkv.bias", "compressor.attn.in_proj_bias"},
        {"compressor.attn_out.weight", "compressor.attn.out_proj.weight"},
        {"mm.0.weight", "mm_projector.0.weight"},
        {"mm.2.bias", "mm_projector.2.bias"},
        {"prefusion.blk.0.attn_q.weight", "prefusion_layers.0.self_attn.q_proj.weight"},  // rows stay
        {"prefusion.blk.1.attn_k.weight", "prefusion_layers.1.self_attn.k_proj.weight"},
        {"prefusion.blk.1.ffn_down.weight", "prefusion_layers.1.mlp.down_proj.weight"}};
    for (const auto& [gguf, name] : bridge) {
        ASSERT_FALSE(source_values(checkpoint, "model." + name).empty()) << name;
        EXPECT_EQ(gguf_values(*converted.vision, gguf), source_values(checkpoint, "model." + name)) << name;
    }
    const std::map<std::string, std::string> clip = {
        {"v.class_embd", "embeddings.class_embedding"},
        {"v.patch_embd.weight", "embeddings.patch_embedding.weight"},
        {"v.position_embd.weight", "embeddings.position_embedding.weight"},
        {"v.pre_ln.weight", "pre_layrnorm.weight"},
        {"v.blk.0.attn_q.weight", "encoder.layers.0.self_attn.q_proj.weight"},
        {"v.blk.2.ffn_down.bias", "encoder.layers.2.mlp.fc2.bias"}};
    for (const auto& [gguf, name] : clip) {
        ASSERT_FALSE(source_values(tower, "vision_model." + name).empty()) << name;
        EXPECT_EQ(gguf_values(*converted.vision, gguf), source_values(tower, "vision_model." + name)) << name;
    }
    EXPECT_EQ(converted.vision->find("v.blk.3.attn_q.weight"), nullptr) << "the last layer is never needed";
    const GgufTensor& patches = *converted.vision->find("v.patch_embd.weight");
    EXPECT_THAT(patches.shape, ElementsAre(14, 14, 3, 256));

    // Each frequency is divided by its factor: the recorded frequencies are theta^(-2i/d) / factor.
    const auto recorded = read_npy(test::golden_path("unit/rope/tiny_a_inv_freq.npy")).as_float();
    for (const auto& [file, name] : {std::pair{converted.language.get(), "rope_freqs.weight"},
                                     std::pair{converted.vision.get(), "prefusion.rope_freqs.weight"}}) {
        const std::vector<float> factors = gguf_values(*file, name);
        ASSERT_EQ(factors.size(), recorded.size());
        for (size_t i = 0; i < factors.size(); ++i) {
            const double frequency = std::pow(500000.0, -2.0 * static_cast<double>(i) / 16.0);
            EXPECT_NEAR(frequency / factors[i] / recorded[i], 1.0, 1e-6) << name << " " << i;
        }
    }
}

TEST(Convert, GoldenCheckpointsMetadata) {
    const test::TempDir dir;
    ConvertOptions options;
    options.checkpoint = test::golden_path("models/llava-mini-tiny-a");
    options.out = dir / "out";
    const Converted converted(options);
    const GgufFile& language = *converted.language;
    EXPECT_EQ(language.get_string("general.architecture"), "llama");
    EXPECT_EQ(language.get_string("general.name"), "llava-mini-tiny-a");
    EXPECT_EQ(language.get_u32("general.file_type"), 1u);
    EXPECT_EQ(language.get_u32("llama.block_count"), 3u);
    EXPECT_EQ(language.get_u32("llama.context_length"), 131072u);
    EXPECT_EQ(language.get_u32("llama.embedding_length"), 64u);
    EXPECT_EQ(language.get_u32("llama.feed_forward_length"), 160u);
    EXPECT_EQ(language.get_u32("llama.attention.head_count"), 4u);
    EXPECT_EQ(language.get_u32("llama.attention.head_count_kv"), 2u);
    EXPECT_EQ(language.get_u32("llama.attention.key_length"), 16u);
    EXPECT_EQ(language.get_u32("llama.rope.dimension_count"), 16u);
    EXPECT_EQ(language.get_u32("llama.vocab_size"), 1024u);
    EXPECT_FLOAT_EQ(language.get_f32("llama.rope.freq_base"), 500000.0f);
    EXPECT_FLOAT_EQ(language.get_f32("llama.attention.layer_norm_rms_epsilon"), 1e-5f);
    EXPECT_FALSE(language.has("llama.rope.scaling.type"));
    EXPECT_EQ(converted.hparams.system_prompt, kLlama3SystemPrompt);
    // f16: matrices half, vectors full.
    EXPECT_EQ(language.find("blk.0.attn_q.weight")->type, GGML_TYPE_F16);
    EXPECT_EQ(language.find("blk.0.attn_norm.weight")->type, GGML_TYPE_F32);
    EXPECT_EQ(converted.vision->find("mm.0.weight")->type, GGML_TYPE_F16);
    EXPECT_EQ(converted.vision->find("v.position_embd.weight")->type, GGML_TYPE_F32);
}

TEST(Convert, EveryDtypeAndAnyNumberOfShardsGiveTheSameValues) {
    for (const char* dtype : {"F32", "F16", "BF16"}) {
        for (const int shards : {1, 3}) {
            const test::TempDir dir;
            TinyCheckpoint checkpoint = test::tiny_checkpoint({1}, 1);
            for (auto& [name, tensor] : checkpoint.tensors) tensor.dtype = dtype;
            const Converted converted = convert(checkpoint, dir, GGML_TYPE_F32, shards);
            for (const auto& [gguf, name] : std::map<std::string, std::string>{
                     {"token_embd.weight", "model.embed_tokens.weight"},
                     {"blk.1.ffn_up.weight", "model.layers.1.mlp.up_proj.weight"}}) {
                EXPECT_EQ(gguf_values(*converted.language, gguf), checkpoint.tensors.at(name).values)
                    << dtype << " " << shards;
            }
            EXPECT_EQ(gguf_values(*converted.vision, "mm.0.weight"),
                      checkpoint.tensors.at("model.mm_projector.0.weight").values);
        }
    }
}

TEST(Convert, Bf16ToBf16AndF16ToF16AreExact) {
    for (const auto& [dtype, type] : {std::pair{"BF16", GGML_TYPE_BF16}, std::pair{"F16", GGML_TYPE_F16}}) {
        const test::TempDir dir;
        TinyCheckpoint checkpoint = test::tiny_checkpoint();
        for (auto& [name, tensor] : checkpoint.tensors) tensor.dtype = dtype;
        const Converted converted = convert(checkpoint, dir, type);
        EXPECT_EQ(converted.language->find("output.weight")->type, type);
        EXPECT_EQ(gguf_values(*converted.language, "output.weight"),
                  checkpoint.tensors.at("lm_head.weight").values);
    }
}

TEST(Convert, SeveralGrids) {
    const test::TempDir dir;
    const Converted converted = convert(test::tiny_checkpoint({2, 1}, 1), dir);
    EXPECT_THAT(converted.hparams.compressor_grids, ElementsAre(2, 1));
    EXPECT_EQ(gguf_values(*converted.vision, "compressor.2.query"),
              tiny_values("model.compressor.query.2", 4 * 128));
    EXPECT_EQ(gguf_values(*converted.vision, "compressor.1.pos_embed"),
              tiny_values("model.compressor.pos_embed.1", 128));
}

TEST(Convert, PlainLlavaWithoutCompressorAndPrefusion) {
    const test::TempDir dir;
    TinyCheckpoint checkpoint = test::tiny_checkpoint({}, 0);
    checkpoint.config.erase("prefusion_layer_num");
    const Converted converted = convert(checkpoint, dir);
    EXPECT_THAT(converted.hparams.compressor_grids, IsEmpty());
    EXPECT_EQ(converted.hparams.prefusion.n_layer, 0);
    EXPECT_EQ(converted.hparams.vision_tokens(0), 4);
    for (const GgufTensor& tensor : converted.vision->tensors()) {
        EXPECT_THAT(tensor.name, AllOf(Not(HasSubstr("compressor")), Not(HasSubstr("prefusion"))));
    }
}

TEST(Convert, NoPrefusionLayersNoRopeFactorsInTheVisionFile) {
    const test::TempDir dir;
    TinyCheckpoint checkpoint = test::tiny_checkpoint({1}, 0);
    checkpoint.config["rope_scaling"] = {{"rope_type", "llama3"},
                                         {"factor", 8.0},
                                         {"low_freq_factor", 1.0},
                                         {"high_freq_factor", 4.0},
                                         {"original_max_position_embeddings", 256}};
    const Converted converted = convert(checkpoint, dir);
    EXPECT_EQ(converted.vision->find("prefusion.rope_freqs.weight"), nullptr);
    EXPECT_NE(converted.language->find("rope_freqs.weight"), nullptr);
}

TEST(Convert, LinearRopeScaling) {
    const test::TempDir dir;
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    checkpoint.config["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
    const Converted converted = convert(checkpoint, dir);
    EXPECT_EQ(converted.language->get_string("llama.rope.scaling.type"), "linear");
    EXPECT_FLOAT_EQ(converted.language->get_f32("llama.rope.scaling.factor"), 2.0f);
    EXPECT_FLOAT_EQ(converted.hparams.prefusion.rope_linear_factor, 2.0f);
    EXPECT_EQ(converted.language->find("rope_freqs.weight"), nullptr);
}

TEST(Convert, TiedEmbeddings) {
    const test::TempDir dir;
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    checkpoint.config["tie_word_embeddings"] = true;  // lm_head may be there all the same
    EXPECT_EQ(convert(checkpoint, dir).language->find("output.weight"), nullptr);
    checkpoint.tensors.erase("lm_head.weight");
    EXPECT_EQ(convert(checkpoint, dir).language->find("output.weight"), nullptr);
}

TEST(Convert, TowerInsideTheCheckpoint) {
    const test::TempDir dir;
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    for (const auto& [name, tensor] : checkpoint.tower_tensors)
        checkpoint.tensors[kTowerInsidePrefix + name] = tensor;
    for (auto& [name, tensor] : checkpoint.tower_tensors) {
        if (tensor.dtype == "F32") tensor.values.assign(tensor.values.size(), 0.5f);
    }
    // Both are there: the separate one counts.
    EXPECT_EQ(gguf_values(*convert(checkpoint, dir).vision, "v.class_embd"), std::vector<float>(128, 0.5f));
    checkpoint.config["unfreeze_mm_vision_tower"] = true;
    const auto inside = tiny_values("vision_model.embeddings.class_embedding", 128);
    EXPECT_EQ(gguf_values(*convert(checkpoint, dir).vision, "v.class_embd"), inside);

    const test::TempDir other;
    checkpoint.config.erase("unfreeze_mm_vision_tower");
    checkpoint.clip_config = nullptr;
    EXPECT_EQ(gguf_values(*convert(checkpoint, other).vision, "v.class_embd"), inside);
}

TEST(Convert, KnownUnusedTensorsAreNoError) {
    const test::TempDir dir;
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    checkpoint.add("model.layers.0.self_attn.rotary_emb.inv_freq", {8});
    checkpoint.tower_tensors["text_model.final_layer_norm.weight"] = {"F32", {1}, {0}};
    checkpoint.tower_tensors["visual_projection.weight"] = {"F32", {1}, {0}};
    checkpoint.tower_tensors["logit_scale"] = {"F32", {}, {0}};
    EXPECT_NO_THROW(convert(checkpoint, dir));
}

TEST(Convert, MissingMisshapenAndUnusedTensorsInOneMessage) {
    const test::TempDir dir;
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    checkpoint.tensors.erase("model.layers.1.mlp.up_proj.weight");
    checkpoint.tensors.erase("model.compressor.query");
    checkpoint.tower_tensors.erase("vision_model.encoder.layers.0.mlp.fc1.bias");
    checkpoint.add("model.norm.weight", {31});
    checkpoint.add("model.mm_projector.2.weight", {32, 32, 1});
    checkpoint.add("model.image_newline", {32});
    checkpoint.add("model.prefusion_layers.1.input_layernorm.weight", {32});
    checkpoint.tower_tensors["vision_model.encoder.layers.x.mlp"] = {"F32", {1}, {0}};
    checkpoint.tensors["model.mm_projector.0.bias"].dtype = "I64";
    const std::string text = error_text([&] { convert(checkpoint, dir); });
    EXPECT_THAT(
        text, HasSubstr("missing: model.layers.1.mlp.up_proj.weight [64, 32], "
                        "vision_model.encoder.layers.0.mlp.fc1.bias [64], model.compressor.query [1, 128];"));
    EXPECT_THAT(text, HasSubstr("misshapen: model.norm.weight (expected [32], found [31]), "
                                "model.mm_projector.2.weight (expected [32, 32], found [32, 32, 1]);"));
    EXPECT_THAT(text, HasSubstr("of a dtype other than F32, F16 and BF16: model.mm_projector.0.bias (I64);"));
    EXPECT_THAT(text,
                HasSubstr("unused: model.image_newline, model.prefusion_layers.1.input_layernorm.weight, "
                          "vision_model.encoder.layers.x.mlp"));
    EXPECT_FALSE(std::filesystem::exists(dir / "out")) << "nothing is left behind";
}

struct BadWeights {
    const char* name;
    std::function<void(TinyCheckpoint&)> bend;
    const char* expected;
};

class WeightsThatCannotBeStored : public ::testing::TestWithParam<BadWeights> {};

TEST_P(WeightsThatCannotBeStored, LeaveNothingBehind) {
    const test::TempDir dir;
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    GetParam().bend(checkpoint);
    EXPECT_THAT(error_text([&] { convert(checkpoint, dir, GGML_TYPE_F16); }), HasSubstr(GetParam().expected));
    EXPECT_FALSE(std::filesystem::exists(dir / "out"));
}

INSTANTIATE_TEST_SUITE_P(
    Table, WeightsThatCannotBeStored,
    ::testing::Values(BadWeights{"not_a_number",
                                 [](TinyCheckpoint& c) {
                                     c.tensors["model.layers.1.mlp.down_proj.weight"].values[7] = NAN;
                                 },
                                 "tensor 'model.layers.1.mlp.down_proj.weight' holds nan"},
                      BadWeights{
                          "infinite",
                          [](TinyCheckpoint& c) { c.tensors["model.norm.weight"].values[31] = -INFINITY; },
                          "tensor 'model.norm.weight' holds -inf"},
                      BadWeights{"too_large_for_f16",
                                 [](TinyCheckpoint& c) { c.tensors["lm_head.weight"].values[0] = 70000.0f; },
                                 "tensor 'lm_head.weight' holds 70000, which f16 cannot store"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Convert, OutputIsReplacedOnlyOnSuccess) {
    const test::TempDir dir;
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    convert(checkpoint, dir);
    const auto language = read_file(dir / "out/language.gguf", 1 << 24),
               vision = read_file(dir / "out/vision.gguf", 1 << 24);

    // Fails in the second file, when the first is written.
    checkpoint.tensors["model.mm_projector.0.weight"].values[5] = NAN;
    checkpoint.tensors["model.embed_tokens.weight"].values[5] = 0.25f;
    EXPECT_THROW(convert(checkpoint, dir), Error);
    EXPECT_EQ(read_file(dir / "out/language.gguf", 1 << 24), language);
    EXPECT_EQ(read_file(dir / "out/vision.gguf", 1 << 24), vision);
    EXPECT_THAT(names_in(dir / "out"), UnorderedElementsAre("language.gguf", "vision.gguf"));

    checkpoint.tensors["model.mm_projector.0.weight"].values[5] = 0.5f;
    convert(checkpoint, dir);
    EXPECT_NE(read_file(dir / "out/language.gguf", 1 << 24), language);
    EXPECT_NE(read_file(dir / "out/vision.gguf", 1 << 24), vision);
}

TEST(Convert, CanBeStoppedAtAnyPointAndLeavesNothing) {
    const test::TempDir dir;
    ConvertOptions options;
    options.checkpoint = test::tiny_checkpoint().write(dir.path());
    options.out = dir / "out";
    int calls = 0;
    uint64_t last = 0, announced = 0;
    options.progress = [&](uint64_t done, uint64_t total, std::string_view) {
        ++calls;
        EXPECT_GE(done, last);
        last = done;
        announced = total;
        return true;
    };
    convert_checkpoint(options);
    EXPECT_EQ(last, announced);
    const int all_calls = calls;
    std::filesystem::remove_all(options.out);
    for (const int stop_at : {1, all_calls / 2, all_calls}) {
        calls = 0;
        options.progress = [&](uint64_t, uint64_t, std::string_view) { return ++calls < stop_at; };
        EXPECT_THAT(error_text([&] { convert_checkpoint(options); }), HasSubstr("interrupted"));
        EXPECT_EQ(calls, stop_at);
        EXPECT_FALSE(std::filesystem::exists(options.out));
    }
}

TEST(Convert, TruncatedShardsAreFoundBeforeAnythingIsWritten) {
    const test::TempDir dir;
    ConvertOptions options;
    options.checkpoint = test::tiny_checkpoint().write(dir.path(), 2);
    options.out = dir / "out";
    const auto shard = options.checkpoint / "model-1.safetensors";
    std::filesystem::resize_file(shard, std::filesystem::file_size(shard) - 1);
    EXPECT_THAT(error_text([&] { convert_checkpoint(options); }), HasSubstr("truncated"));
    EXPECT_FALSE(std::filesystem::exists(options.out));
}

TEST(Convert, OutputPathThatIsAFile) {
    const test::TempDir dir;
    ConvertOptions options;
    options.checkpoint = test::tiny_checkpoint().write(dir.path());
    options.out = dir.write("out", "a file");
    EXPECT_THAT(error_text([&] { convert_checkpoint(options); }), HasSubstr("cannot make the folder"));
    EXPECT_EQ(read_text_file(options.out, 100), "a file");
}

TEST(Convert, CheckpointThatIsNoFolder) {
    const test::TempDir dir;
    ConvertOptions options;
    options.checkpoint = dir / "nowhere";
    options.out = dir / "out";
    EXPECT_THAT(error_text([&] { convert_checkpoint(options); }), HasSubstr("cannot open"));
}

}  // namespace
}  // namespace llava_mini
