#include "convert/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "convert/json_input.h"
#include "core/error.h"

namespace llava_mini {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the format's own library
constexpr uint64_t kMaxIndexBytes = 64 << 20;
constexpr size_t kMaxDimensions = 8;

// Bytes of one element; nothing for a dtype the format does not know.
std::optional<uint64_t> dtype_bytes(const std::string& dtype) {
    static const std::map<std::string, uint64_t> kBytes = {
        {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
        {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
        {"U32", 4},  {"F32", 4}, {"F64", 8}, {"I64", 8},     {"U64", 8}};
    const auto it = kBytes.find(dtype);
    return it == kBytes.end() ? std::nullopt : std::optional(it->second);
}

struct HeaderEntry {
    std::string name, dtype;
    std::vector<uint64_t> shape, offsets;
};

// Takes the header's events one by one and accepts the format's only structure, so that neither deep nesting
// nor anything else in a hostile header costs more memory than the header itself.
class HeaderParser : public nlohmann::json_sax<json> {
  public:
    std::vector<HeaderEntry> entries;
    std::string error;  // set when parsing stopped

    bool null() override { return reject("null"); }
    bool boolean(bool) override { return reject("a boolean"); }
    bool number_integer(number_integer_t) override { return reject("a negative number"); }
    bool number_float(number_float_t, const string_t&) override {
        return reject("a fraction or a number beyond 64 bits");
    }
    bool binary(binary_t&) override { return reject("binary data"); }

    bool number_unsigned(number_unsigned_t value) override {
        if (state_ != State::kNumbers) return reject("a number");
        std::vector<uint64_t>& numbers = field_ == "shape" ? entries.back().shape : entries.back().offsets;
        if (numbers.size() == (field_ == "shape" ? kMaxDimensions : 2)) return reject("too many numbers");
        numbers.push_back(value);
        return true;
    }

    bool string(string_t& value) override {
        if (state_ == State::kMetadata) return true;
        if (state_ != State::kTensor || field_ != "dtype") return reject("a string");
        entries.back().dtype = value;
        return true;
    }

    bool start_object(size_t) override {
        if (state_ == State::kStart) {
            state_ = State::kNames;
        } else if (state_ == State::kNames) {
            state_ = name_ == "__metadata__" ? State::kMetadata : State::kTensor;
            fields_.clear();
            if (state_ == State::kTensor) entries.push_back({name_, {}, {}, {}});
        } else {
            return reject("an object");
        }
        return true;
    }

    bool key(string_t& key) override {
        if (state_ == State::kNames) {
            name_ = key;
            if (!names_.insert(key).second) return fail("the tensor stands twice");
        } else if (state_ == State::kTensor) {
            field_ = key;
            if (key != "dtype" && key != "shape" && key != "data_offsets") {
                return fail("unknown field \"" + printable(key) + "\"");
            }
            if (!fields_.insert(key).second) return fail("the field " + key + " stands twice");
        }
        return true;
    }

    bool end_object() override {
        if (state_ == State::kTensor && fields_.size() != 3)
            return fail("expected dtype, shape and data_offsets");
        if (state_ == State::kTensor && entries.back().offsets.size() != 2)
            return fail("expected two data_offsets");
        state_ = state_ == State::kNames ? State::kEnd : State::kNames;
        return true;
    }

    bool start_array(size_t) override {
        if (state_ != State::kTensor || field_ == "dtype") return reject("an array");
        state_ = State::kNumbers;
        return true;
    }

    bool end_array() override {
        state_ = State::kTensor;
        return true;
    }

    bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
        error = fmt::format("not valid JSON at byte {}", position);
        return false;
    }

  private:
    enum class State { kStart, kNames, kTensor, kNumbers, kMetadata, kEnd };

    bool fail(const std::string& what) {
        error = name_.empty() ? what : fmt::format("tensor '{}': {}", printable(name_), what);
        return false;
    }
    bool reject(const std::string& found) {
        switch (state_) {
            case State::kTensor:
                return fail(field_ + ": unexpected: " + found);
            case State::kNumbers:
                return fail(field_ + ": expected whole numbers, found " + found);
            case State::kMetadata:
                return fail("expected strings, found " + found);
            default:
                return fail("expected an object, found " + found);
        }
    }

    State state_ = State::kStart;
    std::string name_, field_;
    std::set<std::string> names_, fields_;
};

SafetensorsTensor checked_tensor(const HeaderEntry& entry, const std::string& file, uint64_t data_start,
                                 uint64_t data_bytes) {
    const std::string where = fmt::format("{}: tensor '{}'", file, printable(entry.name));
    const std::optional<uint64_t> element_bytes = dtype_bytes(entry.dtype);
    if (!element_bytes) throw_input("{}: unknown dtype \"{}\"", where, printable(entry.dtype));

    const uint64_t begin = entry.offsets[0], end = entry.offsets[1];
    if (begin > end || end > data_bytes) {
        throw_input("{}: data_offsets [{}, {}] do not lie in the file's {} bytes of data (truncated?)", where,
                    begin, end, data_bytes);
    }
    SafetensorsTensor tensor;
    tensor.dtype = entry.dtype;
    uint64_t bytes = *element_bytes;
    for (const uint64_t dimension : entry.shape) {
        if (dimension > static_cast<uint64_t>(INT64_MAX) ||
            __builtin_mul_overflow(bytes, dimension, &bytes)) {
            throw_input("{}: the shape [{}] is too large", where, fmt::join(entry.shape, ", "));
        }
        tensor.shape.push_back(static_cast<int64_t>(dimension));
    }
    if (bytes != end - begin) {
        throw_input("{}: shape [{}] of {} takes {} bytes, data_offsets [{}, {}] give {}", where,
                    fmt::join(entry.shape, ", "), entry.dtype, bytes, begin, end, end - begin);
    }
    tensor.offset = data_start + begin;
    tensor.bytes = bytes;
    return tensor;
}

}  // namespace

int64_t SafetensorsTensor::elements() const {
    int64_t n = 1;
    for (const int64_t dimension : shape) n *= dimension;
    return n;
}

ggml_type SafetensorsTensor::type() const {
    if (dtype == "F32") return GGML_TYPE_F32;
    if (dtype == "F16") return GGML_TYPE_F16;
    if (dtype == "BF16") return GGML_TYPE_BF16;
    return GGML_TYPE_COUNT;
}

void SafetensorsReader::Shard::read(uint64_t offset, std::span<uint8_t> out) const {
    if (file) {
        file->read(offset, out);
    } else if (!out.empty()) {
        std::memcpy(out.data(), bytes.data() + offset, out.size());
    }
}

SafetensorsReader::SafetensorsReader(const std::filesystem::path& path) : name_(path.string()) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) {
        open_folder(path);
    } else {
        add_shard({path.string(), std::make_unique<RandomAccessFile>(path), {}});
    }
}

SafetensorsReader::SafetensorsReader(std::span<const uint8_t> bytes, const std::string& name) : name_(name) {
    add_shard({name, nullptr, bytes});
}

void SafetensorsReader::open_folder(const std::filesystem::path& folder) {
    std::error_code ignored;
    if (const auto single = folder / "model.safetensors"; std::filesystem::exists(single, ignored)) {
        add_shard({single.string(), std::make_unique<RandomAccessFile>(single), {}});
        return;
    }
    std::vector<std::filesystem::path> indices, files;
    bool has_torch_files = false;
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
        const std::string name = entry.path().filename().string();
        if (name.ends_with(".safetensors.index.json")) indices.push_back(entry.path());
        if (name.ends_with(".safetensors")) files.push_back(entry.path());
        has_torch_files |= name.starts_with("pytorch_model") && name.ends_with(".bin");
    }
    if (indices.size() == 1) {
        open_index(indices[0]);
    } else if (indices.empty() && files.size() == 1) {
        add_shard({files[0].string(), std::make_unique<RandomAccessFile>(files[0]), {}});
    } else {
        throw_input(
            "{}: expected model.safetensors, or shards with one index (*.safetensors.index.json), found {} "
            "index files and {} safetensors files{}",
            folder.string(), indices.size(), files.size(),
            has_torch_files ? " (PyTorch's .bin files are not read: save the model as safetensors)" : "");
    }
}

void SafetensorsReader::open_index(const std::filesystem::path& index) {
    const json root = read_json_file(index, kMaxIndexBytes);
    const JsonObject object(root, index.string());
    const json& weight_map = object.at("weight_map");
    if (!weight_map.is_object()) object.fail("weight_map", "an object");

    std::set<std::string> shard_names;
    for (const auto& [tensor, shard] : weight_map.items()) {
        const std::string name = shard.is_string() ? shard.get<std::string>() : "";
        // A plain file name: an index must not reach out of its folder.
        if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
            name.find('\0') != std::string::npos) {
            throw_input("{}: weight_map: '{}': expected the name of a file in the same folder, found {}",
                        index.string(), printable(tensor), describe_json(shard));
        }
        shard_names.insert(name);
    }
    std::map<std::string, size_t> shard_index;
    for (const std::string& name : shard_names) {
        const auto path = index.parent_path() / name;
        shard_index[name] = shards_.size();
        add_shard({path.string(), std::make_unique<RandomAccessFile>(path), {}});
    }
    for (const auto& [tensor, shard] : weight_map.items()) {
        const SafetensorsTensor* found = find(tensor);
        if (found == nullptr || found->shard != shard_index[shard.get<std::string>()]) {
            throw_input("{}: weight_map: '{}' is not in {}", index.string(), printable(tensor),
                        printable(shard.get<std::string>()));
        }
    }
}

void SafetensorsReader::add_shard(Shard shard) {
    const uint64_t file_bytes = shard.size();
    if (file_bytes < 8) throw_input("{}: not a safetensors file: only {} bytes", shard.name, file_bytes);
    uint8_t size_bytes[8];
    shard.read(0, size_bytes);
    uint64_t header_bytes = 0;
    for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | size_bytes[i];
    if (header_bytes > kMaxHeaderBytes) {
        throw_input("{}: not a safetensors file: a header of {} bytes (at most {} are accepted)", shard.name,
                    header_bytes, kMaxHeaderBytes);
    }
    if (header_bytes > file_bytes - 8) {
        throw_input("{}: a header of {} bytes, but the file has only {} (truncated?)", shard.name,
                    header_bytes, file_bytes);
    }

    std::string header(header_bytes, '\0');
    shard.read(8, {reinterpret_cast<uint8_t*>(header.data()), header.size()});
    HeaderParser parser;
    if (!json::sax_parse(header.begin(), header.end(), &parser)) {
        throw_input("{}: safetensors header: {}", shard.name, parser.error);
    }

    const uint64_t data_start = 8 + header_bytes, data_bytes = file_bytes - data_start;
    std::sort(parser.entries.begin(), parser.entries.end(),
              [](const HeaderEntry& a, const HeaderEntry& b) { return a.offsets < b.offsets; });
    uint64_t expected_begin = 0;
    const std::string* previous = nullptr;
    for (const HeaderEntry& entry : parser.entries) {
        SafetensorsTensor tensor = checked_tensor(entry, shard.name, data_start, data_bytes);
        if (entry.offsets[0] < expected_begin) {
            throw_input("{}: tensors '{}' and '{}' overlap", shard.name, printable(*previous),
                        printable(entry.name));
        }
        if (entry.offsets[0] > expected_begin) {
            throw_input("{}: tensor '{}' starts at byte {} of the data, expected {}: a gap", shard.name,
                        printable(entry.name), entry.offsets[0], expected_begin);
        }
        expected_begin = entry.offsets[1];
        previous = &entry.name;
        tensor.shard = shards_.size();
        const auto [position, is_new] = tensors_.emplace(entry.name, std::move(tensor));
        if (!is_new) {
            throw_input("{}: tensor '{}' is also in {}", shard.name, printable(entry.name),
                        shards_[position->second.shard].name);
        }
    }
    if (expected_begin != data_bytes) {
        throw_input("{}: {} bytes of data, but the tensors take {}", shard.name, data_bytes, expected_begin);
    }
    shards_.push_back(std::move(shard));
}

const SafetensorsTensor* SafetensorsReader::find(const std::string& tensor) const {
    const auto it = tensors_.find(tensor);
    return it == tensors_.end() ? nullptr : &it->second;
}

bool SafetensorsReader::has_prefix(const std::string& prefix) const {
    const auto it = tensors_.lower_bound(prefix);
    return it != tensors_.end() && it->first.starts_with(prefix);
}

void SafetensorsReader::read(const SafetensorsTensor& tensor, uint64_t offset, std::span<uint8_t> out) const {
    if (offset > tensor.bytes || out.size() > tensor.bytes - offset) {
        throw_usage("{}: bytes {} to {} of a tensor of {} bytes", shards_[tensor.shard].name, offset,
                    offset + out.size(), tensor.bytes);
    }
    shards_[tensor.shard].read(tensor.offset + offset, out);
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, const std::vector<Tensor>& tensors)
    : file_(path) {
    json header = json::object();
    header["__metadata__"] = {{"format", "pt"}};
    uint64_t offset = 0;
    for (const Tensor& tensor : tensors) {
        uint64_t bytes = ggml_type_size(tensor.type);
        for (const int64_t dimension : tensor.shape) bytes *= static_cast<uint64_t>(dimension);
        header[tensor.name] = {{"dtype", tensor.type == GGML_TYPE_F32   ? "F32"
                                         : tensor.type == GGML_TYPE_F16 ? "F16"
                                                                        : "BF16"},
                               {"shape", tensor.shape},
                               {"data_offsets", {offset, offset + bytes}}};
        offset += bytes;
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');  // the format's own library aligns the data to 8 bytes
    uint8_t size_bytes[8];
    for (int i = 0; i < 8; ++i) size_bytes[i] = static_cast<uint8_t>(text.size() >> (8 * i));
    file_.write(std::span<const uint8_t>(size_bytes));
    file_.write(text);
    expected_size_ = file_.size() + offset;
}

void SafetensorsWriter::commit() {
    if (file_.size() != expected_size_) {
        throw_usage("safetensors: {} bytes were written, {} announced", file_.size(), expected_size_);
    }
    file_.commit();
}

}  // namespace llava_mini
