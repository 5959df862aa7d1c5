// The language model: a plain GGUF of architecture `llama` in libllama's hands, and its tokenizer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/progress.h"
#include "model/hparams.h"

struct llama_adapter_lora;
struct llama_model;
struct llama_vocab;

namespace llava_mini {

struct LanguageModelOptions {
    int n_gpu_layers = -1;  ///< layers put on the GPU, if ggml has one; negative: all; 0: none, CPU only
    bool use_mmap = true;   ///< map the file instead of reading it (repacked weights are copied either way)
    std::filesystem::path lora = {};  ///< an adapter (GGUF) that every context applies; empty: none
};

/// Weights and vocabulary. Immutable: any number of threads and LanguageContexts may share one; it must
/// outlive its contexts (share it by std::shared_ptr).
class LanguageModel {
  public:
    /// Checks the file (llm/language_gguf.h) and loads it. Progress is reported in thousandths. Throws
    /// Error(kInput) for a file that is no usable Llama model, an adapter that does not fit it, or when the
    /// progress callback stops the work,
    /// and Error(kSystem) if memory does not suffice.
    explicit LanguageModel(const std::filesystem::path& file, const LanguageModelOptions& options = {},
                           const Progress& progress = {});
    ~LanguageModel();
    LanguageModel(const LanguageModel&) = delete;
    LanguageModel& operator=(const LanguageModel&) = delete;

    const std::filesystem::path& file() const { return file_; }
    /// Dimensions. rope_freq_factors are not filled in.
    const LlamaHparams& hparams() const { return hparams_; }
    int n_vocab() const { return hparams_.n_vocab; }
    int n_embd() const { return hparams_.n_embd; }
    /// The Jinja chat template stored in the file; empty if it has none.
    std::string chat_template() const;
    /// Bytes of all weights, and libllama's name of their type, e.g. "Q4_0".
    uint64_t weight_bytes() const;
    std::string type_name() const;

    bool is_token(int32_t id) const { return id >= 0 && id < n_vocab(); }
    /// Begin-of-text; negative if the model has none.
    int32_t bos() const;
    /// End of sequence, negative if the model has none. Many tokens may end an answer: ask is_end().
    int32_t eos() const;
    /// Whether prompts start with begin-of-text.
    bool adds_bos() const;
    /// Whether the token ends an answer (<|eot_id|>, <|eom_id|>, <|end_of_text|>, </s> ...).
    bool is_end(int32_t id) const;
    /// The token as the vocabulary spells it, e.g. "<|eot_id|>"; empty for an id that is no token.
    std::string token_text(int32_t id) const;
    /// A token whose text becomes it when special tokens are parsed.
    struct ControlToken {
        std::string text;
        int32_t id;
    };
    /// All of them, longest text first.
    const std::vector<ControlToken>& control_tokens() const { return control_tokens_; }

    /// Token ids of UTF-8 text, without begin-of-text. With `parse_special` the texts of control tokens
    /// become those tokens, otherwise they are letters like any other. Throws Error(kInput) if the text is
    /// too long or the vocabulary cannot express it.
    std::vector<int32_t> tokenize(std::string_view text, bool parse_special) const;
    /// The bytes a token stands for: perhaps a part of a character (see Utf8Stream). Control tokens give
    /// nothing unless `with_control`. Throws Error(kInput) for an id that is no token.
    std::string token_bytes(int32_t id, bool with_control = false) const;
    /// Text of a whole answer, control tokens left out, as valid UTF-8.
    std::string detokenize(std::span<const int32_t> ids) const;

    /// For the other parts of llm/.
    llama_model* handle() const { return model_.get(); }
    const llama_vocab* vocab() const { return vocab_; }
    llama_adapter_lora* adapter() const { return adapter_; }  // null: none

  private:
    struct Free {
        void operator()(llama_model* model) const;
    };
    std::filesystem::path file_;
    LlamaHparams hparams_;
    std::unique_ptr<llama_model, Free> model_;
    const llama_vocab* vocab_ = nullptr;
    llama_adapter_lora* adapter_ = nullptr;  // the model's, and freed with it
    std::vector<ControlToken> control_tokens_;
};

}  // namespace llava_mini
