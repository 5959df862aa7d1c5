// llava-mini: the command line. Subcommands are in cmd_*.cpp; here is what they share: options of the program
// itself, messages, exit codes (0: done, 1: it failed, 2: wrong usage).
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "commands.h"
#include "core/log.h"
#include "help_formatter.h"
#include "llava_mini/error.hpp"

namespace {

using llava_mini::Error;
using llava_mini::ErrorKind;
using llava_mini::LogLevel;

constexpr int kFailed = 1, kWrongUsage = 2;

int fail(std::string message, int exit_code) {
    while (!message.empty() && message.back() == '\n') message.pop_back();
    for (char& c : message) {
        if (c == '\n') c = ' ';
    }
    std::fprintf(stderr, "llava-mini: error: %s\n", message.c_str());
    return exit_code;
}

void show_messages(bool verbose) {
    llava_mini::set_log_sink([verbose](LogLevel level, std::string_view text) {
        const bool important = level == LogLevel::kWarning || level == LogLevel::kError;
        if (!important && !verbose) return;
        std::fprintf(stderr, "llava-mini: %s%.*s\n", important ? "warning: " : "",
                     static_cast<int>(text.size()), text.data());
    });
}

// llama.cpp's users write -ngl and -sys; CLI11 would read these as -n and -s with values.
std::vector<std::string> arguments(int argc, char** argv) {
    std::vector<std::string> list(argv + 1, argv + argc);
    for (std::string& argument : list) {
        if (argument == "--") break;
        if (argument == "-ngl") argument = "--gpu-layers";
        if (argument == "-sys") argument = "--system-prompt";
    }
    std::reverse(list.begin(), list.end());  // as CLI11 wants them
    return list;
}

// Answers that never reached the file or pipe are a failure.
int close_stdout() {
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) return fail("cannot write to stdout", kFailed);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{
        "LLaVA-Mini: questions about pictures and video with one vision token per picture.\n"
        "`llava-mini COMMAND --help` describes a command.",
        "llava-mini"};
    app.set_version_flag("--version", "llava-mini " LLAVA_MINI_VERSION);
    bool verbose = false;
    app.add_flag("-v,--verbose", verbose, "Show what the library and the engine (ggml, libllama) report");
    app.require_subcommand(1);
    app.fallthrough();  // program options may stand behind the command too
    app.formatter(std::make_shared<llava_mini::tools::HelpFormatter>());
    app.parse_complete_callback([&] { show_messages(verbose); });

    llava_mini::tools::add_ask(app);
    llava_mini::tools::add_bench(app);
    llava_mini::tools::add_chat(app);
    llava_mini::tools::add_convert(app);
    llava_mini::tools::add_dump(app);
    llava_mini::tools::add_eval(app);
    llava_mini::tools::add_index(app);
    llava_mini::tools::add_info(app);
    llava_mini::tools::add_quantize(app);
    llava_mini::tools::add_scenes(app);
    llava_mini::tools::add_synth(app);
    llava_mini::tools::add_train(app);
    llava_mini::tools::add_watch(app);

    try {
        if (argc > 1 && std::string_view(argv[1]) == "train") llava_mini::tools::start_trainer(argc, argv);
        app.parse(arguments(argc, argv));
        return close_stdout();
    } catch (const CLI::ParseError& e) {
        if (e.get_exit_code() != static_cast<int>(CLI::ExitCodes::Success)) {
            const auto chosen = app.get_subcommands();
            if (chosen.empty() && argc > 1 && argv[1][0] != '-') {
                return fail(std::string("no such command: ") + argv[1] + " (see llava-mini --help)",
                            kWrongUsage);
            }
            const std::string command = chosen.empty() ? "" : chosen.front()->get_name() + " ";
            return fail(std::string(e.what()) + " (see llava-mini " + command + "--help)", kWrongUsage);
        }
        app.exit(e);  // --help, --version
        return close_stdout();
    } catch (const Error& e) {
        return fail(e.what(), e.kind() == ErrorKind::kUsage ? kWrongUsage : kFailed);
    } catch (const std::bad_alloc&) {
        return fail("out of memory", kFailed);
    } catch (const std::exception& e) {
        return fail(e.what(), kFailed);
    }
}
