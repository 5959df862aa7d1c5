#include "convert/model_info.h"

namespace llava_mini {

std::map<std::string, TypeTotal> type_totals(const GgufFile& file) {
    std::map<std::string, TypeTotal> totals;
    for (const GgufTensor& tensor : file.tensors()) {
        TypeTotal& total = totals[ggml_type_name(tensor.type)];
        ++total.tensors;
        total.parameters += tensor.shape[0] * tensor.shape[1] * tensor.shape[2] * tensor.shape[3];
        total.bytes += tensor.bytes;
    }
    return totals;
}

uint64_t kv_bytes_per_position(const LlamaHparams& hp, ggml_type type) {
    const auto width = static_cast<uint64_t>(hp.n_head_kv) * static_cast<uint64_t>(hp.head_dim);
    const auto block = static_cast<uint64_t>(ggml_blck_size(type));
    const uint64_t row = (width + block - 1) / block * ggml_type_size(type);
    return 2 * static_cast<uint64_t>(hp.n_layer) * row;
}

PictureCost picture_cost(const VisionHparams& vision, const LlamaHparams* language, int grid_side,
                         int resolution_ratio) {
    PictureCost cost;
    cost.grid_side = vision.compressor_grids.empty() ? 0 : grid_side;
    cost.resolution_ratio = resolution_ratio;
    cost.vision_tokens = vision.vision_tokens(grid_side);
    const auto tokens = static_cast<uint64_t>(cost.vision_tokens);
    if (language != nullptr) {
        cost.kv_cache_f16 = tokens * kv_bytes_per_position(*language, GGML_TYPE_F16);
        cost.kv_cache_q8_0 = tokens * kv_bytes_per_position(*language, GGML_TYPE_Q8_0);
    }
    // Blocks of high resolution, the whole picture, and the compressed tokens.
    const uint64_t blocks =
        resolution_ratio > 1 ? static_cast<uint64_t>(resolution_ratio) * resolution_ratio : 0;
    const uint64_t positions = (blocks + 1) * static_cast<uint64_t>(vision.patches()) +
                               (vision.compressor_grids.empty() ? 0 : tokens);
    const uint64_t token_bytes = tokens * static_cast<uint64_t>(vision.prefusion.n_embd) * sizeof(float);
    cost.image_cache_f16 = positions * kv_bytes_per_position(vision.prefusion, GGML_TYPE_F16) + token_bytes;
    cost.image_cache_q8_0 = positions * kv_bytes_per_position(vision.prefusion, GGML_TYPE_Q8_0) + token_bytes;
    return cost;
}

std::vector<PictureCost> picture_costs(const VisionHparams& vision, const LlamaHparams* language) {
    std::vector<int> grids = vision.compressor_grids;
    if (grids.empty()) grids.push_back(0);
    std::vector<PictureCost> costs;
    for (const int grid : grids) {
        costs.push_back(picture_cost(vision, language, grid, 1));
        if (vision.resolution_ratio > 1) {
            costs.push_back(picture_cost(vision, language, grid, vision.resolution_ratio));
        }
    }
    return costs;
}

}  // namespace llava_mini
