// Which positions of the context the language model attends to.
#pragma once

#include <ggml.h>

#include <span>
#include <string_view>
#include <vector>

namespace llava_mini {

/// Sums attention weights over all layers, heads and the rows (the last of every batch, or all) that are
/// computed while it is switched on. To be LanguageContextOptions::tap of a context without flash attention, whose
/// softmax is a tensor of its own. Positions must not have been moved (LanguageContext::remove). Not
/// thread-safe.
class PositionAttention {
  public:
    bool on = false;
    bool every_row = false;  ///< sum over all rows, not only the last of a batch

    /// The eval callback.
    bool operator()(ggml_tensor* tensor, bool ask);
    void clear() { weights_.clear(); }
    /// By position; positions behind the end got none.
    std::span<const double> weights() const { return weights_; }

  private:
    std::vector<double> weights_;
    std::vector<float> row_;
};

}  // namespace llava_mini
