#include "scenes_flags.h"

#include <CLI/CLI.hpp>

#include "core/error.h"

namespace llava_mini::tools {

void ScenesOptionsFlags::add_to(CLI::App& command) {
    const std::vector<std::string> splits(scenes::kSplits.begin(), scenes::kSplits.end());
    const auto range = [&](const char* name, int& low, int& high, const char* help) {
        command
            .add_option_function<std::vector<int>>(
                name,
                [&low, &high](const std::vector<int>& values) {
                    low = values[0];
                    high = values[1];
                },
                help)
            ->expected(2)
            ->type_name("MIN MAX");
    };
    const auto share = [&](const char* name, double& value, const char* help) {
        command.add_option(name, value, help)
            ->type_name("X")
            ->check(CLI::Range(0.0, 1.0))
            ->capture_default_str();
    };
    command.add_option("--split", split, "Random numbers and combinations that other splits do not have")
        ->check(CLI::IsMember(splits))
        ->capture_default_str();
    command.add_option("--seed", generator.seed, "Seed")->type_name("N")->capture_default_str();
    command.add_option("--size", generator.size, "Side of the pictures in pixels")
        ->type_name("N")
        ->check(CLI::Range(32, 1024))
        ->capture_default_str();
    range("--things", generator.scene.min_things, generator.scene.max_things,
          "Things a picture (default: 1 5)");
    share("--big", generator.scene.big_share, "Share of pictures with one big thing");
    share("--shapes", generator.scene.shape_share, "Share of things that are coloured shapes");
    share("--signs", generator.scene.sign_share, "Share of pictures with a sign");
    share("--clips", generator.clip_share, "Share of samples that are clips");
    range("--frames", generator.clip.min_frames, generator.clip.max_frames, "Frames a clip (default: 2 16)");
    range("--turns", generator.min_turns, generator.max_turns, "Questions a sample (default: 4 8)");
    command
        .add_option("--weight", weights,
                    "Weight of a question type, e.g. where=2; may be given several times")
        ->type_name("TYPE=X")
        ->allow_extra_args(false);
    CLI::Option* on = command.add_flag("--augment", augment, "Augment (default: in the training split only)");
    command.add_flag("--no-augment", no_augment, "Do not augment")->excludes(on);
    command.add_option("--fonts", generator.fonts, "Folder with the fonts (noto/, dejavu/)")
        ->type_name("DIR")
        ->capture_default_str();
}

scenes::GeneratorOptions ScenesOptionsFlags::options() const {
    scenes::GeneratorOptions options = generator;
    options.split = scenes::parse_split(split);
    if (augment) options.augment = true;
    if (no_augment) options.augment = false;
    for (const std::string& text : weights) {
        const size_t equals = text.find('=');
        char* end = nullptr;
        const double value = equals == std::string::npos ? 0 : std::strtod(text.c_str() + equals + 1, &end);
        if (end == nullptr || *end != '\0' || end == text.c_str() + equals + 1) {
            throw_usage("--weight {}: expected TYPE=NUMBER", text);
        }
        options.weights[text.substr(0, equals)] = value;
    }
    return options;
}

}  // namespace llava_mini::tools
