#include "media/image_decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <thread>

#include "llava_mini/error.hpp"
#include "media_data.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using test::golden_path;
using test::media_bytes;
using test::media_path;
using test::recorded_image;
using test::operator==;

Image official(const std::filesystem::path& path) {
    return load_image(path, {.obey_exif = false});
}

// The pictures of the recordings, against what Pillow decoded there (kept as PNG).
class GoldenPictures : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenPictures, EqualTheRecording) {
    const std::string stem = std::filesystem::path(GetParam()).stem().string();
    const Image expected = official(golden_path("preprocess/" + stem + "/decoded.png"));
    EXPECT_TRUE(official(golden_path(std::string("pictures/") + GetParam())) == expected);
}

INSTANTIATE_TEST_SUITE_P(Pictures, GoldenPictures,
                         ::testing::Values("cmyk_400x300.jpg", "exif6_480x320.jpg", "palette_256x300.png",
                                           "photo_640x480.jpg", "rgba_300x200.png", "square_336.png",
                                           "tall_333x777.png", "tiny_17x5.png"),
                         [](const auto& info) { return std::filesystem::path(info.param).stem().string(); });

// Formats of which we promise Pillow's pixels to the last bit.
class PillowPixels : public ::testing::TestWithParam<const char*> {};

TEST_P(PillowPixels, AreEqual) {
    const Image image = official(media_path(GetParam()));
    EXPECT_TRUE(image == recorded_image(media_path(std::string(GetParam()) + ".npy")));
}

INSTANTIATE_TEST_SUITE_P(
    Formats, PillowPixels,
    ::testing::Values("rgb.png", "rgba.png", "grey.png", "grey_alpha.png", "palette_transparent.png",
                      "palette_2bit.png", "bits.png", "rgb_transparent.png", "grey_2bit.png", "grey_4bit.png",
                      "rgb_16bit.png", "rgba_16bit.png", "grey_alpha_16bit.png", "grey_16bit.png",
                      "animation.png", "subsampling_0.jpg", "subsampling_1.jpg", "subsampling_2.jpg",
                      "subsampling_411.jpg", "progressive.jpg", "grey.jpg", "cmyk.jpg", "lossless.webp",
                      "lossy.webp", "lossy_alpha.webp", "lossy_1x1.webp", "animation.webp",
                      "palette_transparent.gif", "animation.gif", "part.gif", "part_transparent.gif",
                      "rgb.bmp", "rgba.bmp", "palette.bmp", "bits.bmp", "rgb_565.bmp", "rgb.tiff",
                      "rgba_lzw.tiff", "palette_deflate.tiff", "grey_16bit.tiff", "rgb.ppm", "grey.pgm",
                      "bits.pbm", "rgb.qoi", "lossless.jp2"),
    [](const auto& info) {
        std::string name = info.param;
        std::replace(name.begin(), name.end(), '.', '_');
        return name;
    });

TEST(DecodeImage, AvifIsWithinAFewLevelsOfPillow) {
    const Image image = official(media_path("rgb.avif"));
    const Image expected = recorded_image(media_path("rgb.avif.npy"));
    ASSERT_EQ(image.rgb.size(), expected.rgb.size());
    int worst = 0, sum = 0;
    for (size_t i = 0; i < image.rgb.size(); ++i) {
        const int difference = std::abs(image.rgb[i] - expected.rgb[i]);
        worst = std::max(worst, difference);
        sum += difference;
    }
    EXPECT_LE(worst, 8);
    EXPECT_LE(sum, static_cast<int>(image.rgb.size()));  // one level on the average
}

TEST(DecodeImage, TurnsPicturesAsExifSaysUnlessToldNotTo) {
    for (const std::string name : {"exif.jpg", "exif.png", "exif.webp", "exif.tiff"}) {
        const Image upright = recorded_image(media_path(name + ".upright.npy"));
        EXPECT_TRUE(load_image(media_path(name)) == upright) << name;
        const bool is_turned_anyway = name == "exif.tiff";  // as Pillow does
        EXPECT_EQ(official(media_path(name)) == upright, is_turned_anyway) << name;
    }
}

TEST(DecodeImage, GoesByTheContentNotTheName) {
    const test::TempDir dir;
    std::filesystem::copy_file(media_path("rgb.png"), dir / "picture.jpg");
    std::filesystem::copy_file(media_path("subsampling_0.jpg"), dir / "picture.webp");
    EXPECT_TRUE(load_image(dir / "picture.jpg") == load_image(media_path("rgb.png")));
    EXPECT_TRUE(load_image(dir / "picture.webp") == load_image(media_path("subsampling_0.jpg")));
}

// The beginning of a file, which FFmpeg complains about in its own words.
std::string error_of_half(const std::string& name) {
    std::vector<uint8_t> bytes = media_bytes(name);
    bytes.resize(bytes.size() / 2);
    try {
        decode_image(bytes);
    } catch (const Error& error) {
        return error.what();
    }
    return "no error";
}

TEST(DecodeImage, GivesTheSameFromSeveralThreads) {
    const std::array<std::string, 2> broken = {"rgba.png", "rgba_lzw.tiff"};
    const std::array<std::string, 2> errors = {error_of_half(broken[0]), error_of_half(broken[1])};
    ASSERT_NE(errors[0].substr(errors[0].rfind(':')), errors[1].substr(errors[1].rfind(':')));
    std::vector<std::thread> threads;
    std::vector<int> equal(4);
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 10; ++i) {
                for (const std::string name : {"lossy.webp", "progressive.jpg", "rgba.png"}) {
                    equal[t] +=
                        load_image(media_path(name)) == recorded_image(media_path(name + ".npy")) ? 1 : 0;
                }
                // An error on this thread must not be mixed up with those of others.
                equal[t] += error_of_half(broken[t % 2]) == errors[t % 2] ? 1 : 0;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(equal, std::vector<int>(4, 40));
}

}  // namespace
}  // namespace llava_mini
