#include "video/index_builder.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "video/frame_encoder.h"
#include "video/video_pass.h"

namespace llava_mini {
namespace {

std::string settings_text(const VideoOptions& options, int grid_side) {
    return fmt::format("fps {} max {} start {} end {} resize {} ratio {} grid {} aspect {}", options.fps,
                       options.max_frames, options.start, options.end, static_cast<int>(options.resize),
                       options.resolution_ratio, grid_side, options.aspect_ratio);
}

// What an index has before it is worked on.
struct Existing {
    std::vector<std::pair<int64_t, int64_t>> parts;  // [first, end) of intact frames records
    int64_t frames = 0;                              // without a gap from the beginning on
    int64_t base = 0;                                // frames of the video as it was before it grew
    double base_seconds = 0;                         // when the last of them was shown
    uint64_t end = 0;                                // where to write
    bool complete = false;                           // an end record stands behind all frames
    bool new_video = true;                           // the video's description is to be written
};

void check_same(const IndexMeta& old, const IndexMeta& wanted, const std::string& name) {
    if (old.model_hash != wanted.model_hash) {
        throw_input("{}: the index was made with another model or adapter ({}, now {})", name, old.model,
                    wanted.model);
    }
    const auto described = [](const IndexMeta& m) {
        return fmt::format("{}; {} fusion frames, {}", m.settings, m.fusion_frames,
                           ggml_type_name(m.kv_type));
    };
    if (described(old) != described(wanted)) {
        throw_input("{}: the index was made with other settings ({}), now they are ({})", name,
                    described(old), described(wanted));
    }
    if (old.head_ids != wanted.head_ids || old.width != wanted.width) {
        throw_input("{}: the index was made with another system prompt", name);
    }
}

Existing examine(const VideoIndexFile& file, const IndexMeta& wanted, const std::filesystem::path& video) {
    check_same(file.meta(), wanted, file.name());
    Existing existing;
    existing.end = file.end_of_records();
    const IndexRecord* described = file.last(IndexRecordKind::kVideo);
    const auto frames = file.frames();
    for (const IndexRecord* record : frames) existing.frames += record->frames;
    for (const IndexRecord& record : file.records()) {
        if (record.kind != IndexRecordKind::kFrames || !record.intact) continue;
        existing.parts.emplace_back(record.first_frame, record.first_frame + record.frames);
    }
    std::sort(existing.parts.begin(), existing.parts.end());
    if (described == nullptr) return existing;  // killed before anything was done

    const VideoIdentity known = file.video(*described);
    const bool same = is_video(known, video);
    if (!same && !has_grown(known, video)) {
        throw_input("{}: the index was made of another video ({}, {} bytes; {} has {} bytes)", file.name(),
                    known.name, known.bytes, video.string(), std::filesystem::file_size(video));
    }
    existing.new_video = !same;
    // Of records before the last description, the frames belong to the video as it was.
    const IndexRecord* until = same ? described : file.records().data() + file.records().size();
    for (const IndexRecord& record : file.records()) {
        if (&record == until) break;
        if (record.kind == IndexRecordKind::kFrames) {
            existing.base = std::max(existing.base, record.first_frame + record.frames);
        }
    }
    if (existing.base > existing.frames) {
        throw_input("{}: frames from before the video grew are damaged; remove the index and make it anew",
                    file.name());
    }
    int64_t seen = 0;
    for (const IndexRecord* record : frames) {
        const IndexFrames content = file.open(*record);
        if (seen < existing.base) existing.base_seconds = content.seconds.back();
        seen += record->frames;
    }
    const IndexRecord* end = file.last(IndexRecordKind::kEnd);
    existing.complete = same && end != nullptr && end > described && end->frames == existing.frames &&
                        existing.parts.back().second == existing.frames;
    return existing;
}

std::vector<std::pair<int64_t, int64_t>> gaps_of(const Existing& existing, int64_t total) {
    std::vector<std::pair<int64_t, int64_t>> gaps;
    int64_t next = 0;
    for (const auto& [first, end] : existing.parts) {
        if (first > next) gaps.emplace_back(next, std::min(first, total));
        next = std::max(next, end);
    }
    if (next < total) gaps.emplace_back(next, total);
    return gaps;
}

class Builder {
  public:
    Builder(Pipeline& pipeline, const IndexMeta& meta, const VideoOptions& options, VideoIndexWriter& writer)
        : pipeline_(pipeline), meta_(meta), options_(options), writer_(writer) {}

    /// Frames [first, end), of which the encoder gives the next ones. Returns how many it gave.
    int64_t make(FrameEncoder& encoder, int64_t first, int64_t end,
                 const std::function<bool(int64_t)>& is_fusion) {
        int64_t next = first;
        while (next < end) {
            FramesContent content;
            FusionMean mean;
            const int64_t most = std::min(meta_.segment_frames - next % meta_.segment_frames, end - next);
            while (static_cast<int64_t>(content.seconds.size()) < most) {
                auto batch = encoder.next(timings_, most - static_cast<int64_t>(content.seconds.size()));
                if (batch.empty()) break;
                for (EncodedFrame& frame : batch) {
                    const auto in_record = static_cast<int64_t>(content.seconds.size());
                    add(frame, in_record, is_fusion(next + in_record), mean, content);
                }
                made_ += static_cast<int64_t>(batch.size());
                report(encoder, static_cast<int64_t>(batch.size()));
            }
            const auto count = static_cast<int64_t>(content.seconds.size());
            if (count == 0) break;
            content.head_sum.assign(mean.sum().begin(), mean.sum().end());
            writer_.append(meta_, next, content);
            next += count;
        }
        return next - first;
    }

    void expect(int64_t total, int64_t present) {
        total_ = total;
        present_ = present;
        batch_start_ = Clock::now();
    }
    int64_t made() const { return made_; }

  private:
    using Clock = std::chrono::steady_clock;

    void add(EncodedFrame& frame, int64_t in_record, bool fusion, FusionMean& mean, FramesContent& content) {
        TextFusion state;
        mean.add(
            pipeline_.fuse_text(meta_.head_ids, {&frame.encoding, 1}, fusion ? &state : nullptr, timings_));
        const std::vector<float>& tokens = frame.encoding->vision_tokens.data;
        const size_t before = content.tokens.size();
        content.tokens.resize(before + tokens.size());
        ggml_fp32_to_fp16_row(tokens.data(), content.tokens.data() + before,
                              static_cast<int64_t>(tokens.size()));
        content.seconds.push_back(frame.seconds);
        content.thumbnails.push_back(std::move(frame.thumbnail));
        if (!fusion) return;
        FramesContent::FusionFrame& stored = content.fusion.emplace_back();
        stored.frame = in_record;
        if (meta_.layers == 0) return;
        stored.vision_kv = frame.encoding->vision->stored(meta_.vision_positions);
        if (!state.kv.empty()) stored.head_kv = state.kv[0]->stored(state.rows);
    }

    void report(const FrameEncoder& encoder, int64_t batch) {
        const double each =
            std::chrono::duration<double>(Clock::now() - batch_start_).count() / static_cast<double>(batch);
        batch_start_ = Clock::now();
        const int64_t done = present_ + made_;
        if (!planned_ && options_.on_plan && (made_ > 1 || done >= total_)) {
            planned_ = true;
            VideoPlan plan;
            plan.facts = encoder.facts();
            plan.facts.chosen = total_;
            plan.seconds = each * static_cast<double>(std::max<int64_t>(total_ - done, 0));
            plan.token_bytes = static_cast<uint64_t>(total_ * meta_.tokens_per_frame * meta_.width) * 2;
            const int64_t fusion = meta_.fusion_frames == 0 ? total_ : std::min(total_, meta_.fusion_frames);
            plan.fusion_bytes =
                static_cast<uint64_t>(fusion) * (meta_.kv_bytes(meta_.vision_positions) +
                                                 meta_.kv_bytes(static_cast<int64_t>(meta_.head_ids.size())));
            options_.on_plan(plan);
        }
        if (options_.progress &&
            !options_.progress(static_cast<uint64_t>(done), static_cast<uint64_t>(std::max(done, total_)),
                               "frames")) {
            throw_input("interrupted after {} of {} frames; what is written is gone on with next time", done,
                        total_);
        }
    }

    Pipeline& pipeline_;
    const IndexMeta& meta_;
    const VideoOptions& options_;
    VideoIndexWriter& writer_;
    Timings timings_;
    int64_t made_ = 0, total_ = 0, present_ = 0;
    bool planned_ = false;
    Clock::time_point batch_start_;
};

}  // namespace

IndexResult build_index(Pipeline& pipeline, const std::filesystem::path& video,
                        const std::filesystem::path& index, IndexMeta meta, const VideoOptions& options,
                        int grid_side, const std::atomic<bool>* stop) {
    const VisionHparams& hp = pipeline.hparams();
    VideoOptions frames_options = options;
    frames_options.thumbnails = true;
    meta.settings = settings_text(options, grid_side);
    meta.views = {options.resize, options.resolution_ratio, grid_side, options.aspect_ratio};
    meta.fps = options.fps;
    meta.width = hp.prefusion.n_embd;
    meta.tokens_per_frame = hp.vision_tokens(grid_side);
    meta.layers = hp.compressor_grids.empty() ? 0 : hp.prefusion.n_layer;
    if (meta.layers > 0) {
        const int64_t n = options.resolution_ratio > 0 ? options.resolution_ratio : hp.resolution_ratio;
        meta.vision_positions = (n > 1 ? n * n + 1 : 1) * hp.patches() + meta.tokens_per_frame;
        meta.kv_width = int64_t{hp.prefusion.head_dim} * hp.prefusion.n_head_kv;
    }

    Existing existing;
    const VideoIdentity identity = identity_of_video(video);  // a regular file, then
    const bool exists = std::filesystem::exists(index);
    if (exists) existing = examine(VideoIndexFile(index), meta, video);
    IndexResult result;
    if (existing.complete) {
        result.frames = existing.frames;
        result.bytes = std::filesystem::file_size(index);
        return result;
    }

    // Behind what the video was before it grew, the rule starts anew.
    VideoOptions behind = frames_options;
    if (existing.base > 0) behind.start = existing.base_seconds + 0.5 / options.fps;
    const auto opened = [&](int64_t skip) {
        return std::make_unique<FrameEncoder>(pipeline, video.string(), behind, grid_side, skip, stop);
    };
    std::unique_ptr<FrameEncoder> encoder = opened(std::max<int64_t>(existing.frames - existing.base, 0));
    const int64_t chosen = encoder->facts().chosen;
    result.facts = encoder->facts();

    auto writer = exists ? std::make_unique<VideoIndexWriter>(index, existing.end)
                         : std::make_unique<VideoIndexWriter>(index, meta);
    if (existing.new_video) writer->append(identity);
    Builder builder(pipeline, meta, frames_options, *writer);
    const int64_t total = existing.base + chosen;
    const auto gaps = gaps_of(existing, total);
    int64_t missing = 0;
    for (const auto& [first, end] : gaps) missing += end - first;
    builder.expect(total, total - missing);

    const FusionFrameChoice spread(chosen, meta.fusion_frames == 0 ? chosen : meta.fusion_frames);
    // A part that was added has fusion frames at the distance of those before.
    const int64_t distance =
        meta.fusion_frames == 0 ? 1 : std::max<int64_t>(1, existing.base / meta.fusion_frames);
    const auto is_fusion = [&](int64_t frame) {
        return existing.base == 0 ? spread.keeps(frame) : (frame - existing.base) % distance == distance / 2;
    };
    result.frames = total - missing;
    for (const auto& [first, end] : gaps) {
        if (first != existing.frames || !encoder) encoder = opened(first - existing.base);
        const int64_t made = builder.make(*encoder, first, end, is_fusion);
        const VideoReport report = encoder->report();
        result.report.frames += made;
        result.report.decoded += report.decoded;
        result.report.damaged_packets += report.damaged_packets;
        result.report.replaced += report.replaced;
        result.report.missing += report.missing;
        result.report.cut_off = result.report.cut_off || report.cut_off;
        result.frames += made;
        encoder.reset();
        if (made < end - first && end != total) {
            throw_input("{}: only {} of {} frames could be read again", video.string(), made, end - first);
        }
    }
    result.made = builder.made();
    result.bytes = std::filesystem::file_size(index);
    return result;
}

void finish_index(const std::filesystem::path& index, int64_t frames, std::span<const uint8_t> state) {
    VideoIndexWriter writer(index, VideoIndexFile(index).end_of_records());
    if (!state.empty()) writer.append_state(frames, state);
    writer.append_end(frames);
}

SeenVideo load_index(const Pipeline& pipeline, const Backends& backends, const std::filesystem::path& index,
                     const Hash128& model_hash, bool f32, bool allow_unfinished) {
    const auto file = std::make_shared<VideoIndexFile>(index);
    const IndexMeta& meta = file->meta();
    if (meta.model_hash != model_hash) {
        throw_input("{}: the index was made with another model or adapter ({}, now {})", file->name(),
                    meta.model, pipeline.hparams().name);
    }
    const LlamaHparams& hp = pipeline.hparams().prefusion;
    const std::vector<int>& grids = pipeline.hparams().compressor_grids;
    const int grid = meta.views ? meta.views->grid_side : 0;
    const bool known_grid = grid == 0 || std::find(grids.begin(), grids.end(), grid) != grids.end();
    if (meta.width != hp.n_embd || !known_grid ||
        (meta.layers > 0 &&
         (meta.layers != hp.n_layer || meta.kv_width != int64_t{hp.head_dim} * hp.n_head_kv))) {
        throw_input("{}: the index does not fit this model", file->name());
    }
    const auto records = file->frames();
    int64_t present = 0;
    for (const IndexRecord* record : records) present += record->frames;
    const IndexRecord* end = file->last(IndexRecordKind::kEnd);
    const int64_t frames = end != nullptr && !allow_unfinished ? end->frames : present;
    if ((end == nullptr && !allow_unfinished) || frames == 0) {
        throw_input("{}: the index is not complete ({} frames); `llava-mini index` goes on with it",
                    file->name(), present);
    }
    if (present < frames) {
        throw_input("{}: the index is damaged behind frame {} of {}; `llava-mini index` repairs it",
                    file->name(), present, frames);
    }

    SeenVideo seen;
    seen.tokens = VisionTokens(f32);
    seen.tokens_per_frame = meta.tokens_per_frame;
    seen.index = file;
    seen.fused_ids = meta.head_ids;
    const auto head = static_cast<int64_t>(meta.head_ids.size());
    std::vector<double> sum(static_cast<size_t>(head * meta.width), 0.0);
    for (const IndexRecord* record : records) {
        if (record->first_frame >= frames) break;  // of a video that grew, not finished yet
        const IndexFrames content = file->open(*record);
        seen.tokens.add_f16(content.tokens, meta.width);
        seen.seconds.insert(seen.seconds.end(), content.seconds.begin(), content.seconds.end());
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += content.head_sum[i];
        for (const auto& thumbnail : content.thumbnails) {
            seen.thumbnails.emplace_back(thumbnail.begin(), thumbnail.end());
        }
        for (const auto& fusion : content.fusion) {
            auto encoding = std::make_shared<ImageEncoding>();
            if (meta.layers > 0) {
                encoding->vision = std::make_shared<PrefusionKv>(backends, hp, meta.vision_positions,
                                                                 meta.kv_type, fusion.vision_kv, file);
                if (head > 0) {
                    seen.fusion.kv.push_back(std::make_shared<PrefusionKv>(backends, hp, head, meta.kv_type,
                                                                           fusion.head_kv, file));
                }
            }
            seen.fusion_frames.push_back(std::move(encoding));
            seen.fusion_numbers.push_back(record->first_frame + fusion.frame);
        }
    }
    seen.fusion.rows = meta.layers > 0 ? head : 0;
    seen.fused_rows = Matrix(head, meta.width);
    for (size_t i = 0; i < sum.size(); ++i) {
        seen.fused_rows.data[i] = static_cast<float>(sum[i] / static_cast<double>(seen.seconds.size()));
    }
    if (seen.fusion_frames.empty()) throw_input("{}: the index has no fusion frame", file->name());
    const IndexRecord* state = file->last(IndexRecordKind::kLanguageState);
    if (state != nullptr && state->frames == frames) seen.language_state = state->payload;
    const IndexRecord* video = file->last(IndexRecordKind::kVideo);
    if (video != nullptr) seen.facts.container = file->video(*video).name;
    seen.facts.chosen = static_cast<int64_t>(seen.seconds.size());
    seen.facts.seconds = seen.seconds.back() + 1 / meta.fps;
    seen.report.frames = seen.facts.chosen;
    return seen;
}

}  // namespace llava_mini
