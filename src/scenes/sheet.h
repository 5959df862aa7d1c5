// Contact sheets: samples to be looked at by people.
#pragma once

#include <filesystem>
#include <vector>

#include "data/sample.h"

namespace llava_mini::scenes {

struct SheetOptions {
    int columns = 4;
    int zoom = 2;        ///< pixels a pixel of the samples
    bool marks = false;  ///< draw the boxes of names and letters
    std::filesystem::path fonts = "/usr/share/fonts/truetype";
};

/// Draws samples with their questions and answers, several frames side by side. Throws Error(kInput) if the
/// font is missing.
Image draw_sheet(const std::vector<Sample>& samples, const SheetOptions& options = {});

}  // namespace llava_mini::scenes
