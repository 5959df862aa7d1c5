// A whole training schedule in one JSON file: the model to start from, and phases one after the other.
#pragma once

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "trainer/examples.h"
#include "trainer/lora.h"
#include "trainer/optimizer.h"
#include "trainer/parameters.h"

namespace llava_mini::trainer {

/// Samples of one source in a phase.
struct DataSpec {
    std::string source;  // "scenes", "long_scenes", "official", or one a caller knows
    nlohmann::ordered_json options = nlohmann::ordered_json::object();  // of the source
    double weight = 1;        // share among the sources that are active
    double from = 0, to = 1;  // active between these fractions of the phase: a curriculum
};

/// Weights of the losses: answers; projected patches near their words; vision token near all words seen; fused
/// names of things near the words of their places and colours; what the language model makes of a clip's frames
/// near the words of what is new in them, and of the names in questions near those of the answers; attention from names in questions to the
/// frames in which what they name, and the next thing, is new.
struct LossWeights {
    double answers = 1, patches = 0, words = 0, mentions = 0, changes = 0, asked = 0, looks = 0;
};

struct Phase {
    std::string name;
    uint64_t samples = 0;
    int batch = 4;                       // samples of a forward pass
    int accumulate = 1;                  // forward passes of an optimiser step
    std::array<double, kParts> rates{};  // highest learning rate; 0: the part stays as it is
    std::string schedule = "cosine";     // or "linear", "constant"
    double final_rate = 0.0;             // of the highest, at the end
    double warmup = 0.03;                // of the optimiser steps
    double clip = 1.0;                   // bound of the gradient norm; 0: none
    AdamWOptions adam;
    LossWeights loss;
    ExampleOptions examples;
    std::vector<DataSpec> data;
    std::vector<int> grids;  // sides drawn from, one a batch; empty: the model's default

    /// Learning rate of a part at `done` of 1.
    double rate(Part part, double done) const;
    uint64_t steps() const;  // optimiser steps
};

struct Recipe {
    std::string name;
    uint64_t seed = 1;
    nlohmann::ordered_json model;  // config, tower, init; null: a checkpoint must be given
    std::vector<Phase> phases;
    std::vector<DataSpec> validation;
    uint64_t validation_samples = 0, validate_every = 0, checkpoint_every = 0;  // samples
    int keep_checkpoints = 3;
    LoraOptions lora;                     // of the language model
    bool frozen_bf16 = false;             // parts that learn in no phase are kept in bf16
    bool gradient_checkpointing = false;  // of the decoder layers
    std::string text;                     // the file, changed, for the log
};

/// Throws Error(kInput) naming file and field for whatever is missing, unknown or out of range. `changes` are
/// PATH=VALUE, e.g. "model.config.prefusion_layer_num=0" or "phases.1.lr.language=1e-4": a number in the path
/// is a place in a list, the value is JSON or else a text; they apply before anything is checked. Throws
/// Error(kUsage) for a change whose path leads nowhere.
Recipe read_recipe(const std::filesystem::path& file, const std::vector<std::string>& changes = {});
Recipe parse_recipe(const std::string& text, const std::string& file,
                    const std::vector<std::string>& changes = {});

}  // namespace llava_mini::trainer
