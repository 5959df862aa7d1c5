// Clips of thousands of frames with one rare thing in them, made frame by frame when they are looked at.
#pragma once

#include <memory>
#include <vector>

#include "data/sample.h"
#include "scenes/generator.h"
#include "scenes/look.h"

namespace llava_mini::scenes {

/// A needle in a haystack of frames: other things come and go, one stretch after the other, over one
/// background, and the needle is seen in one short stretch only. Thread-safe.
class LongClip {
  public:
    /// `options` give seed, split, size, fonts and augmentation; `number` tells clips of one kind apart.
    /// The needle stays for `needle_frames`; so does everything else, so that length gives nothing away. Other things
    /// are seen in up to `looks` places and sizes each. Throws Error(kUsage) unless 1 <= needle_frames, 1 <= looks <= 64
    /// and there are three stretches at least.
    LongClip(const GeneratorOptions& options, uint64_t number, int64_t frames, int64_t needle_frames = 1,
             int looks = 3);

    int64_t frames() const { return frames_; }
    /// First frame that shows the needle.
    int64_t needle_from() const { return needle_stretch_ * stretch_; }
    /// Throws Error(kUsage) beyond frames().
    Image frame(int64_t index) const;
    /// The same and what is known of its parts.
    Image frame(int64_t index, std::vector<Mark>& marks) const;
    /// What the frame shows, as a number: frames of one number differ by noise alone.
    int content(int64_t index) const;
    /// Was there the needle (yes), was there something else (no), when did the needle appear, what came after
    /// it and what before; types as those of short clips.
    const std::vector<QaTurn>& turns() const { return turns_; }
    /// Everything that may be seen, the needle first.
    const std::vector<Thing>& things() const { return things_; }

  private:
    int content_of(int64_t stretch) const;
    const Thing& thing_of(int64_t stretch) const { return things_[static_cast<size_t>(content_of(stretch))]; }

    std::shared_ptr<const Assets> assets_;
    SceneOptions scene_;
    uint64_t key_;
    int64_t frames_, stretch_, needle_stretch_ = 0;
    int looks_;
    std::vector<Thing> things_;  // by content: the needle, then what comes and goes
    Look look_;
    Canvas background_;
    std::vector<QaTurn> turns_;
};

/// Long clips as samples, of lengths that are drawn evenly by their logarithm. Thread-safe.
class LongClips : public SampleSource {
  public:
    /// Throws Error(kUsage) unless 3 * needle_frames <= min_frames <= max_frames and `looks` is 1 to 64.
    LongClips(const GeneratorOptions& options, int64_t min_frames, int64_t max_frames, int64_t needle_frames,
              int looks = 3);

    uint64_t size() const override { return options_.samples; }
    /// All frames of it. Frames of one content are equal, so that what is computed of a frame
    /// need not be computed again.
    Sample sample(uint64_t number) const override;

  private:
    GeneratorOptions options_;
    int64_t min_frames_, max_frames_, needle_frames_;
    int looks_;
};

}  // namespace llava_mini::scenes
