// llava-mini dump: every stage of one prompt as .npy files.
#include <CLI/CLI.hpp>
#include <memory>

#include "commands.h"
#include "dump/dump.h"
#include "model_flags.h"

namespace llava_mini::tools {

void add_dump(CLI::App& app) {
    struct Flags {
        ModelFlags model;
        ImageFlags image;
        DumpOptions dump;
        std::filesystem::path out;
    };
    auto flags = std::make_shared<Flags>();
    CLI::App* command = app.add_subcommand(
        "dump",
        "Write every stage of one prompt as .npy files, to compare with the official code\n"
        "Keys, values and attention are f32; weights are as the model has them. The files' names and shapes "
        "are those of "
        "the recordings in tests/golden/README.md.");
    flags->model.add_model_to(*command);
    CLI::Option* image = command->add_option("--image", flags->dump.image, "A picture")->type_name("FILE");
    command
        ->add_option("--frames", flags->dump.frames,
                     "Raw video frames: .npy, uint8 [frames, height, width, 3]")
        ->type_name("FILE")
        ->excludes(image);
    CLI::Option* prompt = command->add_option(
        "--prompt", flags->dump.prompt,
        "Prompt text, used as it is, chat markup included, with <image> where the vision tokens go; one "
        "begin-of-text is put in front unless it starts with it");
    CLI::Option* ids = command->add_option(
        "--ids", flags->dump.ids, "Exact token ids instead: .npy, integers, -200 for the placeholder");
    prompt->type_name("TEXT")->excludes(ids);
    ids->type_name("FILE");
    command->add_option("--greedy", flags->dump.greedy, "Tokens to generate, end tokens not obeyed")
        ->type_name("N")
        ->check(CLI::Range(0, 1 << 20))
        ->capture_default_str();
    flags->image.add_to(*command);
    command->add_flag(
        "--official-quirks", flags->dump.official_quirks,
        "Leave token 0 unfused and unseen, and pad every high-resolution view by itself, as the "
        "released code does");
    command->add_option("--out", flags->out, "Folder for the files")->type_name("DIR")->required();

    command->callback([flags] {
        flags->model.model.prefusion_kv = KvType::kF32;
        flags->dump.image_options = flags->image.image;
        const auto model = flags->model.load();
        write_dump(dump_stages(*model, flags->dump), flags->out);
    });
}

}  // namespace llava_mini::tools
