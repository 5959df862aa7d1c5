// Making, continuing and repairing a video index, and taking one into memory.
#pragma once

#include <atomic>
#include <filesystem>

#include "llava_mini/video.hpp"
#include "video/index_file.h"
#include "video/seen_video.h"

namespace llava_mini {

/// `meta` holds model, model_hash, head_ids, segment_frames and fusion_frames; the rest of it is filled in
/// from the pipeline and options. What an existing index has and needs not be changed stays. The end record
/// is left to the caller (finish_index). Throws Error(kInput) as make_video_index says.
IndexResult build_index(Pipeline& pipeline, const std::filesystem::path& video,
                        const std::filesystem::path& index, IndexMeta meta, const VideoOptions& options,
                        int grid_side, const std::atomic<bool>* stop);

/// Writes the language model's state, if there is one, and the end record.
void finish_index(const std::filesystem::path& index, int64_t frames, std::span<const uint8_t> state);

/// Vision tokens, fused head and fusion frames of an index. `f32`: as VisionTokens. Frames of an index
/// without an end record are taken with `allow_unfinished`. Throws Error(kInput) if something is missing or
/// damaged, or the model is another one.
SeenVideo load_index(const Pipeline& pipeline, const Backends& backends, const std::filesystem::path& index,
                     const Hash128& model_hash, bool f32, bool allow_unfinished = false);

}  // namespace llava_mini
