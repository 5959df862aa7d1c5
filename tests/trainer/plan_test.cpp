// Plans: numbers of parameters against the shapes that synth writes, and what must be so.
#include "trainer/plan.h"

#include <gmock/gmock.h>

#include <numeric>

#include "bench/flops.h"
#include "convert/synth.h"
#include "trainer/small_run.h"

namespace llava_mini::trainer {
namespace {

using namespace test_support;

int64_t elements(const std::vector<TensorSpec>& specs) {
    int64_t sum = 0;
    for (const TensorSpec& spec : specs)
        sum += std::accumulate(spec.shape.begin(), spec.shape.end(), int64_t{1}, std::multiplies<>());
    return sum;
}

TEST(Plan, CountsTheParametersOfEveryShape) {
    for (const SynthShape& shape : synth_shapes()) {
        const auto counts = count_parameters(shape.vision, shape.language, {});
        EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}),
                  elements(language_tensors(shape.language)) + elements(tower_tensors(shape.vision)) +
                      elements(bridge_tensors(shape.vision)))
            << shape.name;
    }
    const SynthShape& shape = find_synth_shape("llava-mini-llama-3.1-8b");
    const auto counts = count_parameters(shape.vision, shape.language, {.rank = 128, .alpha = 256});
    const auto of = [&](Part part) { return counts[static_cast<size_t>(part)]; };
    EXPECT_EQ(of(Part::kLanguage) + of(Part::kEmbeddings) + of(Part::kHead), 8'030'261'248);  // Llama 3.1 8B
    EXPECT_EQ(of(Part::kPrefusion), 4 * 218'112'000);
    EXPECT_EQ(of(Part::kProjector), 1024 * 4096 + 4096 + 4096 * 4096 + 4096);
    // 32 layers of rank * (in + out): q and o 4096 + 4096, k and v 4096 + 1024, gate, up and down 4096 + 14336.
    EXPECT_EQ(of(Part::kLora), 128 * 32 * (2 * 8192 + 2 * 5120 + 3 * 18432));
}

TEST(Plan, EightBillionParameters) {
    const SynthShape& shape = find_synth_shape("llava-mini-llama-3.1-8b");
    const std::vector<PlanCase> cases = standard_cases();
    ASSERT_EQ(cases.size(), 3u);
    std::vector<PlanRow> plain, recomputed;
    for (const PlanCase& way : cases) {
        plain.push_back(plan(shape.vision, shape.language, way, false, {}));
        recomputed.push_back(plan(shape.vision, shape.language, way, true, {}));
    }
    // The whole model: 16 bytes a parameter of language model and bridge but for the frozen embeddings.
    const double learning = static_cast<double>(plain[2].learning);
    EXPECT_NEAR(plain[2].gradients + plain[2].optimizer, 12 * learning, 1);
    EXPECT_GT(learning, 8.3e9);
    EXPECT_LT(plain[0].weights, 22e9);  // 8 billion in bf16, 0.9 in f32
    EXPECT_EQ(plain[0].learning + 128 * 32 * (2 * 8192 + 2 * 5120 + 3 * 18432), plain[1].learning);
    for (size_t i = 0; i < 3; ++i) {
        EXPECT_LT(recomputed[i].activations, 0.5 * plain[i].activations);
        EXPECT_GT(recomputed[i].flops, plain[i].flops);
        EXPECT_GT(plain[i].hours, 0);
    }
    // Stage 2: forward and twice as much backward, but for the frozen tower.
    const auto& v = shape.vision;
    const double forward = bench::projector_flops(v, 577) + bench::compressor_flops(v, 1, 576) +
                           bench::decoder_flops(v.prefusion, 4, 577, 0) +
                           bench::decoder_flops(v.prefusion, 4, 150, 577) +
                           bench::decoder_flops(shape.language, 32, 351, 0) + 2.0 * 200 * 4096 * 128256;
    EXPECT_NEAR(plain[2].flops, bench::tower_flops(v, 1) + 3 * forward, 1e-6 * forward);
}

TEST(Plan, MemoryEqualsThatOfAModel) {
    const test::TempDir dir;
    write_initial_checkpoint(dir / "base", small_options(write_small_tokenizer(dir / "tokenizer"), {1}));
    SmallModel small(dir / "base");
    const Recipe recipe = parse_recipe(
        R"({"name": "a", "lora": {"rank": 4}, "frozen_dtype": "bf16", "phases": [{"name": "p", "samples": 10,
          "lr": {"projector": 1, "lora": 1}, "data": [{"source": "squares"}]}]})",
        "recipe");
    prepare_model(recipe, *small.model);
    double bytes = 0;
    for (size_t part = 0; part < kParts; ++part)
        bytes += static_cast<double>(small.model->parameters().bytes(static_cast<Part>(part)));
    const auto cases = cases_of(recipe);
    ASSERT_EQ(cases.size(), 1u);
    const PlanRow row = plan(small.config.vision, small.config.language, cases[0], false, {});
    EXPECT_EQ(row.weights, bytes);
    const nlohmann::json rows = plan_json({row}, {});
    EXPECT_EQ(rows["rows"][0]["bytes"]["weights"], bytes);
    EXPECT_THAT(plan_table({row}, {}), testing::HasSubstr("TFLOP/sample"));
}

}  // namespace
}  // namespace llava_mini::trainer
