#include "media/frame_sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "llava_mini/error.hpp"
#include "support/test_data.h"

namespace llava_mini {
namespace {

// 46 pairs of frame count and rate with the indices that the official code chose.
TEST(FrameIndices, EqualTheRecordings) {
    const auto recorded =
        nlohmann::json::parse(read_text_file(test::golden_path("unit/frame_indices.json"), 1 << 22));
    ASSERT_EQ(recorded.at("table").size(), 46u);
    for (const auto& entry : recorded.at("table")) {
        const int64_t frames = entry.at("frames");
        const double fps = entry.at("fps");
        SCOPED_TRACE(entry.dump().substr(0, 60));
        const auto training = entry.at("training_8_frames").get<std::vector<int64_t>>();
        EXPECT_EQ(spread_frame_indices(frames, std::min<int64_t>(frames, 8)), training);
        if (entry.at("command_line").is_null()) {
            // Shorter than a second: an error there, the middle frame here.
            EXPECT_EQ(frame_indices(frames, fps), (std::vector<int64_t>{(frames - 1) / 2}));
            continue;
        }
        const auto command_line = entry.at("command_line").get<std::vector<int64_t>>();
        EXPECT_EQ(frame_indices(frames, fps), command_line);
        EXPECT_EQ(static_cast<int64_t>(command_line.size()), std::min(entry.at("k").get<int64_t>(), frames));
        const auto& capped = entry.at("web_demo_cap180");
        EXPECT_EQ(frame_indices(frames, fps, 180),
                  capped.is_string() ? command_line : capped.get<std::vector<int64_t>>());
    }
}

TEST(FrameIndices, StayInsideTheVideo) {
    EXPECT_EQ(frame_indices(1, 1e-300), std::vector<int64_t>{0});
    EXPECT_EQ(frame_indices(3, 1e300), std::vector<int64_t>{1});
    const std::vector<int64_t> indices = frame_indices(int64_t{1} << 40, 1e6, 7);
    EXPECT_EQ(indices.size(), 7u);
    EXPECT_LT(indices.back(), int64_t{1} << 40);
}

TEST(FrameIndices, RefuseWhatIsNoVideo) {
    EXPECT_THROW(frame_indices(0, 30), Error);
    EXPECT_THROW(frame_indices(-1, 30), Error);
    EXPECT_THROW(frame_indices(10, 0), Error);
    EXPECT_THROW(frame_indices(10, -30), Error);
    EXPECT_THROW(frame_indices(10, std::nan("")), Error);
    EXPECT_THROW(frame_indices(10, std::numeric_limits<double>::infinity()), Error);
    EXPECT_THROW(spread_frame_indices(10, 0), Error);
}

}  // namespace
}  // namespace llava_mini
