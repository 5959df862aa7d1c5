// What a language.gguf must be before libllama is allowed to load it.
#pragma once

#include "model/gguf_file.h"
#include "model/hparams.h"

namespace llava_mini {

/// Reads and checks a language model's GGUF: architecture `llama`, dimensions that make sense, a vocabulary
/// without gaps, every tensor present with the right shape and a type that matrix products take. libllama
/// ends the process on some of these, so they are found here first. Throws Error(kInput) naming the file, the
/// key or all tensors concerned, what was expected and what was found. rope_freq_factors are not filled in.
LlamaHparams read_language_hparams(const GgufFile& file);

}  // namespace llava_mini
