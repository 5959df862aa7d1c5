#include "convert/gguf_writer.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace llava_mini {

GgufWriter::GgufWriter(const std::filesystem::path& path) : file_(path), gguf_(gguf_init_empty()) {}

void GgufWriter::add_tensor(const std::string& name, ggml_type type, const std::vector<int64_t>& shape) {
    if (shape.empty() || shape.size() > GGML_MAX_DIMS || name.size() >= GGML_MAX_NAME ||
        shape.back() % ggml_blck_size(type) != 0 || gguf_find_tensor(gguf_.get(), name.c_str()) >= 0) {
        throw_usage("GGUF: tensor '{}' of shape [{}] and type {} cannot be stored", name,
                    fmt::join(shape, ", "), ggml_type_name(type));
    }
    ggml_tensor tensor{};
    tensor.type = type;
    std::copy(name.begin(), name.end(), tensor.name);
    for (size_t i = 0; i < GGML_MAX_DIMS; ++i)
        tensor.ne[i] = i < shape.size() ? shape[shape.size() - 1 - i] : 1;
    tensor.nb[0] = ggml_type_size(type);
    tensor.nb[1] = ggml_row_size(type, tensor.ne[0]);
    tensor.nb[2] = tensor.nb[1] * static_cast<size_t>(tensor.ne[1]);
    tensor.nb[3] = tensor.nb[2] * static_cast<size_t>(tensor.ne[2]);
    gguf_add_tensor(gguf_.get(), &tensor);
}

uint64_t GgufWriter::tensor_bytes() const {
    uint64_t bytes = 0;
    for (int64_t i = 0; i < gguf_get_n_tensors(gguf_.get()); ++i)
        bytes += gguf_get_tensor_size(gguf_.get(), i);
    return bytes;
}

void GgufWriter::begin() {
    std::vector<uint8_t> bytes(gguf_get_meta_size(gguf_.get()));
    gguf_get_meta_data(gguf_.get(), bytes.data());
    file_.write(bytes);
}

void GgufWriter::write(std::span<const uint8_t> data) {
    while (!data.empty()) {
        if (tensor_ == static_cast<size_t>(gguf_get_n_tensors(gguf_.get()))) {
            throw_usage("GGUF: more data than tensors");
        }
        const uint64_t left =
            gguf_get_tensor_size(gguf_.get(), static_cast<int64_t>(tensor_)) - tensor_written_;
        const auto n = static_cast<size_t>(std::min<uint64_t>(left, data.size()));
        file_.write(data.first(n));
        data = data.subspan(n);
        tensor_written_ += n;
        if (n == left) {
            pad();
            ++tensor_;
            tensor_written_ = 0;
        }
    }
}

void GgufWriter::pad() {
    const uint64_t alignment = gguf_get_alignment(gguf_.get());
    const std::vector<uint8_t> zeros((alignment - file_.size() % alignment) % alignment, 0);
    file_.write(zeros);
}

void GgufWriter::commit() {
    if (tensor_ != static_cast<size_t>(gguf_get_n_tensors(gguf_.get()))) {
        throw_usage("GGUF: the data of tensor '{}' is not complete",
                    gguf_get_tensor_name(gguf_.get(), static_cast<int64_t>(tensor_)));
    }
    file_.commit();
}

}  // namespace llava_mini
