#include "bench/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

namespace llava_mini::bench {
namespace {

using nlohmann::ordered_json;

constexpr double kMiB = 1024.0 * 1024.0;

double mib(uint64_t bytes) {
    return static_cast<double>(bytes) / kMiB;
}

// NaN becomes null in JSON and "-" in tables.
double quotient(double a, double b) {
    return b > 0 ? a / b : std::numeric_limits<double>::quiet_NaN();
}

std::string number(double value, int digits) {
    return std::isnan(value) ? "-" : fmt::format("{:.{}f}", value, digits);
}

ordered_json stage_json(const SystemResult& system, Stage stage, double peak) {
    const double seconds = system.seconds[stage], flops = system.facts.flops[stage];
    ordered_json object = {{"name", stage_key(stage)}, {"seconds", seconds}, {"flops", flops}};
    const std::string& types = system.types[static_cast<size_t>(stage)];
    if (!types.empty()) object["types"] = types;
    if (flops > 0) {
        const double rate = quotient(flops, seconds);
        object["gflops_per_second"] = rate / 1e9;
        object["share_of_gemm_peak"] = rate / peak;
        object["share_of_own_gemm_peak"] = quotient(rate, system.own_peaks[stage]);
    }
    return object;
}

ordered_json system_json(const SystemResult& system, double peak) {
    ordered_json stages = ordered_json::array();
    for (const Stage stage : kAllStages) stages.push_back(stage_json(system, stage, peak));
    const SystemFacts& facts = system.facts;
    ordered_json generation = {{"tokens_per_second", system.tokens_per_second}};
    if (system.libllama_tokens_per_second) {
        generation["libllama_tokens_per_second"] = *system.libllama_tokens_per_second;
    }
    return {
        {"name", facts.name},
        {"vision_tokens", facts.vision_tokens},
        {"prompt_tokens", facts.prompt_tokens},
        {"stages", std::move(stages)},
        {"vision_side",
         {{"seconds", system.seconds.vision_side()},
          {"flops", facts.flops.vision_side()},
          {"gflops_per_second", facts.flops.vision_side() / system.seconds.vision_side() / 1e9},
          {"share_of_gemm_peak", facts.flops.vision_side() / system.seconds.vision_side() / peak},
          {"share_of_own_gemm_peak", system.vision_side_share_of_own_peaks()}}},
        {"flops", facts.flops.total()},
        {"time_to_first_token", system.time_to_first_token},
        {"second_question", {{"seconds", system.second_question}, {"flops", facts.second_question_flops}}},
        {"generation", std::move(generation)},
        {"memory",
         {{"kv_cache_per_picture_f16", facts.kv_f16_bytes},
          {"kv_cache_per_picture_q8_0", facts.kv_q8_0_bytes},
          {"image_cache_per_picture", facts.image_cache_bytes},
          {"vision_weights", facts.vision_bytes},
          {"language_weights", facts.language_bytes}}}};
}

ordered_json ratios_json(const BenchmarkResult& result) {
    const SystemResult& model = result.model;
    ordered_json ratios = ordered_json::object();
    if (result.baseline) {
        const SystemResult& baseline = *result.baseline;
        ratios["flops"] = baseline.facts.flops.total() / model.facts.flops.total();
        ratios["time_to_first_token"] = baseline.time_to_first_token / model.time_to_first_token;
        ratios["kv_cache_per_picture"] =
            static_cast<double>(baseline.facts.kv_f16_bytes) / static_cast<double>(model.facts.kv_f16_bytes);
    }
    ratios["second_question"] = model.time_to_first_token / model.second_question;
    ratios["vision_side_share_of_gemm_peak"] = result.vision_side_share();
    ratios["preprocess_share_of_time_to_first_token"] =
        model.seconds[Stage::kPreprocess] / model.time_to_first_token;
    if (model.libllama_tokens_per_second) {
        ratios["decode_against_libllama"] = model.tokens_per_second / *model.libllama_tokens_per_second;
    }
    return ratios;
}

std::string shape_text(const GemmShape& shape) {
    return fmt::format("{} {} x {}, {} rows", ggml_type_name(shape.type), shape.in, shape.out, shape.rows);
}

void add_system(std::string& text, const SystemResult& system, double peak) {
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    constexpr const char* kRow = "  {:<20}{:>10}{:>12}{:>11}{:>11}{:>15}  {}\n";
    const SystemFacts& facts = system.facts;
    const auto row = [&](const char* label, double seconds, double flops, double own_share,
                         const std::string& types) {
        const double rate = flops > 0 ? quotient(flops, seconds) : kNone;
        text += fmt::format(kRow, label, number(seconds, 4), number(flops > 0 ? flops / 1e9 : kNone, 1),
                            number(rate / 1e9, 1), number(100 * rate / peak, 1), number(100 * own_share, 1),
                            types);
    };
    text += fmt::format("{}: {} vision tokens, {} rows into the language model\n", facts.name,
                        facts.vision_tokens, facts.prompt_tokens);
    text += fmt::format(kRow, "stage", "seconds", "GFLOP", "GFLOP/s", "% of peak", "% of own peak", "types");
    for (const Stage stage : kAllStages) {
        const double seconds = system.seconds[stage], flops = facts.flops[stage],
                     own = system.own_peaks[stage];
        row(stage_label(stage), seconds, flops, quotient(quotient(flops, seconds), own),
            system.types[static_cast<size_t>(stage)]);
    }
    row("vision, pre-fusion", system.seconds.vision_side(), facts.flops.vision_side(),
        system.vision_side_share_of_own_peaks(), "");
    row("time to first token", system.time_to_first_token, facts.flops.total(), kNone, "");
    row("second question", system.second_question, facts.second_question_flops, kNone, "");
    text += fmt::format("  generating {:.2f} tokens/s", system.tokens_per_second);
    if (system.libllama_tokens_per_second) {
        text += fmt::format(", libllama alone {:.2f} tokens/s", *system.libllama_tokens_per_second);
    }
    text += fmt::format(
        "\n  a picture takes {:.4g} MiB of KV cache at f16, {:.4g} MiB at q8_0; its encoding {:.4g} MiB\n"
        "  weights: vision side {:.0f} MiB, language model {:.0f} MiB\n\n",
        mib(facts.kv_f16_bytes), mib(facts.kv_q8_0_bytes), mib(facts.image_cache_bytes),
        mib(facts.vision_bytes), mib(facts.language_bytes));
}

}  // namespace

std::vector<Target> targets(const BenchmarkResult& result) {
    const ordered_json ratios = ratios_json(result);
    std::vector<Target> all;
    const auto add_ratio = [&](const char* key, const char* what, double goal, bool at_least) {
        if (ratios.contains(key)) all.push_back({key, what, goal, at_least, ratios[key].get<double>()});
    };
    add_ratio("flops", "counted FLOPs, baseline / ours", 4.0, true);
    add_ratio("time_to_first_token", "time to first token, baseline / ours", 4.0, true);
    add_ratio("second_question", "second question, first / second", 5.0, true);
    add_ratio("vision_side_share_of_gemm_peak", "vision side and pre-fusion, share of GEMM peak", 0.75, true);
    const SystemFacts& facts = result.model.facts;
    all.push_back({"kv_cache_per_picture_f16", "KV cache of a picture, f16", 0.13, false,
                   mib(facts.kv_f16_bytes), "MiB"});
    all.push_back({"kv_cache_per_picture_q8_0", "KV cache of a picture, q8_0", 0.07, false,
                   mib(facts.kv_q8_0_bytes), "MiB"});
    add_ratio("decode_against_libllama", "tokens/s, ours / libllama alone", 0.97, true);
    add_ratio("preprocess_share_of_time_to_first_token", "preprocessing, share of time to first token", 0.03,
              false);
    return all;
}

std::string to_json(const BenchmarkResult& result, bool with_targets) {
    const double peak = result.gemm_peak().flops_per_second;
    ordered_json products = ordered_json::array();
    for (const GemmRate& rate : result.gemm) {
        products.push_back({{"type", ggml_type_name(rate.shape.type)},
                            {"in", rate.shape.in},
                            {"out", rate.shape.out},
                            {"rows", rate.shape.rows},
                            {"buffer", rate.buffer_type},
                            {"gflops_per_second", rate.flops_per_second / 1e9}});
    }
    ordered_json object = {{"device", result.device},
                           {"threads", result.threads},
                           {"repeat", result.repeat},
                           {"kv_type", ggml_type_name(to_ggml(result.kv_type))},
                           {"picture",
                            {{"width", result.picture_width},
                             {"height", result.picture_height},
                             {"bytes", result.picture_bytes}}},
                           {"text_tokens", result.workload.text_tokens},
                           {"new_tokens", result.workload.new_tokens},
                           {"generated_tokens", result.workload.generated_tokens},
                           {"gemm_peak_gflops_per_second", peak / 1e9},
                           {"gemm", std::move(products)},
                           {"model", system_json(result.model, peak)}};
    if (result.baseline) object["baseline"] = system_json(*result.baseline, peak);
    object["ratios"] = ratios_json(result);
    if (with_targets) {
        ordered_json list = ordered_json::array();
        for (const Target& target : targets(result)) {
            list.push_back({{"name", target.key},
                            {target.at_least ? "at_least" : "at_most", target.goal},
                            {"measured", target.measured},
                            {"met", target.met()}});
        }
        object["targets"] = std::move(list);
    }
    return object.dump(2) + "\n";
}

std::string to_text(const BenchmarkResult& result, bool with_targets) {
    const GemmRate& peak = result.gemm_peak();
    std::string text = fmt::format(
        "{}, {} threads; picture: JPEG of {} x {} pixels, {:.1f} MiB; {} text tokens\n"
        "medians of {} rounds; K/V {}\n"
        "GEMM peak {:.1f} GFLOP/s ({}, {})\n\n",
        result.device, result.threads, result.picture_width, result.picture_height, mib(result.picture_bytes),
        result.workload.text_tokens, result.repeat, ggml_type_name(to_ggml(result.kv_type)),
        peak.flops_per_second / 1e9, shape_text(peak.shape), peak.buffer_type);
    add_system(text, result.model, peak.flops_per_second);
    if (result.baseline) add_system(text, *result.baseline, peak.flops_per_second);
    if (with_targets) {
        text += fmt::format("{:<50}{:>12}{:>14}\n", "to reach", "measured", "goal");
        for (const Target& target : targets(result)) {
            text += fmt::format(
                "{:<50}{:>12.3f}{:>14}  {}\n", target.what, target.measured,
                fmt::format("{} {:.4g} {}", target.at_least ? ">=" : "<=", target.goal, target.unit),
                target.met() ? "met" : "missed");
        }
    } else {
        const ordered_json ratios = ratios_json(result);
        for (const auto& [key, value] : ratios.items()) {
            text += fmt::format("{:<50}{:>12.3f}\n", key, value.get<double>());
        }
    }
    return text;
}

}  // namespace llava_mini::bench
