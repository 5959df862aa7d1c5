// tokenizer.json (Hugging Face tokenizers) with a byte-level BPE, as Llama 3 has it.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "convert/vocabulary.h"

namespace llava_mini {

/// The regular expression of Llama 3's pre-tokenizer, as its tokenizer.json has it.
extern const char* const kLlama3Regex;

/// Whether a parsed tokenizer.json is a byte-level BPE (rather than one with SentencePiece's byte fallback).
bool is_byte_level_bpe(const nlohmann::json& tokenizer);

/// Tokens, types, merges, pre-tokenizer and add_bos of a tokenizer.json; ids without a token become unused
/// ones. Throws Error(kInput) naming `file` for whatever is malformed or would be tokenized differently by
/// libllama.
Vocabulary read_byte_level_bpe(const nlohmann::json& tokenizer, const std::string& file, int n_vocab);

}  // namespace llava_mini
