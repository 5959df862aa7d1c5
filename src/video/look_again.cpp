#include "video/look_again.h"

#include <algorithm>

#include "core/error.h"

namespace llava_mini {
namespace {

// Gives frames one by one, in the order of their numbers.
class FramesInTurn {
  public:
    explicit FramesInTurn(std::unique_ptr<FrameEncoder> encoder) : encoder_(std::move(encoder)) {}

    std::shared_ptr<const ImageEncoding> next(Timings& timings) {
        if (at_ == batch_.size()) {
            batch_ = encoder_->next(timings);
            at_ = 0;
        }
        return at_ < batch_.size() ? std::move(batch_[at_++].encoding) : nullptr;
    }

  private:
    std::unique_ptr<FrameEncoder> encoder_;
    std::vector<EncodedFrame> batch_;
    size_t at_ = 0;
};

}  // namespace

Matrix fuse_with_frames(Pipeline& pipeline, const SeenVideo& seen, std::span<const int32_t> ids,
                        int64_t begin, std::span<const int64_t> frames, const OpenFrames& open,
                        const Progress& progress, Timings& timings) {
    const std::vector<int64_t>& held = seen.fusion_numbers;
    const auto is_held = [&](int64_t frame) { return std::binary_search(held.begin(), held.end(), frame); };
    std::vector<int64_t> others;
    std::copy_if(frames.begin(), frames.end(), std::back_inserter(others),
                 [&](int64_t frame) { return !is_held(frame); });
    FramesInTurn again(others.empty() ? nullptr : open(others));

    // Fusion frames have the K/V of the text that was fused first: what of it is the same need not be again.
    int64_t same = 0;
    const int64_t most = std::min({begin, seen.fusion.rows, static_cast<int64_t>(seen.fused_ids.size())});
    while (same < most && seen.fused_ids[static_cast<size_t>(same)] == ids[static_cast<size_t>(same)]) ++same;

    FusionMean mean;
    for (const int64_t frame : frames) {
        std::shared_ptr<const ImageEncoding> encoding;
        TextFusion earlier;
        if (is_held(frame)) {
            const auto i =
                static_cast<size_t>(std::lower_bound(held.begin(), held.end(), frame) - held.begin());
            encoding = seen.fusion_frames[i];
            if (!seen.fusion.kv.empty()) earlier = {{seen.fusion.kv[i]}, same};
        } else {
            encoding = again.next(timings);
            if (!encoding || encoding->vision_tokens.rows != seen.tokens_per_frame) {
                throw_input("frame {}, at {:.3f} seconds, cannot be read again", frame,
                            seen.seconds[static_cast<size_t>(frame)]);
            }
        }
        Matrix rows = pipeline.fuse_text(ids.subspan(static_cast<size_t>(earlier.rows)), {&encoding, 1},
                                         nullptr, timings, &earlier);
        const auto skipped = static_cast<ptrdiff_t>((begin - earlier.rows) * rows.cols);
        rows.data.erase(rows.data.begin(), rows.data.begin() + skipped);
        rows.rows -= begin - earlier.rows;
        mean.add(rows);
        if (progress && !progress(static_cast<uint64_t>(mean.count()), frames.size(), "frames again")) {
            throw_input("interrupted after {} of {} frames that were looked at again", mean.count(),
                        frames.size());
        }
    }
    return mean.mean();
}

IndexedVideo find_indexed_video(const VideoIndexFile& index, const VideoOptions& options) {
    const IndexRecord* record = index.last(IndexRecordKind::kVideo);
    const std::optional<FrameViews>& views = index.meta().views;
    if (record == nullptr || !views) {
        throw_input(
            "{}: it does not say how its frames were looked at (an older `llava-mini index` made it), so "
            "they cannot be looked at again: make it anew",
            index.name());
    }
    const VideoIdentity video = index.video(*record);
    IndexedVideo found{{}, options, views->grid_side};
    found.options.resize = views->resize;
    found.options.resolution_ratio = views->resolution_ratio;
    found.options.aspect_ratio = views->aspect_ratio;

    const auto beside = std::filesystem::path(index.name()).parent_path() / video.name;
    std::string another;
    for (const std::filesystem::path& path : {std::filesystem::path(video.path), beside}) {
        std::error_code ignored;
        if (!std::filesystem::is_regular_file(path, ignored)) continue;
        if (is_video(video, path) || has_grown(video, path)) {
            found.file = path.string();
            return found;
        }
        another = path.string();
    }
    if (!another.empty()) {
        throw_input("{}: looking again needs the video it was made of ({}, {} bytes), but {} is another one",
                    index.name(), video.name, video.bytes, another);
    }
    throw_input(
        "{}: looking again needs the video, which is neither {} nor beside the index; an index with "
        "`--fusion-frames all` does without",
        index.name(), video.path.empty() ? video.name : video.path);
}

}  // namespace llava_mini
