// libFuzzer target: the reader of video indices. Checksums of records are put right first, so that what they
// guard is reached.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#include "llava_mini/error.hpp"
#include "video/index_file.h"
#include "video/index_layout.h"

namespace {

using namespace llava_mini;
using namespace llava_mini::index_layout;

void put_checksums_right(uint8_t* bytes, size_t size) {
    FileHeader header;
    if (size < sizeof(header)) return;
    std::memcpy(&header, bytes, sizeof(header));
    if (header.meta_bytes > size - sizeof(header)) return;
    header.meta_hash = hash_bytes({bytes + sizeof(header), header.meta_bytes}).low;
    std::memcpy(bytes, &header, sizeof(header));
    for (uint64_t at = padded(sizeof(header) + header.meta_bytes); at + sizeof(RecordHeader) <= size;) {
        RecordHeader record;
        std::memcpy(&record, bytes + at, sizeof(record));
        if (record.payload_bytes > size - at - sizeof(record)) return;
        const Hash128 hash = hash_bytes({bytes + at + sizeof(record), record.payload_bytes});
        record.payload_hash[0] = hash.low;
        record.payload_hash[1] = hash.high;
        record.hash = hash_of(record);
        std::memcpy(bytes + at, &record, sizeof(record));
        at = padded(at + sizeof(record) + record.payload_bytes);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    // A mapped file starts on a page.
    struct alignas(kAlignment) Block {
        uint8_t bytes[kAlignment];
    };
    std::vector<Block> blocks(size / kAlignment + 1);
    auto* bytes = reinterpret_cast<uint8_t*>(blocks.data());
    std::memcpy(bytes, data, size);
    put_checksums_right(bytes, size);
    try {
        const VideoIndexFile file({bytes, size}, "fuzz");
        for (const IndexRecord* record : file.frames()) {
            try {
                const IndexFrames frames = file.open(*record);
                double sum = 0;
                for (const double seconds : frames.seconds) sum += seconds;
                for (const double value : frames.head_sum) sum += value;
                for (const auto& thumbnail : frames.thumbnails) sum += static_cast<double>(thumbnail.size());
                volatile double used = sum;
                static_cast<void>(used);
            } catch (const Error&) {
            }
        }
        if (const IndexRecord* video = file.last(IndexRecordKind::kVideo)) file.video(*video);
    } catch (const Error&) {
    }
    return 0;
}
