// What a training run needs, computed from shapes: memory of one process and time on many.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "trainer/recipe.h"

namespace llava_mini::trainer {

/// A way to train: one phase of a recipe, or one of standard_cases().
struct PlanCase {
    std::string name;
    std::array<bool, kParts> learns{};
    LoraOptions lora;
    bool frozen_bf16 = false;
    uint64_t samples = 0;
    int batch = 1;         ///< samples of a forward pass of one process
    int64_t question = 0;  ///< tokens of a sample that are fused: system prompt, markup, questions
    int64_t answer = 0;    ///< tokens of a sample that are learned
    std::array<bool, kParts> learns_elsewhere{};  ///< in another phase: kept in f32 in this one too
};

struct PlanMachine {
    int processes = 8;    ///< GPUs, one process each
    double tflops = 400;  ///< of one, in products, at best
    double share = 0.4;   ///< of it that is reached ("model FLOP utilisation")
};

/// Bytes are those of one process: in data parallel training each holds everything.
struct PlanRow {
    std::string name;
    bool checkpointing = false;
    int64_t parameters = 0, learning = 0;  ///< without and with those of adapters
    double weights = 0, gradients = 0, optimizer = 0, activations = 0;
    double flops = 0;  ///< of a sample, forward and backward
    double hours = 0;
    double bytes() const { return weights + gradients + optimizer + activations; }
};

/// Numbers of parameters by part, adapters included.
std::array<int64_t, kParts> count_parameters(const VisionHparams& vision, const LlamaHparams& language,
                                             const LoraOptions& lora);

/// Stage 1 with the language model frozen in bf16; stage 2 with LoRA (r = 128); stage 2 as a whole. Numbers of
/// samples: LLaVA-1.5's 558,000 captions and 665,000 conversations.
std::vector<PlanCase> standard_cases();
/// The phases of a recipe that answer questions.
std::vector<PlanCase> cases_of(const Recipe& recipe);

/// One case without or with gradient checkpointing. Formulas: docs/training.md.
PlanRow plan(const VisionHparams& vision, const LlamaHparams& language, const PlanCase& way,
             bool checkpointing, const PlanMachine& machine);

/// A table for people.
std::string plan_table(const std::vector<PlanRow>& rows, const PlanMachine& machine);
nlohmann::ordered_json plan_json(const std::vector<PlanRow>& rows, const PlanMachine& machine);

}  // namespace llava_mini::trainer
