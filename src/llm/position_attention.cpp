#include "llm/position_attention.h"

#include <ggml-backend.h>

namespace llava_mini {

bool PositionAttention::operator()(ggml_tensor* tensor, bool ask) {
    // libllama's name for the weights of a layer: [keys, rows, heads], f32.
    const bool wanted =
        on && tensor->type == GGML_TYPE_F32 && std::string_view(tensor->name).starts_with("kq_soft_max-");
    if (ask || !wanted) return ask ? wanted : true;
    const auto keys = static_cast<size_t>(tensor->ne[0]);
    row_.resize(keys);
    if (weights_.size() < keys) weights_.resize(keys, 0.0);
    for (int64_t head = 0; head < tensor->ne[2]; ++head) {
        for (int64_t row = every_row ? 0 : tensor->ne[1] - 1; row < tensor->ne[1]; ++row) {
            const size_t offset =
                static_cast<size_t>(head) * tensor->nb[2] + static_cast<size_t>(row) * tensor->nb[1];
            ggml_backend_tensor_get(tensor, row_.data(), offset, keys * sizeof(float));
            for (size_t i = 0; i < keys; ++i) weights_[i] += row_[i];
        }
    }
    return true;
}

}  // namespace llava_mini
