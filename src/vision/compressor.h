// Query-based compression: P patch features become C*C compressed features by one cross-attention.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <utility>

#include "core/backend.h"
#include "model/stages.h"
#include "model/vision_weights.h"

namespace llava_mini {

/// Resizes a grid of position embeddings [side*side, width] to [to_side*to_side, width] as torch's bicubic
/// interpolation does (a = -0.75, align_corners false, no antialias, edges clamped). Thread-safe.
Matrix resize_position_grid(const Matrix& grid, int64_t to_side);

/// Compression by average pooling: the means of grid_side x grid_side equal blocks of a square map [S*S, d_v],
/// row by row, and each feature's share in them. Throws Error(kInput) if grid_side does not divide S.
/// Thread-safe.
CompressedFeatures average_pool(const Matrix& features, int grid_side);

/// PatchFeatures -> CompressedFeatures. Source: LLaVA-Mini, section 4.1: learned queries attend to the patch
/// features; keys get the positions added, values do not. Models with average_pooling take average_pool().
/// Not thread-safe.
class Compressor {
  public:
    /// Both must outlive the compressor. The model must have a compressor.
    Compressor(const VisionWeights& weights, Backends& backends);

    /// features [S*S, d_v] of a square map, row by row; `grid_side` one of hparams.compressor_grids.
    /// Throws Error(kInput) for a grid the model does not have.
    CompressedFeatures compress(const Matrix& features, int grid_side);

  private:
    void build(int grid_side, int64_t keys);
    const Matrix& key_positions(int grid_side, int64_t keys);

    const VisionWeights& weights_;
    Backends& backends_;
    std::pair<int, int64_t> graph_shape_{0, 0};
    std::unique_ptr<Graph> graph_;
    std::map<std::pair<int, int64_t>, Matrix> key_positions_;
};

}  // namespace llava_mini
