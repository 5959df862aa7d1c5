#include "preprocess/nearest_resample.h"

#include <gtest/gtest.h>

#include "core/npy.h"
#include "llava_mini/error.hpp"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using test::golden_path;

TEST(NearestIndices, EqualTheRecordedTables) {
    int tables = 0;
    for (const auto& entry : std::filesystem::directory_iterator(golden_path("unit/nearest"))) {
        int in = 0, out = 0;
        ASSERT_EQ(std::sscanf(entry.path().filename().c_str(), "index_%d_to_%d.npy", &in, &out), 2);
        EXPECT_EQ(nearest_indices(in, out), read_npy(entry.path()).as_int64()) << in << " to " << out;
        ++tables;
    }
    EXPECT_EQ(tables, 16);
}

TEST(ResizeNearest, EqualsTheRecordedFrames) {
    const NpyArray raw = read_npy(golden_path("video/raw_frames.npy"));
    const NpyArray resized = read_npy(golden_path("video/resized_frames.npy"));  // the first and the last
    const size_t raw_bytes = 180 * 320 * 3, resized_bytes = 336 * 336 * 3;
    ASSERT_EQ(raw.bytes.size(), 6 * raw_bytes);
    ASSERT_EQ(resized.bytes.size(), 2 * resized_bytes);
    for (const size_t i : {0, 1}) {
        const auto begin = raw.bytes.begin() + static_cast<ptrdiff_t>(i * 5 * raw_bytes);
        const Image frame{320, 180, {begin, begin + raw_bytes}};
        const Image result = resize_nearest(frame, 336, 336);
        EXPECT_TRUE(
            std::equal(result.rgb.begin(), result.rgb.end(), resized.bytes.begin() + i * resized_bytes));
    }
}

TEST(ResizeNearest, RefusesEmptyPictures) {
    EXPECT_THROW(resize_nearest(Image{}, 4, 4), Error);
    EXPECT_THROW(resize_nearest(Image{1, 1, {1, 2, 3}}, 0, 4), Error);
}

}  // namespace
}  // namespace llava_mini
