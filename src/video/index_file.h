// The file of a video index: how it is read, checked and continued. docs/index-format.md describes it.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/hash.h"
#include "llava_mini/video.hpp"

namespace llava_mini {

inline constexpr uint32_t kIndexVersion = 1;

/// Which video: tells the same file, one that only grew, and another one.
struct VideoIdentity {
    std::string name;       ///< for people
    uint64_t bytes = 0;     ///< size
    Hash128 begin;          ///< of its first 64 KiB
    Hash128 end;            ///< of its last 64 KiB
    std::string path = {};  ///< where it was, absolute; empty: unknown
};

VideoIdentity identity_of_video(const std::filesystem::path& file);
/// Whether `file` is that video, whatever its name.
bool is_video(const VideoIdentity& video, const std::filesystem::path& file);
/// Whether `file` is that video with more behind it.
bool has_grown(const VideoIdentity& video, const std::filesystem::path& file);

/// How frames became views (VideoOptions).
struct FrameViews {
    FrameResize resize = FrameResize::kNearest;
    int resolution_ratio = 0;
    int grid_side = 0;
    std::string aspect_ratio;
};

/// What all records of an index share. Nothing of it changes once the file was begun.
struct IndexMeta {
    std::string model;  ///< name
    Hash128 model_hash;
    std::string settings;  ///< what decides on frames and views, as one text to compare
    std::optional<FrameViews> views = FrameViews();  ///< null: the index does not say
    double fps = 1;                                  ///< frames looked at in a second
    int64_t width = 0;                               ///< d
    int64_t tokens_per_frame = 0;
    int64_t vision_positions = 0;  ///< of a frame in the pre-fusion; 0: the model has no pre-fusion
    int layers = 0;                ///< of the pre-fusion
    int64_t kv_width = 0;          ///< head_dim * n_head_kv of the pre-fusion
    ggml_type kv_type = GGML_TYPE_F16;
    int64_t fusion_frames = 64;     ///< wished for at the beginning; 0: all
    int64_t segment_frames = 64;    ///< most frames in a record
    std::vector<int32_t> head_ids;  ///< fused tokens before the placeholder

    /// Bytes of the K/V of so many positions in a record.
    uint64_t kv_bytes(int64_t positions) const;
};

enum class IndexRecordKind : uint32_t {
    kFrames = 1,
    kLanguageState = 2,  ///< KV cache of the language model: head and vision tokens of `frames` frames
    kVideo = 3,          ///< from here on frames are of this video
    kEnd = 4             ///< the frames before it are the whole video, `frames` in all
};

struct IndexRecord {
    IndexRecordKind kind;
    int64_t first_frame = 0, frames = 0;
    std::span<const uint8_t> payload;
    bool intact = false;  ///< the payload has its checksum
};

/// A frames record taken apart. Spans point into the file.
struct IndexFrames {
    std::span<const double> seconds;                   // [frames]
    std::span<const ggml_fp16_t> tokens;               // [frames * tokens_per_frame, d]
    std::span<const double> head_sum;                  // [head, d]: sum over the frames
    std::vector<std::span<const uint8_t>> thumbnails;  // JPEG, [frames]
    struct FusionFrame {
        int64_t frame = 0;  // within the record
        std::span<const uint8_t> vision_kv, head_kv;
    };
    std::vector<FusionFrame> fusion;
};

/// An index, mapped. Nothing in it is believed: lengths are compared with what is there, every record has
/// checksums. Reading stops at the first record whose header is damaged or that reaches behind the end: what
/// a killed writer left. Immutable, thread-safe.
class VideoIndexFile {
  public:
    /// Throws Error(kInput) naming the file unless it begins as an index of a known version.
    explicit VideoIndexFile(const std::filesystem::path& path);
    VideoIndexFile(std::span<const uint8_t> bytes, std::string name);

    const std::string& name() const { return name_; }
    const IndexMeta& meta() const { return meta_; }
    /// All records with whole headers, in the order of the file.
    const std::vector<IndexRecord>& records() const { return records_; }
    /// Where the next record is to be written.
    uint64_t end_of_records() const { return end_; }
    /// The latest intact frames record of every part of the video, in order, without gaps from frame 0 on, as
    /// far as that goes.
    std::vector<const IndexRecord*> frames() const;
    /// The latest intact end record; null: none.
    const IndexRecord* last(IndexRecordKind kind) const;
    /// Takes an intact frames record apart; throws Error(kInput) if it does not hold what it should.
    IndexFrames open(const IndexRecord& record) const;
    VideoIdentity video(const IndexRecord& record) const;

  private:
    void read(std::span<const uint8_t> bytes);

    std::string name_;
    std::unique_ptr<MappedFile> file_;
    IndexMeta meta_;
    std::vector<IndexRecord> records_;
    uint64_t end_ = 0;
};

/// What goes into a frames record.
struct FramesContent {
    std::vector<double> seconds;
    std::vector<ggml_fp16_t> tokens;
    std::vector<double> head_sum;
    std::vector<std::vector<uint8_t>> thumbnails;
    struct FusionFrame {
        int64_t frame = 0;
        std::vector<uint8_t> vision_kv, head_kv;  // as kv_bytes() says
    };
    std::vector<FusionFrame> fusion;
};

/// Writes records at the end of an index. Each is on the disk when append() returns: whoever is killed loses
/// the one that was being written. Holds a lock on the file, so that two writers do not mix. Not thread-safe.
class VideoIndexWriter {
  public:
    /// Begins a file that must not exist, or goes on with one from byte `end` on, what is behind it being cut
    /// off. Throws Error(kSystem) if it cannot be written, Error(kInput) if another process writes it.
    VideoIndexWriter(const std::filesystem::path& path, const IndexMeta& meta);
    VideoIndexWriter(const std::filesystem::path& path, uint64_t end);
    ~VideoIndexWriter();
    VideoIndexWriter(const VideoIndexWriter&) = delete;
    VideoIndexWriter& operator=(const VideoIndexWriter&) = delete;

    void append(const IndexMeta& meta, int64_t first_frame, const FramesContent& content);
    void append(const VideoIdentity& video);
    void append_state(int64_t frames, std::span<const uint8_t> state);
    void append_end(int64_t frames);

  private:
    void open(int flags);
    void write(std::span<const uint8_t> bytes);
    void record(IndexRecordKind kind, int64_t first_frame, int64_t frames, std::span<const uint8_t> payload);

    std::filesystem::path path_;
    int descriptor_ = -1;
};

}  // namespace llava_mini
