// The order of rows in which GGUF's architecture `llama` has q and k.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace llava_mini {

/// Rows of q and k of one or several heads, from the half-split order of Hugging Face (row i of a head turns
/// with row i + head_dim / 2) to the interleaved order of GGUF's `llama` (rows 2 i and 2 i + 1 turn together).
/// rows [n * head_dim, columns]; `out` has the same size and another place.
inline void interleave_rows(std::span<const float> rows, int64_t head_dim, int64_t columns,
                            std::span<float> out) {
    const int64_t half = head_dim / 2, n_rows = static_cast<int64_t>(rows.size()) / columns;
    for (int64_t row = 0; row < n_rows; ++row) {
        const int64_t head = row / head_dim, in_head = row % head_dim;
        const int64_t to = head * head_dim + (in_head % half) * 2 + in_head / half;
        std::copy_n(rows.begin() + row * columns, columns, out.begin() + to * columns);
    }
}

/// The way back.
inline void deinterleave_rows(std::span<const float> rows, int64_t head_dim, int64_t columns,
                              std::span<float> out) {
    const int64_t half = head_dim / 2, n_rows = static_cast<int64_t>(rows.size()) / columns;
    for (int64_t row = 0; row < n_rows; ++row) {
        const int64_t head = row / head_dim, in_head = row % head_dim;
        const int64_t from = head * head_dim + (in_head % half) * 2 + in_head / half;
        std::copy_n(rows.begin() + from * columns, columns, out.begin() + row * columns);
    }
}

}  // namespace llava_mini
