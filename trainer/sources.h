// The sources of samples that recipes can name.
#pragma once

#include <memory>

#include "data/sample.h"
#include "trainer/recipe.h"

namespace llava_mini::trainer {

/// "scenes": the generator of synthetic scenes; its options are those of scenes::GeneratorOptions (split,
/// seed, size, min_things, max_things, big_share, shape_share, sign_share, clip_share, min_frames,
/// max_frames, min_turns, max_turns, augment, weights by question type). Throws Error(kInput) for another
/// source or an option that it does not have.
std::shared_ptr<const SampleSource> make_source(const DataSpec& spec);

}  // namespace llava_mini::trainer
