// Stores a GGUF of ours in other types.
#pragma once

#include <llama.h>

#include <filesystem>

#include "core/progress.h"

namespace llava_mini {

struct QuantizeOptions {
    std::filesystem::path in, out;
    llama_ftype type = LLAMA_FTYPE_MOSTLY_Q8_0;
    bool allow_requantize = false;  // from one quantized type to another, adding up both errors
    int threads = 2;
    Progress progress;  // bytes
};

/// Quantizes a vision.gguf. A mixture stands for its base type (Q4_K_M for Q4_K); quantization.h says which
/// tensors are kept higher. Throws Error(kInput) for files that are damaged or already quantized; `out`
/// appears, or is replaced, only when it is whole.
void quantize_vision(const QuantizeOptions& options);

/// Quantizes a language.gguf by libllama (llama_model_quantize), whose mixtures keep the output matrix and a
/// part of the attention's values and of the feed-forward's down projections higher. The file must have
/// passed read_language_hparams (llm/language_gguf.h): libllama ends the process on some malformed ones.
/// Errors as above.
void quantize_language(const QuantizeOptions& options);

}  // namespace llava_mini
