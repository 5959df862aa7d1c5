// Language models for the tests of this folder.
#pragma once

#include <gguf.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "llm/language_model.h"

namespace llava_mini::test {

/// language.gguf of the recordings' checkpoint in f32.
const std::filesystem::path& tiny_language_gguf();

/// The same, loaded.
std::shared_ptr<const LanguageModel> tiny_model();

/// Writes a copy of tiny_language_gguf() whose metadata or tensors `edit` has changed.
void write_edited_gguf(const std::filesystem::path& path, const std::function<void(gguf_context*)>& edit);

/// A model of the same weights with a SentencePiece vocabulary as Vicuna has: bytes, letters, some words,
/// <s> and </s>. Its chat template is "system USER: question ASSISTANT: answer</s>USER: ...".
std::shared_ptr<const LanguageModel> vicuna_like_model();
inline constexpr const char* kVicunaTemplate =
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content + ' ' }}"
    "{% elif m.role == 'user' %}{{ 'USER: ' + m.content | trim + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";

}  // namespace llava_mini::test
