#include "trainer/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "bench/flops.h"

namespace llava_mini::trainer {
namespace {

constexpr double kF32 = 4, kBf16 = 2;  // bytes

bool learns(const PlanCase& way, Part part) {
    return way.learns[static_cast<size_t>(part)];
}

int64_t elements(const std::vector<int64_t>& shape) {
    return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

// Rank times inputs and outputs of every adapted matrix.
int64_t adapter_parameters(const LlamaHparams& language, const LoraOptions& lora) {
    if (lora.rank == 0) return 0;
    int64_t count = 0;
    for (const TensorSpec& spec : language_tensors(language)) {
        for (const std::string& target : lora.targets) {
            if (spec.checkpoint.ends_with("." + target + ".weight"))
                count += lora.rank * (spec.shape[0] + spec.shape[1]);
        }
    }
    return count;
}

// Rows of one sample with one picture.
struct Rows {
    int64_t views, tokens, vision, language;
    double prefusion_scores, language_scores;  // of one head
};

Rows rows_of(const VisionHparams& vision, const PlanCase& way) {
    const int64_t n = vision.resolution_ratio;
    Rows rows{};
    rows.views = n > 1 ? n * n + 1 : 1;
    const int side = vision.compressor_grids.empty() ? 0 : vision.compressor_grids.front();
    rows.tokens = vision.vision_tokens(side);
    rows.vision =
        vision.compressor_grids.empty() ? vision.patches() : rows.views * vision.patches() + rows.tokens;
    rows.language = way.question + rows.tokens + way.answer;
    const auto v = static_cast<double>(rows.vision), q = static_cast<double>(way.question),
               t = static_cast<double>(rows.language);
    rows.prefusion_scores = v * v + q * (v + q);
    rows.language_scores = t * t;
    return rows;
}

// Floats that one Llama layer keeps for its backward pass, over `rows` rows.
double layer_activations(const LlamaHparams& hp, double rows, double scores, bool keeps_inputs, double rank) {
    const double d = hp.n_embd, q = double{1} * hp.n_head * hp.head_dim, ff = hp.n_ff,
                 kv = double{1} * hp.n_head_kv * hp.head_dim;
    double per_row = 2 * d + (q + 2 * kv) + 2 * ff;  // inputs of both norms; q, k, v; gate and up
    if (keeps_inputs) per_row += 2 * d + q + ff;     // inputs of the four products
    return rows * (per_row + rank) + hp.n_head * scores;
}

double llama_activations(const LlamaHparams& hp, int layers, double rows, double scores, bool keeps_inputs,
                         double rank, bool checkpointing) {
    const double one = layer_activations(hp, rows, scores, keeps_inputs, rank);
    return checkpointing ? layers * rows * hp.n_embd + one : layers * one;
}

// Floats of one sample.
double sample_activations(const VisionHparams& vision, const LlamaHparams& language, const PlanCase& way,
                          bool checkpointing) {
    const Rows rows = rows_of(vision, way);
    const double d = language.n_embd, d_v = vision.n_embd;
    const bool tower = learns(way, Part::kTower), compressor = tower || learns(way, Part::kCompressor),
               projector = compressor || learns(way, Part::kProjector),
               prefusion = projector || learns(way, Part::kPrefusion) || learns(way, Part::kEmbeddings);
    double floats = 0;
    if (tower) {
        const double r = static_cast<double>(rows.views * (vision.patches() + 1));
        floats += vision.n_layer * (r * (8 * d_v + 2.0 * vision.n_ff) +
                                    vision.n_head * r * static_cast<double>(vision.patches() + 1));
    }
    if (compressor && !vision.compressor_grids.empty()) {
        floats += 5 * d_v * static_cast<double>(rows.views * vision.patches());
    }
    if (projector) {
        floats += static_cast<double>(rows.vision) * (d + (learns(way, Part::kProjector) ? d_v + d : 0));
    }
    if (prefusion && vision.prefusion.n_layer > 0) {
        floats += llama_activations(vision.prefusion, vision.prefusion.n_layer,
                                    static_cast<double>(rows.vision + way.question), rows.prefusion_scores,
                                    learns(way, Part::kPrefusion), 0, checkpointing);
    }
    const bool language_learns = learns(way, Part::kLanguage) || learns(way, Part::kLora);
    if (prefusion || language_learns) {
        const double rank =
            learns(way, Part::kLora) ? static_cast<double>(way.lora.targets.size()) * way.lora.rank : 0;
        floats += llama_activations(language, language.n_layer, static_cast<double>(rows.language),
                                    rows.language_scores, language_learns, rank, checkpointing);
    }
    return floats + 2.0 * static_cast<double>(way.answer) * language.n_vocab;  // logits, their softmax
}

double sample_flops(const VisionHparams& vision, const LlamaHparams& language, const PlanCase& way,
                    bool checkpointing) {
    using namespace bench;
    const Rows rows = rows_of(vision, way);
    const int side = vision.compressor_grids.empty() ? 0 : vision.compressor_grids.front();
    const int64_t keys = (rows.views > 1 ? rows.views - 1 : 1) * vision.patches();
    double flops = 0;
    bool earlier = false;
    // Forward once; once more for gradients of the input if something before or here learns, and for those of
    // the weights if they learn; once more to compute it again.
    const auto add = [&](double forward, bool learning, bool again) {
        earlier |= learning;
        flops += forward * (1.0 + (earlier ? 1 : 0) + (learning ? 1 : 0) + (again && earlier ? 1 : 0));
    };
    add(tower_flops(vision, static_cast<int>(rows.views)), learns(way, Part::kTower), false);
    add(compressor_flops(vision, side, keys), learns(way, Part::kCompressor), false);
    add(projector_flops(vision, rows.vision), learns(way, Part::kProjector), false);
    if (vision.prefusion.n_layer > 0) {
        earlier |= learns(way, Part::kEmbeddings);
        const int layers = vision.prefusion.n_layer;
        add(decoder_flops(vision.prefusion, layers, rows.vision, 0) +
                decoder_flops(vision.prefusion, layers, way.question, rows.vision),
            learns(way, Part::kPrefusion), checkpointing);
    }
    // An adapter's products go with the frozen matrix's: forward, both gradients.
    const double adapters = 2.0 * static_cast<double>(rows.language) *
                            static_cast<double>(adapter_parameters(language, way.lora));
    earlier |= learns(way, Part::kLora);
    add(decoder_flops(language, language.n_layer, rows.language, 0), learns(way, Part::kLanguage),
        checkpointing);
    flops += adapters * (checkpointing ? 4 : 3);
    add(2.0 * static_cast<double>(way.answer) * language.n_embd * language.n_vocab,
        learns(way, language.tied_embeddings ? Part::kEmbeddings : Part::kHead), false);
    return flops;
}

std::string size_text(double bytes) {
    return fmt::format("{:.3g}", bytes / (1 << 30));
}

}  // namespace

std::array<int64_t, kParts> count_parameters(const VisionHparams& vision, const LlamaHparams& language,
                                             const LoraOptions& lora) {
    std::array<int64_t, kParts> counts{};
    for (const Leaf& leaf : model_leaves(vision, language)) {
        counts[static_cast<size_t>(leaf.part)] += elements(leaf.shape);
    }
    counts[static_cast<size_t>(Part::kLora)] = adapter_parameters(language, lora);
    return counts;
}

std::vector<PlanCase> standard_cases() {
    const auto learning = [](std::initializer_list<Part> parts) {
        std::array<bool, kParts> out{};
        for (const Part part : parts) out[static_cast<size_t>(part)] = true;
        return out;
    };
    PlanCase first{"stage 1, LLM frozen in bf16",
                   learning({Part::kCompressor, Part::kProjector, Part::kPrefusion}),
                   {},
                   true,
                   558'000,
                   8,
                   80,
                   40,
                   {}};
    PlanCase adapters{"stage 2, LoRA r = 128",
                      learning({Part::kCompressor, Part::kProjector, Part::kPrefusion, Part::kLora}),
                      {.rank = 128, .alpha = 256},
                      true,
                      665'000,
                      8,
                      150,
                      200,
                      {}};
    PlanCase whole{
        "stage 2, whole",
        learning({Part::kCompressor, Part::kProjector, Part::kPrefusion, Part::kLanguage, Part::kHead}),
        {},
        true,
        665'000,
        8,
        150,
        200,
        {}};
    return {first, adapters, whole};
}

std::vector<PlanCase> cases_of(const Recipe& recipe) {
    std::vector<PlanCase> cases;
    for (const Phase& phase : recipe.phases) {
        if (phase.loss.answers <= 0 && phase.loss.words <= 0) continue;
        PlanCase way{phase.name, {},  recipe.lora, recipe.frozen_bf16, phase.samples, phase.batch,
                     150,        200, {}};
        for (size_t part = 0; part < kParts; ++part) way.learns[part] = phase.rates[part] > 0;
        for (const Phase& other : recipe.phases) {
            for (size_t part = 0; part < kParts; ++part) way.learns_elsewhere[part] |= other.rates[part] > 0;
        }
        cases.push_back(std::move(way));
    }
    return cases;
}

PlanRow plan(const VisionHparams& vision, const LlamaHparams& language, const PlanCase& way,
             bool checkpointing, const PlanMachine& machine) {
    PlanRow row;
    row.name = way.name;
    row.checkpointing = checkpointing;
    for (const Leaf& leaf : model_leaves(vision, language)) {
        const int64_t count = elements(leaf.shape);
        const bool learning = learns(way, leaf.part);
        const bool bf16 = way.frozen_bf16 && !learning && leaf.may_be_bf16() &&
                          !way.learns_elsewhere[static_cast<size_t>(leaf.part)];
        row.parameters += count;
        row.learning += learning ? count : 0;
        row.weights += static_cast<double>(count) * (bf16 ? kBf16 : kF32);
    }
    if (way.lora.rank > 0) {
        const int64_t adapters = adapter_parameters(language, way.lora);
        row.learning += learns(way, Part::kLora) ? adapters : 0;
        row.weights += static_cast<double>(adapters) * kF32;
    }
    row.gradients = static_cast<double>(row.learning) * kF32;
    row.optimizer = static_cast<double>(row.learning) * 2 * kF32;
    row.activations = sample_activations(vision, language, way, checkpointing) * way.batch * kF32;
    row.flops = sample_flops(vision, language, way, checkpointing);
    row.hours = static_cast<double>(way.samples) * row.flops /
                (machine.processes * machine.tflops * 1e12 * machine.share * 3600);
    return row;
}

std::string plan_table(const std::vector<PlanRow>& rows, const PlanMachine& machine) {
    std::string table = fmt::format(
        "GiB of one process (weights and activations f32, frozen matrices as the way says); hours on {} x "
        "{:.0f} TFLOP/s at {:.0f} %\n\n{:<30} {:>11} {:>9} {:>8} {:>8} {:>9} {:>9} {:>11} {:>7} {:>12} "
        "{:>8}\n",
        machine.processes, machine.tflops, machine.share * 100, "", "checkpoint.", "learn", "of", "weights",
        "gradients", "optimizer", "activations", "all", "TFLOP/sample", "hours");
    for (const PlanRow& row : rows) {
        table += fmt::format(
            "{:<30} {:>11} {:>8.3g}G {:>7.3g}G {:>8} {:>9} {:>9} {:>11} {:>7} {:>12.3g} {:>8.3g}\n", row.name,
            row.checkpointing ? "yes" : "no", static_cast<double>(row.learning) / 1e9,
            static_cast<double>(row.parameters) / 1e9, size_text(row.weights), size_text(row.gradients),
            size_text(row.optimizer), size_text(row.activations), size_text(row.bytes()), row.flops / 1e12,
            row.hours);
    }
    return table;
}

nlohmann::ordered_json plan_json(const std::vector<PlanRow>& rows, const PlanMachine& machine) {
    nlohmann::ordered_json out = {{"processes", machine.processes},
                                  {"tflops", machine.tflops},
                                  {"mfu", machine.share},
                                  {"rows", nlohmann::ordered_json::array()}};
    for (const PlanRow& row : rows) {
        out["rows"].push_back({{"name", row.name},
                               {"gradient_checkpointing", row.checkpointing},
                               {"parameters", row.parameters},
                               {"learning", row.learning},
                               {"bytes",
                                {{"weights", row.weights},
                                 {"gradients", row.gradients},
                                 {"optimizer", row.optimizer},
                                 {"activations", row.activations},
                                 {"all", row.bytes()}}},
                               {"flops_per_sample", row.flops},
                               {"hours", row.hours}});
    }
    return out;
}

}  // namespace llava_mini::trainer
