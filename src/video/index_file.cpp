#include "video/index_file.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "video/index_layout.h"

namespace llava_mini {

using namespace index_layout;

namespace {

constexpr uint64_t kEndBytes = 64 << 10;  // of a video, hashed
constexpr int64_t kMaxWidth = 1 << 20, kMaxPositions = 1 << 24, kMaxHead = 1 << 20;

Hash128 hash_of_part(const RandomAccessFile& file, uint64_t begin, uint64_t end) {
    std::vector<uint8_t> bytes(end - begin);
    file.read(begin, bytes);
    return hash_bytes(bytes);
}

// Hands out parts of a payload, each on a multiple of kAlignment.
class PartReader {
  public:
    PartReader(std::span<const uint8_t> payload, const std::string& name) : payload_(payload), name_(name) {}

    std::span<const uint8_t> bytes(uint64_t count) {
        if (count > payload_.size() - at_) {
            throw_input("{}: a record of {} bytes ends before its content", name_, payload_.size());
        }
        const auto part = payload_.subspan(at_, count);
        at_ = std::min<uint64_t>(payload_.size(), padded(at_ + count));
        return part;
    }
    template <typename T>
    std::span<const T> array(uint64_t count) {
        if (count > payload_.size() / sizeof(T)) bytes(payload_.size() + 1);
        const auto part = bytes(count * sizeof(T));
        return {reinterpret_cast<const T*>(part.data()), count};
    }

  private:
    std::span<const uint8_t> payload_;
    const std::string& name_;
    uint64_t at_ = 0;
};

// A conversion of a number with a fraction would not look at its size: 1e88 is no integer of any kind.
template <typename T>
T integer_from(const nlohmann::json& value, const std::string& name) {
    if (!value.is_number_integer()) {
        throw_input("{}: a description has something else where an integer is expected", name);
    }
    return value.get<T>();
}

Hash128 hash_from(const nlohmann::json& value, const std::string& name) {
    return {integer_from<uint64_t>(value.at(0), name), integer_from<uint64_t>(value.at(1), name)};
}

std::optional<FrameViews> views_from(const nlohmann::json& meta, const std::string& name) {
    if (!meta.contains("views")) return std::nullopt;
    const nlohmann::json& json = meta.at("views");
    FrameViews views;
    const std::string resize = json.at("resize").get<std::string>();
    views.resize = resize == kResizeNames[0] ? FrameResize::kNearest : FrameResize::kPicture;
    const auto ratio_of_blocks = integer_from<int64_t>(json.at("resolution_ratio"), name);
    const auto grid_side = integer_from<int64_t>(json.at("grid_side"), name);
    views.aspect_ratio = json.at("aspect_ratio").get<std::string>();
    const std::string& ratio = views.aspect_ratio;
    constexpr int kMost = 1024;
    if (std::find(std::begin(kResizeNames), std::end(kResizeNames), resize) == std::end(kResizeNames) ||
        ratio_of_blocks < 0 || ratio_of_blocks > kMost || grid_side < 0 || grid_side > kMost ||
        (!ratio.empty() && ratio != "pad" && ratio != "square")) {
        throw_input("{}: the index's description has a value out of range", name);
    }
    views.resolution_ratio = static_cast<int>(ratio_of_blocks);
    views.grid_side = static_cast<int>(grid_side);
    return views;
}

IndexMeta meta_from(const nlohmann::json& json, const std::string& name) {
    IndexMeta meta;
    const auto integer = [&](const char* key) { return integer_from<int64_t>(json.at(key), name); };
    meta.model = json.at("model").get<std::string>();
    meta.model_hash = hash_from(json.at("model_hash"), name);
    meta.settings = json.at("settings").get<std::string>();
    meta.views = views_from(json, name);
    meta.fps = json.at("fps").get<double>();
    meta.width = integer("width");
    meta.tokens_per_frame = integer("tokens_per_frame");
    meta.vision_positions = integer("vision_positions");
    const int64_t layers = integer("layers");
    meta.kv_width = integer("kv_width");
    meta.fusion_frames = integer("fusion_frames");
    meta.segment_frames = integer("segment_frames");
    bool known_ids = json.at("head_ids").is_array() && json.at("head_ids").size() <= kMaxHead;
    for (size_t i = 0; known_ids && i < json.at("head_ids").size(); ++i) {
        const auto id = integer_from<int64_t>(json.at("head_ids").at(i), name);
        known_ids = id >= 0 && id <= INT32_MAX;
        meta.head_ids.push_back(static_cast<int32_t>(id));
    }
    const std::string type = json.at("kv_type").get<std::string>();
    bool known = false;
    for (const ggml_type one : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_Q8_0}) {
        if (type != ggml_type_name(one)) continue;
        meta.kv_type = one;
        known = true;
    }
    const auto within = [](int64_t value, int64_t least, int64_t most) {
        return value >= least && value <= most;
    };
    if (!known || !known_ids || !within(meta.width, 1, kMaxWidth) ||
        !within(meta.tokens_per_frame, 1, kMaxPositions) ||
        !within(meta.vision_positions, 0, kMaxPositions) || !within(layers, 0, 1024) ||
        !within(meta.kv_width, 0, kMaxWidth) || !within(meta.fusion_frames, 0, kMaxPositions) ||
        !within(meta.segment_frames, 1, kMaxPositions) || !(meta.fps > 0) ||
        meta.kv_width % ggml_blck_size(meta.kv_type) != 0) {
        throw_input("{}: the index's description has a value out of range", name);
    }
    meta.layers = static_cast<int>(layers);
    return meta;
}

}  // namespace

VideoIdentity identity_of_video(const std::filesystem::path& path) {
    const RandomAccessFile file(path);
    const uint64_t part = std::min(file.size(), kEndBytes);
    std::error_code ignored;
    return {path.filename().string(), file.size(), hash_of_part(file, 0, part),
            hash_of_part(file, file.size() - part, file.size()),
            std::filesystem::absolute(path, ignored).lexically_normal().string()};
}

bool is_video(const VideoIdentity& video, const std::filesystem::path& path) {
    const VideoIdentity found = identity_of_video(path);
    return found.bytes == video.bytes && found.begin == video.begin && found.end == video.end;
}

bool has_grown(const VideoIdentity& video, const std::filesystem::path& path) {
    const RandomAccessFile file(path);
    const uint64_t part = std::min(video.bytes, kEndBytes);
    return file.size() > video.bytes && hash_of_part(file, 0, part) == video.begin &&
           hash_of_part(file, video.bytes - part, video.bytes) == video.end;
}

uint64_t IndexMeta::kv_bytes(int64_t positions) const {
    return 2 * static_cast<uint64_t>(layers) *
           padded(ggml_row_size(kv_type, kv_width) * static_cast<uint64_t>(positions));
}

VideoIndexFile::VideoIndexFile(const std::filesystem::path& path)
    : name_(path.string()), file_(std::make_unique<MappedFile>(path)) {
    read(file_->bytes());
}

VideoIndexFile::VideoIndexFile(std::span<const uint8_t> bytes, std::string name) : name_(std::move(name)) {
    read(bytes);
}

void VideoIndexFile::read(std::span<const uint8_t> bytes) {
    FileHeader header;
    if (bytes.size() < sizeof(header))
        throw_input("{}: not a video index (only {} bytes)", name_, bytes.size());
    std::memcpy(&header, bytes.data(), sizeof(header));
    if (std::memcmp(header.magic, kFileMagic, sizeof(header.magic)) != 0) {
        throw_input("{}: not a video index (made by `llava-mini index`)", name_);
    }
    if (header.version != kIndexVersion) {
        throw_input("{}: the index has version {}, this program reads version {}", name_, header.version,
                    kIndexVersion);
    }
    if (header.meta_bytes > bytes.size() - sizeof(header))
        throw_input("{}: the index ends in its header", name_);
    const auto meta = bytes.subspan(sizeof(header), header.meta_bytes);
    if (hash_bytes(meta).low != header.meta_hash)
        throw_input("{}: the index's description is damaged", name_);
    try {
        meta_ = meta_from(nlohmann::json::parse(meta.begin(), meta.end()), name_);
    } catch (const nlohmann::json::exception&) {
        throw_input("{}: the index's description is not as expected", name_);
    }

    uint64_t at = padded(sizeof(header) + header.meta_bytes);
    end_ = std::min<uint64_t>(at, bytes.size());
    while (at < bytes.size() && bytes.size() - at >= sizeof(RecordHeader)) {
        RecordHeader record;
        std::memcpy(&record, bytes.data() + at, sizeof(record));
        const uint64_t left = bytes.size() - at - sizeof(record);
        if (record.magic != kRecordMagic || record.hash != hash_of(record) || record.payload_bytes > left ||
            record.first_frame < 0 || record.frames < 0 || record.first_frame > kMaxFrames ||
            record.frames > kMaxFrames) {
            break;
        }
        const auto payload = bytes.subspan(at + sizeof(record), record.payload_bytes);
        const bool intact = hash_bytes(payload) == Hash128{record.payload_hash[0], record.payload_hash[1]};
        records_.push_back(
            {static_cast<IndexRecordKind>(record.kind), record.first_frame, record.frames, payload, intact});
        at = padded(at + sizeof(record) + record.payload_bytes);
        end_ = std::min<uint64_t>(at, bytes.size());
    }
}

std::vector<const IndexRecord*> VideoIndexFile::frames() const {
    std::map<int64_t, const IndexRecord*> latest;
    for (const IndexRecord& record : records_) {
        if (record.kind == IndexRecordKind::kFrames && record.intact && record.frames > 0) {
            latest[record.first_frame] = &record;
        }
    }
    std::vector<const IndexRecord*> whole;
    int64_t next = 0;
    for (auto found = latest.find(0); found != latest.end(); found = latest.find(next)) {
        whole.push_back(found->second);
        next += found->second->frames;
    }
    return whole;
}

const IndexRecord* VideoIndexFile::last(IndexRecordKind kind) const {
    const auto found = std::find_if(records_.rbegin(), records_.rend(), [&](const IndexRecord& record) {
        return record.kind == kind && record.intact;
    });
    return found == records_.rend() ? nullptr : &*found;
}

IndexFrames VideoIndexFile::open(const IndexRecord& record) const {
    const auto frames = static_cast<uint64_t>(record.frames), width = static_cast<uint64_t>(meta_.width);
    PartReader parts(record.payload, name_);
    IndexFrames content;
    content.seconds = parts.array<double>(frames);
    if (frames > record.payload.size()) throw_input("{}: a record has too many frames", name_);
    const uint64_t tokens = frames * static_cast<uint64_t>(meta_.tokens_per_frame);
    if (tokens > record.payload.size()) throw_input("{}: a record has too many vision tokens", name_);
    content.tokens = parts.array<ggml_fp16_t>(tokens * width);
    content.head_sum = parts.array<double>(meta_.head_ids.size() * width);
    for (const uint32_t size : parts.array<uint32_t>(frames)) content.thumbnails.push_back(parts.bytes(size));
    const uint64_t count = parts.array<uint32_t>(1)[0];
    for (const uint32_t frame : parts.array<uint32_t>(count)) {
        if (frame >= frames) throw_input("{}: a fusion frame lies outside its record", name_);
        content.fusion.push_back({frame, {}, {}});
    }
    for (auto& fusion : content.fusion) {
        fusion.vision_kv = parts.bytes(meta_.kv_bytes(meta_.vision_positions));
        fusion.head_kv = parts.bytes(meta_.kv_bytes(static_cast<int64_t>(meta_.head_ids.size())));
    }
    return content;
}

VideoIdentity VideoIndexFile::video(const IndexRecord& record) const {
    try {
        const auto json = nlohmann::json::parse(record.payload.begin(), record.payload.end());
        return {json.at("name").get<std::string>(), integer_from<uint64_t>(json.at("bytes"), name_),
                hash_from(json.at("begin"), name_), hash_from(json.at("end"), name_), json.value("path", "")};
    } catch (const nlohmann::json::exception&) {
        throw_input("{}: the description of the video is not as expected", name_);
    }
}

}  // namespace llava_mini
