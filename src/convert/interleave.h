// The order of rows in which GGUF's architecture `llama` has q and k.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace llava_mini {

/// Where row `row` of heads of the half-split order stands in the interleaved order.
inline int64_t interleaved_row(int64_t row, int64_t head_dim) {
    const int64_t half = head_dim / 2, in_head = row % head_dim;
    return row - in_head + (in_head % half) * 2 + in_head / half;
}

/// Rows of q and k of one or several heads, from the half-split order of Hugging Face (row i of a head turns
/// with row i + head_dim / 2) to the interleaved order of GGUF's `llama` (rows 2 i and 2 i + 1 turn together).
/// rows [n * head_dim, columns]; `out` has the same size and another place.
inline void interleave_rows(std::span<const float> rows, int64_t head_dim, int64_t columns,
                            std::span<float> out) {
    const int64_t n_rows = static_cast<int64_t>(rows.size()) / columns;
    for (int64_t row = 0; row < n_rows; ++row) {
        std::copy_n(rows.begin() + row * columns, columns,
                    out.begin() + interleaved_row(row, head_dim) * columns);
    }
}

/// The way back.
inline void deinterleave_rows(std::span<const float> rows, int64_t head_dim, int64_t columns,
                              std::span<float> out) {
    const int64_t n_rows = static_cast<int64_t>(rows.size()) / columns;
    for (int64_t row = 0; row < n_rows; ++row) {
        std::copy_n(rows.begin() + interleaved_row(row, head_dim) * columns, columns,
                    out.begin() + row * columns);
    }
}

}  // namespace llava_mini
