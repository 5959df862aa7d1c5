// llava-mini info: what a model is and what a picture costs.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "commands.h"
#include "convert/convert.h"
#include "convert/model_info.h"
#include "core/error.h"
#include "llm/language_gguf.h"
#include "model/gguf_file.h"

namespace llava_mini::tools {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kSecondsPerHour = 3600;

struct Part {
    fs::path path;
    std::unique_ptr<GgufFile> file;
};

struct Description {
    std::optional<Part> language, vision;
    LlamaHparams language_hparams;
    VisionHparams vision_hparams;
    std::vector<PictureCost> pictures;
};

Description describe(const fs::path& path) {
    Description model;
    const auto open = [&](const fs::path& file_path) {
        auto file = std::make_unique<GgufFile>(file_path);
        if (file->get_string("general.architecture") == kVisionArchitecture) {
            model.vision_hparams = read_vision_hparams(file->metadata(), file->name());
            model.vision = Part{file_path, std::move(file)};
        } else {
            model.language_hparams = read_language_hparams(*file);
            model.language = Part{file_path, std::move(file)};
        }
    };
    std::error_code ignored;
    if (fs::is_directory(path, ignored)) {
        for (const char* name : {kLanguageFile, kVisionFile}) {
            if (fs::exists(path / name, ignored)) open(path / name);
        }
        if (!model.language && !model.vision) {
            throw_input("{}: expected {} or {} in the folder, found neither", path.string(), kLanguageFile,
                        kVisionFile);
        }
    } else {
        open(path);
    }
    if (model.vision) {
        model.pictures =
            picture_costs(model.vision_hparams, model.language ? &model.language_hparams : nullptr);
    }
    return model;
}

std::string size_text(double bytes) {
    const char* const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    for (; bytes >= 1024 && unit + 1 < std::size(units); ++unit) bytes /= 1024;
    return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 2, units[unit]);
}

std::string rope_text(const LlamaHparams& hp, bool has_factors) {
    if (has_factors) return fmt::format("{} with frequency factors (llama3)", hp.rope_theta);
    if (hp.rope_linear_factor != 1.0f) {
        return fmt::format("{} with linear factor {}", hp.rope_theta, hp.rope_linear_factor);
    }
    return fmt::format("{}", hp.rope_theta);
}

void print_layers(const LlamaHparams& hp) {
    fmt::print("  {} layers, width {}, feed-forward {}, {} heads ({} key-value) of {}\n", hp.n_layer,
               hp.n_embd, hp.n_ff, hp.n_head, hp.n_head_kv, hp.head_dim);
}

void print_file(const Part& part, const char* what) {
    fmt::print("{} ({}), {}\n", part.path.string(), what,
               size_text(static_cast<double>(fs::file_size(part.path))));
    for (const auto& [type, total] : type_totals(*part.file)) {
        fmt::print("  {:<6} {:>4} tensors, {:.4g} million parameters, {}\n", type, total.tensors,
                   static_cast<double>(total.parameters) / 1e6, size_text(static_cast<double>(total.bytes)));
    }
}

void print_costs(const char* title, const PictureCost& cost, double times) {
    const auto size = [&](std::optional<uint64_t> bytes) {
        return bytes ? size_text(static_cast<double>(*bytes) * times) : "unknown (no language model)";
    };
    fmt::print("{}\n  vision tokens   {}\n", title, cost.vision_tokens * static_cast<int64_t>(times));
    fmt::print("  KV cache        {} (f16), {} (q8_0)\n", size(cost.kv_cache_f16), size(cost.kv_cache_q8_0));
    fmt::print("  image cache     {} (f16), {} (q8_0)\n", size(cost.image_cache_f16),
               size(cost.image_cache_q8_0));
}

void print_text(const Description& model) {
    if (model.language) {
        print_file(*model.language, "language model");
        print_layers(model.language_hparams);
        fmt::print(
            "  vocabulary {}, context {}, rope {}{}\n", model.language_hparams.n_vocab,
            model.language_hparams.n_ctx_train,
            rope_text(model.language_hparams, model.language->file->find("rope_freqs.weight") != nullptr),
            model.language_hparams.tied_embeddings ? ", tied embeddings" : "");
    }
    if (!model.vision) return;
    const VisionHparams& hp = model.vision_hparams;
    print_file(*model.vision, "vision side");
    fmt::print("  tower: {}x{} pixels in {}x{} patches, {} layers, width {}, feed-forward {}, {} heads, {}\n",
               hp.image_size, hp.image_size, hp.patches_per_side(), hp.patches_per_side(), hp.n_layer,
               hp.n_embd, hp.n_ff, hp.n_head, hp.activation);
    fmt::print("  preprocessing: {}, resolution ratio {}\n", hp.image_aspect_ratio, hp.resolution_ratio);
    std::string grids;
    for (const int side : hp.compressor_grids)
        grids += fmt::format("{}{}x{}", grids.empty() ? "" : ", ", side, side);
    fmt::print("  compressor: {}\n", grids.empty() ? "none (plain LLaVA)" : grids);
    fmt::print("  pre-fusion:\n  ");
    print_layers(hp.prefusion);
    for (const PictureCost& cost : model.pictures) {
        const std::string which =
            fmt::format("{}, resolution ratio {}",
                        cost.grid_side == 0 ? "every patch" : fmt::format("{0}x{0} tokens", cost.grid_side),
                        cost.resolution_ratio);
        print_costs(fmt::format("a picture ({})", which).c_str(), cost, 1);
        print_costs(fmt::format("an hour of video at 1 frame a second ({})", which).c_str(), cost,
                    kSecondsPerHour);
    }
}

json layers_json(const LlamaHparams& hp) {
    return {{"layers", hp.n_layer},
            {"width", hp.n_embd},
            {"feed_forward", hp.n_ff},
            {"heads", hp.n_head},
            {"key_value_heads", hp.n_head_kv},
            {"head_dim", hp.head_dim},
            {"rope_theta", hp.rope_theta},
            {"rope_linear_factor", hp.rope_linear_factor}};
}

json file_json(const Part& part) {
    json types = json::object();
    for (const auto& [type, total] : type_totals(*part.file)) {
        types[type] = {{"tensors", total.tensors}, {"parameters", total.parameters}, {"bytes", total.bytes}};
    }
    return {{"file", part.path.string()}, {"bytes", fs::file_size(part.path)}, {"types", types}};
}

json cost_json(const PictureCost& cost, uint64_t times) {
    const auto bytes = [&](std::optional<uint64_t> value) {
        return value ? json(*value * times) : json(nullptr);
    };
    return {{"vision_tokens", static_cast<uint64_t>(cost.vision_tokens) * times},
            {"kv_cache_bytes", {{"f16", bytes(cost.kv_cache_f16)}, {"q8_0", bytes(cost.kv_cache_q8_0)}}},
            {"image_cache_bytes",
             {{"f16", bytes(cost.image_cache_f16)}, {"q8_0", bytes(cost.image_cache_q8_0)}}}};
}

void print_json(const Description& model) {
    json out = json::object();
    if (model.language) {
        json& language = out["language"] = file_json(*model.language);
        language.update(layers_json(model.language_hparams));
        language["vocabulary"] = model.language_hparams.n_vocab;
        language["context"] = model.language_hparams.n_ctx_train;
        language["tied_embeddings"] = model.language_hparams.tied_embeddings;
        language["rope_frequency_factors"] = model.language->file->find("rope_freqs.weight") != nullptr;
    }
    if (model.vision) {
        const VisionHparams& hp = model.vision_hparams;
        json& vision = out["vision"] = file_json(*model.vision);
        vision["name"] = hp.name;
        vision["tower"] = {{"image_size", hp.image_size}, {"patch_size", hp.patch_size},
                           {"layers", hp.n_layer},        {"width", hp.n_embd},
                           {"feed_forward", hp.n_ff},     {"heads", hp.n_head},
                           {"activation", hp.activation}};
        vision["image_aspect_ratio"] = hp.image_aspect_ratio;
        vision["resolution_ratio"] = hp.resolution_ratio;
        vision["compressor_grids"] = hp.compressor_grids;
        vision["prefusion"] = layers_json(hp.prefusion);
        for (const PictureCost& cost : model.pictures) {
            json picture = cost_json(cost, 1);
            picture["grid"] = cost.grid_side;
            picture["resolution_ratio"] = cost.resolution_ratio;
            picture["hour_of_video_at_1_fps"] = cost_json(cost, kSecondsPerHour);
            out["picture"].push_back(std::move(picture));
        }
    }
    fmt::print("{}\n", out.dump(2, ' ', false, json::error_handler_t::replace));
}

}  // namespace

void add_info(CLI::App& app) {
    struct Flags {
        fs::path path;
        bool as_json = false;
    };
    auto flags = std::make_shared<Flags>();
    CLI::App* command = app.add_subcommand(
        "info",
        "Print what a model is: shapes, types, sizes, tokens and memory per picture and hour of video");
    command->add_option("MODEL", flags->path, "language.gguf, vision.gguf, or a folder with both")
        ->required();
    command->add_flag("--json", flags->as_json, "Print JSON");
    command->callback([flags] {
        const Description model = describe(flags->path);
        flags->as_json ? print_json(model) : print_text(model);
    });
}

}  // namespace llava_mini::tools
