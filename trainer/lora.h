// Low-rank adaptation of the language model (Hu et al., arXiv 2106.09685): of a matrix W [out, in] only
// A [rank, in] and B [out, rank] learn, and W + alpha / rank * B A is computed with. Habits and names are those
// of Hugging Face's PEFT.
#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "trainer/parameters.h"

namespace llava_mini::trainer {

/// The matrices of a Llama layer.
inline constexpr std::array<const char*, 7> kLoraTargets = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                            "gate_proj", "up_proj", "down_proj"};

struct LoraOptions {
    int rank = 0;  ///< 0: no adapters
    double alpha = 0;
    std::vector<std::string> targets = {kLoraTargets.begin(), kLoraTargets.end()};
};

/// Adds adapters to the language model's matrices of these names: A from U(-1/sqrt(in), 1/sqrt(in)), drawn
/// from seed and name alone, B zero, so that the model computes what it did.
void add_lora(Parameters& parameters, const LoraOptions& options, uint64_t seed);

/// Writes the adapters as a GGUF that libllama loads beside the language model they were trained on
/// (llama_adapter_lora_init, --lora): f32, rows of B for q and k in the order in which convert puts those of
/// W. Nothing stands at `path` before all is written.
void write_lora_gguf(const std::filesystem::path& path, const Parameters& parameters,
                     const LlamaHparams& language, const LoraOptions& options);

}  // namespace llava_mini::trainer
