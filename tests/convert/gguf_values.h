// Tensors of a GGUF as floats.
#pragma once

#include <string>
#include <vector>

#include "convert/quantization.h"
#include "model/gguf_file.h"

namespace llava_mini::test {

/// All values of a tensor in storage order; empty if there is none of that name.
inline std::vector<float> gguf_values(const GgufFile& file, const std::string& name) {
    const GgufTensor* tensor = file.find(name);
    if (tensor == nullptr) return {};
    const int64_t rows = tensor->shape[1] * tensor->shape[2] * tensor->shape[3];
    std::vector<uint8_t> bytes(tensor->bytes);
    file.read(*tensor, 0, bytes);
    std::vector<float> values(static_cast<size_t>(rows * tensor->shape[0]));
    dequantize_rows(tensor->type, bytes, rows, tensor->shape[0], values, 1);
    return values;
}

}  // namespace llava_mini::test
