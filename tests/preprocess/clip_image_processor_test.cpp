// Our pixels against those that the official code computed, to the last bit.
#include "preprocess/clip_image_processor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "core/file.h"
#include "core/npy.h"
#include "llava_mini/error.hpp"
#include "media/image_decoder.h"
#include "preprocess/nearest_resample.h"
#include "preprocess/tiling.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using test::golden_path;
using test::TempDir;
using ::testing::HasSubstr;

VisionHparams clip_hparams() {
    VisionHparams hparams;
    hparams.image_size = 336;
    hparams.image_mean = {0.48145466f, 0.4578275f, 0.40821073f};
    hparams.image_std = {0.26862954f, 0.26130258f, 0.27577711f};
    return hparams;
}

Image official(const std::filesystem::path& path) {
    return load_image(path, {.obey_exif = false});
}

// SHA-256 of a file, by the sha256sum that every Debian has.
std::string sha256(const std::filesystem::path& path) {
    const std::string command = "sha256sum '" + path.string() + "'";
    const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
    char digest[65] = {};
    if (!pipe || std::fread(digest, 1, 64, pipe.get()) != 64) return "sha256sum failed";
    return digest;
}

// The recorded .npy files are not kept, their hashes are: equal hashes mean equal bits.
std::string recorded_hash(const std::string& file) {
    static const auto hashes =
        nlohmann::json::parse(read_text_file(golden_path("pixel_values.sha256.json"), 1 << 20));
    return hashes.at(file).get<std::string>();
}

std::string hash_of(const PixelValues& pixels, const std::vector<int64_t>& shape) {
    const TempDir dir;
    write_npy(dir / "pixels.npy", shape, pixels.data);
    return sha256(dir / "pixels.npy");
}

struct GoldenCase {
    std::string picture;
    std::string aspect_ratio;
};

class GoldenPixels : public ::testing::TestWithParam<GoldenCase> {};

TEST_P(GoldenPixels, EqualTheRecording) {
    const auto& [picture, aspect_ratio] = GetParam();
    const std::string stem = std::filesystem::path(picture).stem().string();
    const PixelValues pixels = preprocess_image(official(golden_path("pictures/" + picture)), clip_hparams(),
                                                {.image_aspect_ratio = aspect_ratio, .resolution_ratio = 1});
    EXPECT_EQ(pixels.views, 1);
    EXPECT_EQ(pixels.size, 336);
    EXPECT_EQ(hash_of(pixels, {3, 336, 336}),
              recorded_hash("preprocess/" + stem + "/pixel_values_" + aspect_ratio + ".npy"));
}

std::vector<GoldenCase> golden_cases() {
    std::vector<GoldenCase> cases;
    for (const char* picture :
         {"cmyk_400x300.jpg", "exif6_480x320.jpg", "palette_256x300.png", "photo_640x480.jpg",
          "rgba_300x200.png", "square_336.png", "tall_333x777.png", "tiny_17x5.png"}) {
        cases.push_back({picture, "pad"});
        // A square picture is the same either way and was recorded once.
        if (picture != std::string("square_336.png")) cases.push_back({picture, "square"});
    }
    return cases;
}

INSTANTIATE_TEST_SUITE_P(Pictures, GoldenPixels, ::testing::ValuesIn(golden_cases()), [](const auto& info) {
    return std::filesystem::path(info.param.picture).stem().string() + "_" + info.param.aspect_ratio;
});

TEST(PreprocessImage, EqualsTheRecordingThatIsKeptWhole) {
    const NpyArray expected = read_npy(golden_path("preprocess/photo_640x480/pixel_values_pad.npy"));
    const PixelValues pixels = preprocess_image(official(golden_path("pictures/photo_640x480.jpg")),
                                                clip_hparams(), {.image_aspect_ratio = "pad"});
    EXPECT_EQ(pixels.data, expected.as_float());
}

TEST(PreprocessImage, TakesAspectRatioAndRatioFromTheModelUnlessTold) {
    const Image image = official(golden_path("pictures/tiny_17x5.png"));
    VisionHparams hparams = clip_hparams();
    hparams.image_aspect_ratio = "pad";
    hparams.resolution_ratio = 2;
    EXPECT_EQ(
        preprocess_image(image, hparams).data,
        preprocess_image(image, clip_hparams(), {.image_aspect_ratio = "pad", .resolution_ratio = 2}).data);
    EXPECT_EQ(preprocess_image(image, hparams, {.image_aspect_ratio = "square", .resolution_ratio = 1}).data,
              preprocess_image(image, clip_hparams()).data);
}

TEST(ResizeViews, HighResolutionEqualsTheRecordedViews) {
    const std::vector<Image> views =
        resize_views(official(golden_path("pictures/photo_640x480.jpg")), clip_hparams(),
                     {.image_aspect_ratio = "pad", .resolution_ratio = 2, .pad_each_view = true});
    ASSERT_EQ(views.size(), 5u);
    for (size_t i = 0; i < views.size(); ++i) {
        const Image expected = load_image(golden_path("cases/hires2/view" + std::to_string(i) + ".png"));
        EXPECT_EQ(views[i].width, expected.width);
        EXPECT_EQ(views[i].height, expected.height);
        EXPECT_TRUE(views[i].rgb == expected.rgb) << "view " << i;
    }
}

// What training saw: the picture is put on a square first, so a picture that already is that square gives the
// same.
TEST(ResizeViews, PadsFirstByDefault) {
    const Image image = official(golden_path("pictures/rgba_300x200.png"));
    Image square{300, 300, {}};
    for (int i = 0; i < 300 * 300; ++i) square.rgb.insert(square.rgb.end(), {122, 116, 104});
    for (int y = 0; y < 200; ++y) {
        std::copy_n(image.rgb.begin() + y * 900, 900, square.rgb.begin() + (y + 50) * 900);
    }
    const PreprocessOptions pad{.image_aspect_ratio = "pad", .resolution_ratio = 2};
    const PreprocessOptions plain{.image_aspect_ratio = "square", .resolution_ratio = 2};
    EXPECT_EQ(preprocess_image(image, clip_hparams(), pad).data,
              preprocess_image(square, clip_hparams(), plain).data);
    const PreprocessOptions each{.image_aspect_ratio = "pad", .resolution_ratio = 2, .pad_each_view = true};
    EXPECT_NE(preprocess_image(image, clip_hparams(), pad).data,
              preprocess_image(image, clip_hparams(), each).data);
}

TEST(PreprocessImage, UsesTheModelsOwnSizeMeanAndDeviation) {
    VisionHparams hparams;
    hparams.image_size = 8;
    hparams.image_mean = {0.5f, 0.25f, 0.0f};
    hparams.image_std = {0.5f, 0.5f, 2.0f};
    const Image image{1, 1, {255, 0, 51}};
    const PixelValues pixels = preprocess_image(image, hparams);
    ASSERT_EQ(pixels.size, 8);
    ASSERT_EQ(pixels.data.size(), 3u * 64u);
    EXPECT_EQ(pixels.data[0], 1.0f);
    EXPECT_EQ(pixels.data[64], -0.5f);
    EXPECT_EQ(pixels.data[191], 0.1f);
}

TEST(PreprocessImage, RefusesPicturesThatCannotBeCut) {
    const VisionHparams hparams = clip_hparams();
    const auto message = [&](const Image& image, const PreprocessOptions& options) -> std::string {
        try {
            preprocess_image(image, hparams, options);
        } catch (const Error& error) {
            return error.what();
        }
        return "no error";
    };
    EXPECT_THAT(message(Image{}, {}), HasSubstr("empty: 0 x 0"));
    const Image line{5, 1, std::vector<uint8_t>(15)};
    EXPECT_THAT(message(line, {.resolution_ratio = 2}),
                HasSubstr("5 x 1 pixels cannot be cut into 2 x 2 blocks"));
    EXPECT_THAT(message(line, {.image_aspect_ratio = "pad", .resolution_ratio = 2, .pad_each_view = true}),
                HasSubstr("cannot be cut"));
    EXPECT_EQ(message(line, {.image_aspect_ratio = "pad", .resolution_ratio = 2}), "no error");
    EXPECT_THAT(message(line, {.resolution_ratio = -1}), HasSubstr("expected 1 to 16, found -1"));
    const Image long_line{static_cast<int>(kMaxSide) + 1, 1, std::vector<uint8_t>(3 * (kMaxSide + 1))};
    EXPECT_THAT(message(long_line, {}), HasSubstr("sides of 1 to 1048576 are accepted"));
}

TEST(PreprocessFrame, EqualsTheRecording) {
    const NpyArray frames = read_npy(golden_path("video/raw_frames.npy"));
    ASSERT_EQ(frames.shape, (std::vector<int64_t>{6, 180, 320, 3}));
    const size_t bytes = 180 * 320 * 3;
    const Image frame{320, 180, {frames.bytes.begin(), frames.bytes.begin() + bytes}};
    VisionHparams hparams = clip_hparams();
    hparams.image_aspect_ratio = "pad";  // has no effect on frames
    const PixelValues pixels = preprocess_frame(frame, hparams);
    EXPECT_EQ(hash_of(pixels, {1, 3, 336, 336}), recorded_hash("video/pixel_values_frame0.npy"));
}

TEST(PreprocessFrame, OfficialSizeComesBeforeTheTowersOwn) {
    Image frame{40, 60, std::vector<uint8_t>(3 * 40 * 60)};
    for (size_t i = 0; i < frame.rgb.size(); ++i) frame.rgb[i] = static_cast<uint8_t>(i * i / 97);
    VisionHparams hparams = clip_hparams();
    hparams.image_size = 112;
    const auto pixels_of = [&](int side) {
        return preprocess_image(resize_nearest(frame, side, side), hparams, {.image_aspect_ratio = "square"})
            .data;
    };
    EXPECT_EQ(preprocess_frame(frame, hparams, {.official_frame_size = true}).data, pixels_of(336));
    EXPECT_EQ(preprocess_frame(frame, hparams).data, pixels_of(112));
    EXPECT_NE(pixels_of(336), pixels_of(112));
}

TEST(PreprocessFrame, CutsTheResizedFrameInHighResolution) {
    Image frame{336, 336, std::vector<uint8_t>(3 * 336 * 336)};
    for (size_t i = 0; i < frame.rgb.size(); ++i) frame.rgb[i] = static_cast<uint8_t>(i * i / 977);
    const PixelValues views = preprocess_frame(frame, clip_hparams(), {.resolution_ratio = 2});
    ASSERT_EQ(views.views, 5);
    // The whole frame is untouched, so a block is what preprocess_image makes of the quarter alone.
    Image quarter{168, 168, {}};
    for (int y = 168; y < 336; ++y) {
        const auto row = frame.rgb.begin() + y * 1008;
        quarter.rgb.insert(quarter.rgb.end(), row, row + 504);
    }
    const std::vector<float> expected = preprocess_image(quarter, clip_hparams()).data;
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), views.data.begin() + 2 * 3 * 336 * 336));
}

TEST(PreprocessImage, GivesTheSameFromSeveralThreads) {
    const Image image = official(golden_path("pictures/tall_333x777.png"));
    const PixelValues expected = preprocess_image(image, clip_hparams(), {.resolution_ratio = 2});
    std::vector<PixelValues> results(4);
    std::vector<std::thread> threads;
    for (PixelValues& result : results) {
        threads.emplace_back(
            [&] { result = preprocess_image(image, clip_hparams(), {.resolution_ratio = 2}); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const PixelValues& result : results) EXPECT_TRUE(result.data == expected.data);
}

}  // namespace
}  // namespace llava_mini
