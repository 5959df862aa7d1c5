#include "llm/token_embeddings.h"

#include <cstring>

#include "core/error.h"

namespace llava_mini {

TokenEmbeddings::TokenEmbeddings(const std::filesystem::path& language_gguf)
    : TokenEmbeddings(language_gguf, GgufFile(language_gguf)) {}

TokenEmbeddings::TokenEmbeddings(const std::filesystem::path& path, const GgufFile& gguf) : file_(path) {
    const GgufTensor* tensor = gguf.find("token_embd.weight");
    if (tensor == nullptr) throw_input("{}: the tensor 'token_embd.weight' is missing", path.string());
    if (tensor->shape[2] != 1 || tensor->shape[3] != 1 || tensor->shape[1] > INT32_MAX) {
        throw_input("{}: 'token_embd.weight' is no matrix of tokens", path.string());
    }
    type_ = tensor->type;
    if (type_ != GGML_TYPE_F32 && ggml_get_type_traits(type_)->to_float == nullptr) {
        throw_input("{}: 'token_embd.weight' has type {}, which has no values to read", path.string(),
                    ggml_type_name(type_));
    }
    n_embd_ = tensor->shape[0];
    n_vocab_ = tensor->shape[1];
    row_bytes_ = ggml_row_size(type_, n_embd_);
    // The table was checked against the file's size when it was read; the file may have been cut since.
    const std::span<const uint8_t> bytes = file_.bytes();
    if (tensor->offset > bytes.size() || tensor->bytes > bytes.size() - tensor->offset ||
        tensor->bytes != row_bytes_ * static_cast<uint64_t>(n_vocab_)) {
        throw_input("{}: 'token_embd.weight' does not lie inside the file", path.string());
    }
    data_ = bytes.data() + tensor->offset;
}

void TokenEmbeddings::row(int32_t id, float* out) const {
    if (id < 0 || id >= n_vocab_) {
        throw_input("token id {} is not in the vocabulary of {} tokens", id, n_vocab_);
    }
    const uint8_t* source = data_ + row_bytes_ * static_cast<size_t>(id);
    if (type_ == GGML_TYPE_F32) {
        std::memcpy(out, source, row_bytes_);
    } else {
        ggml_get_type_traits(type_)->to_float(source, out, n_embd_);
    }
}

Matrix TokenEmbeddings::rows(std::span<const int32_t> ids) const {
    Matrix result(static_cast<int64_t>(ids.size()), n_embd_);
    for (size_t i = 0; i < ids.size(); ++i) row(ids[i], result.row(static_cast<int64_t>(i)).data());
    return result;
}

}  // namespace llava_mini
