// Gradient checkpointing (Chen et al., arXiv 1604.06174): what a layer computed is forgotten and computed
// again when its gradient is asked for.
#pragma once

#include <functional>

#include "trainer/torch.h"

namespace llava_mini::trainer {

/// layer(x), of whose computation only x is kept. `learns`: whether the layer has weights that need gradients
/// (beside x). The layer is called a second time in the backward pass and must compute the same; gradients
/// are those of layer(x) itself, to the bit.
torch::Tensor recomputed(const torch::Tensor& x, bool learns,
                         const std::function<torch::Tensor(const torch::Tensor&)>& layer);

}  // namespace llava_mini::trainer
