// The tokenizer of models that learn from scenes: a small SentencePiece BPE with byte fallback, which writes
// every text, and every common answer as one token.
//
// A prompt is, in tokens:  <s> [image] "\n" question <r1> <r2> <r3> <r4>  and then the answer and </s>. The
// register tokens <r1> ... carry what the fused prompt knows beyond the question's words: generated tokens
// cannot see patches.
//
// Which tokenizer to use: that of the runtime (llm/language_model.h, through llm/prompt.h), with the
// checkpoint that holds these files converted; the pre-tokenizing, the places of registers and the handling
// of answers then agree by construction. SentencePiece itself gives the same ids for every piece of text
// alone (a test compares them): Encode("\n" + question), the ids of the registers, Encode(answer), the end
// token.
#pragma once

#include <array>
#include <filesystem>

namespace llava_mini::scenes {

/// Tokens in all, registers included: vocab_size of config.json.
inline constexpr int kVocabularySize = 2048;
/// The last ids, in this order.
inline constexpr std::array<const char*, 4> kRegisters = {"<r1>", "<r2>", "<r3>", "<r4>"};
inline constexpr int kUnknownToken = 0, kBeginToken = 1, kEndToken = 2;

/// Writes tokenizer.model and tokenizer_config.json (special tokens, registers, chat template, empty system
/// prompt) into a folder that `llava-mini convert` reads. The same bytes at every call. Throws Error(kSystem)
/// if a file cannot be written or SentencePiece fails.
void write_tokenizer(const std::filesystem::path& folder);

}  // namespace llava_mini::scenes
