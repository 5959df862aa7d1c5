// The sources of samples that recipes can name.
#pragma once

#include <memory>

#include "data/sample.h"
#include "trainer/recipe.h"

namespace llava_mini::trainer {

/// "scenes": the generator of synthetic scenes; its options are those of scenes::GeneratorOptions (split,
/// seed, size, min_things, max_things, big_share, shape_share, sign_share, clip_share, min_frames,
/// max_frames, min_turns, max_turns, augment, weights by question type).
/// "long_scenes": long clips with one rare thing (scenes/long_clip.h), of min_frames to max_frames frames, each
/// thing seen in needle_frames of them (default 1); split, seed, size, shape_share, augment, samples.
/// "official": a file in the official format (data/conversation_dataset.h); options: file, root (default: the
/// file's folder), max_frames of a clip (default 8, as the official training).
/// Throws Error(kInput) for another source, an option that it does not have, or a file that cannot be used.
std::shared_ptr<const SampleSource> make_source(const DataSpec& spec);

}  // namespace llava_mini::trainer
