#include "video/video_pass.h"

#include <chrono>

#include "core/error.h"
#include "media/frame_sampler.h"

namespace llava_mini {

FusionFrameChoice::FusionFrameChoice(int64_t frames, int64_t wanted) : wanted_(wanted), known_(frames > 0) {
    if (known_ && wanted > 0 && wanted < frames) {
        for (const int64_t index : spread_frame_indices(frames, wanted)) indices_.insert(index);
    }
}

bool FusionFrameChoice::keeps(int64_t index) const {
    if (wanted_ == 0) return false;
    if (known_) return indices_.empty() || indices_.contains(index);
    return index % stride_ == 0;
}

bool FusionFrameChoice::must_thin_out(size_t kept) {
    if (known_ || static_cast<int64_t>(kept) < wanted_) return false;
    stride_ *= 2;
    return true;
}

SeenVideo run_video_pass(Pipeline& pipeline, FrameEncoder& encoder, const VideoOptions& options,
                         const PassText& text, bool f32, uint64_t kv_bytes_per_token, Timings& timings) {
    SeenVideo seen;
    seen.tokens = VisionTokens(f32);
    seen.facts = encoder.facts();
    seen.fused_ids = text.ids;
    // An address that only guesses its length is as good as one that says nothing.
    const int64_t exact = seen.facts.frames > 0 ? seen.facts.chosen : 0;
    FusionFrameChoice choice(exact, options.fusion_frames);
    FusionMean mean;
    const Matrix embeddings = text.visible.empty() ? Matrix() : pipeline.embed(text.ids);
    bool planned = false;
    using Clock = std::chrono::steady_clock;
    auto batch_start = Clock::now();

    for (auto batch = encoder.next(timings); !batch.empty(); batch = encoder.next(timings)) {
        for (EncodedFrame& frame : batch) {
            const auto index = static_cast<int64_t>(seen.seconds.size());
            const std::span<const std::shared_ptr<const ImageEncoding>> alone(&frame.encoding, 1);
            if (choice.keeps(index) && choice.must_thin_out(seen.fusion_frames.size())) {
                for (size_t i = 1; i < seen.fusion_frames.size(); ++i) {
                    seen.fusion_frames.erase(seen.fusion_frames.begin() + static_cast<ptrdiff_t>(i));
                    seen.fusion_numbers.erase(seen.fusion_numbers.begin() + static_cast<ptrdiff_t>(i));
                    if (!seen.fusion.kv.empty()) {
                        seen.fusion.kv.erase(seen.fusion.kv.begin() + static_cast<ptrdiff_t>(i));
                    }
                }
            }
            const bool keep = text.visible.empty() && choice.keeps(index);
            TextFusion state;
            mean.add(text.visible.empty()
                         ? pipeline.fuse_text(text.ids, alone, keep ? &state : nullptr, timings)
                         : pipeline.fuse_masked_text(embeddings, text.visible, alone, timings));
            if (keep) {
                seen.fusion_frames.push_back(frame.encoding);
                seen.fusion_numbers.push_back(index);
                for (auto& kv : state.kv) seen.fusion.kv.push_back(std::move(kv));
                seen.fusion.rows = state.rows;
            }
            seen.tokens.add(frame.encoding->vision_tokens);
            seen.tokens_per_frame = frame.encoding->vision_tokens.rows;
            seen.seconds.push_back(frame.seconds);
            if (options.thumbnails) seen.thumbnails.push_back(std::move(frame.thumbnail));
        }
        const auto done = static_cast<int64_t>(seen.seconds.size());
        const double each = std::chrono::duration<double>(Clock::now() - batch_start).count() /
                            static_cast<double>(batch.size());
        batch_start = Clock::now();
        // The first batch builds graphs and waits for the first picture.
        if (!planned && options.on_plan && (done > 1 || done == seen.facts.chosen)) {
            planned = true;
            const auto chosen = static_cast<uint64_t>(std::max<int64_t>(seen.facts.chosen, 0));
            const uint64_t tokens = chosen * static_cast<uint64_t>(seen.tokens_per_frame);
            const uint64_t token_bytes = static_cast<uint64_t>(seen.tokens.cols()) * (f32 ? 4 : 2);
            const uint64_t frame_bytes = batch.front().encoding->bytes();
            VideoPlan plan;
            plan.facts = seen.facts;
            plan.seconds = each * static_cast<double>(std::max<int64_t>(seen.facts.chosen - done, 0));
            plan.token_bytes = tokens * token_bytes;
            plan.kv_bytes = tokens * kv_bytes_per_token;
            plan.fusion_bytes = std::min(chosen, static_cast<uint64_t>(options.fusion_frames)) * frame_bytes;
            options.on_plan(plan);
        }
        if (options.progress &&
            !options.progress(static_cast<uint64_t>(done),
                              static_cast<uint64_t>(std::max(seen.facts.chosen, done)), "frames")) {
            throw_input("interrupted after {} frames", done);
        }
    }
    if (seen.seconds.empty()) throw_input("the video has no frame to look at");
    seen.fused_rows = mean.mean();
    seen.report = encoder.report();
    return seen;
}

}  // namespace llava_mini
