// Hyper-parameters of both files, read from a checkpoint's config.json or from GGUF metadata.
#pragma once

#include <gguf.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace llava_mini {

/// Shape of a Llama decoder layer stack: the language model, and the pre-fusion layers, which share it.
struct LlamaHparams {
    int n_layer = 0;
    int n_embd = 0;  // d
    int n_ff = 0;
    int n_head = 0;
    int n_head_kv = 0;
    int head_dim = 0;
    int n_vocab = 0;
    int n_ctx_train = 0;
    float rms_eps = 1e-5f;
    float rope_theta = 10000.0f;
    float rope_linear_factor = 1.0f;  // rope scaling "linear": positions are divided by it
    // rope scaling "llama3": every frequency divided by its factor; empty: none. [head_dim / 2]
    std::vector<float> rope_freq_factors;
    bool tied_embeddings = false;
};

/// The vision side: tower, compressor, projector, pre-fusion. What vision.gguf's metadata holds.
struct VisionHparams {
    std::string name;

    // Vision tower (a CLIP vision transformer).
    int image_size = 336;
    int patch_size = 14;
    int n_layer = 0;  // layers that are run and stored: all up to mm_vision_select_layer
    int n_embd = 0;   // d_v
    int n_ff = 0;
    int n_head = 0;
    float layer_norm_eps = 1e-5f;
    std::string activation = "quick_gelu";  // or "gelu" (exact)
    std::array<float, 3> image_mean{}, image_std{};

    // Preprocessing.
    std::string image_aspect_ratio = "square";  // "pad", anything else leaves the picture as it is
    int resolution_ratio = 1;                   // n of high resolution, the model's default

    // Compressor: sides C of the query grids, the default first; empty: no compressor (plain LLaVA).
    std::vector<int> compressor_grids;
    int compressor_head_dim = 128;
    /// The vision tokens are the means of C * C equal blocks of the feature map; there are no queries (an
    /// ablation of the paper). Every C divides the map's side.
    bool average_pooling = false;

    // Pre-fusion: 0 layers is allowed. Its n_vocab, n_ctx_train, tied_embeddings are unused, except that
    // prefusion.n_embd is always the language model's width d.
    LlamaHparams prefusion;

    int max_prompt_tokens = 0;  // tokenizer_model_max_length of the checkpoint; 0: not limited
    std::string system_prompt;

    int patches_per_side() const { return image_size / patch_size; }
    int patches() const { return patches_per_side() * patches_per_side(); }  // P
    int compressor_heads() const { return n_embd / compressor_head_dim; }
    /// Vision tokens a picture puts into the language model with grid side C (or P without a compressor).
    int vision_tokens(int grid_side) const {
        return compressor_grids.empty() ? patches() : grid_side * grid_side;
    }
};

/// Version of vision.gguf that this program writes; it reads this one and older ones.
inline constexpr uint32_t kVisionGgufVersion = 1;
inline constexpr const char* kVisionArchitecture = "llava-mini";

/// Writes the metadata of vision.gguf (everything but rope factors, which are a tensor).
void write_vision_hparams(gguf_context* gguf, const VisionHparams& hparams);

/// Reads and checks the metadata of vision.gguf; `file` names the file in errors. Throws Error(kInput) for a
/// wrong architecture, a version too new, a missing key or a value out of range (nothing read is believed).
VisionHparams read_vision_hparams(const gguf_context* gguf, const std::string& file);

}  // namespace llava_mini
