// Many small pictures on one, each with a line under it.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "model/stages.h"

namespace llava_mini {

struct SheetPicture {
    Image image;
    std::string label;  ///< digits, ':', '.', '%' and spaces; other characters stay empty
};

/// Lays pictures out row by row, four in a row at most, on white, each at the top left of a cell as large as
/// the largest. At least one picture. Thread-safe.
Image contact_sheet(std::span<const SheetPicture> pictures);

}  // namespace llava_mini
