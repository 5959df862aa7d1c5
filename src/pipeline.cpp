#include "pipeline.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/stopwatch.h"

namespace llava_mini {
namespace {

// The patches of n * n blocks, each side * side, as rows of one (n * side)^2 map.
Matrix map_order(std::span<const Matrix> blocks, int64_t n, int64_t side) {
    Matrix map(n * n * side * side, blocks[0].cols);
    for (int64_t y = 0; y < n * side; ++y) {
        for (int64_t x = 0; x < n * side; ++x) {
            const Matrix& block = blocks[static_cast<size_t>(y / side * n + x / side)];
            const auto from = block.row(y % side * side + x % side);
            std::copy(from.begin(), from.end(), map.row(y * n * side + x).begin());
        }
    }
    return map;
}

Matrix stack(std::initializer_list<const Matrix*> parts) {
    Matrix all;
    for (const Matrix* part : parts) {
        if (part->rows == 0) continue;
        all.cols = part->cols;
        all.rows += part->rows;
        all.data.insert(all.data.end(), part->data.begin(), part->data.end());
    }
    return all;
}

Matrix last_rows(const Matrix& m, int64_t count) {
    Matrix rows(count, m.cols);
    std::copy(m.data.end() - count * m.cols, m.data.end(), rows.data.begin());
    return rows;
}

}  // namespace

ggml_type to_ggml(KvType type) {
    switch (type) {
        case KvType::kF32:
            return GGML_TYPE_F32;
        case KvType::kF16:
            return GGML_TYPE_F16;
        case KvType::kQ8_0:
            return GGML_TYPE_Q8_0;
    }
    throw_usage("unknown K/V type {}", static_cast<int>(type));
}

void FusionMean::add(const Matrix& fused) {
    if (count_++ == 0) {
        rows_ = fused.rows;
        cols_ = fused.cols;
        sum_.assign(fused.data.size(), 0.0);
    }
    for (size_t i = 0; i < sum_.size(); ++i) sum_[i] += fused.data[i];
}

Matrix FusionMean::mean() const {
    Matrix mean(rows_, cols_);
    for (size_t i = 0; i < sum_.size(); ++i) {
        mean.data[i] = static_cast<float>(sum_[i] / static_cast<double>(count_));
    }
    return mean;
}

uint64_t ImageEncoding::bytes() const {
    return vision_tokens.data.size() * sizeof(float) + (vision ? vision->bytes() : 0);
}

Pipeline::Pipeline(const std::filesystem::path& vision_file, const TokenEmbeddings& embeddings,
                   const ModelOptions& options)
    : embeddings_(embeddings),
      kv_type_(to_ggml(options.prefusion_kv)),
      backends_(options.gpu_layers != 0, options.threads) {
    weights_ = std::make_unique<VisionWeights>(GgufFile(vision_file), backends_, options.progress);
    if (hparams().prefusion.n_embd != embeddings.n_embd()) {
        throw_input("{}: made for a language model of width {}, but that of this one is {}",
                    vision_file.string(), hparams().prefusion.n_embd, embeddings.n_embd());
    }
    tower_ = std::make_unique<ClipVisionEncoder>(*weights_, backends_);
    compressor_ = std::make_unique<Compressor>(*weights_, backends_);
    projector_ = std::make_unique<Projector>(*weights_, backends_);
    prefusion_ = std::make_unique<ModalityPrefusion>(*weights_, backends_, kv_type_);
}

std::shared_ptr<const ImageEncoding> Pipeline::encode_image(const PixelValues& pixels, int grid_side,
                                                            const Hash128& key, Timings& timings,
                                                            EncodingTrace* trace) {
    const std::lock_guard lock(mutex_);
    // views, the whole picture last -> [views][P, d_v]
    PatchFeatures features;
    {
        const Stopwatch watch(timings.vision_tower);
        features = tower_->encode(pixels);
    }
    if (trace != nullptr) trace->pixels = pixels;
    return encode_features(std::move(features), grid_side, key, timings, trace);
}

std::vector<std::shared_ptr<const ImageEncoding>> Pipeline::encode_frames(std::span<const PixelValues> frames,
                                                                          int grid_side, Timings& timings) {
    const std::lock_guard lock(mutex_);
    PixelValues all{0, frames.empty() ? 0 : frames[0].size, {}};
    for (const PixelValues& frame : frames) {
        all.views += frame.views;
        all.data.insert(all.data.end(), frame.data.begin(), frame.data.end());
    }
    std::vector<std::shared_ptr<const ImageEncoding>> encodings;
    if (frames.empty()) return encodings;
    PatchFeatures features;
    {
        const Stopwatch watch(timings.vision_tower);
        features = tower_->encode(all);
    }
    auto next = std::make_move_iterator(features.views.begin());
    for (const PixelValues& frame : frames) {
        encodings.push_back(encode_features({{next, next + frame.views}}, grid_side, {}, timings, nullptr));
        next += frame.views;
    }
    return encodings;
}

// What follows the tower, for the views of one picture. The lock is held.
std::shared_ptr<const ImageEncoding> Pipeline::encode_features(PatchFeatures features, int grid_side,
                                                               const Hash128& key, Timings& timings,
                                                               EncodingTrace* trace) {
    const VisionHparams& hp = hparams();
    if (hp.compressor_grids.empty() && features.views.size() > 1) {
        throw_usage("resolution ratio: this model has no compressor and sees a picture whole only (1)");
    }
    auto encoding = std::make_shared<ImageEncoding>();
    encoding->key = key;
    const Matrix& whole = features.views.back();
    const std::span blocks(features.views.data(), features.views.size() - 1);
    const auto n = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(blocks.size()))));
    const Matrix block_map = blocks.empty() ? Matrix() : map_order(blocks, n, hp.patches_per_side());

    // plain LLaVA: every patch is a vision token
    if (hp.compressor_grids.empty()) {
        const Stopwatch watch(timings.projector);
        encoding->vision_tokens = projector_->project(whole);
        if (trace != nullptr) {
            trace->features = std::move(features);
            trace->prefusion_in = encoding->vision_tokens;
        }
        return encoding;
    }

    // [P or n*n*P, d_v] -> [C*C, d_v]
    CompressedFeatures compressed;
    {
        const Stopwatch watch(timings.compressor);
        compressed = compressor_->compress(blocks.empty() ? whole : block_map,
                                           grid_side == 0 ? hp.compressor_grids.front() : grid_side);
    }
    const int64_t tokens = compressed.tokens.rows;

    // [blocks | whole picture | compressed] -> d wide; without pre-fusion only the compressed ones are needed
    Matrix projected;
    {
        const Stopwatch watch(timings.projector);
        projected = hp.prefusion.n_layer == 0
                        ? projector_->project(compressed.tokens)
                        : projector_->project(stack({&block_map, &whole, &compressed.tokens}));
    }
    Matrix projected_compressed = last_rows(projected, tokens);

    PrefusedVision prefused;
    if (hp.prefusion.n_layer == 0) {
        encoding->vision_tokens = projected_compressed;
    } else {
        const Stopwatch watch(timings.prefusion_vision);
        prefused = prefusion_->encode_vision(projected, tokens, /*trim=*/trace == nullptr);
        encoding->vision_tokens = std::move(prefused.tokens);
        encoding->vision = std::move(prefused.kv);
    }
    if (trace != nullptr) {
        trace->features = std::move(features);
        trace->compressed = std::move(compressed);
        trace->projected_compressed = std::move(projected_compressed);
        trace->prefusion_in = std::move(projected);
        trace->prefusion_out = std::move(prefused.outputs);
    }
    return encoding;
}

Matrix Pipeline::fuse_text(std::span<const int32_t> ids,
                           std::span<const std::shared_ptr<const ImageEncoding>> pictures, TextFusion* state,
                           Timings& timings, const TextFusion* earlier) {
    const Stopwatch watch(timings.prefusion_text);
    Matrix embeddings = embeddings_.rows(ids);
    if (pictures.empty() || hparams().prefusion.n_layer == 0 || ids.empty()) return embeddings;

    if (earlier == nullptr) earlier = state;
    TextRows text{std::move(embeddings), std::vector<int32_t>(ids.size()),
                  std::vector<uint8_t>(ids.size(), 1)};
    std::iota(text.positions.begin(), text.positions.end(),
              earlier != nullptr ? static_cast<int32_t>(earlier->rows) : 0);
    return mean_fusion(text, pictures, state, earlier, nullptr);
}

Matrix Pipeline::fuse_masked_text(const Matrix& embeddings, std::span<const uint8_t> visible,
                                  std::span<const std::shared_ptr<const ImageEncoding>> pictures,
                                  Timings& timings, std::vector<Matrix>* per_picture) {
    const Stopwatch watch(timings.prefusion_text);
    // A prompt of one token is not fused (as in the official code).
    if (pictures.empty() || hparams().prefusion.n_layer == 0 || embeddings.rows <= 1) return embeddings;
    TextRows text{embeddings, {}, {visible.begin(), visible.end()}};
    int32_t next = 0;
    for (const uint8_t seen : visible) text.positions.push_back(seen != 0 ? next++ : 0);
    return mean_fusion(text, pictures, nullptr, nullptr, per_picture);
}

Matrix Pipeline::mean_fusion(const TextRows& text,
                             std::span<const std::shared_ptr<const ImageEncoding>> pictures,
                             TextFusion* state, const TextFusion* earlier, std::vector<Matrix>* per_picture) {
    const std::lock_guard lock(mutex_);
    const int64_t n = text.embeddings.rows;
    const bool continued = earlier != nullptr && earlier->rows > 0;
    TextFusion extended{{}, n + (continued ? earlier->rows : 0)};
    FusionMean mean;
    for (size_t i = 0; i < pictures.size(); ++i) {
        FusedText fused =
            prefusion_->fuse_text(text, *pictures[i]->vision, continued ? earlier->kv[i].get() : nullptr,
                                  continued ? earlier->rows : 0, /*keep_kv=*/state != nullptr);
        if (state != nullptr) extended.kv.push_back(std::move(fused.kv));
        mean.add(fused.rows);
        if (per_picture != nullptr) per_picture->push_back(std::move(fused.rows));
    }
    if (state != nullptr) *state = std::move(extended);
    return mean.mean();
}

}  // namespace llava_mini
