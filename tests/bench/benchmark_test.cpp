// The whole benchmark with small models: what it reports must hang together.
#include "bench/benchmark.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/models.h"
#include "support/error_text.h"
#include "support/test_data.h"

namespace llava_mini::bench {
namespace {

BenchmarkOptions small_options(const test::TempDir& dir) {
    BenchmarkOptions options;
    options.model = prepare_model(dir.path(), "llava-mini-small", GGML_TYPE_F16, {});
    options.baseline = prepare_model(dir.path(), "llava-v1.5-small", GGML_TYPE_F16, {});
    options.workload = {.text_tokens = 21, .new_tokens = 5, .generated_tokens = 11};
    options.repeat = 2;
    options.picture_width = 400;
    options.picture_height = 300;
    options.gemm_seconds = 0.001;
    return options;
}

TEST(Benchmark, TwoModelsInTurns) {
    const test::TempDir dir;
    BenchmarkOptions options = small_options(dir);
    std::vector<std::string> lines;
    options.status = [&](std::string_view line) { lines.emplace_back(line); };
    const BenchmarkResult result = run_benchmark(options);

    EXPECT_THAT(lines,
                testing::IsSupersetOf({"round 1 of 2: llava-mini-small", "round 1 of 2: llava-v1.5-small",
                                       "round 2 of 2: llava-mini-small", "round 2 of 2: llava-v1.5-small"}));
    ASSERT_TRUE(result.baseline.has_value());
    const SystemResult &mini = result.model, &llava = *result.baseline;
    EXPECT_EQ(mini.facts.vision_tokens, 1);
    EXPECT_EQ(mini.facts.prompt_tokens, 22);
    EXPECT_EQ(llava.facts.vision_tokens, 576);
    EXPECT_EQ(llava.facts.prompt_tokens, 597);

    for (const SystemResult* system : {&mini, &llava}) {
        // No stage was forgotten: together they are the whole, up to copies and hashing.
        EXPECT_LE(system->seconds.total(), 1.5 * system->time_to_first_token);
        EXPECT_GE(system->seconds.total(), 0.5 * system->time_to_first_token);
        for (const Stage stage : kAllStages) {
            const bool computes = system->facts.flops[stage] > 0;
            EXPECT_EQ(computes, system->own_peaks[stage] > 0) << stage_key(stage);
            EXPECT_EQ(computes, !system->types[static_cast<size_t>(stage)].empty()) << stage_key(stage);
            if (computes) {
                EXPECT_GT(system->seconds[stage], 0) << stage_key(stage);
            }
        }
        EXPECT_GT(system->second_question, 0);
        EXPECT_LT(system->second_question, system->time_to_first_token);
        EXPECT_GT(system->tokens_per_second, 1);
    }
    EXPECT_TRUE(mini.libllama_tokens_per_second.has_value());
    EXPECT_FALSE(llava.libllama_tokens_per_second.has_value());
    EXPECT_EQ(mini.types[static_cast<size_t>(Stage::kTower)], "f16");
    for (const GemmRate& rate : result.gemm)
        EXPECT_LE(rate.flops_per_second, result.gemm_peak().flops_per_second);

    // 2 layers x keys and values x width 128 of the mini's two heads, 256 of the other's four.
    EXPECT_EQ(mini.facts.kv_f16_bytes, 2u * 2 * 128 * 2);
    EXPECT_EQ(llava.facts.kv_f16_bytes, 576u * 2 * 2 * 256 * 2);
    EXPECT_EQ(mini.facts.kv_q8_0_bytes, 2u * 2 * 128 / 32 * 34);
    // K/V of 577 positions in two pre-fusion layers, and the vision token itself.
    EXPECT_GE(mini.facts.image_cache_bytes, 577u * 2 * 2 * 128 * 2 + 256 * 4);
    EXPECT_EQ(llava.facts.image_cache_bytes, 576u * 256 * 4);
}

TEST(Benchmark, OneModelAlone) {
    const test::TempDir dir;
    BenchmarkOptions options = small_options(dir);
    options.baseline.clear();
    options.repeat = 1;
    options.engine.kv_type = KvType::kQ8_0;
    const BenchmarkResult result = run_benchmark(options);
    EXPECT_FALSE(result.baseline.has_value());
    EXPECT_GT(result.vision_side_share(), 0);
    // q8_0 keys and values make the encoding smaller than f16 ones would.
    EXPECT_LT(result.model.facts.image_cache_bytes, 577u * 2 * 2 * 128 * 2);
}

TEST(Benchmark, WorkloadsThatMakeNoSense) {
    const test::TempDir dir;
    BenchmarkOptions options = small_options(dir);
    options.repeat = 0;
    EXPECT_NE(test::error_text([&] { run_benchmark(options); }).find("0 rounds"), std::string::npos);
    options.repeat = 1;
    options.workload.text_tokens = 1;
    EXPECT_NE(test::error_text([&] { run_benchmark(options); }).find("1 text tokens"), std::string::npos);
}

TEST(Median, OfOddAndEvenNumbers) {
    EXPECT_EQ(median({3, 1, 2}), 2);
    EXPECT_EQ(median({4, 1, 3, 2}), 2.5);
    EXPECT_EQ(median({7}), 7);
}

}  // namespace
}  // namespace llava_mini::bench
