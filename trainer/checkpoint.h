// Checkpoints of a run: weights as a Hugging Face folder, moments of the optimiser, and where the run stands.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "trainer/optimizer.h"
#include "trainer/parameters.h"

namespace llava_mini::trainer {

/// Where a run stands. All that is drawn by chance is a function of the seed and these numbers.
struct RunState {
    uint64_t phase = 0, step = 0;  // optimiser steps done in the phase
    uint64_t samples = 0;          // seen in all phases
    double seconds = 0;            // of training, in all sessions
    std::string recipe_hash;
};

/// Writes config, tokenizer files (copied from `base`) and model.safetensors, adapters merged or left out,
/// into `folder`.
void save_model(const Parameters& parameters, const std::filesystem::path& base,
                const std::filesystem::path& folder,
                Parameters::Adapters adapters = Parameters::Adapters::kMerged);

/// Saves to `run`/checkpoints/NUMBER, whole or not at all (written aside and renamed), adapters in a file of
/// their own, then removes all but
/// the newest `keep`. Throws Error(kSystem) when the disk is full; older checkpoints stay.
void save_checkpoint(const std::filesystem::path& run, const std::filesystem::path& base,
                     const Parameters& parameters, AdamW& optimizer, const RunState& state, int keep);

/// The newest whole checkpoint's folder; nothing if there is none.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& run);

/// Loads weights, moments and state. Throws Error(kInput) for damaged or misshapen files.
RunState load_checkpoint(const std::filesystem::path& folder, Parameters& parameters, AdamW& optimizer);

}  // namespace llava_mini::trainer
