#include "model/hparams.h"

#include <cmath>
#include <set>
#include <string_view>

#include "core/error.h"
#include "model/hparam_limits.h"

namespace llava_mini {
namespace {

constexpr size_t kMaxStringBytes = 1 << 20;

// Keys, each below the architecture's name.
constexpr const char* kVersion = "llava-mini.version";
constexpr const char* kImageSize = "llava-mini.vision.image_size";
constexpr const char* kPatchSize = "llava-mini.vision.patch_size";
constexpr const char* kTowerLayers = "llava-mini.vision.block_count";
constexpr const char* kTowerWidth = "llava-mini.vision.embedding_length";
constexpr const char* kTowerFeedForward = "llava-mini.vision.feed_forward_length";
constexpr const char* kTowerHeads = "llava-mini.vision.attention.head_count";
constexpr const char* kTowerEpsilon = "llava-mini.vision.attention.layer_norm_epsilon";
constexpr const char* kTowerActivation = "llava-mini.vision.activation";
constexpr const char* kImageMean = "llava-mini.vision.image_mean";
constexpr const char* kImageStd = "llava-mini.vision.image_std";
constexpr const char* kAspectRatio = "llava-mini.preprocess.image_aspect_ratio";
constexpr const char* kResolutionRatio = "llava-mini.preprocess.resolution_ratio";
constexpr const char* kGrids = "llava-mini.compressor.grids";  // absent: no compressor
constexpr const char* kCompressorHeadDim = "llava-mini.compressor.head_dim";
constexpr const char* kAveragePooling = "llava-mini.compressor.average_pooling";  // absent: 0
constexpr const char* kPrefusionLayers = "llava-mini.prefusion.block_count";
constexpr const char* kWidth = "llava-mini.prefusion.embedding_length";
constexpr const char* kFeedForward = "llava-mini.prefusion.feed_forward_length";
constexpr const char* kHeads = "llava-mini.prefusion.attention.head_count";
constexpr const char* kHeadsKv = "llava-mini.prefusion.attention.head_count_kv";
constexpr const char* kHeadDim = "llava-mini.prefusion.attention.key_length";
constexpr const char* kRmsEpsilon = "llava-mini.prefusion.attention.layer_norm_rms_epsilon";
constexpr const char* kRopeTheta = "llava-mini.prefusion.rope.freq_base";
constexpr const char* kRopeLinear = "llava-mini.prefusion.rope.scaling.factor";
constexpr const char* kMaxPromptTokens = "llava-mini.max_prompt_tokens";
constexpr const char* kSystemPrompt = "llava-mini.system_prompt";

// Metadata of one file; every getter throws Error(kInput) naming file and key.
class Metadata {
  public:
    Metadata(const gguf_context* gguf, const std::string& file) : gguf_(gguf), file_(file) {}

    bool has(const char* key) const { return gguf_find_key(gguf_, key) >= 0; }

    int integer(const char* key, int64_t low, int64_t high) const {
        const uint32_t value = gguf_get_val_u32(gguf_, find(key, GGUF_TYPE_UINT32));
        if (value < low || value > high) {
            throw_input("{}: {}: expected a number from {} to {}, found {}", file_, key, low, high, value);
        }
        return static_cast<int>(value);
    }

    float real(const char* key, float low, float high) const {
        const float value = gguf_get_val_f32(gguf_, find(key, GGUF_TYPE_FLOAT32));
        check_real(key, value, low, high);
        return value;
    }

    std::string text(const char* key) const {
        const std::string value = gguf_get_val_str(gguf_, find(key, GGUF_TYPE_STRING));
        if (value.size() > kMaxStringBytes) {
            throw_input("{}: {}: expected at most {} bytes, found {}", file_, key, kMaxStringBytes,
                        value.size());
        }
        return value;
    }

    std::array<float, 3> colour(const char* key, float low, float high) const {
        const auto [data, count] = array(key, GGUF_TYPE_FLOAT32);
        if (count != 3) throw_input("{}: {}: expected 3 numbers, found {}", file_, key, count);
        std::array<float, 3> values;
        for (size_t i = 0; i < 3; ++i) {
            values[i] = static_cast<const float*>(data)[i];
            check_real(key, values[i], low, high);
        }
        return values;
    }

    std::vector<int> distinct_integers(const char* key, int64_t low, int64_t high, size_t max_count) const {
        const auto [data, count] = array(key, GGUF_TYPE_UINT32);
        if (count == 0 || count > max_count) {
            throw_input("{}: {}: expected 1 to {} numbers, found {}", file_, key, max_count, count);
        }
        std::vector<int> values;
        std::set<uint32_t> seen;
        for (size_t i = 0; i < count; ++i) {
            const uint32_t value = static_cast<const uint32_t*>(data)[i];
            if (value < low || value > high || !seen.insert(value).second) {
                throw_input("{}: {}: expected different numbers from {} to {}, found {}", file_, key, low,
                            high, value);
            }
            values.push_back(static_cast<int>(value));
        }
        return values;
    }

  private:
    // gguf's getters abort on another type, so types are looked at first.
    int64_t find(const char* key, gguf_type type) const {
        const int64_t id = gguf_find_key(gguf_, key);
        if (id < 0) throw_input("{}: the key {} is missing", file_, key);
        const gguf_type found = gguf_get_kv_type(gguf_, id);
        if (found != type) {
            throw_input("{}: {}: expected type {}, found {}", file_, key, gguf_type_name(type),
                        gguf_type_name(found));
        }
        return id;
    }

    std::pair<const void*, size_t> array(const char* key, gguf_type type) const {
        const int64_t id = find(key, GGUF_TYPE_ARRAY);
        const gguf_type found = gguf_get_arr_type(gguf_, id);
        if (found != type) {
            throw_input("{}: {}: expected an array of {}, found one of {}", file_, key, gguf_type_name(type),
                        gguf_type_name(found));
        }
        return {gguf_get_arr_data(gguf_, id), gguf_get_arr_n(gguf_, id)};
    }

    void check_real(const char* key, float value, float low, float high) const {
        if (!(value >= low && value <= high)) {  // also catches not-a-number
            throw_input("{}: {}: expected a number from {} to {}, found {}", file_, key, low, high, value);
        }
    }

    const gguf_context* gguf_;
    const std::string& file_;
};

void set_integer(gguf_context* gguf, const char* key, int value) {
    gguf_set_val_u32(gguf, key, static_cast<uint32_t>(value));
}

}  // namespace

void write_vision_hparams(gguf_context* gguf, const VisionHparams& hp) {
    gguf_set_val_str(gguf, "general.architecture", kVisionArchitecture);
    gguf_set_val_str(gguf, "general.name", hp.name.c_str());
    gguf_set_val_u32(gguf, kVersion, kVisionGgufVersion);

    set_integer(gguf, kImageSize, hp.image_size);
    set_integer(gguf, kPatchSize, hp.patch_size);
    set_integer(gguf, kTowerLayers, hp.n_layer);
    set_integer(gguf, kTowerWidth, hp.n_embd);
    set_integer(gguf, kTowerFeedForward, hp.n_ff);
    set_integer(gguf, kTowerHeads, hp.n_head);
    gguf_set_val_f32(gguf, kTowerEpsilon, hp.layer_norm_eps);
    gguf_set_val_str(gguf, kTowerActivation, hp.activation.c_str());
    gguf_set_arr_data(gguf, kImageMean, GGUF_TYPE_FLOAT32, hp.image_mean.data(), 3);
    gguf_set_arr_data(gguf, kImageStd, GGUF_TYPE_FLOAT32, hp.image_std.data(), 3);

    gguf_set_val_str(gguf, kAspectRatio, hp.image_aspect_ratio.c_str());
    set_integer(gguf, kResolutionRatio, hp.resolution_ratio);

    if (!hp.compressor_grids.empty()) {
        const std::vector<uint32_t> grids(hp.compressor_grids.begin(), hp.compressor_grids.end());
        gguf_set_arr_data(gguf, kGrids, GGUF_TYPE_UINT32, grids.data(), grids.size());
        set_integer(gguf, kCompressorHeadDim, hp.compressor_head_dim);
        if (hp.average_pooling) set_integer(gguf, kAveragePooling, 1);
    }

    set_integer(gguf, kPrefusionLayers, hp.prefusion.n_layer);
    set_integer(gguf, kWidth, hp.prefusion.n_embd);
    set_integer(gguf, kFeedForward, hp.prefusion.n_ff);
    set_integer(gguf, kHeads, hp.prefusion.n_head);
    set_integer(gguf, kHeadsKv, hp.prefusion.n_head_kv);
    set_integer(gguf, kHeadDim, hp.prefusion.head_dim);
    gguf_set_val_f32(gguf, kRmsEpsilon, hp.prefusion.rms_eps);
    gguf_set_val_f32(gguf, kRopeTheta, hp.prefusion.rope_theta);
    gguf_set_val_f32(gguf, kRopeLinear, hp.prefusion.rope_linear_factor);

    set_integer(gguf, kMaxPromptTokens, hp.max_prompt_tokens);
    gguf_set_val_str(gguf, kSystemPrompt, hp.system_prompt.c_str());
}

VisionHparams read_vision_hparams(const gguf_context* gguf, const std::string& file) {
    const Metadata metadata(gguf, file);
    const std::string architecture = metadata.text("general.architecture");
    if (architecture != kVisionArchitecture) {
        throw_input("{}: general.architecture: expected \"{}\", found \"{}\"", file, kVisionArchitecture,
                    architecture);
    }
    const int version = metadata.integer(kVersion, 1, INT32_MAX);
    if (version > static_cast<int>(kVisionGgufVersion)) {
        throw_input("{}: the file has version {}, this program reads versions up to {}: update the program",
                    file, version, kVisionGgufVersion);
    }

    VisionHparams hp;
    if (metadata.has("general.name")) hp.name = metadata.text("general.name");

    hp.image_size = metadata.integer(kImageSize, 1, kMaxImageSize);
    hp.patch_size = metadata.integer(kPatchSize, 1, kMaxImageSize);
    if (hp.image_size % hp.patch_size != 0) {
        throw_input("{}: {}: expected a multiple of {} ({}), found {}", file, kImageSize, kPatchSize,
                    hp.patch_size, hp.image_size);
    }
    hp.n_layer = metadata.integer(kTowerLayers, 1, kMaxLayers);
    hp.n_embd = metadata.integer(kTowerWidth, 1, kMaxWidth);
    hp.n_ff = metadata.integer(kTowerFeedForward, 1, kMaxWidth);
    hp.n_head = metadata.integer(kTowerHeads, 1, kMaxHeads);
    if (hp.n_embd % hp.n_head != 0) {
        throw_input("{}: {}: expected a multiple of {} ({}), found {}", file, kTowerWidth, kTowerHeads,
                    hp.n_head, hp.n_embd);
    }
    hp.layer_norm_eps = metadata.real(kTowerEpsilon, 0.0f, 1.0f);
    hp.activation = metadata.text(kTowerActivation);
    if (hp.activation != "quick_gelu" && hp.activation != "gelu") {
        throw_input("{}: {}: expected \"quick_gelu\" or \"gelu\", found \"{}\"", file, kTowerActivation,
                    hp.activation);
    }
    hp.image_mean = metadata.colour(kImageMean, -1e3f, 1e3f);
    hp.image_std = metadata.colour(kImageStd, 1e-6f, 1e3f);

    hp.image_aspect_ratio = metadata.text(kAspectRatio);
    hp.resolution_ratio = metadata.integer(kResolutionRatio, 1, kMaxResolutionRatio);

    if (metadata.has(kGrids)) {
        hp.compressor_grids = metadata.distinct_integers(kGrids, 1, kMaxGridSide, kMaxGrids);
        hp.compressor_head_dim = metadata.integer(kCompressorHeadDim, 1, kMaxWidth);
        hp.average_pooling = metadata.has(kAveragePooling) && metadata.integer(kAveragePooling, 0, 1) == 1;
        for (const int side : hp.compressor_grids) {
            if (hp.average_pooling && hp.patches_per_side() % side != 0) {
                throw_input("{}: {}: expected divisors of the map's side {} (average pooling), found {}",
                            file, kGrids, hp.patches_per_side(), side);
            }
        }
        if (!hp.average_pooling && hp.n_embd % hp.compressor_head_dim != 0) {
            throw_input("{}: {}: expected a divisor of {} ({}), found {}", file, kCompressorHeadDim,
                        kTowerWidth, hp.n_embd, hp.compressor_head_dim);
        }
    }

    LlamaHparams& prefusion = hp.prefusion;
    prefusion.n_layer = metadata.integer(kPrefusionLayers, 0, kMaxLayers);
    prefusion.n_embd = metadata.integer(kWidth, 1, kMaxWidth);
    prefusion.n_ff = metadata.integer(kFeedForward, 1, kMaxWidth);
    prefusion.n_head = metadata.integer(kHeads, 1, kMaxHeads);
    prefusion.n_head_kv = metadata.integer(kHeadsKv, 1, kMaxHeads);
    if (prefusion.n_head % prefusion.n_head_kv != 0) {
        throw_input("{}: {}: expected a multiple of {} ({}), found {}", file, kHeads, kHeadsKv,
                    prefusion.n_head_kv, prefusion.n_head);
    }
    prefusion.head_dim = metadata.integer(kHeadDim, 2, kMaxWidth);
    if (prefusion.head_dim % 2 != 0) {
        throw_input("{}: {}: expected an even number, found {}", file, kHeadDim, prefusion.head_dim);
    }
    prefusion.rms_eps = metadata.real(kRmsEpsilon, 0.0f, 1.0f);
    prefusion.rope_theta = metadata.real(kRopeTheta, 1.0f, static_cast<float>(kMaxRopeTheta));
    prefusion.rope_linear_factor = metadata.real(kRopeLinear, 1e-3f, 1e6f);

    hp.max_prompt_tokens = metadata.integer(kMaxPromptTokens, 0, INT32_MAX);
    hp.system_prompt = metadata.text(kSystemPrompt);
    return hp;
}

}  // namespace llava_mini
