#include "preprocess/pillow_resample.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdio>

#include "core/npy.h"
#include "llava_mini/error.hpp"
#include "support/test_data.h"

namespace llava_mini {
namespace {

// The same numbers as noise() in data/make.py.
Image noise(int width, int height) {
    Image image{width, height, std::vector<uint8_t>(3 * static_cast<size_t>(width) * height)};
    for (uint32_t i = 0; i < image.rgb.size(); ++i) {
        image.rgb[i] = static_cast<uint8_t>((i ^ (i >> 7)) * 2654435761u >> 24);
    }
    return image;
}

TEST(ResizeBicubic, EqualsPillow) {
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(LLAVA_MINI_RESIZE_DATA)) {
        int width = 0, height = 0, out_width = 0, out_height = 0;
        if (std::sscanf(entry.path().filename().c_str(), "resize_%dx%d_to_%dx%d.npy", &width, &height,
                        &out_width, &out_height) != 4) {
            continue;
        }
        const NpyArray expected = read_npy(entry.path());
        ASSERT_EQ(expected.shape, (std::vector<int64_t>{out_height, out_width, 3}));
        EXPECT_EQ(resize_bicubic(noise(width, height), out_width, out_height).rgb, expected.bytes)
            << entry.path();
        ++files;
    }
    EXPECT_EQ(files, 12);
}

TEST(ResizeBicubic, AWindowIsThePartOfTheWhole) {
    for (const auto& [width, height, out_width, out_height] :
         {std::array{50, 40, 33, 27}, std::array{30, 40, 30, 70}, std::array{20, 90, 14, 40}}) {
        const Image image = noise(width, height);
        const Image whole = resize_bicubic(image, out_width, out_height);
        const ResizeWindow window{3, 5, 7, 9};
        std::vector<uint8_t> part(3 * 7 * 9);
        resize_bicubic(CanvasView::whole(image), out_width, out_height, window, part);
        for (int y = 0; y < 9; ++y) {
            const auto row = whole.rgb.begin() + 3 * ((y + 5) * out_width + 3);
            EXPECT_TRUE(std::equal(row, row + 21, part.begin() + y * 21)) << width << " row " << y;
        }
    }
}

// The canvas around a picture is never laid out in memory; here it is, for comparison.
TEST(ResizeBicubic, ACanvasEqualsThePictureLaidOnIt) {
    const std::array<uint8_t, 3> colour{122, 116, 104};
    const Image image = noise(23, 31);
    for (const auto& [x, y, width, height] :
         {std::array{-4, 0, 31, 31}, std::array{5, -9, 40, 60}, std::array{-30, 3, 20, 8},
          std::array{2, 40, 12, 9}, std::array{-3, -3, 30, 80}}) {
        Image laid{width, height, {}};
        for (int row = y; row < y + height; ++row) {
            for (int column = x; column < x + width; ++column) {
                const bool inside = row >= 0 && row < 31 && column >= 0 && column < 23;
                const uint8_t* pixel = inside ? &image.rgb[3 * (row * 23 + column)] : colour.data();
                laid.rgb.insert(laid.rgb.end(), pixel, pixel + 3);
            }
        }
        const Image expected = resize_bicubic(laid, 13, 17);
        std::vector<uint8_t> result(expected.rgb.size());
        resize_bicubic(CanvasView{&image, {x, y, width, height}, {0, 0, 23, 31}, colour}, 13, 17,
                       {0, 0, 13, 17}, result);
        EXPECT_EQ(result, expected.rgb) << x << " " << y;
    }
}

TEST(ResizeBicubic, KeepsFlatColoursAndRefusesSidesOutOfRange) {
    const Image flat{1000, 1, std::vector<uint8_t>(3000, 200)};
    EXPECT_EQ(resize_bicubic(flat, 3, 2).rgb, std::vector<uint8_t>(18, 200));
    EXPECT_THROW(resize_bicubic(flat, 0, 1), Error);
    EXPECT_THROW(resize_bicubic(flat, 1, static_cast<int>(kMaxSide) + 1), Error);
    EXPECT_THROW(resize_bicubic(Image{}, 1, 1), Error);
}

}  // namespace
}  // namespace llava_mini
