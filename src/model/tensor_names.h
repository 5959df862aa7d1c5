// The one table of tensors: names in a checkpoint, names in GGUF, shapes, and how precisely each is kept.
// Loader, converter, synth and trainer all use it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/hparams.h"

namespace llava_mini {

enum class Keep {
    kQuantizable,  // a matrix of the language model: any type
    kAtLeastQ5,    // a matrix of the pre-fusion: 5 bits or more
    kAtLeastQ6,    // a matrix of the vision tower: 6 bits or more
    kHalf,         // small or sensitive matrix: f16 unless the file is f32 or bf16
    kFull          // vectors (norms, biases, queries, positions): always f32
};

/// Whether tensors kept so are the large factors of matrix products, which backends may store rearranged.
inline bool is_large_matrix(Keep keep) {
    return keep != Keep::kHalf && keep != Keep::kFull;
}

struct TensorSpec {
    std::string gguf;            // name in our GGUF
    std::string checkpoint;      // name in a Hugging Face checkpoint, below the part's prefix
    std::vector<int64_t> shape;  // checkpoint (row-major, torch) order
    Keep keep;
    // Rows of q and k as Hugging Face stores them (half-split rotation) are put into the interleaved order of
    // GGUF's architecture `llama`, for this many heads; 0: as they are. Pre-fusion keeps the half-split
    // order.
    int interleave_heads = 0;
};

/// Tensors of the vision tower; checkpoint names are those below a CLIP folder's root ("vision_model....").
std::vector<TensorSpec> tower_tensors(const VisionHparams& hparams);

/// Compressor, projector and pre-fusion; checkpoint names are those below "model.".
/// Of a checkpoint with one grid the query is "compressor.query"; with several "compressor.query.{C}" (so
/// pos_embed); in GGUF always "compressor.{C}.query".
std::vector<TensorSpec> bridge_tensors(const VisionHparams& hparams);

/// The language model; names as they are in a checkpoint ("model.layers....", "lm_head.weight").
std::vector<TensorSpec> language_tensors(const LlamaHparams& hparams);

/// GGUF name of the pre-fusion's rope frequency factors, f32 [head_dim / 2]; only present with llama3
/// scaling.
inline constexpr const char* kPrefusionRopeFactors = "prefusion.rope_freqs.weight";

/// Llama 3's rope scaling: the factor by which each frequency of the half-split rotation is divided.
/// Source: Llama 3.1's reference (low frequencies / factor, high ones kept, a smooth step between).
std::vector<float> llama3_rope_freq_factors(int head_dim, float theta, float factor, float low_freq_factor,
                                            float high_freq_factor, float original_context);

}  // namespace llava_mini
