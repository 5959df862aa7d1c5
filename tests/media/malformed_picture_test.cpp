// Pictures that must be refused: one clear line each, nothing printed, no half picture.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <functional>
#include <string>

#include "llava_mini/error.hpp"
#include "media/image_decoder.h"
#include "media_data.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using test::media_bytes;
using test::media_path;
using test::recorded_image;
using test::operator==;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Bytes = std::vector<uint8_t>;

std::string error_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.what();
    }
    return "no error";
}

std::string decoding_error(const Bytes& bytes, const DecodeOptions& options = {}) {
    return error_of([&] { decode_image(bytes, options); });
}

Bytes first_part(const Bytes& bytes, size_t length) {
    return {bytes.begin(), bytes.begin() + length};
}

Bytes with(Bytes bytes, size_t offset, const Bytes& patch) {
    std::copy(patch.begin(), patch.end(), bytes.begin() + offset);
    return bytes;
}

Bytes text(std::string_view s) {
    return {s.begin(), s.end()};
}

// Where the frame header of a baseline JPEG is.
size_t jpeg_frame_header(const Bytes& jpeg) {
    for (size_t i = 0; i + 1 < jpeg.size(); ++i) {
        if (jpeg[i] == 0xFF && jpeg[i + 1] == 0xC0) return i;
    }
    ADD_FAILURE() << "no frame header";
    return 0;
}

struct MalformedCase {
    std::string name;
    std::function<Bytes()> bytes;
    std::string expected;  // part of the message
};

class MalformedPictures : public ::testing::TestWithParam<MalformedCase> {};

TEST_P(MalformedPictures, GiveOneClearLine) {
    testing::internal::CaptureStderr();
    testing::internal::CaptureStdout();
    const std::string message = decoding_error(GetParam().bytes());
    EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
    EXPECT_THAT(message,
                AllOf(StartsWith("picture: "), HasSubstr(GetParam().expected), Not(HasSubstr("\n"))));
}

const MalformedCase kCases[] = {
    {"Empty", [] { return Bytes{}; }, "the picture is empty (0 bytes)"},
    {"Text", [] { return text("hello, world"); }, "not a picture of a known kind"},
    {"OneByte", [] { return Bytes{0xFF}; }, "it starts with ff"},
    {"Video",
     [] {
         return text(
             std::string_view("\0\0\0\x1c"
                              "ftypisom\0\0\2\0isomiso2avc1",
                              28));
     },
     "not a picture of a known kind"},
    {"JpegMarkerOnly",
     [] {
         return Bytes{0xFF, 0xD8, 0xFF};
     },
     "cannot decode the JPEG"},
    {"JpegTruncated", [] { return first_part(media_bytes("subsampling_2.jpg"), 900); },
     "cannot decode the JPEG: Premature end of JPEG file"},
    {"JpegWithoutEndMarker",
     [] {
         const Bytes jpeg = media_bytes("subsampling_2.jpg");
         return first_part(jpeg, jpeg.size() - 2);
     },
     "Premature end of JPEG file"},
    {"JpegBomb",
     [] {
         const Bytes jpeg = media_bytes("subsampling_2.jpg");
         return with(jpeg, jpeg_frame_header(jpeg) + 5, {0xFF, 0xDC, 0xFF, 0xDC});
     },
     "the picture has 65500 x 65500 pixels, at most 178956970 pixels are accepted"},
    {"JpegZeroHeight",
     [] {
         const Bytes jpeg = media_bytes("subsampling_2.jpg");
         return with(jpeg, jpeg_frame_header(jpeg) + 5, {0, 0});
     },
     "cannot decode the JPEG"},
    {"Jpeg2000InCmyk",
     [] {
         const Bytes jp2 = media_bytes("lossless.jp2");
         const std::string_view text(reinterpret_cast<const char*>(jp2.data()), jp2.size());
         return with(jp2, text.find("colr") + 4 + 3, {0, 0, 0, 12});  // its enumerated colour space
     },
     "JPEG 2000 pictures in CMYK are not read"},
    {"JpegTwelveBits",
     [] {
         const Bytes jpeg = media_bytes("subsampling_2.jpg");
         return with(jpeg, jpeg_frame_header(jpeg) + 4, {12});
     },
     "Unsupported JPEG data precision 12"},
    {"JpegWithTooManyScans",
     [] {
         const Bytes jpeg = media_bytes("progressive.jpg");
         const uint8_t start_of_scan[] = {0xFF, 0xDA};
         const auto last_scan =
             std::find_end(jpeg.begin(), jpeg.end(), std::begin(start_of_scan), std::end(start_of_scan));
         Bytes bytes(jpeg.begin(), last_scan);
         for (int i = 0; i < 600; ++i) bytes.insert(bytes.end(), last_scan, jpeg.end() - 2);
         bytes.insert(bytes.end(), {0xFF, 0xD9});
         return bytes;
     },
     "cannot decode the JPEG: more than 500 scans"},
    {"PngTruncated", [] { return first_part(media_bytes("rgb.png"), 300); }, "cannot decode the PNG"},
    {"PngHeaderOnly", [] { return first_part(media_bytes("rgb.png"), 33); }, "cannot decode the PNG"},
    {"PngBomb", [] { return media_bytes("bomb.png"); },
     "the picture has 20000 x 20000 pixels, at most 178956970 pixels are accepted"},
    {"PngWrongChecksum",
     [] {
         return with(media_bytes("rgb.png"), 29, {1, 2, 3, 4});
     },
     "cannot decode the PNG"},
    {"GifTruncated", [] { return first_part(media_bytes("palette_transparent.gif"), 200); },
     "cannot decode the GIF"},
    {"GifZeroSize",
     [] {
         return with(media_bytes("palette_transparent.gif"), 6, {0, 0, 0, 0});
     },
     "cannot decode the GIF"},
    {"WebpTruncated", [] { return first_part(media_bytes("lossy.webp"), 100); }, "cannot decode the WebP"},
    {"WebpWithoutPicture", [] { return text(std::string_view("RIFF\x04\0\0\0WEBP", 12)); },
     "cannot decode the WebP"},
    {"BmpTruncated",
     [] {
         const Bytes bmp = media_bytes("rgb.bmp");
         return first_part(bmp, bmp.size() - 4);
     },
     "cannot decode the BMP: the file ends before the picture"},
    {"BmpHuge",
     [] {
         return with(media_bytes("rgb.bmp"), 18, {0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0x7F});
     },
     "cannot decode the BMP"},
    {"TiffTruncated", [] { return first_part(media_bytes("rgb.tiff"), 500); }, "cannot decode the TIFF"},
    {"TiffWithJpeg", [] { return media_bytes("jpeg_inside.tiff"); }, "compressed as JPEG are not read"},
    {"AvifTruncated", [] { return first_part(media_bytes("rgb.avif"), 350); }, "cannot decode the AVIF"},
    {"PpmTruncated", [] { return first_part(media_bytes("rgb.ppm"), 500); }, "cannot decode the PPM"},
    {"PpmHuge", [] { return text("P6\n20000 20000\n255\n"); }, "20000x20000"},
    {"QoiTruncated", [] { return first_part(media_bytes("rgb.qoi"), 500); },
     "cannot decode the QOI: the file ends before the picture"},
    {"Jpeg2000Truncated", [] { return first_part(media_bytes("lossless.jp2"), 300); },
     "cannot decode the JPEG 2000"},
    {"JpegXl",
     [] {
         return Bytes{0xFF, 0x0A, 0x00, 0x10};
     },
     "not a picture of a known kind"},
};

INSTANTIATE_TEST_SUITE_P(Table, MalformedPictures, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

// Cut anywhere, a picture is refused or (where only what follows the pixels is missing) still whole.
TEST(TruncatedPictures, AreNeverHalf) {
    for (const std::string name :
         {"rgb.png", "subsampling_2.jpg", "progressive.jpg", "lossless.webp", "lossy.webp", "animation.webp",
          "palette_transparent.gif", "rgb.bmp", "bits.bmp", "rgb.tiff", "rgba_lzw.tiff",
          "palette_deflate.tiff", "rgb.ppm", "rgb.qoi", "lossless.jp2", "rgb.avif"}) {
        const Bytes bytes = media_bytes(name);
        const Image whole = decode_image(bytes);
        for (size_t length = 1; length < bytes.size(); length += 1 + bytes.size() / 97) {
            try {
                EXPECT_TRUE(decode_image(first_part(bytes, length)) == whole) << name << " cut to " << length;
            } catch (const Error&) {
            }
        }
    }
}

TEST(PictureLimits, AreOptions) {
    EXPECT_THAT(decoding_error(media_bytes("rgb.png"), {.max_pixels = 293}),
                HasSubstr("the picture has 21 x 14 pixels, at most 293 pixels are accepted"));
    EXPECT_EQ(decoding_error(media_bytes("rgb.png"), {.max_pixels = 294}), "no error");
    EXPECT_THAT(decoding_error(media_bytes("grey.jpg"), {.max_pixels = 293}),
                HasSubstr("the picture has 21 x 14 pixels, at most 293 pixels are accepted"));
    EXPECT_EQ(decoding_error(media_bytes("grey.jpg"), {.max_pixels = 294}), "no error");
    EXPECT_THAT(decoding_error(media_bytes("animation.webp"), {.max_pixels = 293}), HasSubstr("21 x 14"));
    EXPECT_THAT(decoding_error(media_bytes("rgb.avif"), {.max_pixels = 293}), HasSubstr("21 x 14"));
    EXPECT_THAT(decoding_error(media_bytes("grey.jpg"), {.max_bytes = 10}),
                HasSubstr("at most 10 are accepted"));
}

TEST(PictureFiles, AreRegularFiles) {
    const test::TempDir dir;
    const auto loading_error = [&](const std::string& name) {
        return error_of([&] { load_image(dir / name); });
    };
    EXPECT_THAT(loading_error("missing.png"), AllOf(HasSubstr("missing.png"), HasSubstr("No such file")));
    std::filesystem::create_directory(dir / "folder.png");
    EXPECT_THAT(loading_error("folder.png"), HasSubstr("found a directory"));
    ASSERT_EQ(mkfifo((dir / "pipe.png").c_str(), 0600), 0);
    EXPECT_THAT(loading_error("pipe.png"), HasSubstr("found a named pipe"));
    dir.write("empty.png", "");
    EXPECT_THAT(loading_error("empty.png"), AllOf(HasSubstr("empty.png"), HasSubstr("0 bytes")));
    dir.write("text.png", "not a picture\n");
    EXPECT_THAT(loading_error("text.png"),
                AllOf(HasSubstr("text.png"), HasSubstr("it starts with 6e 6f 74")));
}

}  // namespace
}  // namespace llava_mini
