#include "prefusion/prefusion_kv.h"

#include <ggml-backend.h>

#include "core/error.h"

namespace llava_mini {
namespace {

constexpr uint64_t kAlignment = 64;  // of stored tensors; ggml wants 32

uint64_t padded(uint64_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

PrefusionKv::PrefusionKv(const Backends& backends, const LlamaHparams& hparams, int64_t positions,
                         ggml_type type)
    : positions_(positions) {
    create(hparams, type);
    buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx_.get(), backends.default_buffer_type()));
    if (!buffer_) throw_system("not enough memory for the pre-fusion K/V of {} positions", positions);
}

PrefusionKv::PrefusionKv(const Backends& backends, const LlamaHparams& hparams, int64_t positions,
                         ggml_type type, std::span<const uint8_t> stored, std::shared_ptr<const void> owner)
    : positions_(positions), owner_(std::move(owner)) {
    create(hparams, type);
    uint64_t needed = 0;
    for (const ggml_tensor* tensor : tensors_) needed += padded(ggml_nbytes(tensor));
    if (stored.size() != needed) {
        throw_usage("stored K/V of {} positions: expected {} bytes, found {}", positions, needed,
                    stored.size());
    }
    const bool in_place = ggml_backend_buft_is_host(backends.default_buffer_type()) &&
                          reinterpret_cast<uintptr_t>(stored.data()) % kAlignment == 0;
    if (in_place) {
        // They are only read.
        buffer_.reset(ggml_backend_cpu_buffer_from_ptr(const_cast<uint8_t*>(stored.data()), stored.size()));
    } else {
        buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx_.get(), backends.default_buffer_type()));
    }
    if (!buffer_) throw_system("not enough memory for the pre-fusion K/V of {} positions", positions);
    uint64_t at = 0;
    for (ggml_tensor* tensor : tensors_) {
        if (in_place) {
            ggml_backend_tensor_alloc(buffer_.get(), tensor, const_cast<uint8_t*>(stored.data()) + at);
        } else {
            ggml_backend_tensor_set(tensor, stored.data() + at, 0, ggml_nbytes(tensor));
        }
        at += padded(ggml_nbytes(tensor));
    }
}

std::vector<uint8_t> PrefusionKv::stored(int64_t positions) const {
    std::vector<uint8_t> bytes;
    for (const ggml_tensor* tensor : tensors_) {
        const uint64_t size = tensor->nb[1] * static_cast<uint64_t>(positions);
        const uint64_t at = bytes.size();
        bytes.resize(at + padded(size));
        ggml_backend_tensor_get(tensor, bytes.data() + at, 0, size);
    }
    return bytes;
}

void PrefusionKv::create(const LlamaHparams& hparams, ggml_type type) {
    const int64_t width = int64_t{hparams.head_dim} * hparams.n_head_kv;
    if (width % ggml_blck_size(type) != 0) {
        throw_usage("pre-fusion K/V of type {}: the width {} is not a multiple of its block of {}",
                    ggml_type_name(type), width, ggml_blck_size(type));
    }
    const size_t count = 2 * static_cast<size_t>(hparams.n_layer);
    ctx_.reset(ggml_init({ggml_tensor_overhead() * count, nullptr, /*no_alloc=*/true}));
    for (size_t i = 0; i < count; ++i) {
        tensors_.push_back(ggml_new_tensor_2d(ctx_.get(), type, width, positions_));
    }
}

}  // namespace llava_mini
