// Metadata of language.gguf: the keys of llama.cpp's architecture `llama`.
#pragma once

#include <gguf.h>

#include <string>

#include "model/hparams.h"

namespace llava_mini {

/// GGUF name of the language model's rope frequency factors, f32 [head_dim / 2]; only with llama3 scaling.
inline constexpr const char* kLanguageRopeFactors = "rope_freqs.weight";

/// Writes all but the tokenizer.
void write_language_metadata(gguf_context* gguf, const LlamaHparams& hparams, const std::string& name);

}  // namespace llava_mini
