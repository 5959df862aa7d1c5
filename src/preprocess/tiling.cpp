#include "preprocess/tiling.h"

#include <algorithm>

#include "core/error.h"

namespace llava_mini {

Rectangle intersection(const Rectangle& a, const Rectangle& b) {
    const int64_t x = std::max(a.x, b.x), y = std::max(a.y, b.y);
    return {x, y, std::max<int64_t>(std::min(a.right(), b.right()) - x, 0),
            std::max<int64_t>(std::min(a.bottom(), b.bottom()) - y, 0)};
}

CanvasView padded_to_square(const CanvasView& view, std::array<uint8_t, 3> colour) {
    const Rectangle& area = view.area;
    const int64_t side = std::max(area.width, area.height);
    const Rectangle square{area.x - (side - area.width) / 2, area.y - (side - area.height) / 2, side, side};
    return {view.image, square, intersection(view.picture, area), colour};
}

std::vector<CanvasView> blocks_of(const CanvasView& view, int n) {
    if (view.area.width < n || view.area.height < n) {
        throw_input("a picture of {} x {} pixels cannot be cut into {} x {} blocks", view.area.width,
                    view.area.height, n, n);
    }
    const int64_t width = view.area.width / n, height = view.area.height / n;
    std::vector<CanvasView> blocks;
    for (int row = 0; row < n; ++row) {
        for (int column = 0; column < n; ++column) {
            CanvasView block = view;
            block.area = {view.area.x + column * width, view.area.y + row * height, width, height};
            blocks.push_back(block);
        }
    }
    return blocks;
}

}  // namespace llava_mini
