#include "model_flags.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>

#include "core/error.h"
#include "core/file.h"
#include "progress_bar.h"
#include "session/model_impl.h"

namespace llava_mini::tools {
namespace {

constexpr uint64_t kMaxGrammarBytes = 1 << 20;
constexpr uint64_t kLargeModelBytes = uint64_t{256} << 20;  // takes long enough to load to say so

void add_kv_type(CLI::App& command, KvType& type) {
    static const std::map<std::string, KvType> types = {
        {"f16", KvType::kF16}, {"q8_0", KvType::kQ8_0}, {"f32", KvType::kF32}};
    command
        .add_option_function<std::string>(
            "--kv-type", [&type](const std::string& name) { type = types.at(name); },
            "Type of cached keys and values, of the language model and of the pre-fusion")
        ->check(CLI::IsMember(types))
        ->type_name("f16|q8_0|f32")
        ->default_str("f16");
}

}  // namespace

std::optional<std::filesystem::path> default_model() {
    std::error_code error;
    const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
    for (std::filesystem::path folder = program.parent_path(); folder != folder.root_path();
         folder = folder.parent_path()) {
        for (const char* place : {"models/tiny", "share/llava-mini/models/tiny"}) {
            if (std::filesystem::exists(folder / place / "language.gguf", error)) return folder / place;
        }
    }
    return std::nullopt;
}

void ModelFlags::add_model_to(CLI::App& command) {
    command
        .add_option("-m,--model", model.model,
                    "Folder with language.gguf and vision.gguf, or the language model's file (default: the "
                    "model that comes with the program)")
        ->type_name("PATH")
        ->envname("LLAVA_MINI_MODEL");
    command
        .add_option("--mmproj", model.mmproj,
                    "The vision side's file (default: vision.gguf beside the model)")
        ->type_name("FILE");
    command.add_option("--lora", model.lora, "Adapter (LoRA, GGUF) of the language model")->type_name("FILE");
    command
        .add_option("--gpu-layers", model.gpu_layers,
                    "Layers of the language model put on the GPU, -1 for all; unless 0, the vision side goes "
                    "there too (also -ngl)")
        ->type_name("N")
        ->check(CLI::Range(-1, 10000))
        ->capture_default_str();
    command.add_option("-t,--threads", model.threads, "CPU threads (default: one a core)")
        ->type_name("N")
        ->check(CLI::Range(1, 4096));
}

void ModelFlags::add_session_to(CLI::App& command) {
    command
        .add_option("-c,--ctx-size", session.context,
                    "Tokens of context (default: 4096 or the model's own, if less)")
        ->type_name("N")
        ->check(CLI::Range(1, 1 << 24));
    add_kv_type(command, model.prefusion_kv);
    command
        .add_option("--image-cache", model.image_cache_bytes,
                    "Memory for the encodings of pictures already seen, e.g. 512MiB; 0: none")
        ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
        ->type_name("SIZE")
        ->default_str("512MiB");
    command.add_flag(
        "--official-quirks", session.official_quirks,
        "Do as the released Python code does where it departs from the training: whole conversations "
        "fused anew, token 0 left unfused, begin-of-text doubled, high-resolution views padded one "
        "by one");
    command
        .add_option_function<std::string>(
            "--system-prompt", [this](const std::string& text) { session.system_prompt = text; },
            "System prompt, \"\" for none (default: the model's own; also -sys)")
        ->type_name("TEXT");
}

std::shared_ptr<Model> ModelFlags::load() const {
    ModelOptions options = model;
    if (options.model.empty()) {
        const auto found = default_model();
        if (!found) {
            throw_input(
                "no model: name one with -m DIR, a folder with language.gguf and vision.gguf; make it from a "
                "LLaVA-Mini checkpoint with `llava-mini convert --checkpoint CHECKPOINT --out DIR`");
        }
        options.model = *found;
    }
    const auto [language, vision] = model_files(options);
    const auto size_of = [](const std::filesystem::path& file) {  // loading says what is wrong with a file
        std::error_code error;
        const uint64_t size = std::filesystem::file_size(file, error);
        return error ? 0 : size;
    };
    const bool large = size_of(language) + size_of(vision) > kLargeModelBytes;
    if (!large || isatty(STDERR_FILENO) == 0) return Model::load(options);
    ProgressBar bar;
    options.progress = bar.callback();
    return Model::load(options);
}

SessionOptions ModelFlags::session_options() const {
    SessionOptions options = session;
    options.kv_type = model.prefusion_kv;
    return options;
}

void ImageFlags::add_to(CLI::App& command) {
    command
        .add_option(
            "--image-aspect-ratio", image.aspect_ratio,
            "pad: put the picture on a square; square: cut its middle out (default: as the model says)")
        ->check(CLI::IsMember({"pad", "square"}))
        ->type_name("pad|square");
    command
        .add_option("--resolution-ratio", image.resolution_ratio,
                    "n of high resolution: the picture is seen whole and in n x n blocks (default: as the "
                    "model says)")
        ->check(CLI::Range(1, 16))
        ->type_name("N");
    command
        .add_option("--vision-tokens", image.vision_tokens,
                    "Vision tokens a picture, of a model that offers several numbers (default: its first)")
        ->check(CLI::Range(1, 1 << 20))
        ->type_name("N");
    command.add_flag_callback(
        "--no-exif", [this] { image.obey_exif = false; },
        "Do not turn pictures as their EXIF orientation says");
    command.add_option("--max-pixels", image.max_pixels, "Refuse larger pictures before decoding them")
        ->type_name("N")
        ->capture_default_str();
}

void SamplingFlags::add_to(CLI::App& command) {
    command
        .add_option("-n,--predict", sampling.max_tokens,
                    "Most tokens of the answer; 0 or -1: until it ends or the context is full")
        ->type_name("N")
        ->check(CLI::Range(-1, 1 << 24))
        ->capture_default_str();
    command.add_option("--temp", sampling.temperature, "Temperature; 0: always the likeliest token")
        ->type_name("X")
        ->check(CLI::Range(0.0, 1e6))
        ->capture_default_str();
    command.add_option("--top-k", sampling.top_k, "Choose among the k likeliest tokens; 0: all")
        ->type_name("N")
        ->check(CLI::Range(0, 1 << 24))
        ->capture_default_str();
    command
        .add_option("--top-p", sampling.top_p,
                    "Choose among the likeliest tokens of this probability together")
        ->type_name("X")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    command
        .add_option("--min-p", sampling.min_p,
                    "Leave out tokens less likely than this share of the likeliest")
        ->type_name("X")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    command.add_option("-s,--seed", sampling.seed, "Seed of the random choice (default: random)")
        ->type_name("N");
    command.add_option("--grammar", grammar_file, "File with a GBNF grammar that the answer must follow")
        ->type_name("FILE");
}

SamplingOptions SamplingFlags::options() const {
    SamplingOptions options = sampling;
    options.max_tokens = std::max(options.max_tokens, 0);
    if (!grammar_file.empty()) options.grammar = read_text_file(grammar_file, kMaxGrammarBytes);
    return options;
}

}  // namespace llava_mini::tools
