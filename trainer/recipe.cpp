#include "trainer/recipe.h"

#include <algorithm>
#include <charconv>
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
                  {"name",          "samples",       "batch",     "accumulate", "lr",
                   "schedule",      "final_rate",    "warmup",    "clip",       "weight_decay",
                   "betas",         "loss",          "data",      "grids",      "dialogue_share",
                   "unfused_share", "position_span", "registers", "background", "background_weight",
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
        expect_fields(*object.find("loss"), where + ": loss",
                      {"answers", "patches", "words", "mentions", "changes", "asked", "looks"});
        phase.loss.answers = real_or(*loss, "answers", 0, 1e6, 0);
        phase.loss.patches = real_or(*loss, "patches", 0, 1e6, 0);
        phase.loss.words = real_or(*loss, "words", 0, 1e6, 0);
        phase.loss.mentions = real_or(*loss, "mentions", 0, 1e6, 0);
        phase.loss.changes = real_or(*loss, "changes", 0, 1e6, 0);
        phase.loss.asked = real_or(*loss, "asked", 0, 1e6, 0);
        phase.loss.looks = real_or(*loss, "looks", 0, 1e6, 0);
    }
    const LossWeights& weights = phase.loss;
    if (weights.answers <= 0 &&
        std::max({weights.words, weights.mentions, weights.changes, weights.asked, weights.looks}) > 0) {
        throw_input("{}: loss: words, mentions, changes, asked and looks need answers", where);
    }
    phase.data = read_data(object, "data");
    if (phase.data.empty()) object.fail("data", "a list of sources");
    phase.examples.questions = phase.loss.answers > 0;
    phase.examples.targets = phase.loss.patches > 0 || phase.loss.words > 0;
    phase.examples.mentions = phase.loss.mentions > 0;
    phase.examples.changes = phase.loss.changes > 0 || phase.loss.looks > 0;
    phase.examples.looks = phase.loss.looks > 0;
    phase.examples.names = phase.loss.asked > 0 || phase.loss.looks > 0;
    phase.examples.dialogue_share = real_or(object, "dialogue_share", 0, 1, 0);
    phase.examples.unfused_share = real_or(object, "unfused_share", 0, 1, 0);
    phase.examples.registers = object.integer_or("registers", 0, 64, 0);
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

LoraOptions read_lora(const JsonObject& recipe) {
    LoraOptions lora;
    const auto object = recipe.object("lora");
    if (!object) return lora;
    expect_fields(*recipe.find("lora"), object->where(), {"rank", "alpha", "targets"});
    lora.rank = object->integer("rank", 1, 1 << 16);
    lora.alpha = real_or(*object, "alpha", 1e-6, 1e6, 2.0 * lora.rank);
    const json* targets = object->find("targets");
    if (targets == nullptr) return lora;
    lora.targets.clear();
    for (const json& target : targets->is_array() ? *targets : json::array()) {
        if (!target.is_string() ||
            std::count(kLoraTargets.begin(), kLoraTargets.end(), target.get<std::string>()) == 0) {
            object->fail("targets", fmt::format("a list of {}", fmt::join(kLoraTargets, ", ")));
        }
        lora.targets.push_back(target.get<std::string>());
    }
    if (lora.targets.empty()) {
        object->fail("targets", fmt::format("a list of {}", fmt::join(kLoraTargets, ", ")));
    }
    return lora;
}

// With adapters the language model itself stays as it is: an adapter is of use beside the model it began from.
void check_lora(const Recipe& recipe, const std::string& file) {
    const auto has_rate = [](const Phase& phase) {
        return phase.rates[static_cast<size_t>(Part::kLora)] > 0;
    };
    if (recipe.lora.rank > 0 && std::none_of(recipe.phases.begin(), recipe.phases.end(), has_rate)) {
        throw_input("{}: lora: no phase has a rate for it (lr: lora)", file);
    }
    for (const Phase& phase : recipe.phases) {
        const auto rate = [&](Part part) { return phase.rates[static_cast<size_t>(part)]; };
        if (recipe.lora.rank == 0 && rate(Part::kLora) > 0) {
            throw_input("{}: phase {}: lr: lora: the recipe has no field lora", file, phase.name);
        }
        for (const Part part : {Part::kEmbeddings, Part::kLanguage, Part::kHead}) {
            if (recipe.lora.rank > 0 && rate(part) > 0) {
                throw_input("{}: phase {}: lr: {}: with lora only the adapters of the language model learn",
                            file, phase.name, kPartNames[static_cast<size_t>(part)]);
            }
        }
    }
}

// Sets what a change PATH=VALUE names.
void apply_change(nlohmann::ordered_json& root, const std::string& change) {
    const size_t equals = change.find('=');
    if (equals == std::string::npos || equals == 0) {
        throw_usage("change of the recipe '{}': expected PATH=VALUE", printable(change));
    }
    nlohmann::ordered_json* at = &root;
    std::string path = change.substr(0, equals) + ".", walked;
    for (size_t dot = path.find('.'); !path.empty(); path.erase(0, dot + 1), dot = path.find('.')) {
        const std::string key = path.substr(0, dot);
        walked += (walked.empty() ? "" : ".") + key;
        const bool last = dot + 1 == path.size();
        if (at->is_array()) {
            size_t place = 0;
            const auto read = std::from_chars(key.data(), key.data() + key.size(), place);
            if (read.ec != std::errc() || read.ptr != key.data() + key.size() || place >= at->size()) {
                throw_usage("change of the recipe '{}': {}: expected a place in a list of {}",
                            printable(change), printable(walked), at->size());
            }
            at = &(*at)[place];
        } else if (at->is_object() && !key.empty() && (last || at->contains(key))) {
            at = &(*at)[key];
        } else {
            throw_usage("change of the recipe '{}': there is no {}", printable(change), printable(walked));
        }
    }
    const std::string value = change.substr(equals + 1);
    *at = nlohmann::ordered_json::parse(value, nullptr, /*allow_exceptions=*/false);
    if (at->is_discarded()) *at = value;
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

Recipe parse_recipe(const std::string& original, const std::string& file,
                    const std::vector<std::string>& changes) {
    std::string text = original;
    if (!changes.empty()) {
        parse_json(text, file);  // what is wrong with it is said before it is changed
        auto changed = nlohmann::ordered_json::parse(text);
        for (const std::string& change : changes) apply_change(changed, change);
        text = changed.dump();
    }
    const json root = parse_json(text, file);
    const JsonObject object(root, file);
    expect_fields(root, file,
                  {"name", "seed", "model", "phases", "validation", "validation_samples", "validate_every",
                   "checkpoint_every", "keep_checkpoints", "lora", "frozen_dtype", "gradient_checkpointing"});
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
    recipe.lora = read_lora(object);
    recipe.gradient_checkpointing = object.boolean_or("gradient_checkpointing", false);
    const std::string dtype = object.text_or("frozen_dtype", "f32");
    if (dtype != "f32" && dtype != "bf16") object.fail("frozen_dtype", "\"f32\" or \"bf16\"");
    recipe.frozen_bf16 = dtype == "bf16";
    check_lora(recipe, file);
    return recipe;
}

Recipe read_recipe(const std::filesystem::path& file, const std::vector<std::string>& changes) {
    return parse_recipe(read_text_file(file, 1 << 24), file.string(), changes);
}

}  // namespace llava_mini::trainer
