// JSON, tables and chart of a result that is made up, so that every number is known.
#include "bench/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "bench/chart.h"

namespace llava_mini::bench {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

// Ours: 2 s and 400 GFLOP, of which 1 s and 300 GFLOP are the vision side; the baseline: 10 s and 2000 GFLOP.
BenchmarkResult made_up() {
    BenchmarkResult result;
    result.device = "a <fast> & new processor";
    result.threads = 2;
    result.repeat = 3;
    result.picture_width = 4000;
    result.picture_height = 3000;
    result.picture_bytes = 4 << 20;
    result.gemm = {{{GGML_TYPE_F16, 64, 64, 577}, "CPU", 200e9},
                   {{GGML_TYPE_Q4_0, 64, 64, 577}, "CPU_REPACK", 400e9}};

    SystemResult& model = result.model;
    model.facts.name = "ours";
    model.facts.vision_tokens = 1;
    model.facts.prompt_tokens = 61;
    model.facts.flops[Stage::kTower] = 300e9;
    model.facts.flops[Stage::kPrefill] = 100e9;
    model.facts.kv_f16_bytes = 128 << 10;
    model.facts.kv_q8_0_bytes = 68 << 10;
    model.seconds[Stage::kPreprocess] = 0.1;
    model.seconds[Stage::kTower] = 1.0;
    model.seconds[Stage::kPrefill] = 0.8;
    model.own_peaks[Stage::kTower] = 375e9;
    model.own_peaks[Stage::kPrefill] = 400e9;
    model.types[static_cast<size_t>(Stage::kTower)] = "q4_0";
    model.time_to_first_token = 2.0;
    model.second_question = 0.5;
    model.tokens_per_second = 9.9;
    model.libllama_tokens_per_second = 10.0;

    SystemResult baseline = model;
    baseline.facts.name = "theirs";
    baseline.facts.vision_tokens = 576;
    baseline.facts.kv_f16_bytes = 576 * (512 << 10);
    baseline.facts.flops[Stage::kPrefill] = 1700e9;
    baseline.seconds[Stage::kPrefill] = 8.8;
    baseline.time_to_first_token = 10.0;
    baseline.libllama_tokens_per_second.reset();
    result.baseline = baseline;
    return result;
}

TEST(Report, Ratios) {
    json report = json::parse(to_json(made_up(), /*with_targets=*/false));
    json& ratios = report["ratios"];
    EXPECT_DOUBLE_EQ(ratios["flops"].get<double>(), 5.0);
    EXPECT_DOUBLE_EQ(ratios["time_to_first_token"].get<double>(), 5.0);
    EXPECT_DOUBLE_EQ(ratios["second_question"].get<double>(), 4.0);
    EXPECT_DOUBLE_EQ(ratios["decode_against_libllama"].get<double>(), 0.99);
    EXPECT_DOUBLE_EQ(ratios["vision_side_share_of_gemm_peak"].get<double>(), 0.75);
    EXPECT_DOUBLE_EQ(ratios["preprocess_share_of_time_to_first_token"].get<double>(), 0.05);
    EXPECT_DOUBLE_EQ(ratios["kv_cache_per_picture"].get<double>(), 576 * 4);
    EXPECT_FALSE(report.contains("targets"));
}

TEST(Report, StagesInJson) {
    json report = json::parse(to_json(made_up(), /*with_targets=*/false));
    EXPECT_EQ(report["gemm_peak_gflops_per_second"], 400.0);
    EXPECT_EQ(report["gemm"].size(), 2u);
    json& stages = report["model"]["stages"];
    ASSERT_EQ(stages.size(), kStages);
    EXPECT_EQ(stages[1]["name"], "vision_tower");
    EXPECT_EQ(stages[1]["types"], "q4_0");
    EXPECT_DOUBLE_EQ(stages[1]["gflops_per_second"].get<double>(), 300);
    EXPECT_DOUBLE_EQ(stages[1]["share_of_gemm_peak"].get<double>(), 0.75);
    EXPECT_DOUBLE_EQ(stages[1]["share_of_own_gemm_peak"].get<double>(), 0.8);
    EXPECT_FALSE(stages[0].contains("gflops_per_second"));  // preprocessing has no counted operations
    EXPECT_DOUBLE_EQ(report["model"]["vision_side"]["share_of_own_gemm_peak"].get<double>(), 0.8);
    EXPECT_EQ(report["baseline"]["name"], "theirs");
    EXPECT_FALSE(report["baseline"]["generation"].contains("libllama_tokens_per_second"));
}

TEST(Report, TargetsAreMetOrMissed) {
    const BenchmarkResult result = made_up();
    const json list = json::parse(to_json(result, /*with_targets=*/true))["targets"];
    const std::map<std::string, bool> expected = {{"flops", true},
                                                  {"time_to_first_token", true},
                                                  {"second_question", false},
                                                  {"vision_side_share_of_gemm_peak", true},
                                                  {"kv_cache_per_picture_f16", true},
                                                  {"kv_cache_per_picture_q8_0", true},
                                                  {"decode_against_libllama", true},
                                                  {"preprocess_share_of_time_to_first_token", false}};
    std::map<std::string, bool> found;
    for (const json& target : list) found[target["name"]] = target["met"];
    EXPECT_EQ(found, expected);

    const std::string text = to_text(result, /*with_targets=*/true);
    EXPECT_THAT(text, testing::ContainsRegex("second question, first / second +4\\.000 +>= 5 +missed"));
    EXPECT_THAT(text, testing::ContainsRegex("KV cache of a picture, f16 +0\\.125 +<= 0\\.13 MiB +met"));
}

TEST(Report, Tables) {
    const std::string text = to_text(made_up(), /*with_targets=*/false);
    EXPECT_THAT(text, testing::ContainsRegex("CLIP tower +1\\.0000 +300\\.0 +300\\.0 +75\\.0 +80\\.0 +q4_0"));
    EXPECT_THAT(text, testing::ContainsRegex("decode \\+ preprocess +0\\.1000 +- +- +- +-"));
    EXPECT_THAT(text, HasSubstr("libllama alone 10.00 tokens/s"));
    EXPECT_THAT(text, Not(HasSubstr("nan")));
    for (size_t start = 0, end = 0; (end = text.find('\n', start)) != std::string::npos; start = end + 1) {
        EXPECT_LE(end - start, 100u) << text.substr(start, end - start);
    }
}

TEST(Report, WithoutABaseline) {
    BenchmarkResult result = made_up();
    result.baseline.reset();
    json report = json::parse(to_json(result, /*with_targets=*/true));
    EXPECT_FALSE(report.contains("baseline"));
    EXPECT_FALSE(report["ratios"].contains("flops"));
    EXPECT_TRUE(report["ratios"].contains("second_question"));
    EXPECT_THAT(to_svg(result), Not(HasSubstr("theirs")));
}

int count(const std::string& text, const std::string& what) {
    int found = 0;
    for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
    return found;
}

TEST(Chart, IsWellFormed) {
    const std::string svg = to_svg(made_up());
    EXPECT_THAT(svg, testing::StartsWith("<svg xmlns=\"http://www.w3.org/2000/svg\""));
    EXPECT_THAT(svg, testing::EndsWith("</svg>\n"));
    EXPECT_THAT(svg, HasSubstr("a &lt;fast&gt; &amp; new processor"));
    for (const std::string tag : {"text", "rect", "title"}) {
        const int closed = count(svg, "</" + tag + ">"),
                  self_closed = tag == "rect" ? 1 : 0;  // the background
        EXPECT_EQ(count(svg, "<" + tag), closed + self_closed) << tag;
    }
}

TEST(Chart, BarsAreInProportion) {
    const std::string svg = to_svg(made_up());
    const auto width_of = [&](const std::string& title) {
        const size_t at = svg.find("<title>" + title);
        EXPECT_NE(at, std::string::npos) << title;
        const size_t start = svg.rfind(" width=\"", at) + 8;
        return std::stod(svg.substr(start));
    };
    // 8.8 s of the baseline's prefill beside 0.8 s of ours.
    EXPECT_NEAR(width_of("prefill: 8.80 s") / width_of("prefill: 0.800 s"), 11.0, 0.1);
    EXPECT_NEAR(width_of("prefill: 1.70 TFLOP") / width_of("prefill: 0.100 TFLOP"), 17.0, 0.2);
}

}  // namespace
}  // namespace llava_mini::bench
