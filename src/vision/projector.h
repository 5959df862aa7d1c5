// The projector from the vision tower's width to the language model's.
#pragma once

#include <memory>

#include "core/backend.h"
#include "core/matrix.h"
#include "model/vision_weights.h"

namespace llava_mini {

/// mlp2x_gelu of LLaVA-v1.5: Linear(d_v -> d), exact GELU, Linear(d -> d). Not thread-safe.
class Projector {
  public:
    /// Both must outlive the projector.
    Projector(const VisionWeights& weights, Backends& backends);

    /// [rows, d_v] -> [rows, d]
    Matrix project(const Matrix& features);

  private:
    const VisionWeights& weights_;
    Backends& backends_;
    int64_t graph_rows_ = 0;
    std::unique_ptr<Graph> graph_;
};

}  // namespace llava_mini
