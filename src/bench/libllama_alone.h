// Generation by libllama with nothing of ours around it: what our own generation is compared with.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "llm/language_context.h"

struct llama_context;
struct llama_sampler;

namespace llava_mini::bench {

/// A plain loop over llama_decode with libllama's greedy sampler, on a context of its own made with the same
/// options as a LanguageContext's. Not thread-safe.
class LibllamaAlone {
  public:
    /// Throws Error(kSystem) if the context cannot be made.
    LibllamaAlone(std::shared_ptr<const LanguageModel> model, const LanguageContextOptions& options);
    ~LibllamaAlone();
    LibllamaAlone(const LibllamaAlone&) = delete;
    LibllamaAlone& operator=(const LibllamaAlone&) = delete;

    /// Computes `positions` tokens, so that generation starts at the same length as ours.
    void prefill(int positions);
    /// Generates `count` tokens and returns the seconds each took.
    std::vector<double> generate(int count);
    /// Goes back to `positions` tokens.
    void rewind(int positions);

  private:
    struct Free {
        void operator()(llama_context* context) const;
        void operator()(llama_sampler* sampler) const;
    };
    std::shared_ptr<const LanguageModel> model_;
    std::unique_ptr<llama_context, Free> context_;
    std::unique_ptr<llama_sampler, Free> sampler_;
    int32_t token_ = 0;
};

}  // namespace llava_mini::bench
