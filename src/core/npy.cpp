#include "core/npy.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <cstring>
#include <string_view>

#include "core/error.h"
#include "core/file.h"

namespace llava_mini {
namespace {

static_assert(std::endian::native == std::endian::little, "arrays are stored as they lie in memory");

constexpr std::string_view kMagic("\x93NUMPY", 6);
constexpr uint64_t kMaxBytes = uint64_t{1} << 36;
constexpr size_t kMaxDimensions = 32;  // NumPy's own limit
constexpr size_t kAlignment = 64;      // of the data, which NumPy pads its header for

// Bytes of an element, 0 for a type that is not known.
size_t element_bytes(std::string_view dtype) {
    if (dtype == "<f4" || dtype == "<i4") return 4;
    if (dtype == "<f8" || dtype == "<i8") return 8;
    if (dtype == "|u1" || dtype == "|b1") return 1;
    return 0;
}

// Reads the header, the text of a Python dictionary: {'descr': '<f4', 'fortran_order': False, 'shape': (2,
// 3), }
class HeaderParser {
  public:
    HeaderParser(std::string_view text, const std::filesystem::path& path) : text_(text), path_(path) {}

    NpyArray parse() {
        NpyArray array;
        bool has_dtype = false, has_order = false, has_shape = false;
        expect('{');
        while (!accept('}')) {
            const std::string key = quoted();
            expect(':');
            if (key == "descr") {
                array.dtype = quoted();
                has_dtype = true;
            } else if (key == "fortran_order") {
                if (word() != "False") fail("arrays in Fortran order are not read");
                has_order = true;
            } else if (key == "shape") {
                array.shape = shape();
                has_shape = true;
            } else {
                fail(fmt::format("unknown key '{}'", key));
            }
            if (!accept(',')) {
                expect('}');
                break;
            }
        }
        if (!has_dtype || !has_order || !has_shape) fail("'descr', 'fortran_order' or 'shape' is missing");
        return array;
    }

  private:
    [[noreturn]] void fail(const std::string& what) const {
        throw_input("{}: bad .npy header: {}", path_.string(), what);
    }
    void skip_spaces() {
        while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
    }
    bool accept(char c) {
        skip_spaces();
        if (at_ >= text_.size() || text_[at_] != c) return false;
        ++at_;
        return true;
    }
    void expect(char c) {
        if (!accept(c)) fail(fmt::format("expected '{}' at character {}", c, at_));
    }
    std::string quoted() {
        expect('\'');
        const size_t end = text_.find('\'', at_);
        if (end == std::string_view::npos) fail("a string does not end");
        std::string value(text_.substr(at_, end - at_));
        at_ = end + 1;
        return value;
    }
    std::string_view word() {
        skip_spaces();
        const size_t begin = at_;
        while (at_ < text_.size() && std::isalpha(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
        return text_.substr(begin, at_ - begin);
    }
    std::vector<int64_t> shape() {
        std::vector<int64_t> result;
        expect('(');
        while (!accept(')')) {
            int64_t value = 0;
            const size_t begin = at_;
            for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
                value = value * 10 + (text_[at_] - '0');
                if (value > static_cast<int64_t>(kMaxBytes)) fail("a dimension is too large");
            }
            if (at_ == begin) fail("expected a number in 'shape'");
            if (result.size() == kMaxDimensions) fail("too many dimensions");
            result.push_back(value);
            if (!accept(',')) {
                expect(')');
                break;
            }
        }
        return result;
    }

    std::string_view text_;
    const std::filesystem::path& path_;
    size_t at_ = 0;
};

template <typename From, typename To>
std::vector<To> converted(const std::vector<uint8_t>& bytes) {
    std::vector<To> result(bytes.size() / sizeof(From));
    for (size_t i = 0; i < result.size(); ++i) {
        From value;
        std::memcpy(&value, bytes.data() + i * sizeof(From), sizeof(From));
        result[i] = static_cast<To>(value);
    }
    return result;
}

template <typename To>
std::vector<To> elements(const NpyArray& array) {
    if (array.dtype == "<f4") return converted<float, To>(array.bytes);
    if (array.dtype == "<f8") return converted<double, To>(array.bytes);
    if (array.dtype == "<i4") return converted<int32_t, To>(array.bytes);
    if (array.dtype == "<i8") return converted<int64_t, To>(array.bytes);
    if (array.dtype == "|u1" || array.dtype == "|b1") return converted<uint8_t, To>(array.bytes);
    throw_input("arrays of dtype '{}' are not read", array.dtype);
}

// The same bytes as numpy.save of NumPy 1.24 and later writes them, version 1.0.
std::string header_of(std::string_view dtype, std::span<const int64_t> shape) {
    // NumPy leaves room for the first dimension to grow to 21 digits in place.
    constexpr size_t kGrowthDigits = 21;
    std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}", dtype,
                                   fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
    if (!shape.empty()) text.append(kGrowthDigits - fmt::formatted_size("{}", shape[0]), ' ');
    const size_t unpadded = kMagic.size() + 4 + text.size() + 1;
    text.append(kAlignment - unpadded % kAlignment, ' ');
    text += '\n';
    std::string header(kMagic);
    header += '\1';
    header += '\0';
    header += static_cast<char>(text.size() & 0xFF);
    header += static_cast<char>(text.size() >> 8);
    return header + text;
}

void write_array(const std::filesystem::path& path, std::string_view dtype, std::span<const int64_t> shape,
                 std::span<const uint8_t> bytes) {
    uint64_t expected = element_bytes(dtype);
    for (const int64_t n : shape) expected *= static_cast<uint64_t>(n);
    if (expected != bytes.size() || shape.size() > kMaxDimensions) {
        throw_usage("{}: shape ({}) does not fit {} bytes of '{}'", path.string(), fmt::join(shape, ", "),
                    bytes.size(), dtype);
    }
    AtomicFile file(path);
    file.write(header_of(dtype, shape));
    file.write(bytes);
    file.commit();
}

template <typename T>
std::span<const uint8_t> bytes_of(std::span<const T> data) {
    return {reinterpret_cast<const uint8_t*>(data.data()), data.size_bytes()};
}

}  // namespace

int64_t NpyArray::size() const {
    int64_t n = 1;
    for (const int64_t extent : shape) n *= extent;
    return n;
}

std::vector<float> NpyArray::as_float() const {
    return elements<float>(*this);
}

std::vector<int64_t> NpyArray::as_int64() const {
    return elements<int64_t>(*this);
}

NpyArray read_npy(const std::filesystem::path& path) {
    const RandomAccessFile file(path);
    if (file.size() > kMaxBytes)
        throw_input("{}: {} bytes are too many for an array", path.string(), file.size());
    uint8_t start[12] = {};
    if (file.size() < sizeof(start)) throw_input("{}: too short for a .npy file", path.string());
    file.read(0, start);
    const int version = start[6];
    if (std::memcmp(start, kMagic.data(), kMagic.size()) != 0 || (version != 1 && version != 2)) {
        throw_input("{}: not a .npy file of version 1 or 2", path.string());
    }
    const uint64_t text_begin = version == 1 ? 10 : 12;
    uint64_t text_size = start[8] | uint64_t{start[9]} << 8;
    if (version == 2) text_size |= uint64_t{start[10]} << 16 | uint64_t{start[11]} << 24;
    if (text_size > file.size() - text_begin) {
        throw_input("{}: bad .npy header: {} bytes announced, the file has {}", path.string(), text_size,
                    file.size());
    }
    std::string text(text_size, '\0');
    file.read(text_begin, {reinterpret_cast<uint8_t*>(text.data()), text.size()});
    NpyArray array = HeaderParser(text, path).parse();

    const size_t element = element_bytes(array.dtype);
    if (element == 0) throw_input("{}: arrays of dtype '{}' are not read", path.string(), array.dtype);
    uint64_t expected = element;
    for (const int64_t n : array.shape) {
        if (n != 0 && expected > kMaxBytes / static_cast<uint64_t>(n)) {
            throw_input("{}: bad .npy header: the shape ({}) is too large", path.string(),
                        fmt::join(array.shape, ", "));
        }
        expected *= static_cast<uint64_t>(n);
    }
    const uint64_t found = file.size() - text_begin - text_size;
    if (found != expected) {
        throw_input("{}: expected {} bytes of data for shape ({}) of '{}', found {}", path.string(), expected,
                    fmt::join(array.shape, ", "), array.dtype, found);
    }
    array.bytes.resize(expected);
    file.read(text_begin + text_size, array.bytes);
    return array;
}

void write_npy(const std::filesystem::path& path, std::span<const int64_t> shape,
               std::span<const float> data) {
    write_array(path, "<f4", shape, bytes_of(data));
}

void write_npy(const std::filesystem::path& path, std::span<const int64_t> shape,
               std::span<const int64_t> data) {
    write_array(path, "<i8", shape, bytes_of(data));
}

}  // namespace llava_mini
