#include "trainer/recipe.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include "convert/json_input.h"
#include "core/error.h"
#include "core/file.h"
#include "model/hparam_limits.h"

namespace llava_mini::trainer {
namespace {

using nlohmann::json;

constexpr int64_t kMaxSamples = int64_t{1} << 31;

void expect_fields(const json& value, const std::string& where, const std::set<std::string>& known) {
    for (const auto& [key, field] : value.items()) {
        if (!known.contains(key)) {
            throw_input("{}: unknown field '{}', expected one of {}", where, printable(key),
                        fmt::join(known, ", "));
        }
    }
}

uint64_t count(const JsonObject& object, const char* key, uint64_t otherwise) {
    return static_cast<uint64_t>(object.integer_or(key, 0, kMaxSamples - 1, static_cast<int>(otherwise)));
}

double real_or(const JsonObject& object, const char* key, double low, double high, double otherwise) {
    return object.has(key) ? double{object.real(key, low, high)} : otherwise;
}

std::vector<DataSpec> read_data(const JsonObject& object, const char* key) {
    std::vector<DataSpec> specs;
    const json* list = object.find(key);
    if (list == nullptr) return specs;
    if (!list->is_array()) object.fail(key, "a list of sources");
    for (size_t i = 0; i < list->size(); ++i) {
        const std::string where = fmt::format("{}: {}[{}]", object.where(), key, i);
        const JsonObject entry((*list)[i], where);
        expect_fields((*list)[i], where, {"source", "options", "weight", "from", "to"});
        DataSpec spec;
        spec.source = entry.text("source");
        if (const auto options = entry.object("options")) spec.options = *entry.find("options");
        spec.weight = real_or(entry, "weight", 0, 1e9, 1);
        spec.from = real_or(entry, "from", 0, 1, 0);
        spec.to = real_or(entry, "to", 0, 1, 1);
        if (spec.from >= spec.to) entry.fail("to", "more than 'from'");
        specs.push_back(std::move(spec));
    }
    return specs;
}

std::array<double, kParts> read_rates(const JsonObject& phase) {
    std::array<double, kParts> rates{};
    const auto table = phase.object("lr");
    if (!table) phase.fail("lr", "an object of parts and learning rates");
    std::set<std::string> parts(kPartNames.begin(), kPartNames.end());
    expect_fields(*phase.find("lr"), phase.where() + ": lr", parts);
    for (size_t i = 0; i < kParts; ++i) rates[i] = real_or(*table, kPartNames[i], 0, 10, 0);
    return rates;
}

Phase read_phase(const json& value, const std::string& where) {
    expect_fields(value, where,
                  {"name",
                   "samples",
                   "batch",
                   "accumulate",
                   "lr",
                   "schedule",
                   "final_rate",
                   "warmup",
                   "clip",
                   "weight_decay",
                   "betas",
                   "loss",
                   "data",
                   "grids",
                   "dialogue_share",
                   "unfused_share",
                   "position_span",
                   "background",
                   "background_weight",
                   "mark_weights"});
    const JsonObject object(value, where);
    Phase phase;
    phase.name = object.text("name");
    phase.samples = static_cast<uint64_t>(object.integer("samples", 1, kMaxSamples - 1));
    phase.batch = object.integer_or("batch", 1, 1 << 16, 4);
    phase.accumulate = object.integer_or("accumulate", 1, 1 << 16, 1);
    phase.rates = read_rates(object);
    phase.schedule = object.text_or("schedule", "cosine");
    if (phase.schedule != "cosine" && phase.schedule != "linear" && phase.schedule != "constant") {
        object.fail("schedule", "\"cosine\", \"linear\" or \"constant\"");
    }
    phase.final_rate = real_or(object, "final_rate", 0, 1, 0);
    phase.warmup = real_or(object, "warmup", 0, 1, 0.03);
    phase.clip = real_or(object, "clip", 0, 1e9, 1);
    phase.adam.weight_decay = real_or(object, "weight_decay", 0, 10, 0);
    if (const json* betas = object.find("betas")) {
        if (!betas->is_array() || betas->size() != 2 || !(*betas)[0].is_number() ||
            !(*betas)[1].is_number()) {
            object.fail("betas", "two numbers");
        }
        phase.adam.beta1 = (*betas)[0].get<double>();
        phase.adam.beta2 = (*betas)[1].get<double>();
        for (const double beta : {phase.adam.beta1, phase.adam.beta2}) {
            if (!(beta >= 0 && beta < 1)) object.fail("betas", "numbers from 0 to below 1");
        }
    }
    if (const auto loss = object.object("loss")) {
        expect_fields(*object.find("loss"), where + ": loss", {"answers", "patches", "words", "mentions"});
        phase.answers = real_or(*loss, "answers", 0, 1e6, 0);
        phase.patches = real_or(*loss, "patches", 0, 1e6, 0);
        phase.words = real_or(*loss, "words", 0, 1e6, 0);
        phase.mentions = real_or(*loss, "mentions", 0, 1e6, 0);
    }
    phase.data = read_data(object, "data");
    if (phase.data.empty()) object.fail("data", "a list of sources");
    phase.examples.questions = phase.answers > 0;
    phase.examples.targets = phase.patches > 0 || phase.words > 0;
    phase.examples.mentions = phase.mentions > 0;
    phase.examples.dialogue_share = real_or(object, "dialogue_share", 0, 1, 0);
    phase.examples.unfused_share = real_or(object, "unfused_share", 0, 1, 0);
    phase.examples.position_span = object.integer_or("position_span", 0, 1 << 24, 0);
    phase.examples.background = object.text_or("background", phase.examples.background);
    phase.examples.background_weight = real_or(object, "background_weight", 0, 1e6, 0.1);
    if (const auto weights = object.object("mark_weights")) {
        expect_fields(*object.find("mark_weights"), where + ": mark_weights",
                      {"name", "colour", "letter", "place"});
        for (auto& [kind, weight] : phase.examples.mark_weights)
            weight = real_or(*weights, kind.c_str(), 0, 1e6, 0);
    }
    if (const json* grids = object.find("grids")) {
        if (!grids->is_array()) object.fail("grids", "a list of grid sides");
        for (const json& side : *grids) {
            if (!side.is_number_unsigned() || side.get<int64_t>() < 1 || side.get<int64_t>() > kMaxGridSide) {
                object.fail("grids", "a list of grid sides");
            }
            phase.grids.push_back(side.get<int>());
        }
    }
    return phase;
}

}  // namespace

uint64_t Phase::steps() const {
    const auto per_step = static_cast<uint64_t>(batch) * static_cast<uint64_t>(accumulate);
    return (samples + per_step - 1) / per_step;
}

double Phase::rate(Part part, double done) const {
    const double highest = rates[static_cast<size_t>(part)];
    if (done < warmup) return highest * done / warmup;
    const double t = warmup >= 1 ? 1.0 : (done - warmup) / (1 - warmup);
    double factor = 1;
    if (schedule == "cosine")
        factor = final_rate + (1 - final_rate) * (1 + std::cos(std::numbers::pi * t)) / 2;
    if (schedule == "linear") factor = final_rate + (1 - final_rate) * (1 - t);
    return highest * factor;
}

Recipe parse_recipe(const std::string& text, const std::string& file) {
    const json root = parse_json(text, file);
    const JsonObject object(root, file);
    expect_fields(root, file,
                  {"name", "seed", "model", "phases", "validation", "validation_samples", "validate_every",
                   "checkpoint_every", "keep_checkpoints"});
    Recipe recipe;
    recipe.text = text;
    recipe.name = object.text("name");
    recipe.seed = count(object, "seed", 1);
    if (object.object("model")) {
        recipe.model = nlohmann::ordered_json::parse(text)["model"];
        expect_fields(*object.find("model"), file + ": model", {"config", "tower", "init"});
    }
    const json& phases = object.at("phases");
    if (!phases.is_array() || phases.empty()) object.fail("phases", "a list of phases");
    for (size_t i = 0; i < phases.size(); ++i) {
        recipe.phases.push_back(read_phase(phases[i], fmt::format("{}: phases[{}]", file, i)));
    }
    recipe.validation = read_data(object, "validation");
    recipe.validation_samples = count(object, "validation_samples", 256);
    recipe.validate_every = count(object, "validate_every", 20000);
    recipe.checkpoint_every = count(object, "checkpoint_every", 20000);
    recipe.keep_checkpoints = object.integer_or("keep_checkpoints", 1, 1000, 3);
    return recipe;
}

Recipe read_recipe(const std::filesystem::path& file) {
    return parse_recipe(read_text_file(file, 1 << 24), file.string());
}

}  // namespace llava_mini::trainer
