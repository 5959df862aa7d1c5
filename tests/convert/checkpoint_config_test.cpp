#include "convert/checkpoint_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>

#include "convert/tiny_checkpoint.h"
#include "model/tensor_names.h"
#include "support/error_text.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using nlohmann::json;
using test::error_text;
using test::TinyCheckpoint;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

CheckpointConfig read(const TinyCheckpoint& checkpoint) {
    const test::TempDir dir;
    const auto folder = checkpoint.write(dir.path());
    return read_checkpoint_config(folder, std::nullopt, SafetensorsReader(folder));
}

// Puts the tower's tensors inside the checkpoint.
void move_tower_inside(TinyCheckpoint& checkpoint) {
    for (const auto& [name, tensor] : checkpoint.tower_tensors)
        checkpoint.tensors[kTowerInsidePrefix + name] = tensor;
    checkpoint.tower_tensors.clear();
}

TEST(CheckpointConfig, ReadsTheGoldenCheckpoint) {
    const auto folder = test::golden_path("models/llava-mini-tiny-a");
    const CheckpointConfig config = read_checkpoint_config(folder, std::nullopt, SafetensorsReader(folder));
    const LlamaHparams& lm = config.language;
    EXPECT_EQ(lm.n_layer, 3);
    EXPECT_EQ(lm.n_embd, 64);
    EXPECT_EQ(lm.n_ff, 160);
    EXPECT_EQ(lm.n_head, 4);
    EXPECT_EQ(lm.n_head_kv, 2);
    EXPECT_EQ(lm.head_dim, 16);
    EXPECT_EQ(lm.n_vocab, 1024);
    EXPECT_EQ(lm.n_ctx_train, 131072);
    EXPECT_FLOAT_EQ(lm.rope_theta, 500000.0f);
    EXPECT_EQ(lm.rope_freq_factors.size(), 8u);
    EXPECT_FALSE(lm.tied_embeddings);
    EXPECT_EQ(config.bos_id, 768);
    EXPECT_THAT(config.eos_ids, ElementsAre(769, 776, 777));
    EXPECT_EQ(config.tower_folder.filename(), "clip-vit-tiny-a-patch14-336");
    const VisionHparams& vision = config.vision;
    EXPECT_EQ(vision.name, "llava-mini-tiny-a");
    EXPECT_EQ(vision.n_layer, 3);  // select layer -2 of 4
    EXPECT_EQ(vision.n_embd, 256);
    EXPECT_EQ(vision.n_ff, 128);
    EXPECT_EQ(vision.n_head, 4);
    EXPECT_EQ(vision.image_size, 336);
    EXPECT_EQ(vision.patches(), 576);
    EXPECT_EQ(vision.activation, "quick_gelu");
    EXPECT_FLOAT_EQ(vision.image_mean[0], 0.48145466f);
    EXPECT_FLOAT_EQ(vision.image_std[2], 0.27577711f);
    EXPECT_EQ(vision.image_aspect_ratio, "pad");
    EXPECT_EQ(vision.resolution_ratio, 1);
    EXPECT_THAT(vision.compressor_grids, ElementsAre(1));
    EXPECT_EQ(vision.prefusion.n_layer, 2);
    EXPECT_EQ(vision.prefusion.n_embd, 64);
    EXPECT_EQ(vision.max_prompt_tokens, 4096);
}

TEST(CheckpointConfig, TakesImageMeanAndDeviationFromThePreprocessor) {
    const CheckpointConfig config = read(test::tiny_checkpoint());
    EXPECT_THAT(config.vision.image_mean, ElementsAre(0.5f, 0.25f, 0.125f));
    EXPECT_THAT(config.vision.image_std, ElementsAre(0.5f, 1.0f, 2.0f));
}

TEST(CheckpointConfig, SelectsLayersFromEitherEnd) {
    TinyCheckpoint checkpoint = test::tiny_checkpoint();  // three layers
    for (const auto& [select, layers] : std::map<int, int>{{-1, 3}, {-2, 2}, {-3, 1}, {1, 1}, {3, 3}}) {
        checkpoint.config["mm_vision_select_layer"] = select;
        EXPECT_EQ(read(checkpoint).vision.n_layer, layers) << "select layer " << select;
    }
    for (const int select : {-4, 0, 4}) {
        checkpoint.config["mm_vision_select_layer"] = select;
        EXPECT_THAT(error_text([&] { read(checkpoint); }), HasSubstr("mm_vision_select_layer")) << select;
    }
}

TEST(CheckpointConfig, SilentFieldsHaveTheirDefaults) {
    TinyCheckpoint checkpoint = test::tiny_checkpoint({1}, 4);
    for (const char* key : {"prefusion_layer_num", "num_key_value_heads", "rope_theta", "image_aspect_ratio",
                            "max_position_embeddings", "mm_vision_select_layer"}) {
        checkpoint.config.erase(key);
    }
    const CheckpointConfig config = read(checkpoint);
    EXPECT_EQ(config.vision.prefusion.n_layer, 4);
    EXPECT_EQ(config.vision.resolution_ratio, 1);
    EXPECT_EQ(config.vision.image_aspect_ratio, "square");
    EXPECT_EQ(config.vision.n_layer, 2);
    EXPECT_EQ(config.language.n_head_kv, config.language.n_head);
    EXPECT_FLOAT_EQ(config.language.rope_theta, 10000.0f);
    EXPECT_TRUE(config.language.rope_freq_factors.empty());
    EXPECT_EQ(config.vision.max_prompt_tokens, 0);
}

TEST(CheckpointConfig, WithoutCompressorThereIsNoPrefusionByDefault) {
    TinyCheckpoint plain = test::tiny_checkpoint({}, 0);
    plain.config.erase("prefusion_layer_num");
    EXPECT_EQ(read(plain).vision.prefusion.n_layer, 0);
    EXPECT_TRUE(read(plain).vision.compressor_grids.empty());

    TinyCheckpoint with_layers = test::tiny_checkpoint({}, 4);
    with_layers.config.erase("prefusion_layer_num");
    EXPECT_EQ(read(with_layers).vision.prefusion.n_layer, 4);
}

TEST(CheckpointConfig, ZeroPrefusionLayersAreTakenAsSaid) {
    EXPECT_EQ(read(test::tiny_checkpoint({1}, 0)).vision.prefusion.n_layer, 0);
}

TEST(CheckpointConfig, SeveralGridsKeepTheirOrder) {
    EXPECT_THAT(read(test::tiny_checkpoint({2, 1, 3}, 1)).vision.compressor_grids, ElementsAre(2, 1, 3));
}

TEST(CheckpointConfig, RopeScaling) {
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    for (const char* key : {"type", "rope_type"}) {
        checkpoint.config["rope_scaling"] = {{key, "linear"}, {"factor", 4.0}};
        EXPECT_FLOAT_EQ(read(checkpoint).language.rope_linear_factor, 4.0f);
        EXPECT_FLOAT_EQ(read(checkpoint).vision.prefusion.rope_linear_factor, 4.0f);
    }
    checkpoint.config["rope_scaling"] = {{"rope_type", "default"}};
    EXPECT_FLOAT_EQ(read(checkpoint).language.rope_linear_factor, 1.0f);
    const json llama3 = {{"rope_type", "llama3"},
                         {"factor", 8.0},
                         {"low_freq_factor", 1.0},
                         {"high_freq_factor", 4.0},
                         {"original_max_position_embeddings", 256}};
    checkpoint.config["rope_scaling"] = llama3;
    const auto expected = llama3_rope_freq_factors(16, 10000.0f, 8.0f, 1.0f, 4.0f, 256.0f);
    EXPECT_EQ(read(checkpoint).language.rope_freq_factors, expected);
    EXPECT_EQ(expected.front(), 1.0f);
    EXPECT_EQ(expected.back(), 8.0f);

    // The newer place of the same.
    checkpoint.config.erase("rope_scaling");
    checkpoint.config["rope_parameters"] = llama3;
    checkpoint.config["rope_parameters"]["rope_theta"] = 20000.0;
    EXPECT_FLOAT_EQ(read(checkpoint).language.rope_theta, 20000.0f);
    EXPECT_EQ(read(checkpoint).language.rope_freq_factors.size(), 8u);
}

TEST(CheckpointConfig, HeadsOfTheirOwnWidth) {
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    checkpoint.config["head_dim"] = 24;
    EXPECT_EQ(read(checkpoint).language.head_dim, 24);
}

TEST(CheckpointConfig, ClipConfigMayBeNestedAndSilent) {
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    checkpoint.clip_config = {{"model_type", "clip"},
                              {"text_config", {{"hidden_size", 5}}},
                              {"vision_config", {{"image_size", 28}, {"patch_size", 14}}}};
    checkpoint.config.erase("mm_hidden_size");
    const VisionHparams vision = read(checkpoint).vision;
    EXPECT_EQ(vision.n_embd, 768);
    EXPECT_EQ(vision.n_ff, 3072);
    EXPECT_EQ(vision.n_head, 12);
    EXPECT_EQ(vision.n_layer, 11);
    EXPECT_FLOAT_EQ(vision.layer_norm_eps, 1e-5f);
}

TEST(CheckpointConfig, TowerInsideWithoutAnyFolderIsInferredFromItsTensors) {
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    move_tower_inside(checkpoint);
    checkpoint.clip_config = nullptr;
    const CheckpointConfig config = read(checkpoint);
    EXPECT_TRUE(config.tower_folder.empty());
    EXPECT_EQ(config.vision.n_embd, 128);
    EXPECT_EQ(config.vision.n_head, 2);
    EXPECT_EQ(config.vision.n_ff, 64);
    EXPECT_EQ(config.vision.patch_size, 14);
    EXPECT_EQ(config.vision.image_size, 28);
    EXPECT_EQ(config.vision.n_layer, 2);
    EXPECT_FLOAT_EQ(config.vision.image_mean[0], 0.48145466f);
}

TEST(CheckpointConfig, TowerFolderCountsUnlessTheTowerWasTrained) {
    TinyCheckpoint both = test::tiny_checkpoint();
    const auto separate = both.tower_tensors;
    move_tower_inside(both);
    both.tower_tensors = separate;
    EXPECT_FALSE(read(both).tower_folder.empty());
    both.config["unfreeze_mm_vision_tower"] = true;
    EXPECT_TRUE(read(both).tower_folder.empty());
    both.tower_tensors.clear();  // a folder with configuration alone
    both.config["unfreeze_mm_vision_tower"] = false;
    EXPECT_TRUE(read(both).tower_folder.empty());
    EXPECT_THAT(read(both).vision.image_mean, ElementsAre(0.5f, 0.25f, 0.125f));
}

TEST(CheckpointConfig, TowerFolderIsLookedForAroundTheCheckpoint) {
    const test::TempDir dir;
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    const auto folder = checkpoint.write(dir.path());
    const SafetensorsReader weights(folder);
    const auto tower = dir.path() / "clip" / "tower";
    const auto found = [&](const std::filesystem::path& name, const std::filesystem::path& start) {
        checkpoint.config["mm_vision_tower"] = name.string();
        std::ofstream(folder / "config.json") << checkpoint.config.dump();
        return std::filesystem::equivalent(read_checkpoint_config(start, std::nullopt, weights).tower_folder,
                                           tower);
    };
    EXPECT_TRUE(found("clip/tower", folder));
    EXPECT_TRUE(found("clip/tower", folder / ""));  // a slash at the end
    EXPECT_TRUE(found("clip/tower", folder / "."));
    EXPECT_TRUE(found(tower, folder));
    EXPECT_TRUE(found("../clip/tower", folder));
    EXPECT_TRUE(found(dir.path().filename() / "clip" / "tower", folder));  // from the grandparent
    EXPECT_TRUE(found(dir.path().filename() / "clip" / "tower", folder / ""));
    EXPECT_EQ(read_checkpoint_config(folder / "", std::nullopt, weights).vision.name, "checkpoint");
}

TEST(CheckpointConfig, TowerFolderCanBeGiven) {
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    const test::TempDir dir;
    checkpoint.config["mm_vision_tower"] = "somewhere/else";
    const auto folder = checkpoint.write(dir.path());
    const SafetensorsReader weights(folder);
    EXPECT_EQ(read_checkpoint_config(folder, dir.path() / "clip" / "tower", weights).vision.n_embd, 128);
    EXPECT_THAT(error_text([&] { read_checkpoint_config(folder, std::nullopt, weights); }),
                HasSubstr("give its folder by --vision-tower"));
    EXPECT_THAT(error_text([&] { read_checkpoint_config(folder, dir / "missing", weights); }),
                HasSubstr("not a folder"));
}

struct BadConfig {
    const char* name;
    std::function<void(TinyCheckpoint&)> bend;
    const char* expected;
};

class MalformedConfig : public ::testing::TestWithParam<BadConfig> {};

TEST_P(MalformedConfig, IsRejectedWithOneClearLine) {
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    GetParam().bend(checkpoint);
    EXPECT_THAT(error_text([&] { read(checkpoint); }), HasSubstr(GetParam().expected));
}

BadConfig set(const char* name, const char* key, json value, const char* expected) {
    return {name, [=](TinyCheckpoint& c) { c.config[key] = value; }, expected};
}

BadConfig set_clip(const char* name, const char* key, json value, const char* expected) {
    return {name, [=](TinyCheckpoint& c) { c.clip_config[key] = value; }, expected};
}

BadConfig set_pre(const char* name, const char* key, json value, const char* expected) {
    return {name, [=](TinyCheckpoint& c) { c.preprocessor_config[key] = value; }, expected};
}

INSTANTIATE_TEST_SUITE_P(
    Table, MalformedConfig,
    ::testing::Values(
        BadConfig{"not_an_object", [](TinyCheckpoint& c) { c.config = json::array(); }, "expected an object"},
        BadConfig{"no_width", [](TinyCheckpoint& c) { c.config.erase("hidden_size"); },
                  "hidden_size is missing"},
        set("width_null", "hidden_size", nullptr, "hidden_size is missing"),
        set("width_is_text", "hidden_size", "32",
            "hidden_size: expected an integer from 1 to 1048576, found \"32\""),
        set("width_fraction", "hidden_size", 32.5, "hidden_size: expected an integer"),
        set("width_negative", "hidden_size", -32, "hidden_size: expected an integer"),
        set("width_zero", "hidden_size", 0, "hidden_size: expected an integer"),
        set("width_huge", "hidden_size", UINT64_MAX, "hidden_size: expected an integer"),
        set("layers_huge", "num_hidden_layers", 1000000, "num_hidden_layers"),
        set("heads_do_not_divide", "num_attention_heads", 3, "hidden_size: expected a multiple"),
        set("odd_heads", "head_dim", 15, "heads of an even width"),
        set("kv_heads_do_not_divide", "num_key_value_heads", 3, "num_key_value_heads"),
        set("vocabulary_huge", "vocab_size", 1 << 30, "vocab_size"),
        set("eps_is_text", "rms_norm_eps", "x", "rms_norm_eps: expected a number"),
        set("other_model", "model_type", "mpt", "model_type: expected a Llama model"),
        set("other_activation", "hidden_act", "gelu", "hidden_act: expected \"silu\""),
        set("attention_bias", "attention_bias", true, "attention_bias: expected false"),
        set("mlp_bias", "mlp_bias", true, "mlp_bias: expected false"),
        set("tie_is_number", "tie_word_embeddings", 1, "tie_word_embeddings: expected true or false"),
        set("bos_beyond", "bos_token_id", 768, "bos_token_id: expected token ids below vocab_size (768)"),
        set("eos_is_text", "eos_token_id", "x", "eos_token_id"),
        set("eos_list_of_text", "eos_token_id", {1, "x"}, "eos_token_id"),
        set("rope_is_number", "rope_scaling", 3, "rope_scaling: expected an object"),
        set("rope_unknown", "rope_scaling", {{"type", "yarn"}},
            "expected \"default\", \"linear\" or \"llama3\""),
        set("rope_no_factor", "rope_scaling", {{"type", "linear"}}, "factor is missing"),
        set("rope_llama3_incomplete", "rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}},
            "low_freq_factor is missing"),
        set("rope_llama3_swapped", "rope_scaling",
            {{"rope_type", "llama3"},
             {"factor", 8.0},
             {"low_freq_factor", 4.0},
             {"high_freq_factor", 1.0},
             {"original_max_position_embeddings", 8192}},
            "high_freq_factor: expected more than low_freq_factor"),
        set("theta_negative", "rope_theta", -1.0, "rope_theta"),
        set("projector_linear", "mm_projector_type", "linear", "mm_projector_type: expected \"mlp2x_gelu\""),
        BadConfig{"projector_absent", [](TinyCheckpoint& c) { c.config.erase("mm_projector_type"); },
                  "mm_projector_type: expected \"mlp2x_gelu\", found nothing"},
        set("class_patch", "mm_vision_select_feature", "cls_patch", "mm_vision_select_feature"),
        set("start_end", "mm_use_im_start_end", true, "mm_use_im_start_end"),
        set("ratio_zero", "resolution_ratio", 0, "resolution_ratio"),
        set("ratio_fraction", "resolution_ratio", 1.5, "resolution_ratio"),
        set("compressor_zero", "compressor_size", 0, "compressor_size"),
        set("compressor_text", "compressor_size", "1", "compressor_size"),
        set("compressor_empty_list", "compressor_size", json::array(), "compressor_size"),
        set("compressor_twice", "compressor_size", {1, 2, 1}, "compressor_size: expected different integers"),
        set("prefusion_negative", "prefusion_layer_num", -1, "prefusion_layer_num"),
        set("mm_hidden_size_differs", "mm_hidden_size", 1024,
            "mm_hidden_size: expected 128 (the vision tower's width), found 1024"),
        set_clip("tower_not_clip", "model_type", "siglip_vision_model",
                 "model_type: expected \"clip_vision_model\""),
        set_clip("tower_activation", "hidden_act", "relu", "hidden_act"),
        set_clip("tower_patches_do_not_divide", "image_size", 30,
                 "image_size: expected a multiple of patch_size"),
        set_clip("tower_heads_do_not_divide", "num_attention_heads", 3, "hidden_size: expected a multiple"),
        set_clip("tower_no_compressor_heads", "hidden_size", 64, "no multiple of it"),
        set_clip("tower_grey", "num_channels", 1, "num_channels: expected 3"),
        set_pre("crop_differs", "crop_size", {{"height", 28}, {"width", 24}}, "width: expected 28"),
        set_pre("size_differs", "size", {{"shortest_edge", 14}}, "shortest_edge: expected 28"),
        set_pre("size_number_differs", "size", 14, "size: expected 28"),
        set_pre("no_crop", "do_center_crop", false, "do_center_crop: expected true"),
        set_pre("bilinear", "resample", 2, "resample: expected 3 (bicubic)"),
        set_pre("rescale", "rescale_factor", 1.0, "rescale_factor: expected 1/255"),
        set_pre("mean_of_two", "image_mean", {0.5, 0.5}, "image_mean: expected three numbers"),
        set_pre("std_zero", "image_std", {0.5, 0.0, 0.5}, "image_std")),
    [](const auto& info) { return std::string(info.param.name); });

TEST(CheckpointConfig, TextThatIsNoJson) {
    const test::TempDir dir;
    const auto folder = test::tiny_checkpoint().write(dir.path());
    const SafetensorsReader weights(folder);
    std::string deep(100000, '[');
    for (const std::string& text : {std::string(), std::string("{"), std::string("{\"a\": 1, \"a\": 2}"),
                                    std::string("\xff\xfe"), std::string("{\"a\": 1e999}"), deep}) {
        std::ofstream(folder / "config.json", std::ios::binary) << text;
        EXPECT_THAT(error_text([&] { read_checkpoint_config(folder, std::nullopt, weights); }),
                    HasSubstr("config.json: "));
    }
    std::filesystem::remove(folder / "config.json");
    EXPECT_THAT(error_text([&] { read_checkpoint_config(folder, std::nullopt, weights); }),
                HasSubstr("config.json: cannot open"));
}

}  // namespace
}  // namespace llava_mini
