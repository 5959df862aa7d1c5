// The way back from GGUF: a model of this program as a checkpoint that training can start from.
#pragma once

#include <filesystem>

namespace llava_mini::trainer {

/// Whether the folder holds a model of this program (language.gguf and vision.gguf) and no checkpoint, which would be
/// more exact.
bool holds_gguf(const std::filesystem::path& folder);

/// Writes the model in `folder` (language.gguf and vision.gguf, of any types) as a checkpoint in Hugging Face's layout,
/// f32, the vision tower inside: config.json, vision_tower/, model.safetensors and the files of `tokenizer`, the folder
/// of the tokenizer it was made with. What the types have rounded off stays lost. `out` appears when it is whole.
/// Throws Error(kInput) for files that are no such model or hold what a checkpoint cannot say (Llama 3's rope scaling,
/// of which GGUF has the factors alone; a pre-fusion shaped otherwise than the language model), and for a tokenizer
/// with other tokens.
void restore_checkpoint(const std::filesystem::path& folder, const std::filesystem::path& tokenizer,
                        const std::filesystem::path& out);

}  // namespace llava_mini::trainer
