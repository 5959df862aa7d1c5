#include "preprocess/tiling.h"

#include <gtest/gtest.h>

#include "llava_mini/error.hpp"

namespace llava_mini {
namespace {

TEST(PaddedToSquare, CentresAndRoundsTheOffsetDown) {
    const Image tall{2, 7, std::vector<uint8_t>(42)};
    const CanvasView square = padded_to_square(CanvasView::whole(tall), {1, 2, 3});
    // (7 - 2) / 2 columns of colour, then the picture.
    EXPECT_EQ(square.area, (Rectangle{-2, 0, 7, 7}));
    EXPECT_EQ(square.picture, (Rectangle{0, 0, 2, 7}));
    const Image wide{7, 2, std::vector<uint8_t>(42)};
    EXPECT_EQ(padded_to_square(CanvasView::whole(wide), {}).area, (Rectangle{0, -2, 7, 7}));
}

TEST(BlocksOf, GoRowByRowAndLoseTheRemainder) {
    const Image image{7, 5, std::vector<uint8_t>(105)};
    const std::vector<CanvasView> blocks = blocks_of(CanvasView::whole(image), 2);
    ASSERT_EQ(blocks.size(), 4u);
    EXPECT_EQ(blocks[0].area, (Rectangle{0, 0, 3, 2}));
    EXPECT_EQ(blocks[1].area, (Rectangle{3, 0, 3, 2}));
    EXPECT_EQ(blocks[2].area, (Rectangle{0, 2, 3, 2}));
    EXPECT_EQ(blocks[3].area, (Rectangle{3, 2, 3, 2}));
    EXPECT_THROW(blocks_of(CanvasView::whole(image), 6), Error);
}

// Around a padded block lies the canvas, not the block's neighbours.
TEST(PaddedToSquare, HidesWhatABlockDoesNotShow) {
    const Image image{8, 4, std::vector<uint8_t>(96)};
    const CanvasView block = blocks_of(CanvasView::whole(image), 2)[3];
    const CanvasView square = padded_to_square(block, {});
    EXPECT_EQ(square.area, (Rectangle{4, 1, 4, 4}));
    EXPECT_EQ(square.picture, (Rectangle{4, 2, 4, 2}));
}

}  // namespace
}  // namespace llava_mini
