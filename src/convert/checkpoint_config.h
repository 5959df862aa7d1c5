// The configuration files of a Hugging Face checkpoint folder and of its vision tower.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "convert/safetensors.h"
#include "model/hparams.h"

namespace llava_mini {

/// Prefix of the vision tower's tensors when they lie inside the checkpoint.
inline constexpr const char* kTowerInsidePrefix = "model.vision_tower.vision_tower.";

struct CheckpointConfig {
    LlamaHparams language;
    VisionHparams vision;  // all but system_prompt, which depends on the chat template

    /// Folder of the vision tower's own checkpoint whose weights count; empty: the weights inside count.
    std::filesystem::path tower_folder;

    // From config.json and generation_config.json.
    std::optional<int> bos_id;
    std::vector<int> eos_ids;
};

/// Reads config.json and generation_config.json of `checkpoint`, and config.json and preprocessor_config.json
/// of the vision tower. `weights` are the checkpoint's tensors: they say whether there are pre-fusion layers
/// and a tower inside, and give the tower's shape if it has no config.json.
///
/// The tower's folder is `vision_tower` if given, else what config.json's mm_vision_tower names: an absolute
/// path, or one relative to the checkpoint, its parent or its grandparent. Its weights count if it has some,
/// unless unfreeze_mm_vision_tower says that the tower was trained and so those inside the checkpoint do.
///
/// Throws Error(kInput) naming file and field for whatever is missing, malformed or not supported.
CheckpointConfig read_checkpoint_config(const std::filesystem::path& checkpoint,
                                        const std::optional<std::filesystem::path>& vision_tower,
                                        const SafetensorsReader& weights);

/// The way back: what config.json says of a model's shape (not of rope scaling, special tokens, compressor and tower).
nlohmann::ordered_json config_fields(const LlamaHparams& language, const VisionHparams& vision);

/// config.json of a vision tower that holds the layers that are run.
nlohmann::ordered_json tower_fields(const VisionHparams& vision);

}  // namespace llava_mini
