// The tokenizer of a checkpoint, in the form that libllama wants in a GGUF.
#pragma once

#include <gguf.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace llava_mini {

/// Kinds of tokens, with the numbers of tokenizer.ggml.token_type (and of SentencePiece).
enum class TokenType : int32_t {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
};

struct Vocabulary {
    std::string model;  // tokenizer.ggml.model: "gpt2" (byte-level BPE) or "llama" (SentencePiece BPE)
    std::string pre;    // tokenizer.ggml.pre: libllama's name of the pre-tokenizer
    std::vector<std::string> tokens;
    std::vector<TokenType> types;
    std::vector<float> scores;        // SentencePiece only: the higher, the earlier merged
    std::vector<std::string> merges;  // byte-level BPE only: "left right", the earlier, the earlier merged
    std::optional<int> bos, eos, eot, eom, unknown, pad;
    bool add_bos = true, add_eos = false;
    std::optional<bool> add_space_prefix;  // SentencePiece only
    /// Chat templates (Jinja) by name; "" is the default one.
    std::vector<std::pair<std::string, std::string>> chat_templates;
    /// "system_prompt" of tokenizer_config.json: what conversations start with; absent: the official one.
    std::optional<std::string> system_prompt;

    int size() const { return static_cast<int>(tokens.size()); }
    /// Appends unused tokens until there are `n_vocab`; names do not collide with existing ones.
    void pad_to(int n_vocab);
};

/// The conversation format of LLaVA-v1.5, as a chat template, for checkpoints that carry none.
extern const char* const kLlavaV15ChatTemplate;
/// System prompts of the official conversation formats: LLaVA-Mini's on Llama 3, and that of Vicuna.
extern const char* const kLlama3SystemPrompt;
extern const char* const kVicunaSystemPrompt;

/// Reads the tokenizer of a Hugging Face checkpoint folder: tokenizer.json if it is a byte-level BPE, else
/// tokenizer.model (SentencePiece); special tokens and chat templates from tokenizer_config.json,
/// special_tokens_map.json, added_tokens.json and chat_template.jinja or .json. The result has `n_vocab`
/// tokens. `bos_id` and `eos_ids` are config.json's; they count where the tokenizer's own files are silent.
/// Throws Error(kInput) naming the file and what is wrong or not supported.
Vocabulary read_vocabulary(const std::filesystem::path& checkpoint, int n_vocab, std::optional<int> bos_id,
                           const std::vector<int>& eos_ids);

/// Writes the tokenizer.* metadata.
void write_vocabulary(gguf_context* gguf, const Vocabulary& vocabulary);

}  // namespace llava_mini
