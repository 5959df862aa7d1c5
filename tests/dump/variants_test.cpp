// Models of other make: nothing is fitted to the one of the recordings.
#include <gtest/gtest.h>

#include "convert/convert.h"
#include "convert/tiny_checkpoint.h"
#include "dump/golden_case.h"
#include "llava_mini/error.hpp"
#include "support/test_data.h"

namespace llava_mini::test {
namespace {

struct Variant {
    const char* name;
    std::vector<int> grids;  // sides C; none: plain LLaVA
    int prefusion_layers;
    int vision_tokens;  // asked for; 0: the default
    int64_t expected_tokens;
};

class DumpVariants : public testing::TestWithParam<Variant> {};

TEST_P(DumpVariants, HasTheStagesOfTheModelAndNoOther) {
    const Variant& v = GetParam();
    const TempDir dir;
    convert_checkpoint({.checkpoint = tiny_checkpoint(v.grids, v.prefusion_layers).write(dir.path()),
                        .vision_tower = std::nullopt,
                        .out = dir / "model",
                        .type = GGML_TYPE_F32,
                        .progress = {}});
    const auto model = Model::load({.model = dir / "model", .prefusion_kv = KvType::kF32});
    const ModelInfo info = model->info();
    DumpOptions options{
        .image = golden_path("pictures/square_336.png"), .prompt = "Before <image> behind", .greedy = 3};
    options.image_options.vision_tokens = v.vision_tokens;

    for (const int n : {1, 2}) {
        SCOPED_TRACE(n);
        options.image_options.resolution_ratio = n;
        if (n == 2 && v.grids.empty()) {
            EXPECT_THROW(dump_stages(*model, options), Error);  // plain LLaVA sees a picture whole only
            continue;
        }
        const auto arrays = dump_by_name(*model, options);
        const int64_t views = n == 1 ? 1 : n * n + 1, d = info.embedding_width;
        const auto text = static_cast<int64_t>(integers(arrays, "input_ids").size());
        EXPECT_EQ(arrays.at("vision_features").shape, (std::vector<int64_t>{views, info.patches, 128}));
        EXPECT_EQ(arrays.at("vision_tokens").shape, (std::vector<int64_t>{v.expected_tokens, d}));
        EXPECT_EQ(arrays.at("fused_text").shape, (std::vector<int64_t>{text, d}));
        EXPECT_EQ(arrays.at("inputs_embeds").shape, (std::vector<int64_t>{text - 1 + v.expected_tokens, d}));
        EXPECT_EQ(arrays.contains("compressor_attn"), !v.grids.empty());
        EXPECT_EQ(arrays.contains("prefusion_out"), v.prefusion_layers > 0);
        if (!v.grids.empty()) {
            const int64_t keys = (n == 1 ? 1 : n * n) * info.patches;
            EXPECT_EQ(arrays.at("compressor_attn").shape, (std::vector<int64_t>{1, v.expected_tokens, keys}));
        }
        if (v.prefusion_layers > 0) {
            const int64_t positions = views * info.patches + v.expected_tokens + text;
            EXPECT_EQ(arrays.at("prefusion_out").shape, (std::vector<int64_t>{positions, d}));
            EXPECT_EQ(integers(arrays, "prefusion_positions").back(), positions - 2);
        } else {
            // The first token enters as it does without a picture.
            const auto fused = floats(arrays, "fused_text");
            const auto plain = floats(dump_by_name(*model, {.prompt = "Before"}), "inputs_embeds");
            const auto first_row = static_cast<size_t>(d);
            EXPECT_EQ(max_difference({fused.data(), first_row}, {plain.data(), first_row}), 0.0);
        }
        EXPECT_EQ(integers(arrays, "greedy_ids").size(), 3U);
    }
}

INSTANTIATE_TEST_SUITE_P(Models, DumpVariants,
                         testing::Values(Variant{"PlainLlava", {}, 0, 0, 4},
                                         Variant{"CompressorAlone", {1}, 0, 0, 1},
                                         Variant{"FourTokens", {2}, 1, 0, 4},
                                         Variant{"ThreeLayers", {1}, 3, 0, 1},
                                         Variant{"SecondOfTwoGrids", {1, 2}, 2, 4, 4}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace llava_mini::test
