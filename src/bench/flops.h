// Floating point operations of every stage, counted from the shapes alone.
//
// Counted are matrix products and the two products of attention, a multiply-add as 2. Left out is what is
// linear in the activations: norms, activations, rotations, softmax, residuals (below 1 % together). Causal
// attention is counted as the formula needs it, a key for every query at or after it: kernels that compute
// more and throw it away do not get a higher rate for it. Embedding rows are looked up, not multiplied.
#pragma once

#include <cstdint>

#include "bench/stages.h"
#include "model/hparams.h"

namespace llava_mini::bench {

/// CLIP over `views` views: patch convolution and the layers that are run, attention over all P + 1
/// positions.
double tower_flops(const VisionHparams& hparams, int views);

/// The compressor's cross-attention with C * C queries over `keys` patch features. 0 without one, and
/// for average pooling.
double compressor_flops(const VisionHparams& hparams, int grid_side, int64_t keys);

/// The projector over `rows` features.
double projector_flops(const VisionHparams& hparams, int64_t rows);

/// `layers` Llama decoder layers over `rows` positions that follow `earlier` ones, causal.
double decoder_flops(const LlamaHparams& hparams, int layers, int64_t rows, int64_t earlier);

/// Pre-fusion over `positions` vision positions, of which the last `tokens` are the compressed ones. With
/// `trim` (what Pipeline does) the last layer computes at the others only keys and values.
double prefusion_vision_flops(const VisionHparams& hparams, int64_t positions, int64_t tokens,
                              bool trim = true);

/// The language model over `rows` positions after `earlier` ones, logits of the last one.
double language_flops(const LlamaHparams& hparams, int64_t rows, int64_t earlier);

/// What a question about one picture of one or several views consists of.
struct QuestionShape {
    int views = 1;      ///< n * n + 1 in high resolution
    int grid_side = 1;  ///< C; not used without a compressor
    int64_t text_tokens = 60;
};

/// Rows that go through projector and pre-fusion for the picture: blocks, whole picture, compressed tokens;
/// only the compressed ones where there is no pre-fusion, the patches alone where there is no compressor.
int64_t vision_positions(const VisionHparams& hparams, const QuestionShape& shape);

/// Everything up to the first logits. Preprocessing and choosing a token count as 0.
ByStage first_answer_flops(const VisionHparams& vision, const LlamaHparams& language,
                           const QuestionShape& shape);

/// A further question of `new_tokens` text tokens, after `earlier_text` fused ones and `earlier_rows` rows in
/// the language model's KV cache.
double next_question_flops(const VisionHparams& vision, const LlamaHparams& language,
                           const QuestionShape& shape, int64_t new_tokens, int64_t earlier_text,
                           int64_t earlier_rows);

}  // namespace llava_mini::bench
