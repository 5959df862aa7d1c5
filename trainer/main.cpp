// llava-mini-train: trains a LLaVA-Mini. A program of its own, so that llava-mini itself never loads
// libtorch.
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "convert/checkpoint_config.h"
#include "convert/json_input.h"
#include "convert/synth.h"
#include "core/error.h"
#include "tools/help_formatter.h"
#include "tools/progress_bar.h"
#include "trainer/blas.h"
#include "trainer/initialise.h"
#include "trainer/plan.h"
#include "trainer/restore.h"
#include "trainer/run.h"
#include "trainer/sources.h"

namespace llava_mini::trainer {
namespace {

namespace fs = std::filesystem;

constexpr int kFailed = 1, kWrongUsage = 2, kInterrupted = 130;

struct Flags {
    std::string recipe, out, checkpoint, language, vision_tower, tokenizer, shape;
    bool plan = false, json = false;
    PlanMachine machine;
    int question_tokens = 0, answer_tokens = 0, batch = 0;  // of a plan; 0: as the way says
    std::vector<std::string> changes;
    int threads = 1, data_threads = 1, log_every = 100;
};

InitialiseOptions beginning(const Flags& flags, const Recipe& recipe) {
    const auto tower =
        flags.vision_tower.empty() ? std::nullopt : std::optional<fs::path>(flags.vision_tower);
    InitialiseOptions options;
    if (!flags.checkpoint.empty()) {
        options = options_of_checkpoint(flags.checkpoint, tower, recipe.model);
    } else if (!flags.language.empty() && tower) {
        options = options_of_parts(flags.language, *tower, recipe.model);
    } else if (recipe.model.is_null()) {
        throw_usage(
            "the recipe describes no model: give the checkpoint to start from by --checkpoint, or a language "
            "model and a vision tower by --language-model and --vision-tower");
    } else {
        options = options_of_recipe(recipe.model);
        if (!flags.language.empty()) options.tokenizer = flags.language;
        if (!flags.language.empty()) options.language = flags.language;
        if (tower) options.vision_tower = tower;
    }
    if (!flags.tokenizer.empty()) options.tokenizer = flags.tokenizer;
    options.seed = recipe.seed;
    return options;
}

// What a run starts from, always in RUN/initial: made once, so that a resumed run finds the same
// configuration.
void initial_checkpoint(const Flags& flags, const Recipe& recipe) {
    const fs::path folder = fs::path(flags.out) / "initial";
    struct Restored {
        fs::path folder;
        ~Restored() {
            std::error_code ignored;
            fs::remove_all(folder, ignored);
        }
    } const restored{fs::path(flags.out) / "initial.restored"};
    if (fs::exists(folder / "model.safetensors")) return;
    Flags from = flags;
    if (!flags.checkpoint.empty() && holds_gguf(flags.checkpoint)) {
        if (flags.tokenizer.empty()) {
            throw_usage("{}: GGUF files: give the folder of the tokenizer they were made with by --tokenizer",
                        flags.checkpoint);
        }
        std::error_code ignored;
        fs::remove_all(restored.folder, ignored);  // of a run that was killed
        restore_checkpoint(flags.checkpoint, flags.tokenizer, restored.folder);
        from.checkpoint = restored.folder;
        from.tokenizer.clear();
    } else if (!flags.checkpoint.empty() && !fs::exists(fs::path(flags.checkpoint) / "config.json")) {
        throw_input(
            "{}: expected a checkpoint (config.json and safetensors) or a model (language.gguf and "
            "vision.gguf)",
            flags.checkpoint);
    } else if (!flags.checkpoint.empty() && !flags.tokenizer.empty()) {
        throw_usage("--tokenizer: {} is a checkpoint with a tokenizer of its own", flags.checkpoint);
    }
    const InitialiseOptions options = beginning(from, recipe);
    if (options.tokenizer.empty()) {
        throw_usage("a new model needs a tokenizer: give its folder by --tokenizer");
    }
    write_initial_checkpoint(folder, options);
}

// Memory and time, of a shape by name or of what the recipe would start from.
int print_plan(const Flags& flags) {
    if (flags.recipe.empty() && flags.shape.empty()) {
        throw_usage("--plan: give a recipe by --recipe or a shape by --shape");
    }
    std::vector<PlanCase> cases = standard_cases();
    std::optional<Recipe> recipe;
    if (!flags.recipe.empty()) {
        recipe = read_recipe(flags.recipe, flags.changes);
        cases = cases_of(*recipe);
        if (cases.size() < recipe->phases.size()) {
            std::fprintf(stderr, "llava-mini-train: phases that ask no questions are not in the plan\n");
        }
    }
    if (!flags.checkpoint.empty() && holds_gguf(flags.checkpoint)) {
        throw_usage("--plan: {} holds GGUF files: expected a checkpoint", flags.checkpoint);
    }
    VisionHparams vision;
    LlamaHparams language;
    if (!flags.shape.empty()) {
        const SynthShape& shape = find_synth_shape(flags.shape);
        vision = shape.vision;
        language = shape.language;
    } else {
        const CheckpointConfig config = configuration_of(beginning(flags, *recipe));
        vision = config.vision;
        language = config.language;
    }
    std::vector<PlanRow> rows;
    for (PlanCase& way : cases) {
        if (flags.batch > 0) way.batch = flags.batch;
        if (flags.question_tokens > 0) way.question = flags.question_tokens;
        if (flags.answer_tokens > 0) way.answer = flags.answer_tokens;
        for (const bool checkpointing : {false, true})
            rows.push_back(plan(vision, language, way, checkpointing, flags.machine));
    }
    const std::string text =
        flags.json ? plan_json(rows, flags.machine).dump(2) + "\n" : plan_table(rows, flags.machine);
    std::fputs(text.c_str(), stdout);
    return 0;
}

int train(const Flags& flags) {
    if (flags.recipe.empty() || flags.out.empty()) {
        throw_usage("--recipe and --out are required (see llava-mini train --help)");
    }
    const Recipe recipe = read_recipe(flags.recipe, flags.changes);
    at::set_num_threads(flags.threads);
    at::globalContext().setFlushDenormal(true);
    const std::unique_ptr<ProcessGroup> group = ProcessGroup::from_environment();
    if (group == nullptr || group->rank() == 0) initial_checkpoint(flags, recipe);
    if (group != nullptr) group->barrier();
    const fs::path base = fs::path(flags.out) / "initial";
    const SafetensorsReader weights(base);
    const CheckpointConfig config = read_checkpoint_config(base, {}, weights);
    const Tokenizer tokenizer(base, config.language.n_vocab, config.bos_id, config.eos_ids);
    LlavaMini model(config.vision, config.language);
    prepare_model(recipe, model);
    model.parameters().load(weights, nullptr);

    tools::ProgressBar bar;
    RunOptions options{flags.out, base, flags.data_threads, flags.log_every, bar.callback(), group.get()};
    const RunEnd end = run_recipe(recipe, model, tokenizer, make_source, options);
    if (end == RunEnd::kStopped) {
        std::fprintf(stderr, "\nllava-mini-train: stopped; the same command goes on\n");
        return kInterrupted;
    }
    if (const auto skipped = skipped_samples(fs::path(flags.out) / "log.jsonl");
        !skipped.empty() && (group == nullptr || group->rank() == 0)) {
        std::fprintf(stderr, "\nllava-mini-train: %zu samples could not be used; the first ones:\n",
                     skipped.size());
        for (size_t i = 0; i < std::min<size_t>(10, skipped.size()); ++i) {
            const auto& [source, sample] = skipped[i];
            std::fprintf(stderr, "  %s, sample %llu %s: %s\n", source.c_str(),
                         static_cast<unsigned long long>(sample.index), sample.id.c_str(),
                         sample.reason.c_str());
        }
        std::fprintf(stderr, "all of them are in %s\n", (fs::path(flags.out) / "log.jsonl").c_str());
    }
    return 0;
}

int fail(const std::string& message, int code) {
    std::fprintf(stderr, "llava-mini-train: error: %s\n", message.substr(0, message.find('\n')).c_str());
    return code;
}

}  // namespace
}  // namespace llava_mini::trainer

int main(int argc, char** argv) {
    using namespace llava_mini;
    using namespace llava_mini::trainer;
    start_with_best_kernels(argv);
    CLI::App app{
        "Trains a LLaVA-Mini as a recipe says: from nothing, from a checkpoint, or from a language model and "
        "a vision tower. Started again with the same --out, it goes on from the newest checkpoint.",
        "llava-mini train"};
    Flags flags;
    app.formatter(std::make_shared<tools::HelpFormatter>());
    app.add_option("--recipe", flags.recipe, "JSON file with the model, the phases and the data");
    app.add_option("--set", flags.changes,
                   "Change a field of the recipe, e.g. model.config.prefusion_layer_num=0 or "
                   "phases.1.lr.language=1e-4; may be given several times")
        ->type_name("PATH=VALUE")
        ->allow_extra_args(false);
    app.add_option("-o,--out", flags.out,
                   "Folder of the run: log.jsonl, curves.svg, checkpoints/, at the end model/");
    CLI::Option* checkpoint = app.add_option(
        "--checkpoint", flags.checkpoint,
        "Start from this checkpoint (Hugging Face layout), or from a model of this program (language.gguf "
        "and "
        "vision.gguf; with --tokenizer); what the recipe's model.config says is put over its configuration");
    app.add_option("--language-model", flags.language,
                   "Folder of a language model; with --vision-tower all that a new model needs")
        ->excludes(checkpoint);
    app.add_option("--vision-tower", flags.vision_tower, "Folder of a CLIP vision tower");
    app.add_option("--tokenizer", flags.tokenizer,
                   "Folder with the tokenizer of a new model, or of GGUF files to start from");
    app.add_option("-t,--threads", flags.threads, "Threads of the optimiser")->capture_default_str();
    app.add_option("--data-threads", flags.data_threads, "Threads that make batches")
        ->check(CLI::Range(1, 256))
        ->capture_default_str();
    app.add_option("--log-every", flags.log_every, "Optimiser steps between lines of the log")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    CLI::Option* plan =
        app.add_flag("--plan", flags.plan, "Train nothing: print what memory and time it takes");
    app.add_option("--shape", flags.shape, "Plan for this shape (those of llava-mini synth)")
        ->needs(plan)
        ->type_name("NAME");
    app.add_flag("--json", flags.json, "The plan as JSON")->needs(plan);
    app.add_option("--gpus", flags.machine.processes, "Plan for so many GPUs, one process each")
        ->needs(plan)
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
    app.add_option("--tflops", flags.machine.tflops, "TFLOP/s of one GPU at best")
        ->needs(plan)
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--mfu", flags.machine.share, "Share of them that is reached")
        ->needs(plan)
        ->check(CLI::Range(0.001, 1.0))
        ->capture_default_str();
    app.add_option("--batch", flags.batch, "Samples of a forward pass in the plan")
        ->needs(plan)
        ->check(CLI::PositiveNumber);
    app.add_option("--question-tokens", flags.question_tokens,
                   "Tokens of system prompt, markup and questions of a sample in the plan")
        ->needs(plan)
        ->check(CLI::PositiveNumber);
    app.add_option("--answer-tokens", flags.answer_tokens, "Tokens of a sample's answers in the plan")
        ->needs(plan)
        ->check(CLI::PositiveNumber);
    try {
        app.parse(argc, argv);
        return flags.plan ? print_plan(flags) : train(flags);
    } catch (const CLI::ParseError& e) {
        if (e.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(e);
        return fail(std::string(e.what()) + " (see llava-mini train --help)", kWrongUsage);
    } catch (const Error& e) {
        return fail(e.what(), e.kind() == ErrorKind::kUsage ? kWrongUsage : kFailed);
    } catch (const std::bad_alloc&) {
        return fail("out of memory", kFailed);
    } catch (const std::exception& e) {
        return fail(e.what(), kFailed);
    }
}
