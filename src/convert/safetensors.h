// Safetensors: an 8-byte little-endian header size, a JSON header, the tensors' bytes.
// Format: https://github.com/huggingface/safetensors (README, "Format").
#pragma once

#include <ggml.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"

namespace llava_mini {

/// One tensor of a checkpoint. `shape` is row-major (the slowest dimension first), as in torch.
struct SafetensorsTensor {
    std::string dtype;  // as in the header: "F32", "F16", "BF16", "I64", ...
    std::vector<int64_t> shape;
    size_t shard = 0;
    uint64_t offset = 0;  // from the start of the shard
    uint64_t bytes = 0;

    int64_t elements() const;
    /// GGML_TYPE_F32, _F16 or _BF16; GGML_TYPE_COUNT for a dtype that weights never have.
    ggml_type type() const;
};

/// Reads the tensors of one safetensors file, or of a checkpoint folder with one or several shards. Nothing
/// in a header is believed before it is checked: all tensors lie inside their file, do not overlap, leave no
/// gap, have the size that shape and dtype imply, and no name comes twice. Data is read on demand, so memory
/// stays small. Thread-safe after construction.
class SafetensorsReader {
  public:
    /// `path` is a .safetensors file, or a folder with model.safetensors, with one *.safetensors.index.json
    /// (whose shards must lie in the same folder), or with a single *.safetensors. Throws Error(kInput).
    explicit SafetensorsReader(const std::filesystem::path& path);
    /// One file's bytes in memory, which must outlive the reader; `name` stands for the file in errors.
    SafetensorsReader(std::span<const uint8_t> bytes, const std::string& name);

    /// What was opened, for messages.
    const std::string& name() const { return name_; }
    const std::map<std::string, SafetensorsTensor>& tensors() const { return tensors_; }
    /// Null if there is none of that name.
    const SafetensorsTensor* find(const std::string& tensor) const;
    bool has_prefix(const std::string& prefix) const;
    /// Reads out.size() bytes of the tensor's data from `offset` within it, which must lie inside the tensor.
    void read(const SafetensorsTensor& tensor, uint64_t offset, std::span<uint8_t> out) const;

  private:
    struct Shard {
        std::string name;
        std::unique_ptr<RandomAccessFile> file;  // null: `bytes` is used
        std::span<const uint8_t> bytes;

        uint64_t size() const { return file ? file->size() : bytes.size(); }
        void read(uint64_t offset, std::span<uint8_t> out) const;
    };

    void add_shard(Shard shard);
    void open_folder(const std::filesystem::path& folder);
    void open_index(const std::filesystem::path& index);

    std::string name_;
    std::vector<Shard> shards_;
    std::map<std::string, SafetensorsTensor> tensors_;
};

/// Writes one safetensors file whose tensors are known beforehand; their data follows in the same order, in
/// pieces of any size. Nothing stands at `path` before commit().
class SafetensorsWriter {
  public:
    struct Tensor {
        std::string name;
        ggml_type type;  // F32, F16 or BF16
        std::vector<int64_t> shape;
    };
    SafetensorsWriter(const std::filesystem::path& path, const std::vector<Tensor>& tensors);

    void write(std::span<const uint8_t> data) { file_.write(data); }
    /// Throws Error(kUsage) if not exactly the announced bytes were written, Error(kSystem) if the disk is
    /// full.
    void commit();

  private:
    AtomicFile file_;
    uint64_t expected_size_ = 0;
};

}  // namespace llava_mini
