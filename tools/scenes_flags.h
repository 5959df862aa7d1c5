// Options of commands that make synthetic scenes.
#pragma once

#include <string>
#include <vector>

#include "scenes/generator.h"

namespace CLI {
class App;
}

namespace llava_mini::tools {

/// Must outlive the parsing.
struct ScenesOptionsFlags {
    scenes::GeneratorOptions generator;
    std::string split = "train";
    std::vector<std::string> weights;
    bool augment = false, no_augment = false;

    /// --split, --seed, --size, --things, --big, --shapes, --signs, --clips, --frames, --turns, --weight,
    /// --augment, --no-augment, --fonts
    void add_to(CLI::App& command);
    /// Throws Error(kUsage) for a weight that is not TYPE=NUMBER.
    scenes::GeneratorOptions options() const;
};

}  // namespace llava_mini::tools
