#include "model/gguf_file.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/log.h"

namespace llava_mini {
namespace {

// Largest metadata (vocabulary and merges are the bulk of it) that is read.
constexpr uint64_t kMaxMetadataChunk = uint64_t{1} << 20;

size_t read_callback(void* userdata, void* output, uint64_t offset, size_t length) {
    const auto& file = *static_cast<const RandomAccessFile*>(userdata);
    if (offset >= file.size()) return 0;
    const size_t n = static_cast<size_t>(std::min<uint64_t>(length, file.size() - offset));
    try {
        file.read(offset, {static_cast<uint8_t*>(output), n});
    } catch (const Error&) {  // the engine must not be unwound; it sees a file that ends here
        return 0;
    }
    return n;
}

int64_t key_of_type(const gguf_context* gguf, const std::string& file, const char* key, gguf_type type) {
    const int64_t id = gguf_find_key(gguf, key);
    if (id < 0) throw_input("{}: the metadata key '{}' is missing", file, key);
    if (gguf_get_kv_type(gguf, id) != type) {
        throw_input("{}: the metadata key '{}' has type {}, expected {}", file, key,
                    gguf_type_name(gguf_get_kv_type(gguf, id)), gguf_type_name(type));
    }
    return id;
}

}  // namespace

GgufFile::GgufFile(const std::filesystem::path& path) : name_(path.string()) {
    file_ = std::make_unique<RandomAccessFile>(path);
    const EngineLogCapture reason;
    gguf_.reset(gguf_init_from_callback(read_callback, file_.get(), kMaxMetadataChunk, file_->size(),
                                        {/*no_alloc=*/true, /*ctx=*/nullptr}));
    if (!gguf_) throw_input("{}: not a readable GGUF file ({})", name_, reason.first_error());
    check(file_->size());
}

GgufFile::GgufFile(std::span<const uint8_t> bytes, std::string name) : name_(std::move(name)), bytes_(bytes) {
    const EngineLogCapture reason;
    gguf_.reset(gguf_init_from_buffer(bytes.data(), bytes.size(), {/*no_alloc=*/true, /*ctx=*/nullptr}));
    if (!gguf_) throw_input("{}: not a readable GGUF file ({})", name_, reason.first_error());
    check(bytes.size());
}

void GgufFile::check(uint64_t file_size) {
    const uint64_t data_start = gguf_get_data_offset(gguf_.get());
    const int64_t count = gguf_get_n_tensors(gguf_.get());
    for (int64_t i = 0; i < count; ++i) {
        GgufTensor tensor;
        tensor.name = gguf_get_tensor_name(gguf_.get(), i);
        tensor.type = gguf_get_tensor_type(gguf_.get(), i);
        std::copy_n(gguf_get_tensor_ne(gguf_.get(), i), 4, tensor.shape);
        tensor.bytes = gguf_get_tensor_size(gguf_.get(), i);
        const uint64_t offset = gguf_get_tensor_offset(gguf_.get(), i);
        if (data_start > file_size || offset > file_size - data_start ||
            tensor.bytes > file_size - data_start - offset) {
            throw_input(
                "{}: tensor '{}' ends at byte {} of the data, but the file has only {} bytes (truncated?)",
                name_, tensor.name, offset + tensor.bytes, file_size);
        }
        tensor.offset = data_start + offset;
        tensors_.push_back(std::move(tensor));
    }
}

const GgufTensor* GgufFile::find(const std::string& tensor_name) const {
    const int64_t id = gguf_find_tensor(gguf_.get(), tensor_name.c_str());
    return id < 0 ? nullptr : &tensors_[static_cast<size_t>(id)];
}

void GgufFile::read(const GgufTensor& tensor, uint64_t offset, std::span<uint8_t> out) const {
    if (offset > tensor.bytes || out.size() > tensor.bytes - offset) {
        throw_input("{}: tensor '{}' has {} bytes, {} from byte {} were asked for", name_, tensor.name,
                    tensor.bytes, out.size(), offset);
    }
    if (file_) {
        file_->read(tensor.offset + offset, out);
    } else {
        std::memcpy(out.data(), bytes_.data() + tensor.offset + offset, out.size());
    }
}

uint32_t GgufFile::get_u32(const char* key) const {
    return gguf_get_val_u32(gguf_.get(), key_of_type(gguf_.get(), name_, key, GGUF_TYPE_UINT32));
}

float GgufFile::get_f32(const char* key) const {
    return gguf_get_val_f32(gguf_.get(), key_of_type(gguf_.get(), name_, key, GGUF_TYPE_FLOAT32));
}

bool GgufFile::get_bool(const char* key) const {
    return gguf_get_val_bool(gguf_.get(), key_of_type(gguf_.get(), name_, key, GGUF_TYPE_BOOL));
}

std::string GgufFile::get_string(const char* key) const {
    return gguf_get_val_str(gguf_.get(), key_of_type(gguf_.get(), name_, key, GGUF_TYPE_STRING));
}

}  // namespace llava_mini
