// What stands before the vision tower, in isolation: decoding, resizing, normalising. One thread.
#include <benchmark/benchmark.h>

// jpeglib.h needs size_t and FILE to be declared before it.
#include <cstddef>
#include <cstdio>
// clang-format off
#include <jpeglib.h>
// clang-format on

#include <cmath>
#include <cstdlib>
#include <map>
#include <vector>

#include "media/image_decoder.h"
#include "preprocess/clip_image_processor.h"

namespace {

using namespace llava_mini;

VisionHparams clip_hparams() {
    VisionHparams hparams;
    hparams.image_mean = {0.48145466f, 0.4578275f, 0.40821073f};
    hparams.image_std = {0.26862954f, 0.26130258f, 0.27577711f};
    return hparams;
}

// Slopes, edges and grain, so that it compresses about as a photograph does.
const Image& photograph(int width, int height) {
    static std::map<std::pair<int, int>, Image> made;
    Image& image = made[{width, height}];
    if (!image.rgb.empty()) return image;
    image = {width, height, std::vector<uint8_t>(size_t{3} * width * height)};
    uint32_t state = 1;
    size_t i = 0;
    for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
            const float slope = 90.0f * std::sin(x * 0.006f + y * 0.003f);
            const float edge = (x / 97 + y / 61) % 3 == 0 ? 40.0f : 0.0f;
            for (int c = 0; c < 3; ++c) {
                state = state * 1664525u + 1013904223u;
                const float grain = static_cast<float>(state >> 28) - 8.0f;
                image.rgb[i++] = static_cast<uint8_t>(110.0f + slope * (1.0f - 0.2f * c) + edge + grain);
            }
        }
    }
    return image;
}

std::vector<uint8_t> jpeg_of(const Image& image) {
    jpeg_compress_struct jpeg{};
    jpeg_error_mgr errors{};
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    unsigned char* data = nullptr;
    unsigned long size = 0;
    jpeg_mem_dest(&jpeg, &data, &size);
    jpeg.image_width = static_cast<JDIMENSION>(image.width);
    jpeg.image_height = static_cast<JDIMENSION>(image.height);
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 90, TRUE);
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height) {
        auto* row = const_cast<uint8_t*>(image.rgb.data()) + size_t{3} * image.width * jpeg.next_scanline;
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    std::vector<uint8_t> bytes(data, data + size);
    jpeg_destroy_compress(&jpeg);
    std::free(data);
    return bytes;
}

void count_pixels(benchmark::State& state, const Image& image) {
    const double pixels = static_cast<double>(image.width) * image.height;
    state.counters["megapixels/s"] =
        benchmark::Counter(pixels * 1e-6, benchmark::Counter::kIsIterationInvariantRate);
}

void decode_jpeg_picture(benchmark::State& state) {
    const Image& image = photograph(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
    const std::vector<uint8_t> bytes = jpeg_of(image);
    for (auto _ : state) benchmark::DoNotOptimize(decode_image(bytes).rgb.data());
    count_pixels(state, image);
}

void preprocess_picture(benchmark::State& state, const PreprocessOptions& options) {
    const Image& image = photograph(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
    const VisionHparams hparams = clip_hparams();
    for (auto _ : state) benchmark::DoNotOptimize(preprocess_image(image, hparams, options).data.data());
    count_pixels(state, image);
}

void preprocess_video_frame(benchmark::State& state) {
    const Image& image = photograph(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
    const VisionHparams hparams = clip_hparams();
    for (auto _ : state) benchmark::DoNotOptimize(preprocess_frame(image, hparams).data.data());
    count_pixels(state, image);
}

void sizes(benchmark::internal::Benchmark* b) {
    b->Args({4000, 3000})->Args({3000, 4000})->Args({640, 480})->Unit(benchmark::kMillisecond);
}

BENCHMARK(decode_jpeg_picture)->Apply(sizes);
BENCHMARK_CAPTURE(preprocess_picture, pad, PreprocessOptions{.image_aspect_ratio = "pad"})->Apply(sizes);
BENCHMARK_CAPTURE(preprocess_picture, square, PreprocessOptions{.image_aspect_ratio = "square"})
    ->Apply(sizes);
BENCHMARK_CAPTURE(preprocess_picture, pad_high_resolution,
                  PreprocessOptions{.image_aspect_ratio = "pad", .resolution_ratio = 2})
    ->Apply(sizes);
BENCHMARK(preprocess_video_frame)->Args({1920, 1080})->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
