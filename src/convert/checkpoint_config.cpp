#include "convert/checkpoint_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "convert/json_input.h"
#include "core/error.h"
#include "model/hparam_limits.h"
#include "model/tensor_names.h"

namespace llava_mini {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr uint64_t kMaxConfigBytes = 16 << 20;
constexpr int kDefaultPrefusionLayers = 4;

// Frequency factors or the linear factor of config.json's rope scaling.
void read_rope(const JsonObject& config, LlamaHparams& hp) {
    // Newer versions of transformers hold theta and scaling in one object, rope_parameters.
    const char* key = config.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
    const std::optional<JsonObject> scaling = config.object(key);
    hp.rope_theta = config.real_or("rope_theta", 1.0, kMaxRopeTheta, 10000.0f);
    if (!scaling) return;
    hp.rope_theta = scaling->real_or("rope_theta", 1.0, kMaxRopeTheta, hp.rope_theta);

    const char* type_key = scaling->has("rope_type") ? "rope_type" : "type";
    const std::string type = scaling->text_or(type_key, "default");
    if (type == "default") return;
    if (type == "linear") {
        hp.rope_linear_factor = scaling->real("factor", 1e-3, 1e6);
    } else if (type == "llama3") {
        const float factor = scaling->real("factor", 1e-3, 1e6);
        const float low = scaling->real("low_freq_factor", 1e-6, 1e6);
        const float high = scaling->real("high_freq_factor", 1e-6, 1e6);
        if (high <= low)
            scaling->fail("high_freq_factor", fmt::format("more than low_freq_factor ({})", low));
        const int context = scaling->integer("original_max_position_embeddings", 1, INT32_MAX);
        hp.rope_freq_factors = llama3_rope_freq_factors(hp.head_dim, hp.rope_theta, factor, low, high,
                                                        static_cast<float>(context));
    } else {
        scaling->fail(type_key, "\"default\", \"linear\" or \"llama3\"");
    }
}

LlamaHparams read_language(const JsonObject& config) {
    LlamaHparams hp;
    if (const std::string type = config.text_or("model_type", "llama");
        type.find("llama") == std::string::npos && type != "llava" && type != "llava_mini") {
        config.fail("model_type", "a Llama model");
    }
    hp.n_layer = config.integer("num_hidden_layers", 1, kMaxLayers);
    hp.n_embd = config.integer("hidden_size", 1, kMaxWidth);
    hp.n_ff = config.integer("intermediate_size", 1, kMaxWidth);
    hp.n_head = config.integer("num_attention_heads", 1, kMaxHeads);
    hp.n_head_kv = config.integer_or("num_key_value_heads", 1, kMaxHeads, hp.n_head);
    if (hp.n_head % hp.n_head_kv != 0) {
        config.fail("num_key_value_heads", fmt::format("a divisor of num_attention_heads ({})", hp.n_head));
    }
    if (!config.has("head_dim") && hp.n_embd % hp.n_head != 0) {
        config.fail("hidden_size", fmt::format("a multiple of num_attention_heads ({})", hp.n_head));
    }
    hp.head_dim = config.integer_or("head_dim", 2, kMaxWidth, hp.n_embd / hp.n_head);
    if (hp.head_dim < 2 || hp.head_dim % 2 != 0) {
        throw_input(
            "{}: expected heads of an even width, found {} (head_dim, or hidden_size / "
            "num_attention_heads)",
            config.where(), hp.head_dim);
    }
    hp.n_vocab = config.integer("vocab_size", 1, kMaxVocabulary);
    hp.n_ctx_train = config.integer_or("max_position_embeddings", 1, INT32_MAX, 2048);
    hp.rms_eps = config.real_or("rms_norm_eps", 0.0, 1.0, 1e-6f);
    hp.tied_embeddings = config.boolean_or("tie_word_embeddings", false);
    if (config.text_or("hidden_act", "silu") != "silu") config.fail("hidden_act", "\"silu\"");
    if (config.boolean_or("attention_bias", false)) config.fail("attention_bias", "false");
    if (config.boolean_or("mlp_bias", false)) config.fail("mlp_bias", "false");
    read_rope(config, hp);
    return hp;
}

// Sides of the compressor's grids: a number, or (our extension) a list of different ones, the default first.
std::vector<int> read_grids(const JsonObject& config) {
    const json* value = config.find("compressor_size");
    if (value == nullptr) return {};
    if (!value->is_array()) return {config.integer("compressor_size", 1, kMaxGridSide)};
    std::vector<int> grids;
    for (const json& side : *value) {
        if (!side.is_number_unsigned() || side.get<uint64_t>() < 1 || side.get<uint64_t>() > kMaxGridSide ||
            std::count(grids.begin(), grids.end(), side.get<int>()) > 0) {
            throw_input("{}: compressor_size: expected different integers from 1 to {}, found {}",
                        config.where(), kMaxGridSide, describe_json(side));
        }
        grids.push_back(side.get<int>());
    }
    if (grids.empty() || grids.size() > kMaxGrids) {
        config.fail("compressor_size", fmt::format("1 to {} integers", kMaxGrids));
    }
    return grids;
}

struct TowerShape {
    int image_size, patch_size, layers, width, feed_forward, heads;
    float layer_norm_eps;
    std::string activation;
};

// config.json of a CLIP folder: of the vision model alone, or of the whole CLIP with the vision model in
// vision_config. Missing fields have the values of transformers' CLIPVisionConfig.
TowerShape read_tower_config(const fs::path& file) {
    const json root = read_json_file(file, kMaxConfigBytes);
    const JsonObject outer(root, file.string());
    const JsonObject config = outer.object("vision_config").value_or(outer);
    if (const std::string type = config.text_or("model_type", "clip_vision_model");
        type != "clip_vision_model" && type != "clip") {
        config.fail("model_type", "\"clip_vision_model\"");
    }
    TowerShape shape;
    shape.image_size = config.integer_or("image_size", 1, kMaxImageSize, 224);
    shape.patch_size = config.integer_or("patch_size", 1, kMaxImageSize, 32);
    shape.layers = config.integer_or("num_hidden_layers", 1, kMaxLayers, 12);
    shape.width = config.integer_or("hidden_size", 1, kMaxWidth, 768);
    shape.feed_forward = config.integer_or("intermediate_size", 1, kMaxWidth, 3072);
    shape.heads = config.integer_or("num_attention_heads", 1, kMaxHeads, 12);
    shape.layer_norm_eps = config.real_or("layer_norm_eps", 0.0, 1.0, 1e-5f);
    shape.activation = config.text_or("hidden_act", "quick_gelu");
    if (shape.activation != "quick_gelu" && shape.activation != "gelu") {
        config.fail("hidden_act", "\"quick_gelu\" or \"gelu\"");
    }
    if (config.integer_or("num_channels", 1, 1024, 3) != 3) config.fail("num_channels", "3");
    if (shape.image_size % shape.patch_size != 0) {
        config.fail("image_size", fmt::format("a multiple of patch_size ({})", shape.patch_size));
    }
    if (shape.width % shape.heads != 0) {
        config.fail("hidden_size", fmt::format("a multiple of num_attention_heads ({})", shape.heads));
    }
    return shape;
}

// A tower inside the checkpoint without any config.json: shapes tell all but three things, in which every
// CLIP model of OpenAI is alike: heads of 64, quick GELU, eps 1e-5.
TowerShape infer_tower(const SafetensorsReader& weights) {
    const std::string root = std::string(kTowerInsidePrefix) + "vision_model.";
    const auto shape_of = [&](const std::string& name, size_t dimensions) {
        const SafetensorsTensor* tensor = weights.find(root + name);
        if (tensor == nullptr || tensor->shape.size() != dimensions) {
            throw_input(
                "{}: the vision tower has no config.json, and its shape cannot be seen from {}{}, which is "
                "{}: give its folder by --vision-tower",
                weights.name(), root, name, tensor == nullptr ? "missing" : "misshapen");
        }
        for (const int64_t n : tensor->shape) {
            if (n < 1 || n > kMaxWidth) {
                throw_input("{}: {}{}: unlikely shape [{}]", weights.name(), root, name,
                            fmt::join(tensor->shape, ", "));
            }
        }
        return tensor->shape;
    };
    TowerShape shape;
    const auto patches = shape_of("embeddings.patch_embedding.weight", 4);
    const auto positions = shape_of("embeddings.position_embedding.weight", 2);
    shape.width = static_cast<int>(patches[0]);
    shape.patch_size = static_cast<int>(patches[3]);
    const auto side = std::llround(std::sqrt(static_cast<double>(positions[0] - 1)));
    if (side < 1 || side * side != positions[0] - 1 || side * shape.patch_size > kMaxImageSize) {
        throw_input("{}: {}embeddings.position_embedding.weight: expected 1 + a square of rows, found {}",
                    weights.name(), root, positions[0]);
    }
    shape.image_size = static_cast<int>(side) * shape.patch_size;
    shape.feed_forward = static_cast<int>(shape_of("encoder.layers.0.mlp.fc1.weight", 2)[0]);
    shape.layers = 0;
    while (shape.layers < kMaxLayers &&
           weights.has_prefix(fmt::format("{}encoder.layers.{}.", root, shape.layers))) {
        ++shape.layers;
    }
    shape.heads = std::max(1, shape.width / 64);
    if (shape.width % shape.heads != 0) {
        throw_input(
            "{}: the vision tower has no config.json, and its width {} is no multiple of 64: give its "
            "folder by --vision-tower",
            weights.name(), shape.width);
    }
    shape.layer_norm_eps = 1e-5f;
    shape.activation = "quick_gelu";
    return shape;
}

// A side length that preprocessor_config.json gives as a number or as an object.
void check_side(const JsonObject& config, const char* key, std::initializer_list<const char*> fields,
                int expected) {
    const json* value = config.find(key);
    if (value == nullptr) return;
    const auto check = [&](const JsonObject& object, const char* field) {
        if (object.integer(field, 1, kMaxImageSize) != expected) {
            object.fail(field, fmt::format("{} (the vision tower's image_size)", expected));
        }
    };
    if (!value->is_object()) {
        check(config, key);
        return;
    }
    const JsonObject sides = *config.object(key);
    for (const char* field : fields) check(sides, field);
}

std::array<float, 3> read_colour(const JsonObject& config, const char* key, std::array<float, 3> otherwise,
                                 double low) {
    const json* value = config.find(key);
    if (value == nullptr) return otherwise;
    std::array<float, 3> colour;
    if (!value->is_array() || value->size() != 3) config.fail(key, "three numbers");
    for (size_t i = 0; i < 3; ++i) {
        const json& number = (*value)[i];
        if (!number.is_number() || !(number.get<double>() >= low && number.get<double>() <= 1000.0)) {
            config.fail(key, fmt::format("three numbers from {} to 1000", low));
        }
        colour[i] = static_cast<float>(number.get<double>());
    }
    return colour;
}

// preprocessor_config.json: mean and deviation are taken, everything else must be what CLIP's image processor
// does by default, because that is what the runtime does.
void read_preprocessor(const fs::path& folder, VisionHparams& hp) {
    hp.image_mean = {0.48145466f, 0.4578275f, 0.40821073f};
    hp.image_std = {0.26862954f, 0.26130258f, 0.27577711f};
    std::error_code ignored;
    const fs::path file = folder / "preprocessor_config.json";
    if (!fs::exists(file, ignored)) return;
    const json root = read_json_file(file, kMaxConfigBytes);
    const JsonObject config(root, file.string());
    for (const char* step : {"do_resize", "do_center_crop", "do_rescale", "do_normalize"}) {
        if (!config.boolean_or(step, true)) config.fail(step, "true");
    }
    if (config.integer_or("resample", 0, 100, 3) != 3) config.fail("resample", "3 (bicubic)");
    if (std::fabs(config.real_or("rescale_factor", 0.0, 1e6, 1.0f / 255) - 1.0f / 255) > 1e-8f) {
        config.fail("rescale_factor", "1/255");
    }
    check_side(config, "size", {"shortest_edge"}, hp.image_size);
    check_side(config, "crop_size", {"height", "width"}, hp.image_size);
    hp.image_mean = read_colour(config, "image_mean", hp.image_mean, -1000.0);
    hp.image_std = read_colour(config, "image_std", hp.image_std, 1e-6);
}

// Absolute, and without a slash at the end, so that parent_path() is the folder above.
fs::path normal_folder(const fs::path& folder) {
    return fs::absolute(folder / "").lexically_normal().parent_path();
}

// The folder of the vision tower, empty if there is none.
fs::path find_tower_folder(const JsonObject& config, const fs::path& checkpoint,
                           const std::optional<fs::path>& given) {
    std::error_code ignored;
    if (given) {
        if (!fs::is_directory(*given, ignored)) throw_input("{}: not a folder", given->string());
        return *given;
    }
    const std::string name = config.text_or("mm_vision_tower", config.text_or("vision_tower", ""));
    if (name.empty()) return {};
    const fs::path base = normal_folder(checkpoint);
    for (const fs::path& start : {base, base.parent_path(), base.parent_path().parent_path()}) {
        const fs::path folder = start / name;  // `name` itself if it is absolute
        if (fs::exists(folder / "config.json", ignored)) return folder;
    }
    return {};
}

bool has_weights(const fs::path& folder) {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
        if (entry.path().extension() == ".safetensors") return true;
    }
    return false;
}

void read_token_ids(const JsonObject& config, CheckpointConfig& out) {
    const auto id_of = [&](const char* key, const json& value) {
        if (!value.is_number_unsigned() ||
            value.get<uint64_t>() >= static_cast<uint64_t>(out.language.n_vocab)) {
            config.fail(key, fmt::format("token ids below vocab_size ({})", out.language.n_vocab));
        }
        return value.get<int>();
    };
    if (const json* bos = config.find("bos_token_id"); bos != nullptr && !out.bos_id) {
        out.bos_id = id_of("bos_token_id", *bos);
    }
    if (const json* eos = config.find("eos_token_id")) {
        const auto add = [&](int id) {
            if (std::count(out.eos_ids.begin(), out.eos_ids.end(), id) == 0) out.eos_ids.push_back(id);
        };
        if (eos->is_array()) {
            for (const json& id : *eos) add(id_of("eos_token_id", id));
        } else {
            add(id_of("eos_token_id", *eos));
        }
    }
}

// Layers to run for the hidden state of index `select` of transformers' list of layers + 1 hidden states.
int layers_to_run(const JsonObject& config, int tower_layers) {
    const int select = config.integer_or("mm_vision_select_layer", -kMaxLayers, kMaxLayers, -2);
    const int layers = select < 0 ? tower_layers + 1 + select : select;
    if (layers < 1 || layers > tower_layers) {
        throw_input(
            "{}: mm_vision_select_layer: expected a layer of the vision tower's {} (1 to {}, or -1 to -{}), "
            "found {}",
            config.where(), tower_layers, tower_layers, tower_layers, select);
    }
    return layers;
}

}  // namespace

CheckpointConfig read_checkpoint_config(const fs::path& checkpoint,
                                        const std::optional<fs::path>& vision_tower,
                                        const SafetensorsReader& weights) {
    const fs::path file = checkpoint / "config.json";
    const json root = read_json_file(file, kMaxConfigBytes);
    const JsonObject config(root, file.string());

    CheckpointConfig out;
    out.language = read_language(config);
    read_token_ids(config, out);
    std::error_code ignored;
    if (const fs::path generation = checkpoint / "generation_config.json"; fs::exists(generation, ignored)) {
        const json generation_root = read_json_file(generation, kMaxConfigBytes);
        read_token_ids(JsonObject(generation_root, generation.string()), out);
    }

    VisionHparams& vision = out.vision;
    vision.name = normal_folder(checkpoint).filename().string();

    // What the runtime does not have must not be asked for.
    if (config.text_or("mm_projector_type", "linear") != "mlp2x_gelu") {
        config.fail("mm_projector_type", "\"mlp2x_gelu\"");
    }
    if (config.text_or("mm_vision_select_feature", "patch") != "patch") {
        config.fail("mm_vision_select_feature", "\"patch\"");
    }
    if (config.text_or("mm_patch_merge_type", "flat") != "flat")
        config.fail("mm_patch_merge_type", "\"flat\"");
    if (config.boolean_or("mm_use_im_start_end", false)) config.fail("mm_use_im_start_end", "false");

    const fs::path folder = find_tower_folder(config, checkpoint, vision_tower);
    const bool inside = weights.has_prefix(kTowerInsidePrefix);
    const bool trained = config.boolean_or("unfreeze_mm_vision_tower", false);
    if (!folder.empty() && has_weights(folder) && !(trained && inside)) out.tower_folder = folder;
    if (out.tower_folder.empty() && !inside) {
        throw_input(
            "{}: the checkpoint holds no vision tower, and none (with safetensors weights) is at \"{}\": "
            "give its folder by --vision-tower",
            checkpoint.string(),
            vision_tower ? vision_tower->string() : printable(config.text_or("mm_vision_tower", "")));
    }
    TowerShape tower;
    if (!folder.empty() && fs::exists(folder / "config.json", ignored)) {
        tower = read_tower_config(folder / "config.json");
    } else if (out.tower_folder.empty()) {
        tower = infer_tower(weights);
    } else {
        throw_input("{}: config.json is missing", folder.string());
    }
    if (config.has("mm_hidden_size") && config.integer("mm_hidden_size", 1, kMaxWidth) != tower.width) {
        config.fail("mm_hidden_size", fmt::format("{} (the vision tower's width)", tower.width));
    }
    vision.image_size = tower.image_size;
    vision.patch_size = tower.patch_size;
    vision.n_layer = layers_to_run(config, tower.layers);
    vision.n_embd = tower.width;
    vision.n_ff = tower.feed_forward;
    vision.n_head = tower.heads;
    vision.layer_norm_eps = tower.layer_norm_eps;
    vision.activation = tower.activation;
    read_preprocessor(folder.empty() ? checkpoint : folder, vision);

    vision.image_aspect_ratio = config.text_or("image_aspect_ratio", "square") == "pad" ? "pad" : "square";
    vision.resolution_ratio = config.integer_or("resolution_ratio", 1, kMaxResolutionRatio, 1);
    vision.compressor_grids = read_grids(config);
    // (our extension; a constant of the official code)
    vision.compressor_head_dim =
        config.integer_or("compressor_head_dim", 1, kMaxWidth, vision.compressor_head_dim);
    // (our extension: "average" for the paper's ablation)
    const std::string compressor = config.text_or("compressor", "queries");
    if (compressor != "queries" && compressor != "average") {
        config.fail("compressor", "\"queries\" or \"average\"");
    }
    vision.average_pooling = compressor == "average" && !vision.compressor_grids.empty();
    for (const int side : vision.compressor_grids) {
        if (vision.average_pooling && vision.patches_per_side() % side != 0) {
            config.fail("compressor_size",
                        fmt::format("divisors of the feature map's side {} (average pooling)",
                                    vision.patches_per_side()));
        }
    }
    if (!vision.compressor_grids.empty() && !vision.average_pooling &&
        vision.n_embd % vision.compressor_head_dim != 0) {
        throw_input(
            "{}: compressor_head_dim: the compressor has heads of {}, but the vision tower's width {} is no "
            "multiple of it",
            config.where(), vision.compressor_head_dim, vision.n_embd);
    }

    // A checkpoint without compressor and without pre-fusion tensors is a plain LLaVA.
    const bool plain = vision.compressor_grids.empty() && !weights.has_prefix("model.prefusion_layers.");
    vision.prefusion = out.language;
    vision.prefusion.n_layer =
        config.integer_or("prefusion_layer_num", 0, kMaxLayers, plain ? 0 : kDefaultPrefusionLayers);
    vision.max_prompt_tokens = config.integer_or("tokenizer_model_max_length", 0, INT32_MAX, 0);
    return out;
}

nlohmann::ordered_json config_fields(const LlamaHparams& language, const VisionHparams& vision) {
    return {{"architectures", {"LlavaMiniLlamaForCausalLM"}},
            {"model_type", "llava_mini_llama"},
            {"hidden_size", language.n_embd},
            {"intermediate_size", language.n_ff},
            {"num_hidden_layers", language.n_layer},
            {"num_attention_heads", language.n_head},
            {"num_key_value_heads", language.n_head_kv},
            {"head_dim", language.head_dim},
            {"vocab_size", language.n_vocab},
            {"max_position_embeddings", language.n_ctx_train},
            {"rms_norm_eps", language.rms_eps},
            {"rope_theta", language.rope_theta},
            {"hidden_act", "silu"},
            {"tie_word_embeddings", language.tied_embeddings},
            {"mm_projector_type", "mlp2x_gelu"},
            {"mm_hidden_size", vision.n_embd},
            {"mm_vision_select_feature", "patch"},
            {"image_aspect_ratio", vision.image_aspect_ratio},
            {"resolution_ratio", vision.resolution_ratio}};
}

nlohmann::ordered_json tower_fields(const VisionHparams& vision) {
    return {{"model_type", "clip_vision_model"},    {"image_size", vision.image_size},
            {"patch_size", vision.patch_size},      {"hidden_size", vision.n_embd},
            {"intermediate_size", vision.n_ff},     {"num_hidden_layers", vision.n_layer},
            {"num_attention_heads", vision.n_head}, {"layer_norm_eps", vision.layer_norm_eps},
            {"hidden_act", vision.activation}};
}

}  // namespace llava_mini
