// SentencePiece's tokenizer.model: a serialized protocol buffer (ModelProto of sentencepiece_model.proto).
// The library's interface tells neither its algorithm nor how it normalizes nor which pieces are
// user-defined, all of which libllama must agree with, so the few fields that matter are read from the file
// itself.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "convert/vocabulary.h"

namespace llava_mini {

/// Pieces, scores, types and special tokens of a tokenizer.model. Throws Error(kInput) naming `file` if it is
/// malformed, or if libllama would tokenize differently: another algorithm than BPE, a normalizer that
/// changes text, or no byte fallback.
Vocabulary read_sentencepiece_model(std::span<const uint8_t> bytes, const std::string& file);

/// The inverse, for synthetic checkpoints.
std::string write_sentencepiece_model(const Vocabulary& vocabulary);

}  // namespace llava_mini
