#include "video/seen_video.h"

namespace llava_mini {

void VisionTokens::add(const Matrix& tokens) {
    if (tokens.rows == 0) return;
    cols_ = tokens.cols;
    rows_ += tokens.rows;
    if (f32_) {
        floats_.insert(floats_.end(), tokens.data.begin(), tokens.data.end());
        return;
    }
    const size_t before = halves_.size();
    halves_.resize(before + tokens.data.size());
    ggml_fp32_to_fp16_row(tokens.data.data(), halves_.data() + before,
                          static_cast<int64_t>(tokens.data.size()));
}

void VisionTokens::add_f16(std::span<const ggml_fp16_t> values, int64_t cols) {
    cols_ = cols;
    rows_ += static_cast<int64_t>(values.size()) / cols;
    if (!f32_) {
        halves_.insert(halves_.end(), values.begin(), values.end());
        return;
    }
    const size_t before = floats_.size();
    floats_.resize(before + values.size());
    ggml_fp16_to_fp32_row(values.data(), floats_.data() + before, static_cast<int64_t>(values.size()));
}

void VisionTokens::append_to(std::vector<float>& out, int64_t begin, int64_t end) const {
    const auto count = static_cast<size_t>((end - begin) * cols_);
    const size_t before = out.size();
    out.resize(before + count);
    if (f32_) {
        std::copy_n(floats_.begin() + begin * cols_, count, out.begin() + static_cast<ptrdiff_t>(before));
    } else {
        ggml_fp16_to_fp32_row(halves_.data() + begin * cols_, out.data() + before,
                              static_cast<int64_t>(count));
    }
}

}  // namespace llava_mini
