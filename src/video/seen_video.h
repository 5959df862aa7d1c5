// What a conversation keeps of a video whose frames were looked at: from a pass just made, or from an index.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "llava_mini/video.hpp"
#include "pipeline.h"

namespace llava_mini {

class VideoIndexFile;

/// Vision tokens of many frames in time order, in f16 (8 KiB a token at d = 4096) or, for parity, f32.
class VisionTokens {
  public:
    explicit VisionTokens(bool f32 = false) : f32_(f32) {}
    void add(const Matrix& tokens);
    void add_f16(std::span<const ggml_fp16_t> values, int64_t cols);
    int64_t rows() const { return rows_; }
    int64_t cols() const { return cols_; }
    /// Rows [begin, end) appended to `out` as f32.
    void append_to(std::vector<float>& out, int64_t begin, int64_t end) const;

  private:
    bool f32_;
    int64_t rows_ = 0, cols_ = 0;
    std::vector<float> floats_;
    std::vector<ggml_fp16_t> halves_;
};

struct SeenVideo {
    VisionTokens tokens;
    std::vector<double> seconds;  // of every frame
    int64_t tokens_per_frame = 1;
    std::vector<std::vector<uint8_t>> thumbnails;  // JPEG; empty if not kept
    VideoFacts facts;
    VideoReport report;

    /// The text that was fused already, with all frames (mean), from the conversation's beginning.
    std::vector<int32_t> fused_ids;
    Matrix fused_rows;  // [fused_ids, d]
    /// Frames with which further text is fused, and their K/V of the text above.
    std::vector<std::shared_ptr<const ImageEncoding>> fusion_frames;
    std::vector<int64_t> fusion_numbers;  // which frames they are, ascending
    TextFusion fusion;
    /// The language model's KV cache of system prompt and vision tokens (llama_state_seq), if stored.
    std::span<const uint8_t> language_state;
    std::shared_ptr<const VideoIndexFile> index;  // to which spans point; null: seen in a pass
};

}  // namespace llava_mini
