// A dense row-major matrix of float32 in host memory: what stages hand each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace llava_mini {

struct Matrix {
    int64_t rows = 0, cols = 0;
    std::vector<float> data;  // rows * cols

    Matrix() = default;
    Matrix(int64_t n_rows, int64_t n_cols)
        : rows(n_rows), cols(n_cols), data(static_cast<size_t>(n_rows * n_cols)) {}

    std::span<float> row(int64_t i) { return {data.data() + i * cols, static_cast<size_t>(cols)}; }
    std::span<const float> row(int64_t i) const {
        return {data.data() + i * cols, static_cast<size_t>(cols)};
    }
};

}  // namespace llava_mini
