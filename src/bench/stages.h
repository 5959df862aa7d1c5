// The stages of a first answer, in the order in which they run: what the benchmark times and counts.
#pragma once

#include <array>
#include <cstddef>
#include <numeric>

namespace llava_mini::bench {

enum class Stage : size_t {
    kPreprocess,  ///< decoding the picture, resizing, normalising
    kTower,       ///< CLIP
    kCompressor,
    kProjector,
    kPrefusionVision,  ///< pre-fusion at the picture's positions
    kPrefusionText,    ///< pre-fusion at the text's positions
    kPrefill,          ///< language model over the prompt, to the logits of the first token
    kFirstToken        ///< choosing the first token from the logits
};

inline constexpr size_t kStages = 8;
inline constexpr std::array<Stage, kStages> kAllStages = {
    Stage::kPreprocess,      Stage::kTower,         Stage::kCompressor, Stage::kProjector,
    Stage::kPrefusionVision, Stage::kPrefusionText, Stage::kPrefill,    Stage::kFirstToken};

/// Name in JSON.
constexpr const char* stage_key(Stage stage) {
    constexpr std::array<const char*, kStages> keys = {"preprocess", "vision_tower",     "compressor",
                                                       "projector",  "prefusion_vision", "prefusion_text",
                                                       "prefill",    "first_token"};
    return keys[static_cast<size_t>(stage)];
}

/// Name for people.
constexpr const char* stage_label(Stage stage) {
    constexpr std::array<const char*, kStages> labels = {
        "decode + preprocess", "CLIP tower",       "compressor", "projector",
        "pre-fusion, picture", "pre-fusion, text", "prefill",    "first token"};
    return labels[static_cast<size_t>(stage)];
}

/// Whether the stage belongs to the vision side or the pre-fusion, whose share of the GEMM peak is reported.
constexpr bool is_vision_side(Stage stage) {
    return stage >= Stage::kTower && stage <= Stage::kPrefusionText;
}

/// One number a stage.
struct ByStage {
    std::array<double, kStages> values{};

    double& operator[](Stage stage) { return values[static_cast<size_t>(stage)]; }
    double operator[](Stage stage) const { return values[static_cast<size_t>(stage)]; }
    double total() const { return std::accumulate(values.begin(), values.end(), 0.0); }
    double vision_side() const {
        double sum = 0;
        for (const Stage stage : kAllStages) sum += is_vision_side(stage) ? (*this)[stage] : 0.0;
        return sum;
    }
};

}  // namespace llava_mini::bench
