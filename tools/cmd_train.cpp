// llava-mini train: starts llava-mini-train, which lies beside this program where libtorch was found at build
// time. A program of its own, so that no other command loads libtorch.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "commands.h"
#include "core/error.h"

namespace llava_mini::tools {

void add_train(CLI::App& app) {
    CLI::App* command =
        app.add_subcommand("train", "Train a LLaVA-Mini: from nothing, or from a checkpoint (optional component)");
    command->prefix_command();  // everything behind it is the trainer's
    command->set_help_flag();
    command->callback([command] {
        std::error_code failure;
        const auto self = std::filesystem::read_symlink("/proc/self/exe", failure);
        const auto trainer = self.parent_path() / "llava-mini-train";
        if (failure || !std::filesystem::exists(trainer)) {
            throw_input(
                "this build has no trainer ({} is missing): install libtorch (Debian's package libtorch-dev) and "
                "build again with -DLLAVA_MINI_TRAINER=ON",
                trainer.string());
        }
        std::vector<std::string> arguments = command->remaining();
        arguments.insert(arguments.begin(), trainer.string());
        std::vector<char*> pointers;
        for (std::string& argument : arguments) pointers.push_back(argument.data());
        pointers.push_back(nullptr);
        execv(trainer.c_str(), pointers.data());
        throw_system("{}: cannot be started: {}", trainer.string(), std::strerror(errno));
    });
}

}  // namespace llava_mini::tools
