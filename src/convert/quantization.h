// Which type a tensor is stored in. One policy for convert, quantize and synth:
//
//   kQuantizable  the wanted type. The language model's output matrix (or the embeddings, when they are tied to
//                 it) is kept at q6_K when the wanted type has fewer bits: every logit is a product with it,
//                 and errors there are not averaged out by later layers.
//   kAtLeastQ6    q6_K when the wanted type has fewer bits: the vision tower. All that is ever known of a
//                 picture has passed through it, and it is a twentieth of the model.
//   kAtLeastQ5    q5_K when the wanted type has fewer bits: the pre-fusion, through which every question sees
//                 the picture. On processors with VNNI the engine multiplies by both K types faster than by
//                 q4_0.
//   kHalf         f16 (f32 or bf16 when that is wanted): patch embedding, compressor and projector. They are
//                 small, and everything the model sees of a picture passes through them once, without a
//                 residual beside it.
//   kFull         f32: norms, biases, queries, positions.
//
// A row whose length is no multiple of a type's block falls back to q8_0, and to f16 when 32 does not divide
// it.
#pragma once

#include <ggml.h>
#include <llama.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/tensor_names.h"

namespace llava_mini {

/// A tensor type by its name in any case ("f16", "q8_0", "Q4_K"). Throws Error(kUsage) with the list of
/// names, and for types that need an importance matrix.
ggml_type parse_tensor_type(std::string_view name);

/// A file type of llama.cpp by its name in any case: tensor types and their mixtures ("Q4_K_M").
/// Throws Error(kUsage) with the list of names.
llama_ftype parse_file_type(std::string_view name);

/// The tensor type that most matrices of a file type have: Q4_K for Q4_K_M.
ggml_type base_type(llama_ftype type);

/// The file type in which `type` is the type of most matrices (general.file_type).
llama_ftype file_type_of(ggml_type type);

/// Type in which the tensor is stored when `wanted` is asked for.
ggml_type storage_type(const TensorSpec& spec, ggml_type wanted, bool tied_embeddings);

/// Converts `rows` rows of `columns` floats to `type`, on `threads` threads. `out` has
/// rows * ggml_row_size(type, columns) bytes, and columns is a multiple of the type's block.
void quantize_rows(ggml_type type, std::span<const float> values, int64_t rows, int64_t columns,
                   std::span<uint8_t> out, int threads);

/// The inverse for any type that has one.
void dequantize_rows(ggml_type type, std::span<const uint8_t> bytes, int64_t rows, int64_t columns,
                     std::span<float> out, int threads);

}  // namespace llava_mini
