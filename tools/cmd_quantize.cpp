// llava-mini quantize: language.gguf or vision.gguf in another type.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <thread>

#include "commands.h"
#include "convert/quantization.h"
#include "convert/quantize.h"
#include "llm/language_gguf.h"
#include "model/gguf_file.h"
#include "progress_bar.h"

namespace llava_mini::tools {

void add_quantize(CLI::App& app) {
    struct Flags {
        QuantizeOptions options;
        std::string type;
    };
    auto flags = std::make_shared<Flags>();
    CLI::App* command = app.add_subcommand("quantize", "Store language.gguf or vision.gguf in another type");
    command->add_option("IN", flags->options.in, "The file, best in f16, bf16 or f32")->required();
    command->add_option("OUT", flags->options.out, "The file to write (may be IN)")->required();
    command
        ->add_option(
            "TYPE", flags->type,
            "f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m, q4_0, iq4_xs, ... Kept higher, because errors there are "
            "not averaged out: norms, biases, positions (f32); patch embedding, compressor, projector (f16); "
            "vision tower and output matrix (q6_k or more); pre-fusion (q5_k or more); and what llama.cpp's "
            "mixtures choose")
        ->required();
    command->add_flag("--allow-requantize", flags->options.allow_requantize,
                      "Take a file that is already quantized (worse than starting from f16)");
    flags->options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    command->add_option("-t,--threads", flags->options.threads, "Threads")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
    command->callback([flags] {
        QuantizeOptions& options = flags->options;
        options.type = parse_file_type(flags->type);
        const GgufFile file(options.in);
        const bool is_vision = file.get_string("general.architecture") == kVisionArchitecture;
        if (!is_vision) read_language_hparams(file);
        {
            ProgressBar bar;
            options.progress = bar.callback();
            is_vision ? quantize_vision(options) : quantize_language(options);
        }
        fmt::print(stderr, "{}: {:.1f} MiB\n", options.out.string(),
                   static_cast<double>(std::filesystem::file_size(options.out)) / (1 << 20));
    });
}

}  // namespace llava_mini::tools
