// What is cut out of a picture before it is resized: padding to a square and the blocks of high resolution.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "model/stages.h"

namespace llava_mini {

/// Longest side of a picture or canvas that is accepted, in pixels.
inline constexpr int64_t kMaxSide = int64_t{1} << 20;

/// A rectangle in the coordinates of a picture, in pixels; it may reach beyond the picture.
struct Rectangle {
    int64_t x = 0, y = 0, width = 0, height = 0;

    int64_t right() const { return x + width; }    // first column that is not inside
    int64_t bottom() const { return y + height; }  // first row that is not inside
    bool operator==(const Rectangle&) const = default;
};

Rectangle intersection(const Rectangle& a, const Rectangle& b);

/// A part of a picture that lies on an endless canvas of one colour. Nothing is copied: rows are put together
/// when they are read. The picture must outlive the view.
struct CanvasView {
    const Image* image = nullptr;
    Rectangle area;     // what is looked at
    Rectangle picture;  // where the picture shows (inside of it); the rest of the area shows the canvas
    std::array<uint8_t, 3> colour{};

    /// The whole picture, nothing around it.
    static CanvasView whole(const Image& image) {
        const Rectangle all{0, 0, image.width, image.height};
        return {&image, all, all, {}};
    }
};

/// Puts a view on a square of `colour` whose side is the view's longer one, centred, at the offset
/// (long - short) / 2 rounded down. Of the picture, only what the view showed shows.
CanvasView padded_to_square(const CanvasView& view, std::array<uint8_t, 3> colour);

/// Cuts a view into n * n blocks of width/n x height/n (integer division: remainder rows and columns are
/// lost), row by row. Throws Error(kInput) when a side of the view is shorter than n pixels.
std::vector<CanvasView> blocks_of(const CanvasView& view, int n);

}  // namespace llava_mini
