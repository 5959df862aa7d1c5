#include "bench/picture.h"

#include <gtest/gtest.h>

#include "media/image_decoder.h"
#include "support/error_text.h"

namespace llava_mini::bench {
namespace {

TEST(PhotoJpeg, IsAPictureOfAPhotographsDetail) {
    const std::vector<uint8_t> jpeg = make_photo_jpeg(1200, 900);
    const Image image = decode_image(jpeg);
    EXPECT_EQ(image.width, 1200);
    EXPECT_EQ(image.height, 900);
    // Cameras write 2 to 4 bits a pixel.
    const double bits = 8.0 * static_cast<double>(jpeg.size()) / (1200 * 900);
    EXPECT_GT(bits, 2.0);
    EXPECT_LT(bits, 4.0);
}

TEST(PhotoJpeg, SameBytesEveryTime) {
    EXPECT_EQ(make_photo_jpeg(97, 61), make_photo_jpeg(97, 61));
}

TEST(PhotoJpeg, SizesThatJpegDoesNotHave) {
    EXPECT_NE(test::error_text([] { make_photo_jpeg(0, 10); }).find("0 x 10"), std::string::npos);
    EXPECT_NE(test::error_text([] { make_photo_jpeg(70000, 10); }).find("70000 x 10"), std::string::npos);
}

}  // namespace
}  // namespace llava_mini::bench
