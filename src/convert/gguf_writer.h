// Streaming writer of GGUF files: metadata and the tensor table first, then the tensors' data, piece by
// piece.
#pragma once

#include <ggml-cpp.h>
#include <gguf.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"

namespace llava_mini {

/// Usage: set metadata(), add_tensor() for all, begin(), write() each tensor's bytes in the order of adding
/// (in pieces of any size; padding between tensors is the writer's business), commit(). Nothing stands at the
/// path before commit(). Not thread-safe.
class GgufWriter {
  public:
    explicit GgufWriter(const std::filesystem::path& path);

    gguf_context* metadata() { return gguf_.get(); }
    /// `shape` is row-major as in a checkpoint; GGUF stores it reversed. Throws Error(kUsage) for more than
    /// four dimensions or a row that the type's blocks do not divide.
    void add_tensor(const std::string& name, ggml_type type, const std::vector<int64_t>& shape);
    /// Bytes of all tensors added so far, without padding.
    uint64_t tensor_bytes() const;

    /// Writes the metadata; nothing can be added afterwards.
    void begin();
    /// Throws Error(kSystem) when the disk is full.
    void write(std::span<const uint8_t> data);
    /// Throws Error(kUsage) unless exactly the announced bytes were written.
    void commit();

  private:
    void pad();

    struct FreeGguf {
        void operator()(gguf_context* gguf) const { gguf_free(gguf); }
    };
    AtomicFile file_;
    std::unique_ptr<gguf_context, FreeGguf> gguf_;
    size_t tensor_ = 0;            // being written
    uint64_t tensor_written_ = 0;  // bytes of it
};

}  // namespace llava_mini
