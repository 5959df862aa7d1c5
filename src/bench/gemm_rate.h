// How fast the engine multiplies matrices here: what the stages' rates are compared with.
#pragma once

#include <ggml.h>

#include <compare>
#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"
#include "model/gguf_file.h"

namespace llava_mini::bench {

/// weight [in, out] of `type` times f32 activations [in, rows]
struct GemmShape {
    ggml_type type = GGML_TYPE_F32;
    int64_t in = 0, out = 0, rows = 0;
    auto operator<=>(const GemmShape&) const = default;
};

struct GemmRate {
    GemmShape shape;
    std::string buffer_type;  ///< the layout of the weight that was fastest, e.g. "CPU_REPACK"
    double flops_per_second = 0;
};

/// Measures single products of random matrices on the first of `backends`, the weight in every layout (buffer
/// type) in which the device multiplies this type, and returns the fastest: what the best caller of the
/// engine would get. Each layout is run for `seconds`, at least three times; its best run counts. Throws
/// Error(kSystem) if memory does not suffice.
GemmRate measure_gemm(const Backends& backends, const GemmShape& shape, double seconds);

/// The shapes of the matrices that a GGUF file holds among tensors whose name starts with `prefix` and ends
/// with ".weight", without repetitions; rows as given. Types that cannot be made of random numbers alone
/// (those that need an importance matrix) are left out.
std::vector<GemmShape> gemm_shapes(const GgufFile& file, const std::string& prefix, int64_t rows);

}  // namespace llava_mini::bench
