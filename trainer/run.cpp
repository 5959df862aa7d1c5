#include "trainer/run.h"

#include <ATen/Parallel.h>
#include <torch/csrc/api/include/torch/version.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/error.h"
#include "core/file.h"
#include "core/hash.h"
#include "trainer/blas.h"
#include "trainer/curves.h"
#include "trainer/data_queue.h"
#include "trainer/random.h"

namespace llava_mini::trainer {
namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr size_t kBatchesAhead = 8;
constexpr std::array<const char*, 4> kMarkNames = {"name", "colour", "letter", "place"};

// A source in the log.
std::string describe(const DataSpec& spec) {
    return spec.options.contains("file") ? spec.source + " " + spec.options["file"].get<std::string>()
                                         : spec.source;
}

double rounded(double value) {
    return std::round(value * 1e5) / 1e5;
}

// What is reported of counts, by the names of question types.
ordered_json report(const Counts& counts, const std::vector<std::string>& names) {
    const double n = static_cast<double>(std::max<int64_t>(1, counts.batches));
    ordered_json out = {{"loss", rounded(counts.loss / n)}};
    if (counts.answers > 0) out["answers"] = rounded(counts.answers / n);
    if (counts.patches > 0) out["patches"] = rounded(counts.patches / n);
    if (counts.words > 0) out["words"] = rounded(counts.words / n);
    if (counts.mentions > 0) out["mentions"] = rounded(counts.mentions / n);
    if (counts.asked > 0) out["asked"] = rounded(counts.asked / n);
    constexpr std::array<const char*, kLookHeads> kLooks = {"looks", "looks_next", "looks_before"};
    for (size_t head = 0; head < kLooks.size(); ++head) {
        if (counts.looked[head] > 0) {
            out[kLooks[head]] = rounded(counts.looks[head] / static_cast<double>(counts.looked[head]));
        }
    }
    if (counts.found_batches > 0) {
        out["found"] = rounded(counts.found / static_cast<double>(counts.found_batches));
    }
    if (counts.clips > 0) {
        out["changes"] = rounded(counts.changes / static_cast<double>(counts.clips));
        out["changes_kept"] = rounded(counts.changes_kept / static_cast<double>(counts.clips));
        out["earlier"] = rounded(counts.earlier / static_cast<double>(counts.clips));
    }
    for (size_t kind = 0; kind < counts.marks.size(); ++kind) {
        if (counts.marks[kind] == 0) continue;
        out["marks"][kMarkNames[kind]] =
            rounded(static_cast<double>(counts.marks_found[kind]) / static_cast<double>(counts.marks[kind]));
    }
    std::map<std::string, ordered_json> types;
    for (const auto& [index, type] : counts.types) {
        const std::string name = index < 0 ? "" : names[static_cast<size_t>(index)];
        types[name] = {
            {"answers", type.answers},
            {"exact", rounded(static_cast<double>(type.exact) / static_cast<double>(type.answers))},
            {"prior", rounded(type.prior())},
            {"loss", rounded(type.loss / static_cast<double>(type.tokens))}};
    }
    for (const auto& [name, type] : types) out["types"][name.empty() ? "(none)" : name] = type;
    return out;
}

// The example of a place in the order. Bad samples of finite sources are replaced by the next one, so that
// what comes does not depend on when they are met.
Example make_example(const ExampleMaker& maker, const SampleOrder& order, uint64_t position, uint64_t total,
                     uint64_t before, const ExampleOptions& options, uint64_t key, RunLog& log) {
    constexpr uint64_t kMostInARow = 100;
    for (uint64_t attempt = 0;; ++attempt) {
        const SampleOrder::Place place = order.place(position, total, before, attempt);
        try {
            return maker.make(place.source->sample(place.number), options, key);
        } catch (const Error& e) {
            if (e.kind() != ErrorKind::kInput || place.is_generated()) throw;
            log.skipped(describe(*place.spec), {place.source->index_of(place.number), "", e.what()});
            if (attempt + 1 == std::min(kMostInARow, place.source->size())) {
                throw_input("{} samples in a row cannot be used; the last one: {}", attempt + 1, e.what());
            }
        }
    }
}

class Run {
  public:
    Run(const Recipe& recipe, LlavaMini& model, const Tokenizer& tokenizer, const SourceFactory& factory,
        const RunOptions& options)
        : recipe_(recipe),
          model_(model),
          factory_(factory),
          options_(options),
          optimizer_(model.parameters()),
          maker_(tokenizer, model.vision(), types_),
          log_(options.folder / "log.jsonl", rank() == 0) {}

    RunEnd run() {
        std::filesystem::create_directories(options_.folder);
        for (const Phase& phase : recipe_.phases) {
            if (phase.accumulate % size() != 0) {
                throw_usage("phase {}: accumulate is {}, which {} processes cannot share evenly", phase.name,
                            phase.accumulate, size());
            }
        }
        const std::string hash =
            hash_bytes({reinterpret_cast<const uint8_t*>(recipe_.text.data()), recipe_.text.size()}).hex();
        if (const auto checkpoint = newest_checkpoint(options_.folder)) {
            state_ = load_checkpoint(*checkpoint, model_.parameters(), optimizer_);
            if (state_.phase > recipe_.phases.size()) {
                throw_input("{}: phase {}, but the recipe has {}", checkpoint->string(), state_.phase,
                            recipe_.phases.size());
            }
        }
        if (rank() == 0) {
            AtomicFile file(options_.folder / "recipe.json");
            file.write(recipe_.text);
            file.commit();
        }
        const bool changed = !state_.recipe_hash.empty() && state_.recipe_hash != hash;
        state_.recipe_hash = hash;
        log_.write({{"event", state_.samples == 0 ? "start" : "resume"},
                    {"version", LLAVA_MINI_VERSION},
                    {"torch", TORCH_VERSION},
                    {"openblas", openblas_kernels()},
                    {"threads", at::get_num_threads()},
                    {"processes", size()},
                    {"seed", recipe_.seed},
                    {"recipe", recipe_.name},
                    {"recipe_hash", hash},
                    {"recipe_changed", changed},
                    {"phase", state_.phase},
                    {"step", state_.step},
                    {"samples", state_.samples}});
        for (const Phase& phase : recipe_.phases) total_ += phase.samples;
        if (options_.progress && !options_.progress(state_.samples, total_, label_)) stop_wanted_ = true;
        if (!recipe_.validation.empty()) {
            validation_ = std::make_unique<SampleOrder>(open(recipe_.validation));
        }
        while (state_.phase < recipe_.phases.size()) {
            if (run_phase(recipe_.phases[state_.phase]) == RunEnd::kStopped) {
                save();
                log_.write({{"event", "stopped"}, {"samples", state_.samples}});
                return RunEnd::kStopped;
            }
            ++state_.phase;
            state_.step = 0;
        }
        save();
        if (rank() == 0) {
            save_model(model_.parameters(), options_.base, options_.folder / "model");
            if (model_.parameters().has_adapters()) {
                write_lora_gguf(options_.folder / "adapter.gguf", model_.parameters(), model_.language(),
                                recipe_.lora);
            }
        }
        log_.write({{"event", "done"},
                    {"samples", state_.samples},
                    {"seconds", rounded(state_.seconds)},
                    {"skipped", skipped_samples(options_.folder / "log.jsonl").size()}});
        return RunEnd::kDone;
    }

  private:
    RunEnd run_phase(const Phase& phase) {
        for (size_t part = 0; part < kParts; ++part) {
            model_.parameters().set_learning(static_cast<Part>(part), phase.rates[part] > 0);
        }
        if (state_.step == 0) optimizer_.reset();
        const SampleOrder order = open(phase.data);
        const auto all = static_cast<uint64_t>(phase.accumulate),
                   per_step = all / static_cast<uint64_t>(size());
        const uint64_t steps = phase.steps(), before = state_.samples - samples_at(phase, state_.step);
        if (state_.step >= steps) return RunEnd::kDone;
        // The batches of a step are dealt out to the processes in turn.
        const auto own = [&](uint64_t number) {
            return number / per_step * all + number % per_step * static_cast<uint64_t>(size()) +
                   static_cast<uint64_t>(rank());
        };
        DataQueue queue([&](uint64_t number) { return make_batch(phase, order, own(number), before); },
                        state_.step * per_step, steps * per_step, options_.data_threads, kBatchesAhead);
        auto clock = Clock::now();
        Counts counts;
        double norms = 0, log_seconds = 0;
        int64_t logged_steps = 0, operations = 0;
        while (state_.step < steps) {
            const int64_t operations_before = operations_so_far();
            norms += step(phase, queue, steps, counts);
            operations += operations_so_far() - operations_before;
            ++logged_steps;
            const uint64_t earlier = state_.samples;
            ++state_.step;
            state_.samples = before + samples_at(phase, state_.step);
            const auto now = Clock::now();
            const double seconds = std::chrono::duration<double>(now - clock).count();
            clock = now;
            state_.seconds += seconds;
            log_seconds += seconds;
            if (state_.step % static_cast<uint64_t>(options_.log_every) == 0 || state_.step == steps) {
                ordered_json entry = {
                    {"event", "train"},
                    {"phase", phase.name},
                    {"step", state_.step},
                    {"samples", state_.samples},
                    {"seconds", rounded(state_.seconds)},
                    {"samples_per_s", rounded(static_cast<double>(counts.samples * size()) / log_seconds)},
                    {"gflops_per_s", rounded(static_cast<double>(operations) / 1e9 / log_seconds)},
                    {"gradient_norm", rounded(norms / static_cast<double>(logged_steps))},
                    {"rates", rates_now(phase, steps)}};
                entry.update(report(counts, types_.names()));
                log_.write(entry);
                label_ = fmt::format("{} loss {:.3f}, {:.1f} samples/s", phase.name,
                                     counts.loss / static_cast<double>(counts.batches),
                                     static_cast<double>(counts.samples * size()) / log_seconds);
                counts = {};
                norms = log_seconds = 0;
                logged_steps = operations = 0;
            }
            const auto crossed = [&](uint64_t every) {
                return every > 0 && earlier / every != state_.samples / every;
            };
            if (crossed(recipe_.validate_every) || state_.step == steps) validate_now(phase);
            if (crossed(recipe_.checkpoint_every) && state_.step < steps) save();
            clock = Clock::now();
            if (options_.progress && !options_.progress(state_.samples, total_, label_)) stop_wanted_ = true;
            if (options_.group == nullptr) all_stop_ = stop_wanted_;
            if (all_stop_ && state_.step < steps) return RunEnd::kStopped;
        }
        return RunEnd::kDone;
    }

    static uint64_t samples_at(const Phase& phase, uint64_t step) {
        return std::min(phase.samples,
                        step * static_cast<uint64_t>(phase.batch) * static_cast<uint64_t>(phase.accumulate));
    }

    Batch make_batch(const Phase& phase, const SampleOrder& order, uint64_t number, uint64_t before) const {
        const uint64_t first = number * static_cast<uint64_t>(phase.batch);
        const uint64_t last = std::min(phase.samples, first + static_cast<uint64_t>(phase.batch));
        std::vector<Example> examples;
        for (uint64_t i = first; i < last; ++i) {
            examples.push_back(make_example(maker_, order, i, phase.samples, before, phase.examples,
                                            key_of(recipe_.seed, 21, before + i), log_));
        }
        const auto& own = model_.vision().compressor_grids;
        const std::vector<int>& grids = phase.grids.empty() ? own : phase.grids;
        int side = 0;
        if (!phase.grids.empty()) {
            side = grids[key_of(recipe_.seed, 22, before + first) % grids.size()];
            if (std::find(own.begin(), own.end(), side) == own.end()) {
                throw_input("phase {}: grids: the model has no grid of side {} (it has {})", phase.name, side,
                            fmt::join(own, ", "));
            }
        } else if (!own.empty()) {
            side = own.front();
        }
        return collate(examples, model_.batch_shape(), side, number);
    }

    // One optimiser step; returns the gradient norm.
    double step(const Phase& phase, DataQueue& queue, uint64_t steps, Counts& counts) {
        model_.parameters().zero_gradients();
        for (int i = 0; i < phase.accumulate / size(); ++i) {
            const Batch batch = queue.next();
            if (batch.examples == 0) continue;
            const auto loss = batch_loss(model_, batch, phase.loss, counts);
            if (loss.requires_grad()) (loss / phase.accumulate).backward();
        }
        if (options_.group != nullptr)
            all_stop_ = sum_gradients(model_.parameters(), *options_.group, stop_wanted_);
        const double norm = optimizer_.gradient_norm();
        if (!std::isfinite(norm)) {
            throw_input("phase {}, step {}: the gradient is {}", phase.name, state_.step, norm);
        }
        const double scale = phase.clip > 0 && norm > phase.clip ? phase.clip / norm : 1.0;
        std::array<double, kParts> rates{};
        for (size_t part = 0; part < kParts; ++part) {
            rates[part] = phase.rate(static_cast<Part>(part),
                                     static_cast<double>(state_.step + 1) / static_cast<double>(steps));
        }
        optimizer_.step(phase.adam, rates, scale);
        return norm;
    }

    ordered_json rates_now(const Phase& phase, uint64_t steps) const {
        ordered_json out;
        for (size_t part = 0; part < kParts; ++part) {
            if (phase.rates[part] <= 0) continue;
            out[kPartNames[part]] = phase.rate(static_cast<Part>(part),
                                               static_cast<double>(state_.step) / static_cast<double>(steps));
        }
        return out;
    }

    int size() const { return options_.group == nullptr ? 1 : options_.group->size(); }
    int rank() const { return options_.group == nullptr ? 0 : options_.group->rank(); }

    void validate_now(const Phase& phase) {
        if (!validation_ || rank() != 0) return;
        const Counts counts = validate(recipe_, model_, maker_, *validation_, phase, log_);
        ordered_json entry = {{"event", "validation"},
                              {"phase", phase.name},
                              {"samples", state_.samples},
                              {"seconds", rounded(state_.seconds)}};
        entry.update(report(counts, types_.names()));
        log_.write(entry);
    }

    void save() {
        if (rank() != 0) return;
        save_checkpoint(options_.folder, options_.base, model_.parameters(), optimizer_, state_,
                        recipe_.keep_checkpoints);
        write_curves(options_.folder / "log.jsonl", options_.folder / "curves.svg");
    }

    SampleOrder open(const std::vector<DataSpec>& specs) {
        SampleOrder order(specs, factory_, recipe_.seed);
        for (size_t i = 0; i < specs.size() && rank() == 0; ++i) {
            for (const SkippedSample& sample : order.sources()[i]->skipped()) {
                log_.skipped(describe(specs[i]), sample);
            }
        }
        return order;
    }

    const Recipe& recipe_;
    LlavaMini& model_;
    const SourceFactory& factory_;
    const RunOptions& options_;
    AdamW optimizer_;
    QuestionTypes types_;
    ExampleMaker maker_;
    mutable RunLog log_;
    RunState state_;
    std::unique_ptr<SampleOrder> validation_;
    uint64_t total_ = 0;
    bool stop_wanted_ = false, all_stop_ = false;  // here; anywhere, agreed on by all
    std::string label_ = "training";
};

}  // namespace

Counts validate(const Recipe& recipe, LlavaMini& model, const ExampleMaker& maker, const SampleOrder& order,
                const Phase& phase, RunLog& log) {
    const torch::NoGradGuard no_gradients;
    Counts counts;
    ExampleOptions options = phase.examples;
    options.dialogue_share = options.unfused_share = 0;
    options.position_span = 0;
    const int side = model.vision().compressor_grids.empty() ? 0 : model.vision().compressor_grids.front();
    constexpr uint64_t kBatch = 8;
    for (uint64_t first = 0; first < recipe.validation_samples; first += kBatch) {
        std::vector<Example> examples;
        for (uint64_t i = first; i < std::min(recipe.validation_samples, first + kBatch); ++i) {
            examples.push_back(make_example(maker, order, i, recipe.validation_samples, 0, options,
                                            key_of(recipe.seed, 31, i), log));
        }
        // Numbers that count marks in every batch.
        const Batch batch = collate(examples, model.batch_shape(), side, 0);
        batch_loss(model, batch, phase.loss, counts);
    }
    return counts;
}

void prepare_model(const Recipe& recipe, LlavaMini& model) {
    if (recipe.lora.rank > 0) add_lora(model.parameters(), recipe.lora, recipe.seed);
    for (size_t part = 0; part < kParts && recipe.frozen_bf16; ++part) {
        const bool learns = std::any_of(recipe.phases.begin(), recipe.phases.end(),
                                        [&](const Phase& phase) { return phase.rates[part] > 0; });
        if (!learns && static_cast<Part>(part) != Part::kLora)
            model.parameters().store_as_bf16(static_cast<Part>(part));
    }
    model.set_gradient_checkpointing(recipe.gradient_checkpointing);
}

RunEnd run_recipe(const Recipe& recipe, LlavaMini& model, const Tokenizer& tokenizer,
                  const SourceFactory& factory, const RunOptions& options) {
    return Run(recipe, model, tokenizer, factory, options).run();
}

}  // namespace llava_mini::trainer
