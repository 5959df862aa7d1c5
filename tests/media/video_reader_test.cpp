// Videos: the right frames with the right pixels, whatever container, codec, rate or damage.
#include "media/video_reader.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "core/file.h"
#include "media/frame_sampler.h"
#include "preprocess/nearest_resample.h"
#include "support/error_text.h"
#include "support/test_data.h"
#include "support/test_video.h"

namespace llava_mini::test {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;

struct Seen {
    std::vector<int> numbers;
    std::vector<double> seconds;
    std::vector<Image> images;
    VideoReport report;
    VideoFacts facts;
};

Seen see(const std::string& path, const VideoReaderOptions& options = {}) {
    VideoReader reader(path, options);
    Seen seen;
    seen.facts = reader.facts();
    while (auto frame = reader.next()) {
        seen.numbers.push_back(number_in(frame->image));
        seen.seconds.push_back(frame->seconds);
        seen.images.push_back(std::move(frame->image));
    }
    seen.report = reader.report();
    return seen;
}

std::vector<int> expected(int64_t frames, double fps, int64_t most = 0) {
    std::vector<int> numbers;
    for (const int64_t i : frame_indices(frames, fps, most)) numbers.push_back(static_cast<int>(i));
    return numbers;
}

TEST(VideoReader, FramesAndPixelsAreThoseOfTheRecordings) {
    const TempDir dir;
    const NpyArray raw = read_npy(golden_path("video/raw_frames.npy"));
    const std::vector<int> recorded = {3, 9, 16, 23, 29, 35};
    const size_t bytes = raw.bytes.size() / recorded.size();
    TestVideo film{.width = 320, .height = 180, .frames = 40, .rate_num = 13, .rate_den = 2};
    film.picture = [&](int i) {
        const auto found = std::find(recorded.begin(), recorded.end(), i);
        if (found == recorded.end()) return numbered_picture(i, 320, 180);
        const auto from = raw.bytes.begin() + (found - recorded.begin()) * static_cast<ptrdiff_t>(bytes);
        return Image{320, 180, {from, from + static_cast<ptrdiff_t>(bytes)}};
    };
    write_test_video(dir / "film.mkv", film);
    const Seen seen = see(dir / "film.mkv");
    ASSERT_EQ(seen.images.size(), recorded.size());
    std::vector<uint8_t> pixels;
    for (const Image& image : seen.images) pixels.insert(pixels.end(), image.rgb.begin(), image.rgb.end());
    EXPECT_EQ(pixels, raw.bytes);

    const NpyArray resized = read_npy(golden_path("video/resized_frames.npy"));
    std::vector<uint8_t> ours = resize_nearest(seen.images.front(), 336, 336).rgb;
    const std::vector<uint8_t> last = resize_nearest(seen.images.back(), 336, 336).rgb;
    ours.insert(ours.end(), last.begin(), last.end());
    EXPECT_EQ(ours, resized.bytes);
}

struct Format {
    const char *file, *codec, *pixel_format;
    int b_frames;
};

class Formats : public testing::TestWithParam<Format> {};

TEST_P(Formats, GiveTheFramesOfTheRule) {
    const Format& f = GetParam();
    const TempDir dir;
    for (const auto& [frames, num, den] :
         {std::tuple{47, 10, 1}, {100, 30000, 1001}, {5, 30, 1}, {8, 1, 1}}) {
        if (std::string(f.codec) == "mpeg4" && den != 1) continue;
        SCOPED_TRACE(testing::Message() << frames << " frames at " << num << "/" << den);
        write_test_video(dir / f.file, {.codec = f.codec,
                                        .pixel_format = f.pixel_format,
                                        .frames = frames,
                                        .rate_num = num,
                                        .rate_den = den,
                                        .b_frames = f.b_frames});
        const Seen seen = see(dir / f.file);
        const double fps = static_cast<double>(num) / den;
        EXPECT_EQ(seen.facts.frames, frames);
        EXPECT_NEAR(seen.facts.fps, fps, 0.02);
        EXPECT_THAT(seen.numbers, ElementsAreArray(expected(frames, fps)));
        EXPECT_EQ(seen.report.damaged_packets, 0);
        EXPECT_EQ(seen.report.replaced + seen.report.missing, 0);
        for (size_t i = 0; i < seen.numbers.size(); ++i) {
            EXPECT_NEAR(seen.seconds[i], seen.numbers[i] / fps, 2e-3);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(
    All, Formats,
    testing::Values(Format{"v.mp4", "libx264", "yuv420p", 2}, Format{"v.mkv", "libx264", "yuv444p", 2},
                    Format{"v.ts", "libx264", "yuv420p", 0}, Format{"v.avi", "mpeg4", "yuv420p", 0},
                    Format{"v.mov", "mjpeg", "yuvj422p", 0}, Format{"v.webm", "libvpx", "yuv420p", 0},
                    Format{"v.nut", "ffv1", "gray16le", 0}, Format{"v.mkv", "png", "rgb24", 0}),
    [](const auto& info) {
        std::string name = std::string(info.param.file) + "_" + info.param.codec;
        std::replace_if(
            name.begin(), name.end(), [](char c) { return !isalnum(c); }, '_');
        return name;
    });

TEST(VideoReader, ChoosesByOptions) {
    const TempDir dir;
    write_test_video(dir / "v.mkv", {.frames = 200, .rate_num = 10, .rate_den = 1});
    const std::string file = dir / "v.mkv";
    EXPECT_EQ(see(file, {.fps = 2}).numbers, expected(200, 5));
    EXPECT_EQ(see(file, {.fps = 0.1}).numbers, expected(200, 100));
    EXPECT_EQ(see(file, {.max_frames = 8}).numbers, expected(200, 10, 8));
    EXPECT_EQ(see(file, {.fps = 30}).numbers.size(), 200u);
    std::vector<int> part = expected(50, 10);
    for (int& number : part) number += 100;
    EXPECT_EQ(see(file, {.start = 10, .end = 15}).numbers, part);
    const std::vector<int> all = expected(200, 10);
    EXPECT_EQ(see(file, {.skip = 15}).numbers, std::vector<int>(all.begin() + 15, all.end()));
    EXPECT_TRUE(see(file, {.skip = 20}).numbers.empty());
    EXPECT_THAT(error_text([&] { see(file, {.start = 30}); }), HasSubstr("20.000 seconds long"));
    EXPECT_EQ(see(file).facts.chosen, 20);
}

TEST(VideoReader, JumpsGiveTheSameFrames) {
    const TempDir dir;
    for (const char* name : {"v.mp4", "v.mkv", "v.ts"}) {
        SCOPED_TRACE(name);
        write_test_video(dir / name, {.codec = "libx264",
                                      .pixel_format = "yuv420p",
                                      .frames = 600,
                                      .rate_num = 10,
                                      .rate_den = 1,
                                      .gop = 30,
                                      .b_frames = 2});
        const Seen seen = see(dir / name, {.max_frames = 5});
        EXPECT_EQ(seen.numbers, expected(600, 10, 5));
        EXPECT_LT(seen.report.decoded, 400);  // the rest was jumped over

        // Some of a plan's frames again, by their times; one of them twice.
        const Seen all = see(dir / name, {.start = 5});
        const Seen again =
            see(dir / name, {.at = {all.seconds[3], all.seconds[30], all.seconds[30], all.seconds[54]}});
        EXPECT_THAT(again.numbers,
                    ElementsAre(all.numbers[3], all.numbers[30], all.numbers[30], all.numbers[54]));
        EXPECT_THAT(again.seconds,
                    ElementsAre(all.seconds[3], all.seconds[30], all.seconds[30], all.seconds[54]));
        EXPECT_EQ(again.images[1].rgb, all.images[30].rgb);
        EXPECT_LT(again.report.decoded, 400);
        EXPECT_THAT(error_text([&] { see(dir / name, {.at = {all.seconds[3] + 0.01}}); }),
                    HasSubstr("another video now"));
    }
}

TEST(VideoReader, VariableRatesAreSampledByTime) {
    const TempDir dir;
    // Five seconds of one frame a second, then five of twenty.
    write_test_video(dir / "v.mkv", {.frames = 105, .milliseconds = [](int i) {
                                         return i < 5 ? int64_t{1000} * i : 5000 + int64_t{50} * (i - 5);
                                     }});
    const Seen seen = see(dir / "v.mkv");
    EXPECT_TRUE(seen.facts.variable_rate);
    ASSERT_EQ(seen.seconds.size(), 10u);
    for (size_t i = 0; i < 10; ++i) EXPECT_NEAR(seen.seconds[i], static_cast<double>(i), i < 5 ? 1e-3 : 0.6);
    EXPECT_THAT(std::vector<int>(seen.numbers.begin(), seen.numbers.begin() + 5), ElementsAre(0, 1, 2, 3, 4));
    EXPECT_NEAR(seen.numbers[9], 5 + 90, 5);
}

TEST(VideoReader, FramesAreTurnedUpright) {
    const TempDir dir;
    for (const int degrees : {90, 180, 270}) {
        SCOPED_TRACE(degrees);
        TestVideo video{.frames = 2, .clockwise = degrees};
        // One red corner, top left as stored.
        video.picture = [](int) {
            Image image{64, 48, std::vector<uint8_t>(3 * 64 * 48, 10)};
            image.rgb[0] = 250;
            return image;
        };
        write_test_video(dir / "v.mov", video);
        const Image image = see(dir / "v.mov").images.at(0);
        EXPECT_EQ(image.width, degrees == 180 ? 64 : 48);
        const size_t right = 3 * (static_cast<size_t>(image.width) - 1);
        const size_t bottom = 3 * static_cast<size_t>(image.width) * (static_cast<size_t>(image.height) - 1);
        const size_t corner = degrees == 90 ? right : degrees == 180 ? bottom + right : bottom;
        EXPECT_EQ(image.rgb[corner], 250);
    }
}

TEST(VideoReader, OddSizes) {
    const TempDir dir;
    for (const auto& [codec, format] :
         {std::pair{"ffv1", "yuv420p"}, {"ffv1", "yuv422p10le"}, {"png", "rgb24"}}) {
        for (const auto& [width, height] : {std::pair{17, 5}, {1, 1}, {33, 161}}) {
            SCOPED_TRACE(testing::Message() << codec << " " << width << " x " << height);
            TestVideo video{
                .codec = codec, .pixel_format = format, .width = width, .height = height, .frames = 2};
            video.picture = [&, w = width, h = height](int) {
                return Image{w, h, std::vector<uint8_t>(size_t{3} * w * h, 100)};
            };
            write_test_video(dir / "v.mkv", video);
            const Seen seen = see(dir / "v.mkv");
            ASSERT_EQ(seen.images.size(), 1u);
            EXPECT_EQ(seen.images[0].width, width);
            EXPECT_EQ(seen.images[0].height, height);
            for (const uint8_t value : seen.images[0].rgb) EXPECT_NEAR(value, 100, 2);
        }
    }
}

TEST(VideoReader, MissingDurationIsCounted) {
    const TempDir dir;
    write_test_video(dir / "v.h264",
                     {.codec = "libx264", .pixel_format = "yuv420p", .frames = 75, .rate_num = 25});
    const Seen seen = see(dir / "v.h264");
    EXPECT_EQ(seen.facts.frames, 75);
    EXPECT_EQ(seen.numbers, expected(75, 25));
}

TEST(VideoReader, APipeIsReadOnceByItsTimes) {
    const TempDir dir;
    write_test_video(dir / "v.ts", {.codec = "libx264", .pixel_format = "yuv420p", .frames = 60});
    ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
    std::thread sender([&] {
        const std::vector<uint8_t> bytes = read_file(dir / "v.ts", 1 << 24);
        std::ofstream fifo(dir / "fifo", std::ios::binary);
        fifo.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    });
    // The reading end must not see an end before the writer came.
    const Seen seen = see(dir / "fifo");
    sender.join();
    EXPECT_THAT(seen.numbers, ElementsAre(0, 10, 20, 30, 40, 50));
    EXPECT_EQ(seen.facts.frames, 0);
}

// --- damage

std::vector<uint8_t> bytes_of(const std::filesystem::path& path) {
    return read_file(path, 1 << 26);
}

void write_bytes(const std::filesystem::path& path, const std::vector<uint8_t>& bytes,
                 size_t count = SIZE_MAX) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(std::min(count, bytes.size())));
}

TEST(DamagedVideo, ABrokenPacketIsSkippedAndCounted) {
    const TempDir dir;
    // Every frame is a PNG, which has checksums.
    write_test_video(dir / "v.mkv", {.codec = "png", .pixel_format = "rgb24", .frames = 40});
    std::vector<uint8_t> bytes = bytes_of(dir / "v.mkv");
    const std::vector<int> wanted = expected(40, 10);
    size_t at = 0;  // the signature of the second chosen picture
    for (int i = 0; i <= wanted[1]; ++i) {
        const std::string_view signature("\x89PNG\r\n\x1a\n", 8);
        at = std::string_view(reinterpret_cast<char*>(bytes.data()), bytes.size()).find(signature, at + 1);
    }
    for (size_t i = at + 20; i < at + 30; ++i) bytes[i] ^= 0x55;  // in its header
    write_bytes(dir / "v.mkv", bytes);
    const Seen seen = see(dir / "v.mkv");
    EXPECT_EQ(seen.numbers, (std::vector<int>{wanted[0], wanted[1] + 1, wanted[2], wanted[3]}));
    EXPECT_GE(seen.report.damaged_packets, 1);
    EXPECT_EQ(seen.report.replaced, 1);
}

TEST(DamagedVideo, AFileCutOffGivesWhatItHas) {
    const TempDir dir;
    for (const char* name : {"v.mkv", "v.ts", "v.avi"}) {
        SCOPED_TRACE(name);
        const bool avi = std::string(name) == "v.avi";
        write_test_video(dir / name,
                         {.codec = avi ? "mpeg4" : "libx264", .pixel_format = "yuv420p", .frames = 200});
        const std::vector<uint8_t> bytes = bytes_of(dir / name);
        write_bytes(dir / name, bytes, bytes.size() / 2);
        const Seen seen = see(dir / name);
        EXPECT_GT(seen.numbers.size(), 2u);
        EXPECT_LT(seen.numbers.size(), 15u);
        EXPECT_TRUE(std::is_sorted(seen.numbers.begin(), seen.numbers.end()));
        // A transport stream has no end to miss.
        EXPECT_EQ(seen.report.cut_off, !std::string(name).ends_with("ts"));
    }
}

TEST(DamagedVideo, NoKeyFrameAtTheBeginning) {
    const TempDir dir;
    write_test_video(
        dir / "v.ts",
        {.codec = "libx264", .pixel_format = "yuv420p", .frames = 300, .gop = 50, .b_frames = 0});
    std::vector<uint8_t> bytes = bytes_of(dir / "v.ts");
    bytes.erase(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(bytes.size() / 10 / 188 * 188));
    write_bytes(dir / "v.ts", bytes);
    const Seen seen = see(dir / "v.ts");
    EXPECT_GT(seen.numbers.size(), 20u);
    EXPECT_TRUE(std::is_sorted(seen.numbers.begin(), seen.numbers.end()));
    EXPECT_EQ(seen.numbers.front(), 50);  // the first that can be decoded
    EXPECT_GE(seen.report.replaced, 1);
}

TEST(MalformedVideo, IsRefusedInOneLine) {
    const TempDir dir;
    write_test_video(dir / "audio.wav", {.audio = true, .video = false});
    write_test_video(dir / "good.mp4", {.codec = "libx264", .pixel_format = "yuv420p", .frames = 40});
    write_test_video(dir / "good.mkv", {.frames = 40});
    const std::vector<uint8_t> mp4 = bytes_of(dir / "good.mp4"), mkv = bytes_of(dir / "good.mkv");
    write_bytes(dir / "no_index.mp4", mp4, mp4.size() / 2);
    write_bytes(dir / "header_only.mkv", mkv, 200);
    dir.write("empty.mp4", "");
    dir.write("text.mp4", "This is no video, however long it may be.\n");
    dir.write("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n" + (dir / "good.mkv").string() +
                               "\n#EXT-X-ENDLIST\n");
    dir.write("list.ffconcat", "ffconcat version 1.0\nfile good.mkv\n");
    const struct {
        const char *file, *message;
    } table[] = {{"missing.mp4", "No such file"},
                 {"empty.mp4", "empty (0 bytes)"},
                 {"text.mp4", ""},
                 {"", "directory"},
                 {"audio.wav", "no video in it, only audio pcm_s16le"},
                 {"no_index.mp4", ""},
                 {"header_only.mkv", ""},
                 {"list.m3u8", "refers to other files"},
                 {"list.ffconcat", "refers to other files"}};
    for (const auto& [file, message] : table) {
        SCOPED_TRACE(file);
        const std::string path = dir / file;
        const std::string error = error_text([&] { see(path); });
        EXPECT_THAT(error, HasSubstr(path));
        EXPECT_THAT(error, HasSubstr(message));
    }
    EXPECT_THAT(error_text([&] { see("gopher://example.org/video"); }), HasSubstr("unknown kind of address"));
    EXPECT_THAT(error_text([&] { see("concat:/etc/passwd|/etc/group"); }), HasSubstr("No such file"));
    EXPECT_THAT(error_text([&] { see(dir / "good.mkv", {.source = {.max_pixels = 1000}}); }),
                HasSubstr("at most 1000 pixels"));
    EXPECT_THAT(error_text([&] { see(dir / "good.mkv", {.hardware = "abacus"}); }), HasSubstr("abacus"));
    EXPECT_THAT(error_text([&] { see(dir / "good.mkv", {.fps = 0}); }), HasSubstr("positive rate"));
    EXPECT_THAT(error_text([&] { see(dir / "good.mkv", {.start = 5, .end = 4}); }),
                HasSubstr("behind the start"));
    std::atomic<bool> stop = true;
    EXPECT_THAT(error_text([&] { see(dir / "good.mkv", {.source = {.stop = &stop}}); }),
                HasSubstr("interrupted"));
}

// Whatever is changed in a file, the reader ends with frames or one error.
TEST(MalformedVideo, RandomDamageNeverCrashes) {
    const TempDir dir;
    int opened = 0;
    for (const char* name : {"v.mp4", "v.mkv", "v.ts", "v.avi", "v.mov"}) {
        const bool is_avi = std::string(name) == "v.avi";
        write_test_video(dir / name,
                         {.codec = is_avi ? "mpeg4" : "libx264", .pixel_format = "yuv420p", .frames = 30});
        const std::vector<uint8_t> good = bytes_of(dir / name);
        uint32_t random = 12345;
        const auto next = [&] { return random = random * 1664525 + 1013904223; };
        for (int round = 0; round < 25; ++round) {
            std::vector<uint8_t> bytes = good;
            for (int i = 0; i < 1 + round * 2; ++i) {
                const size_t range = round % 2 == 0 ? bytes.size() : std::min<size_t>(bytes.size(), 600);
                bytes[(next() >> 4) % range] = static_cast<uint8_t>(next() >> 16);
            }
            write_bytes(dir / "damaged", bytes);
            try {
                see(dir / "damaged", {.source = {.max_pixels = 1 << 20}});
                ++opened;
            } catch (const Error&) {
            }
        }
    }
    EXPECT_GT(opened, 30);
}

}  // namespace
}  // namespace llava_mini::test
