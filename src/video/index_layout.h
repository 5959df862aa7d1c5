// The fixed parts of an index file, little-endian as the machines this runs on. docs/index-format.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/hash.h"

namespace llava_mini::index_layout {

inline constexpr char kFileMagic[8] = {'L', 'M', 'I', 'N', 'I', 'V', 'I', 'X'};
inline constexpr uint32_t kRecordMagic = 0x44434552;  // "RECD"
inline constexpr uint64_t kAlignment = 64;            // of records and the arrays in them
inline constexpr int64_t kMaxFrames = int64_t{1} << 40;

inline constexpr const char* kResizeNames[] = {"nearest", "picture"};  // FrameResize in the description

/// The next multiple of kAlignment.
constexpr uint64_t padded(uint64_t bytes) {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

struct FileHeader {
    char magic[8];
    uint32_t version;
    uint32_t meta_bytes;  // of the JSON text behind this header
    uint64_t meta_hash;
    uint64_t reserved[5];
};
static_assert(sizeof(FileHeader) == 64);

struct RecordHeader {
    uint32_t magic;
    uint32_t kind;
    uint64_t payload_bytes;
    int64_t first_frame, frames;
    uint64_t payload_hash[2];
    uint64_t reserved;
    uint64_t hash;  // of the bytes before
};
static_assert(sizeof(RecordHeader) == 64);

inline uint64_t hash_of(const RecordHeader& header) {
    return hash_bytes({reinterpret_cast<const uint8_t*>(&header), offsetof(RecordHeader, hash)}).low;
}

}  // namespace llava_mini::index_layout
