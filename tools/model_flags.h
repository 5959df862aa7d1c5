// Options that every command with a model or an answer has, under the names that llama.cpp's users know.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "llava_mini/llava_mini.hpp"

namespace CLI {
class App;
}

namespace llava_mini::tools {

/// The structs below must outlive the parsing.
struct ModelFlags {
    ModelOptions model;
    SessionOptions session;

    /// -m, --mmproj, --lora, -ngl, -t
    void add_model_to(CLI::App& command);
    /// -c, --kv-type, --image-cache, --official-quirks, -sys
    void add_session_to(CLI::App& command);
    /// Loads the model, the default one if none was named, with a progress bar if it is large and a person is
    /// watching. Throws Error(kInput) if there is none.
    std::shared_ptr<Model> load() const;
    SessionOptions session_options() const;
};

struct ImageFlags {
    ImageOptions image;

    /// --image-aspect-ratio, --resolution-ratio, --vision-tokens, --no-exif, --max-pixels
    void add_to(CLI::App& command);
};

struct SamplingFlags {
    SamplingOptions sampling;
    std::filesystem::path grammar_file;

    /// -n, --temp, --top-k, --top-p, --min-p, -s, --grammar
    void add_to(CLI::App& command);
    /// Throws Error(kInput) if the grammar cannot be read.
    SamplingOptions options() const;
};

/// The model in the source tree or beside the installed program: the folder models/tiny above the program's
/// own, or share/llava-mini/models/tiny. Nothing if neither holds a model.
std::optional<std::filesystem::path> default_model();

}  // namespace llava_mini::tools
