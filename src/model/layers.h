// Building blocks of the graphs. Tensors are in ggml's order: activations [width, rows].
#pragma once

#include <ggml.h>

#include <cmath>

namespace llava_mini {

/// weight * x (+ bias if not null). weight [in, out], x [in, rows] -> [out, rows].
inline ggml_tensor* linear(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* bias, ggml_tensor* x) {
    ggml_tensor* y = ggml_mul_mat(ctx, weight, x);
    return bias == nullptr ? y : ggml_add_inplace(ctx, y, bias);
}

/// LayerNorm over the width.
inline ggml_tensor* layer_norm(ggml_context* ctx, ggml_tensor* x, ggml_tensor* weight, ggml_tensor* bias,
                               float eps) {
    return ggml_add_inplace(ctx, ggml_mul_inplace(ctx, ggml_norm(ctx, x, eps), weight), bias);
}

/// RMSNorm over the width.
inline ggml_tensor* rms_norm(ggml_context* ctx, ggml_tensor* x, ggml_tensor* weight, float eps) {
    return ggml_mul_inplace(ctx, ggml_rms_norm(ctx, x, eps), weight);
}

/// CLIP's quick GELU, x * sigmoid(1.702 x), in place. Not ggml_gelu_quick, which looks half-precision values
/// up in a table on CPUs: SiLU is exact and vectorised, and x * sigmoid(a x) = silu(a x) / a.
inline ggml_tensor* quick_gelu_inplace(ggml_context* ctx, ggml_tensor* x) {
    constexpr float a = 1.702f;
    return ggml_scale_inplace(ctx, ggml_silu_inplace(ctx, ggml_scale_inplace(ctx, x, a)), 1.0f / a);
}

/// Scaled dot-product attention. q [head_dim, queries, heads, batch], k and v [head_dim, keys, kv heads,
/// batch], all f32, any strides above the first; `mask` f16 [keys, queries] with 0 or -infinity, or null.
/// `kv_type`: f32 on CPUs, whose kernel computes in f32 anyway, f16 on GPUs, whose kernels ask for it.
/// Returns [head_dim, heads, queries, batch], contiguous.
inline ggml_tensor* attention(ggml_context* ctx, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v,
                              ggml_tensor* mask, ggml_type kv_type) {
    if (k->type != kv_type) k = ggml_cast(ctx, k, kv_type);
    if (v->type != kv_type) v = ggml_cast(ctx, v, kv_type);
    const float scale = 1.0f / std::sqrt(static_cast<float>(q->ne[0]));
    ggml_tensor* result = ggml_flash_attn_ext(ctx, q, k, v, mask, scale, /*max_bias=*/0.0f, /*softcap=*/0.0f);
    ggml_prec_set_acc(result, GGML_PREC_F32);
    return result;
}

}  // namespace llava_mini
