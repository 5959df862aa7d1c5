// Synthetic scenes as a source of samples: pictures and clips with questions, each a function of the seed,
// the split and the number alone.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "data/sample.h"
#include "scenes/clip.h"
#include "scenes/questions.h"
#include "scenes/scene.h"

namespace llava_mini::scenes {

/// Samples of different splits never come from the same random numbers. Some combinations of thing and place
/// and of shape and colour (words.h) are in no split but kHeldOut, where every picture has one.
enum class Split : uint8_t { kTrain, kVal, kTest, kHeldOut };
inline constexpr std::array<const char*, 4> kSplits = {"train", "val", "test", "heldout"};

/// Throws Error(kUsage) for another name than those of kSplits.
Split parse_split(const std::string& name);

struct GeneratorOptions {
    uint64_t seed = 1;
    Split split = Split::kTrain;
    uint64_t samples = UINT64_MAX;  ///< what size() says
    int size = 96;                  ///< side of the square pictures in pixels, 32 to 1024
    SceneOptions scene = {};
    ClipOptions clip = {};
    double clip_share = 0.0;           ///< of the samples are clips
    int min_turns = 4, max_turns = 8;  ///< questions a picture (fewer where a scene gives no more)
    /// Augmented pictures; default: in the training split only.
    std::optional<bool> augment = {};
    /// Weights of question types (those of pictures and those of clips); types that are not named have 1.
    std::map<std::string, double> weights = {};
    std::filesystem::path fonts = "/usr/share/fonts/truetype";
};

/// Thread-safe.
class SceneGenerator : public SampleSource {
  public:
    /// Throws Error(kUsage) for options out of range or an unknown question type; Error(kInput) if a font is
    /// missing.
    explicit SceneGenerator(const GeneratorOptions& options);

    uint64_t size() const override { return options_.samples; }
    /// Has its marks. Throws Error(kUsage) beyond size().
    Sample sample(uint64_t number) const override;
    /// The same without frames and marks, some hundred times faster.
    Sample text_of(uint64_t number) const;

    const GeneratorOptions& options() const { return options_; }

  private:
    uint64_t key_of(uint64_t number) const;
    Sample make(uint64_t number, bool paint) const;
    void make_picture(Sample& sample, uint64_t key, bool paint) const;
    void make_clip(Sample& sample, uint64_t key, bool paint) const;

    GeneratorOptions options_;
    std::array<double, kPictureTypes.size()> picture_weights_{};
    std::array<double, kClipTypes.size()> clip_weights_{};
    std::shared_ptr<const Assets> assets_;
};

}  // namespace llava_mini::scenes
