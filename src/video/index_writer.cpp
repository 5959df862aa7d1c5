#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "video/index_file.h"
#include "video/index_layout.h"

namespace llava_mini {

using namespace index_layout;

namespace {

nlohmann::json to_json(const Hash128& hash) {
    return {hash.low, hash.high};
}

std::span<const uint8_t> bytes_of(const std::string& text) {
    return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// Names of files need not be UTF-8; JSON must be.
std::string dumped(const nlohmann::json& json) {
    return json.dump(-1, ' ', /*ensure_ascii=*/false, nlohmann::json::error_handler_t::replace);
}

template <typename T>
void add_part(std::vector<uint8_t>& payload, const std::vector<T>& values) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
    payload.insert(payload.end(), bytes, bytes + values.size() * sizeof(T));
    payload.resize(padded(payload.size()));
}

}  // namespace

void VideoIndexWriter::open(int flags) {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC | flags, 0644);
    if (descriptor_ < 0) throw_system("{}: cannot write: {}", path_.string(), std::strerror(errno));
    if (flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
        close(descriptor_);
        descriptor_ = -1;
        throw_input("{}: another process is writing it", path_.string());
    }
}

VideoIndexWriter::VideoIndexWriter(const std::filesystem::path& path, const IndexMeta& meta) : path_(path) {
    const FrameViews views = meta.views.value_or(FrameViews());
    const nlohmann::json views_json = {{"resize", kResizeNames[static_cast<size_t>(views.resize)]},
                                       {"resolution_ratio", views.resolution_ratio},
                                       {"grid_side", views.grid_side},
                                       {"aspect_ratio", views.aspect_ratio}};
    const std::string text = dumped({{"model", meta.model},
                                     {"model_hash", to_json(meta.model_hash)},
                                     {"settings", meta.settings},
                                     {"views", views_json},
                                     {"fps", meta.fps},
                                     {"width", meta.width},
                                     {"tokens_per_frame", meta.tokens_per_frame},
                                     {"vision_positions", meta.vision_positions},
                                     {"layers", meta.layers},
                                     {"kv_width", meta.kv_width},
                                     {"kv_type", ggml_type_name(meta.kv_type)},
                                     {"fusion_frames", meta.fusion_frames},
                                     {"segment_frames", meta.segment_frames},
                                     {"head_ids", meta.head_ids}});
    FileHeader header{};
    std::memcpy(header.magic, kFileMagic, sizeof(header.magic));
    header.version = kIndexVersion;
    header.meta_bytes = static_cast<uint32_t>(text.size());
    header.meta_hash = hash_bytes(bytes_of(text)).low;
    std::vector<uint8_t> bytes(sizeof(header));
    std::memcpy(bytes.data(), &header, sizeof(header));
    bytes.insert(bytes.end(), text.begin(), text.end());
    bytes.resize(padded(bytes.size()));
    // The header is whole or not there: a file without one could not be gone on with.
    AtomicFile begun(path);
    begun.write(bytes);
    begun.commit();
    open(O_APPEND);
}

VideoIndexWriter::VideoIndexWriter(const std::filesystem::path& path, uint64_t end) : path_(path) {
    open(O_APPEND);
    if (ftruncate(descriptor_, static_cast<off_t>(end)) != 0) {
        const int error = errno;
        close(descriptor_);
        throw_system("{}: cannot cut off what was not finished: {}", path_.string(), std::strerror(error));
    }
}

VideoIndexWriter::~VideoIndexWriter() {
    if (descriptor_ >= 0) close(descriptor_);
}

void VideoIndexWriter::write(std::span<const uint8_t> bytes) {
    size_t done = 0;
    while (done < bytes.size()) {
        const ssize_t n = ::write(descriptor_, bytes.data() + done, bytes.size() - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) throw_system("{}: cannot write: {}", path_.string(), std::strerror(errno));
        done += static_cast<size_t>(n);
    }
}

void VideoIndexWriter::record(IndexRecordKind kind, int64_t first_frame, int64_t frames,
                              std::span<const uint8_t> payload) {
    const Hash128 hash = hash_bytes(payload);
    RecordHeader header{kRecordMagic,
                        static_cast<uint32_t>(kind),
                        payload.size(),
                        first_frame,
                        frames,
                        {hash.low, hash.high},
                        0,
                        0};
    header.hash = hash_of(header);
    write({reinterpret_cast<const uint8_t*>(&header), sizeof(header)});
    write(payload);
    const std::vector<uint8_t> padding(padded(payload.size()) - payload.size());
    write(padding);
    if (fsync(descriptor_) != 0) throw_system("{}: cannot write: {}", path_.string(), std::strerror(errno));
}

void VideoIndexWriter::append(const IndexMeta& meta, int64_t first_frame, const FramesContent& content) {
    std::vector<uint8_t> payload;
    add_part(payload, content.seconds);
    add_part(payload, content.tokens);
    add_part(payload, content.head_sum);
    std::vector<uint32_t> sizes, fusion;
    for (const auto& thumbnail : content.thumbnails) sizes.push_back(static_cast<uint32_t>(thumbnail.size()));
    add_part(payload, sizes);
    for (const auto& thumbnail : content.thumbnails) add_part(payload, thumbnail);
    for (const auto& frame : content.fusion) fusion.push_back(static_cast<uint32_t>(frame.frame));
    add_part(payload, std::vector<uint32_t>{static_cast<uint32_t>(fusion.size())});
    add_part(payload, fusion);
    for (const auto& frame : content.fusion) {
        if (frame.vision_kv.size() != meta.kv_bytes(meta.vision_positions)) {
            throw_usage("K/V of {} bytes do not belong into this index", frame.vision_kv.size());
        }
        add_part(payload, frame.vision_kv);
        add_part(payload, frame.head_kv);
    }
    record(IndexRecordKind::kFrames, first_frame, static_cast<int64_t>(content.seconds.size()), payload);
}

void VideoIndexWriter::append(const VideoIdentity& video) {
    const std::string text = dumped({{"name", video.name},
                                     {"bytes", video.bytes},
                                     {"begin", to_json(video.begin)},
                                     {"end", to_json(video.end)},
                                     {"path", video.path}});
    record(IndexRecordKind::kVideo, 0, 0, bytes_of(text));
}

void VideoIndexWriter::append_state(int64_t frames, std::span<const uint8_t> state) {
    record(IndexRecordKind::kLanguageState, 0, frames, state);
}

void VideoIndexWriter::append_end(int64_t frames) {
    record(IndexRecordKind::kEnd, 0, frames, {});
}

}  // namespace llava_mini
