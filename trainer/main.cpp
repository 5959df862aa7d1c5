// llava-mini-train: trains a LLaVA-Mini. A program of its own, so that llava-mini itself never loads
// libtorch.
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "convert/checkpoint_config.h"
#include "convert/json_input.h"
#include "core/error.h"
#include "tools/help_formatter.h"
#include "tools/progress_bar.h"
#include "trainer/initialise.h"
#include "trainer/run.h"
#include "trainer/sources.h"

namespace llava_mini::trainer {
namespace {

namespace fs = std::filesystem;

constexpr int kFailed = 1, kWrongUsage = 2, kInterrupted = 130;

struct Flags {
    std::string recipe, out, checkpoint, language, vision_tower, tokenizer;
    int threads = 1, data_threads = 1, log_every = 100;
};

// What a run starts from, always in RUN/initial: made once, so that a resumed run finds the same
// configuration.
void initial_checkpoint(const Flags& flags, const Recipe& recipe) {
    const fs::path folder = fs::path(flags.out) / "initial";
    if (fs::exists(folder / "model.safetensors")) return;
    InitialiseOptions options;
    if (!flags.checkpoint.empty()) {
        options = options_of_checkpoint(flags.checkpoint, flags.vision_tower.empty()
                                                              ? std::nullopt
                                                              : std::optional<fs::path>(flags.vision_tower));
    } else {
        if (recipe.model.is_null()) {
            throw_usage("the recipe describes no model: give the checkpoint to start from by --checkpoint");
        }
        options = options_of_recipe(recipe.model);
        options.tokenizer = flags.tokenizer.empty() ? flags.language : flags.tokenizer;
        if (options.tokenizer.empty()) {
            throw_usage("a new model needs a tokenizer: give its folder by --tokenizer");
        }
        if (!flags.language.empty()) options.language = flags.language;
        if (!flags.vision_tower.empty()) options.vision_tower = flags.vision_tower;
    }
    options.seed = recipe.seed;
    write_initial_checkpoint(folder, options);
}

int train(const Flags& flags) {
    const Recipe recipe = read_recipe(flags.recipe);
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
    model.parameters().load(weights, nullptr);

    tools::ProgressBar bar;
    RunOptions options{flags.out, base, flags.data_threads, flags.log_every, bar.callback(), group.get()};
    const RunEnd end = run_recipe(recipe, model, tokenizer, make_source, options);
    if (end == RunEnd::kStopped) {
        std::fprintf(stderr, "\nllava-mini-train: stopped; the same command goes on\n");
        return kInterrupted;
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
    CLI::App app{
        "Trains a LLaVA-Mini as a recipe says: from nothing, from a checkpoint, or from a language model and "
        "a vision tower. Started again with the same --out, it goes on from the newest checkpoint.",
        "llava-mini train"};
    Flags flags;
    app.formatter(std::make_shared<tools::HelpFormatter>());
    app.add_option("--recipe", flags.recipe, "JSON file with the model, the phases and the data")->required();
    app.add_option("-o,--out", flags.out,
                   "Folder of the run: log.jsonl, curves.svg, checkpoints/, at the end model/")
        ->required();
    CLI::Option* checkpoint =
        app.add_option("--checkpoint", flags.checkpoint,
                       "Start from this checkpoint (Hugging Face layout) instead of a new model");
    app.add_option("--language-model", flags.language, "Checkpoint of a language model for a new model")
        ->excludes(checkpoint);
    app.add_option("--vision-tower", flags.vision_tower, "Folder of a CLIP vision tower");
    app.add_option("--tokenizer", flags.tokenizer, "Folder with the tokenizer of a new model")
        ->excludes(checkpoint);
    app.add_option("-t,--threads", flags.threads, "Threads of the optimiser")->capture_default_str();
    app.add_option("--data-threads", flags.data_threads, "Threads that make batches")
        ->check(CLI::Range(1, 256))
        ->capture_default_str();
    app.add_option("--log-every", flags.log_every, "Optimiser steps between lines of the log")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    try {
        app.parse(argc, argv);
        return train(flags);
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
