// From what a scene shows to pixels and marks.
#pragma once

#include <vector>

#include "data/sample.h"
#include "scenes/assets.h"
#include "scenes/look.h"
#include "scenes/random.h"
#include "scenes/scene.h"

namespace llava_mini::scenes {

/// A plain, graded, spotted or photograph-like background of size x size pixels.
Canvas paint_background(int size, Random& random);

/// Paints things over a background, in their order. Appends the marks: the nine places, then each thing's
/// name and colour and a sign's letters. Returns the canvas with its border, not yet developed.
Canvas paint_things(const Assets& assets, const std::vector<Thing>& things, Canvas background,
                    const Look& look, std::vector<Mark>& marks);

}  // namespace llava_mini::scenes
