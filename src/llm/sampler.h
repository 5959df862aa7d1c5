// How the next token is chosen from the logits.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "llm/language_model.h"

struct llama_sampler;
struct llama_token_data;

namespace llava_mini {

struct SamplerOptions {
    float temperature = 0.0f;  ///< 0: always the likeliest token, and the next three are not used
    int top_k = 0;             ///< only the k likeliest; 0: all
    float top_p = 1.0f;        ///< only the likeliest that together have this probability, in (0, 1]
    float min_p = 0.0f;        ///< only tokens at least this likely relative to the likeliest, in [0, 1)
    uint32_t seed = 0;         ///< the same seed gives the same answer
    std::string grammar = {};  ///< GBNF text with a rule `root` that the answer must follow; empty: none
};

/// A chain of libllama's samplers in llama.cpp's order: grammar, top-k, top-p, min-p, temperature, choice.
/// Has a state (random numbers, place in the grammar): one for each answer. Not thread-safe.
class Sampler {
  public:
    /// Throws Error(kUsage) for values out of range and Error(kInput) for a grammar that cannot be used.
    Sampler(std::shared_ptr<const LanguageModel> model, const SamplerOptions& options);
    ~Sampler();
    Sampler(Sampler&&) noexcept;
    Sampler& operator=(Sampler&&) noexcept;

    /// Chooses a token from logits [n_vocab] and advances the state. With a grammar that is complete this is
    /// an end token. Throws Error(kInput) if there are no finite logits, or the grammar allows no token.
    int32_t sample(std::span<const float> logits);

  private:
    struct Free {
        void operator()(llama_sampler* sampler) const;
    };
    int32_t choose(std::span<const float> logits, bool with_grammar);
    bool grammar_allows(int32_t id);

    std::shared_ptr<const LanguageModel> model_;
    std::unique_ptr<llama_sampler, Free> grammar_;  // null: none
    std::unique_ptr<llama_sampler, Free> chain_;
    std::vector<llama_token_data> candidates_;  // kept to spare an allocation of megabytes a token
};

}  // namespace llava_mini
