#include "bench/flops.h"

namespace llava_mini::bench {
namespace {

// rows x [in -> out]
double product(int64_t rows, int64_t in, int64_t out) {
    return 2.0 * static_cast<double>(rows) * static_cast<double>(in) * static_cast<double>(out);
}

// Scores and values: `pairs` pairs of query and key, `width` = heads * head_dim.
double attention(double pairs, int64_t width) {
    return 4.0 * pairs * static_cast<double>(width);
}

// Keys that `rows` queries see, each all `earlier` ones and those of its own run up to itself.
double causal_pairs(int64_t rows, int64_t earlier) {
    const auto n = static_cast<double>(rows);
    return n * static_cast<double>(earlier) + n * (n + 1) / 2;
}

int64_t query_width(const LlamaHparams& hp) {
    return int64_t{hp.head_dim} * hp.n_head;
}
int64_t kv_width(const LlamaHparams& hp) {
    return int64_t{hp.head_dim} * hp.n_head_kv;
}

double keys_and_values(const LlamaHparams& hp, int64_t rows) {
    return 2 * product(rows, hp.n_embd, kv_width(hp));
}

// Query and output projections, feed-forward network: what only rows with a result need.
double rest_of_layer(const LlamaHparams& hp, int64_t rows) {
    return product(rows, hp.n_embd, query_width(hp)) + product(rows, query_width(hp), hp.n_embd) +
           3 * product(rows, hp.n_embd, hp.n_ff);
}

}  // namespace

double tower_flops(const VisionHparams& hp, int views) {
    const int64_t patches = hp.patches(), rows = patches + 1, d = hp.n_embd;
    const double patch_embedding = product(patches, int64_t{3} * hp.patch_size * hp.patch_size, d);
    const double layer = 4 * product(rows, d, d) + 2 * product(rows, d, hp.n_ff) +
                         attention(static_cast<double>(rows) * static_cast<double>(rows), d);
    return views * (patch_embedding + hp.n_layer * layer);
}

double compressor_flops(const VisionHparams& hp, int grid_side, int64_t keys) {
    if (hp.compressor_grids.empty() || hp.average_pooling) return 0;
    const int64_t queries = int64_t{grid_side} * grid_side, d = hp.n_embd;
    return 2 * product(queries, d, d) + 2 * product(keys, d, d) +
           attention(static_cast<double>(queries) * static_cast<double>(keys), d);
}

double projector_flops(const VisionHparams& hp, int64_t rows) {
    const int64_t d = hp.prefusion.n_embd;
    return product(rows, hp.n_embd, d) + product(rows, d, d);
}

double decoder_flops(const LlamaHparams& hp, int layers, int64_t rows, int64_t earlier) {
    return layers * (keys_and_values(hp, rows) + rest_of_layer(hp, rows) +
                     attention(causal_pairs(rows, earlier), query_width(hp)));
}

double prefusion_vision_flops(const VisionHparams& hp, int64_t positions, int64_t tokens, bool trim) {
    const LlamaHparams& layer = hp.prefusion;
    if (layer.n_layer == 0) return 0;
    if (!trim) return decoder_flops(layer, layer.n_layer, positions, 0);
    return decoder_flops(layer, layer.n_layer - 1, positions, 0) + keys_and_values(layer, positions) +
           rest_of_layer(layer, tokens) +
           attention(causal_pairs(tokens, positions - tokens), query_width(layer));
}

double language_flops(const LlamaHparams& hp, int64_t rows, int64_t earlier) {
    return decoder_flops(hp, hp.n_layer, rows, earlier) + product(1, hp.n_embd, hp.n_vocab);
}

int64_t vision_positions(const VisionHparams& hp, const QuestionShape& shape) {
    if (hp.compressor_grids.empty()) return hp.patches();
    const int64_t tokens = hp.vision_tokens(shape.grid_side);
    return hp.prefusion.n_layer == 0 ? tokens : int64_t{shape.views} * hp.patches() + tokens;
}

ByStage first_answer_flops(const VisionHparams& vision, const LlamaHparams& language,
                           const QuestionShape& shape) {
    const int64_t patches = vision.patches(), tokens = vision.vision_tokens(shape.grid_side),
                  positions = vision_positions(vision, shape),
                  keys = shape.views == 1 ? patches : (shape.views - 1) * patches;
    ByStage flops;
    flops[Stage::kTower] = tower_flops(vision, shape.views);
    flops[Stage::kCompressor] = compressor_flops(vision, shape.grid_side, keys);
    flops[Stage::kProjector] = projector_flops(vision, positions);
    flops[Stage::kPrefusionVision] = prefusion_vision_flops(vision, positions, tokens);
    flops[Stage::kPrefusionText] =
        decoder_flops(vision.prefusion, vision.prefusion.n_layer, shape.text_tokens, positions);
    flops[Stage::kPrefill] = language_flops(language, shape.text_tokens + tokens, 0);
    return flops;
}

double next_question_flops(const VisionHparams& vision, const LlamaHparams& language,
                           const QuestionShape& shape, int64_t new_tokens, int64_t earlier_text,
                           int64_t earlier_rows) {
    return decoder_flops(vision.prefusion, vision.prefusion.n_layer, new_tokens,
                         vision_positions(vision, shape) + earlier_text) +
           language_flops(language, new_tokens, earlier_rows);
}

}  // namespace llava_mini::bench
