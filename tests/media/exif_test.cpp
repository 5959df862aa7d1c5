#include "media/exif.h"

#include <gtest/gtest.h>

#include <string>

#include "media_data.h"

namespace llava_mini {
namespace {

using test::media_path;
using test::recorded_image;
using test::operator==;
using namespace std::string_literals;

Orientation orientation(const std::string& exif) {
    return orientation_of_exif({reinterpret_cast<const uint8_t*>(exif.data()), exif.size()});
}

// One directory with one entry: tag, type, count, value.
const std::string kLittle = "II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"s;
const std::string kBig = "MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0\0\0\0\0"s;

TEST(OrientationOfExif, ReadsBothByteOrders) {
    EXPECT_EQ(orientation(kLittle), Orientation::kRotate90);
    EXPECT_EQ(orientation(kBig), Orientation::kRotate270);
    EXPECT_EQ(orientation("Exif\0\0"s + kBig), Orientation::kRotate270);
}

TEST(OrientationOfExif, DamagedDataMeansUpright) {
    const auto with = [](size_t at, char value) {
        std::string exif = kLittle;
        exif[at] = value;
        return exif;
    };
    EXPECT_EQ(orientation(""), Orientation::kUpright);
    EXPECT_EQ(orientation("Exif\0\0"s), Orientation::kUpright);
    EXPECT_EQ(orientation(with(0, 'X')), Orientation::kUpright);      // byte order
    EXPECT_EQ(orientation(with(2, '+')), Orientation::kUpright);      // not 42
    EXPECT_EQ(orientation(with(7, '\xff')), Orientation::kUpright);   // directory behind the end
    EXPECT_EQ(orientation(with(8, '\0')), Orientation::kUpright);     // no entries
    EXPECT_EQ(orientation(with(12, '\x04')), Orientation::kUpright);  // not a SHORT
    EXPECT_EQ(orientation(with(14, '\x02')), Orientation::kUpright);  // two values
    EXPECT_EQ(orientation(with(18, '\0')), Orientation::kUpright);    // not 1 to 8
    EXPECT_EQ(orientation(with(18, '\x09')), Orientation::kUpright);
    EXPECT_EQ(orientation(with(9, '\xff')), Orientation::kRotate90);  // more entries than there are
    for (size_t length = 0; length < 22; ++length) {
        EXPECT_EQ(orientation(kLittle.substr(0, length)), Orientation::kUpright) << length;
    }
}

// Against ImageOps.exif_transpose of Pillow.
TEST(ApplyOrientation, EqualsPillowForAllEight) {
    const Image stored = recorded_image(media_path("orientation_1.npy"));
    for (int value = 1; value <= 8; ++value) {
        Image image = stored;
        apply_orientation(image, static_cast<Orientation>(value));
        EXPECT_TRUE(image == recorded_image(media_path("orientation_" + std::to_string(value) + ".npy")))
            << value;
    }
}

TEST(ApplyOrientation, CrossesTilesRightly) {
    Image image{100, 70, std::vector<uint8_t>(3 * 100 * 70)};
    for (size_t i = 0; i < image.rgb.size(); ++i) image.rgb[i] = static_cast<uint8_t>(i * i >> 3);
    const Image stored = image;
    apply_orientation(image, Orientation::kRotate90);
    ASSERT_EQ(image.width, 70);
    for (int y = 0; y < 100; ++y) {
        for (int x = 0; x < 70; ++x) {
            ASSERT_EQ(image.rgb[3 * (y * 70 + x) + 1], stored.rgb[3 * ((69 - x) * 100 + y) + 1]);
        }
    }
    apply_orientation(image, Orientation::kRotate270);
    EXPECT_TRUE(image == stored);
}

}  // namespace
}  // namespace llava_mini
