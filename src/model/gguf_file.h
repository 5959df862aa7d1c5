// Checked reading of GGUF files: nothing a file says is believed before it is compared with the file itself.
#pragma once

#include <ggml.h>
#include <gguf.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"

namespace llava_mini {

/// One tensor of a GGUF file. `shape` is in ggml's order (fastest first), four entries, unused ones 1.
struct GgufTensor {
    std::string name;
    ggml_type type = GGML_TYPE_F32;
    int64_t shape[4] = {1, 1, 1, 1};
    uint64_t offset = 0;  // from the start of the file
    uint64_t bytes = 0;
};

/// Metadata and tensor table of a GGUF file; tensor data is read on demand. Thread-safe after construction.
class GgufFile {
  public:
    /// Throws Error(kInput) naming the file if it is no GGUF, damaged, or its tensors do not lie inside it.
    explicit GgufFile(const std::filesystem::path& path);
    /// The same from bytes in memory (tests, fuzzing); `name` stands for the file in errors.
    GgufFile(std::span<const uint8_t> bytes, std::string name);

    const gguf_context* metadata() const { return gguf_.get(); }
    const std::string& name() const { return name_; }
    const std::vector<GgufTensor>& tensors() const { return tensors_; }
    /// Null if there is none of that name.
    const GgufTensor* find(const std::string& tensor_name) const;
    /// Reads `out.size()` bytes of a tensor's data from `offset` within it. Throws Error(kInput) past its
    /// end.
    void read(const GgufTensor& tensor, uint64_t offset, std::span<uint8_t> out) const;

    /// Metadata by key. Throws Error(kInput) naming file and key if the key is missing or of another type.
    uint32_t get_u32(const char* key) const;
    float get_f32(const char* key) const;
    bool get_bool(const char* key) const;
    std::string get_string(const char* key) const;
    bool has(const char* key) const { return gguf_find_key(gguf_.get(), key) >= 0; }

  private:
    void check(uint64_t file_size);

    struct Free {
        void operator()(gguf_context* gguf) const { gguf_free(gguf); }
    };
    std::string name_;
    std::unique_ptr<RandomAccessFile> file_;
    std::span<const uint8_t> bytes_;
    std::unique_ptr<gguf_context, Free> gguf_;
    std::vector<GgufTensor> tensors_;
};

}  // namespace llava_mini
