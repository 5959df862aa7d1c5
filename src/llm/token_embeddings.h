// Rows of the language model's input embedding, read from its file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "core/file.h"
#include "core/matrix.h"
#include "model/gguf_file.h"

namespace llava_mini {

/// The matrix token_embd.weight [n_vocab, d], mapped and dequantized row by row, so that it costs no memory
/// of its own. The values are those that libllama computes with. Immutable and thread-safe.
class TokenEmbeddings {
  public:
    /// Throws Error(kInput) if the file has no such matrix or its type cannot be dequantized.
    explicit TokenEmbeddings(const std::filesystem::path& language_gguf);

    int64_t n_vocab() const { return n_vocab_; }
    int64_t n_embd() const { return n_embd_; }
    /// Writes the d values of one token. Throws Error(kInput) for an id outside the vocabulary.
    void row(int32_t id, float* out) const;
    /// One row a token: [ids.size(), d].
    Matrix rows(std::span<const int32_t> ids) const;

  private:
    TokenEmbeddings(const std::filesystem::path& path, const GgufFile& gguf);

    MappedFile file_;
    const uint8_t* data_ = nullptr;
    ggml_type type_ = GGML_TYPE_F32;
    size_t row_bytes_ = 0;
    int64_t n_vocab_ = 0, n_embd_ = 0;
};

}  // namespace llava_mini
