// Videos for tests, made by FFmpeg's libraries: frames that say their own number.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "model/stages.h"

namespace llava_mini::test {

struct TestVideo {
    std::string codec = "ffv1";         ///< an encoder's name
    std::string pixel_format = "bgr0";  ///< one that the encoder takes
    int width = 64, height = 48;
    int frames = 10;
    int rate_num = 10, rate_den = 1;  ///< frames a second
    int gop = 12;                     ///< distance of key frames
    int b_frames = 0;
    int clockwise = 0;   ///< degrees by which the frames are to be turned
    bool audio = false;  ///< a stream of silence beside it
    bool video = true;
    /// A frame's picture; default: numbered_picture().
    std::function<Image(int)> picture = {};
    /// When a frame is shown, in milliseconds; default: as the rate says.
    std::function<int64_t(int)> milliseconds = {};
};

/// Writes the container that the path's ending names. Ends the test program when FFmpeg fails.
void write_test_video(const std::filesystem::path& path, const TestVideo& video);

/// A film of small frames that all differ, four a second, H.264, with key frames to jump to every two seconds.
/// Returns `path`.
std::filesystem::path write_film(const std::filesystem::path& path, int seconds);

/// A picture of 4 x 3 black and white fields that spell the number (12 bits, row by row), robust against
/// lossy coding. number_in() reads it back.
Image numbered_picture(int number, int width, int height);
int number_in(const Image& image);

}  // namespace llava_mini::test
