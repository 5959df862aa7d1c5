// Modality pre-fusion: Llama layers in which the text takes in all patch features before the language model.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "core/backend.h"
#include "core/matrix.h"
#include "model/vision_weights.h"
#include "prefusion/prefusion_kv.h"

namespace llava_mini {

/// What the vision positions of one picture leave behind.
struct PrefusedVision {
    Matrix tokens;                    // [tokens, d] outputs at the compressed positions: the vision tokens
    Matrix outputs;                   // [vision positions, d] of the last layer; empty when it was trimmed
    std::shared_ptr<PrefusionKv> kv;  // of all vision positions
};

/// One run of text to be fused.
struct TextRows {
    Matrix embeddings;               // [N, d] rows of embed_tokens
    std::vector<int32_t> positions;  // [N] counted from the end of the picture's positions
    std::vector<uint8_t>
        visible;  // [N] 0: a masked position: hidden from every key, its rotary position is 1
};

struct FusedText {
    Matrix rows;                      // [N, d] outputs of the last layer: they replace the embeddings
    std::shared_ptr<PrefusionKv> kv;  // of the earlier text and this run, if asked for
};

/// Source: LLaVA-Mini, section 4.2: decoder layers of the language model's shape (RMSNorm, grouped-query
/// attention with half-split rotary positions, SwiGLU), causal, no final norm, over [patches of the blocks |
/// patches of the picture | compressed | text]. Not thread-safe.
class ModalityPrefusion {
  public:
    /// Both must outlive this. `kv_type`: f16, q8_0, or f32 for parity.
    ModalityPrefusion(const VisionWeights& weights, Backends& backends, ggml_type kv_type);

    /// rows [vision positions, d]: projected patch features, then the projected compressed tokens (the last
    /// `tokens` rows). With `trim` the last layer computes at the patch positions only what is needed of
    /// them: keys and values.
    PrefusedVision encode_vision(const Matrix& rows, int64_t tokens, bool trim = true);

    /// Fuses a run of text after `vision` and the first `earlier_rows` positions of `earlier` text (null:
    /// none). `keep_kv`: return the K/V of earlier text and this run together, for the next turn.
    FusedText fuse_text(const TextRows& text, const PrefusionKv& vision, const PrefusionKv* earlier,
                        int64_t earlier_rows, bool keep_kv);

  private:
    struct Layer;
    Layer layer(int index) const;
    ggml_tensor* rope(ggml_context* ctx, ggml_tensor* x, ggml_tensor* positions) const;
    void build_vision(int64_t positions, int64_t tokens, bool trim);

    const VisionWeights& weights_;
    Backends& backends_;
    ggml_type kv_type_;
    // The vision graph of the last shape. It writes K/V into its own tensors, from which they are copied.
    struct VisionGraph {
        int64_t positions = 0, tokens = 0;
        bool trim = true;
        std::unique_ptr<Graph> graph;
        std::unique_ptr<PrefusionKv> kv;
        std::vector<ggml_fp16_t> mask;
    } vision_;
};

}  // namespace llava_mini
