// llava-mini convert: a checkpoint in Hugging Face's layout to language.gguf and vision.gguf.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <thread>

#include "commands.h"
#include "convert/convert.h"
#include "convert/quantization.h"
#include "progress_bar.h"

namespace llava_mini::tools {

void add_convert(CLI::App& app) {
    struct Flags {
        ConvertOptions options;
        std::string vision_tower, type = "f16";
    };
    auto flags = std::make_shared<Flags>();
    CLI::App* command = app.add_subcommand(
        "convert",
        "Convert a checkpoint (Hugging Face layout, safetensors) into language.gguf and vision.gguf");
    command->add_option("--checkpoint", flags->options.checkpoint, "Folder of the checkpoint")->required();
    command->add_option(
        "--vision-tower", flags->vision_tower,
        "Folder of the CLIP vision tower (default: where the checkpoint's config.json says, or the "
        "tower inside the checkpoint)");
    command->add_option("-o,--out", flags->options.out, "Folder for the two files")->required();
    command
        ->add_option(
            "--outtype", flags->type,
            "Type of the large matrices: f32, f16, bf16, q8_0, q4_0, q4_k, ... Kept higher, because errors "
            "there are not averaged out: norms, biases, positions (f32); patch embedding, compressor, "
            "projector "
            "(f16); vision tower and output matrix (q6_k or more); pre-fusion (q5_k or more)")
        ->capture_default_str();
    flags->options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    command->add_option("-t,--threads", flags->options.threads, "Threads")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
    command->callback([flags] {
        flags->options.type = parse_tensor_type(flags->type);
        if (!flags->vision_tower.empty()) flags->options.vision_tower = flags->vision_tower;
        {
            ProgressBar bar;
            flags->options.progress = bar.callback();
            convert_checkpoint(flags->options);
        }
        for (const char* file : {kLanguageFile, kVisionFile}) {
            fmt::print(
                stderr, "{}: {:.1f} MiB\n", (flags->options.out / file).string(),
                static_cast<double>(std::filesystem::file_size(flags->options.out / file)) / (1 << 20));
        }
    });
}

}  // namespace llava_mini::tools
