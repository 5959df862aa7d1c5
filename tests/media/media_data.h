// The pictures in tests/media/data and Pillow's pixels of them; data/make.py made both.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/npy.h"
#include "model/stages.h"

namespace llava_mini::test {

inline std::filesystem::path media_path(const std::string& name) {
    return std::filesystem::path(LLAVA_MINI_MEDIA_DATA) / name;
}

inline std::vector<uint8_t> media_bytes(const std::string& name) {
    return read_file(media_path(name), 1 << 24);
}

/// A recorded array [height, width, 3].
inline Image recorded_image(const std::filesystem::path& npy) {
    const NpyArray array = read_npy(npy);
    return {static_cast<int>(array.shape.at(1)), static_cast<int>(array.shape.at(0)), array.bytes};
}

inline bool operator==(const Image& a, const Image& b) {
    return a.width == b.width && a.height == b.height && a.rgb == b.rgb;
}

}  // namespace llava_mini::test
