// NumPy's .npy files, version 1.0 and 2.0, little endian, C order: for dumps and recordings.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace llava_mini {

struct NpyArray {
    std::string dtype;  // NumPy's descr: "<f4", "<f8", "<i4", "<i8", "|u1", "|b1"
    std::vector<int64_t> shape;
    std::vector<uint8_t> bytes;

    int64_t size() const;
    /// Elements converted to float / int64. Throws Error(kInput) for a dtype that is not one of those above.
    std::vector<float> as_float() const;
    std::vector<int64_t> as_int64() const;
};

/// Reads and checks a .npy file; throws Error(kInput) naming the file and what is wrong with it.
NpyArray read_npy(const std::filesystem::path& path);

/// Writes an array aside and renames it.
void write_npy(const std::filesystem::path& path, std::span<const int64_t> shape,
               std::span<const float> data);
void write_npy(const std::filesystem::path& path, std::span<const int64_t> shape,
               std::span<const int64_t> data);

}  // namespace llava_mini
