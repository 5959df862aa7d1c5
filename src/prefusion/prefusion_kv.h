// Keys and values of a run of positions in every pre-fusion layer, in the device's memory.
#pragma once

#include <ggml-cpp.h>
#include <ggml.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/backend.h"
#include "model/hparams.h"

namespace llava_mini {

/// Filled once by ModalityPrefusion, read-only and shareable between threads from then on.
class PrefusionKv {
  public:
    /// Room for `positions` positions. `type`: f32, f16 or q8_0. Throws Error(kSystem) if memory does not
    /// suffice, Error(kUsage) if the width of keys is not a multiple of the type's block.
    PrefusionKv(const Backends& backends, const LlamaHparams& hparams, int64_t positions, ggml_type type);

    /// The same from bytes that stored() gave, which must be as many as these sizes need (else Error(kUsage))
    /// and stay as long as `owner` lives. Where the device computes in main memory nothing is copied.
    PrefusionKv(const Backends& backends, const LlamaHparams& hparams, int64_t positions, ggml_type type,
                std::span<const uint8_t> stored, std::shared_ptr<const void> owner);

    /// Keys and values of the first `positions` positions, layer by layer, each on a multiple of 64 bytes.
    std::vector<uint8_t> stored(int64_t positions) const;

    int64_t positions() const { return positions_; }
    /// [head_dim * n_head_kv, positions]; keys have their rotary positions applied.
    ggml_tensor* keys(int layer) const { return tensors_[static_cast<size_t>(2 * layer)]; }
    ggml_tensor* values(int layer) const { return tensors_[static_cast<size_t>(2 * layer) + 1]; }
    /// Bytes of device memory held.
    uint64_t bytes() const { return ggml_backend_buffer_get_size(buffer_.get()); }

  private:
    void create(const LlamaHparams& hparams, ggml_type type);

    int64_t positions_;
    std::shared_ptr<const void> owner_;
    ggml_context_ptr ctx_;
    ggml_backend_buffer_ptr buffer_;
    std::vector<ggml_tensor*> tensors_;
};

}  // namespace llava_mini
