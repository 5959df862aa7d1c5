#include "prefusion/prefusion_kv.h"

#include "core/error.h"

namespace llava_mini {

PrefusionKv::PrefusionKv(const Backends& backends, const LlamaHparams& hparams, int64_t positions,
                         ggml_type type)
    : positions_(positions) {
    const int64_t width = int64_t{hparams.head_dim} * hparams.n_head_kv;
    if (width % ggml_blck_size(type) != 0) {
        throw_usage("pre-fusion K/V of type {}: the width {} is not a multiple of its block of {}",
                    ggml_type_name(type), width, ggml_blck_size(type));
    }
    const size_t count = 2 * static_cast<size_t>(hparams.n_layer);
    ctx_.reset(ggml_init({ggml_tensor_overhead() * count, nullptr, /*no_alloc=*/true}));
    for (size_t i = 0; i < count; ++i) {
        tensors_.push_back(ggml_new_tensor_2d(ctx_.get(), type, width, positions));
    }
    buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx_.get(), backends.default_buffer_type()));
    if (!buffer_) throw_system("not enough memory for the pre-fusion K/V of {} positions", positions);
}

}  // namespace llava_mini
