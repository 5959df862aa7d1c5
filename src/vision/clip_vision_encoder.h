// The vision tower: a CLIP vision transformer, run up to the layer whose hidden state is the feature.
#pragma once

#include <memory>

#include "core/backend.h"
#include "model/stages.h"
#include "model/vision_weights.h"

namespace llava_mini {

/// PixelValues -> PatchFeatures. Source: CLIP (Radford et al. 2021) as Hugging Face's CLIPVisionModel
/// computes it; pre-LayerNorm transformer, quick GELU, no post-norm; the class token is computed and left
/// out. Not thread-safe (one graph is kept and reused).
class ClipVisionEncoder {
  public:
    /// Both must outlive the encoder.
    ClipVisionEncoder(const VisionWeights& weights, Backends& backends);

    /// pixels [views, 3, image_size, image_size] -> views matrices [P, d_v]; all views in one graph.
    /// Throws Error(kInput) if the pixels are not of the model's size.
    PatchFeatures encode(const PixelValues& pixels);

  private:
    void build(int views);

    const VisionWeights& weights_;
    Backends& backends_;
    int graph_views_ = 0;
    std::unique_ptr<Graph> graph_;
};

}  // namespace llava_mini
