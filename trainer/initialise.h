// The folder a run starts from: a checkpoint in Hugging Face's layout, made of what others trained and of
// random numbers for the rest.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "convert/checkpoint_config.h"
#include "trainer/parameters.h"

namespace llava_mini::trainer {

struct InitialiseOptions {
    /// config.json's and the vision tower's config.json's content (fields as Hugging Face has them).
    nlohmann::ordered_json config, tower_config;
    nlohmann::ordered_json preprocessor;  ///< preprocessor_config.json; null: CLIP's own values
    std::filesystem::path tokenizer;      ///< folder with the tokenizer's files, which are copied
    /// Folders whose weights are taken where they have them: a language model, a vision tower.
    std::optional<std::filesystem::path> language, vision_tower;
    std::vector<Part> renewed;  ///< parts whose weights are not taken, wherever they are
    /// Last layers of the language model, counted in `config`, that `language` does not have: what they add is zero
    /// at first, so that the model begins as it was.
    int added_layers = 0;
    uint64_t seed = 1;
    /// Llama layers start near the identity (see below); else N(0, 0.02) as Hugging Face has it.
    bool mimetic = false;
    double embedding_deviation = 0.02;  ///< of N(0, s)
};

/// Writes a checkpoint folder that read_checkpoint_config and the converter take; it appears when it is whole.
/// Mimetic initialisation
/// (after Trockman and Kolter, arXiv 2305.09828): Wq = Wk = g O + noise with O orthogonal (g = 1 in the
/// pre-fusion, 0.7 in the language model), Wv = O2 and Wo = 0.7 s O2^T, so that attention starts as a look-up
/// of equal rows; the final norm's gain is 1 / (s sqrt(d)). Throws Error(kInput) for configurations that do
/// not make a model.
void write_initial_checkpoint(const std::filesystem::path& out, const InitialiseOptions& options);

/// From the recipe's `model`: {"config": ..., "tower": ..., "init": {"mimetic", "embedding_deviation"}}.
/// Throws Error(kInput) for fields it does not know, and for those that need a checkpoint (`renew`, `added_layers`).
InitialiseOptions options_of_recipe(const nlohmann::ordered_json& model);

/// To start from a whole checkpoint: its configuration and weights, the tower's from where its config.json
/// (or `vision_tower`) says. Layers of the tower that are never used are left out. `model` is the recipe's, or
/// null: fields of its `config` are put over the checkpoint's (null takes one away), parts of `init.renew` begin
/// anew, `init.added_layers` come after the language model's.
InitialiseOptions options_of_checkpoint(const std::filesystem::path& checkpoint,
                                        const std::optional<std::filesystem::path>& vision_tower,
                                        const nlohmann::ordered_json& model);

/// To start from a language model and a CLIP vision tower apart: configuration and weights of both; what
/// neither has (compressor, projector, pre-fusion) is made of random numbers. `model` is the recipe's, or null:
/// fields of its `config` are put over the language model's; without them there is one vision token, four
/// pre-fusion layers, pictures are padded, and the tower's last layer but one is taken. Throws Error(kInput) for
/// files that are missing or malformed.
InitialiseOptions options_of_parts(const std::filesystem::path& language,
                                   const std::filesystem::path& vision_tower,
                                   const nlohmann::ordered_json& model);

/// Shapes alone, for which neither weights nor tokenizer are looked at. Throws as write_initial_checkpoint.
CheckpointConfig configuration_of(const InitialiseOptions& options);

/// Copies the tokenizer's files that `from` has, and generation_config.json.
void copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace llava_mini::trainer
