// llava-mini synth: a model of real shapes with random weights.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "commands.h"
#include "convert/quantization.h"
#include "convert/synth.h"
#include "progress_bar.h"

namespace llava_mini::tools {

void add_synth(CLI::App& app) {
    struct Flags {
        SynthOptions options;
        std::string shape, type = "q4_0";
        bool checkpoint = false;
        double shard_gigabytes = 5.0;
    };
    auto flags = std::make_shared<Flags>();
    CLI::App* command = app.add_subcommand(
        "synth", "Make a model with random weights: for measurements, without any download");
    std::string shapes;
    for (const SynthShape& shape : synth_shapes()) {
        shapes += fmt::format("\n{}: {}", shape.name, shape.description);
    }
    command->add_option("--shape", flags->shape, "One of" + shapes)->required();
    command->add_option("-o,--out", flags->options.out, "Folder to write")->required();
    CLI::Option* type =
        command->add_option("--type", flags->type, "Type of the large matrices, as for convert")
            ->capture_default_str();
    command
        ->add_flag("--checkpoint", flags->checkpoint,
                   "Write a bf16 checkpoint in Hugging Face's layout instead of GGUF files")
        ->excludes(type);
    command->add_option("--shard-size", flags->shard_gigabytes, "Largest shard of a checkpoint, in GB")
        ->check(CLI::Range(0.001, 1000.0))
        ->capture_default_str();
    command->add_option("-s,--seed", flags->options.seed, "Seed of the random numbers")
        ->capture_default_str();
    command->callback([flags] {
        const SynthShape& shape = find_synth_shape(flags->shape);
        const ggml_type tensor_type = parse_tensor_type(flags->type);
        ProgressBar bar;
        flags->options.progress = bar.callback();
        if (flags->checkpoint) {
            synthesize_checkpoint(shape, static_cast<uint64_t>(flags->shard_gigabytes * 1e9), flags->options);
        } else {
            synthesize_gguf(shape, tensor_type, flags->options);
        }
    });
}

}  // namespace llava_mini::tools
