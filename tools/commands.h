// The subcommands of llava-mini, one small file each (cmd_NAME.cpp).
#pragma once

namespace CLI {
class App;
}

namespace llava_mini::tools {

// Each adds its subcommand to the program. When it was chosen, its work is done inside CLI::App::parse: the
// answer goes to stdout, everything else to stderr, and failures are thrown (llava_mini::Error; main.cpp
// turns them into messages and exit codes).
void add_ask(CLI::App& app);
void add_bench(CLI::App& app);
void add_chat(CLI::App& app);
void add_convert(CLI::App& app);
void add_dump(CLI::App& app);
void add_eval(CLI::App& app);
void add_index(CLI::App& app);
void add_info(CLI::App& app);
void add_quantize(CLI::App& app);
void add_scenes(CLI::App& app);
void add_synth(CLI::App& app);
void add_train(CLI::App& app);
void add_watch(CLI::App& app);

/// `llava-mini train ...`: becomes the trainer, which has options of its own. Returns only by throwing.
void start_trainer(int argc, char** argv);

}  // namespace llava_mini::tools
