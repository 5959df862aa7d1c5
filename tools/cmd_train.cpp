// llava-mini train: starts llava-mini-train, which lies beside this program where libtorch was found at build
// time. A program of its own, so that no other command loads libtorch.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "commands.h"
#include "core/error.h"

namespace llava_mini::tools {

void add_train(CLI::App& app) {
    app.add_subcommand("train",
                       "Train a LLaVA-Mini: from nothing, or from a checkpoint (optional component)");
}

void start_trainer(int argc, char** argv) {
    std::error_code failure;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", failure);
    const std::string trainer = (self.parent_path() / "llava-mini-train").string();
    if (failure || !std::filesystem::exists(trainer)) {
        throw_input(
            "this build has no trainer ({} is missing): install libtorch (Debian's package libtorch-dev) and "
            "build "
            "again with -DLLAVA_MINI_TRAINER=ON",
            trainer);
    }
    std::vector<char*> arguments(argv + 2, argv + argc);
    std::string name = trainer;
    arguments.insert(arguments.begin(), name.data());
    arguments.push_back(nullptr);
    execv(trainer.c_str(), arguments.data());
    throw_system("{}: cannot be started: {}", trainer, std::strerror(errno));
}

}  // namespace llava_mini::tools
