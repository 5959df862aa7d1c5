// The runtime's tokenizer and chat template, from a checkpoint's tokenizer files alone.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/sample.h"
#include "llm/chat_template.h"
#include "llm/language_model.h"
#include "llm/prompt.h"

namespace llava_mini::trainer {

/// Thread-safe after construction.
class Tokenizer {
  public:
    /// `folder` holds tokenizer.json (or tokenizer.model) and its companions. libllama reads vocabularies
    /// from model files only, so one with next to no weights is made in the folder for temporary files.
    /// Errors as read_vocabulary and LanguageModel.
    Tokenizer(const std::filesystem::path& folder, int n_vocab, std::optional<int> bos_id,
              const std::vector<int>& eos_ids);

    /// A conversation as the runtime's session makes it: system prompt, `<image>` and a line feed before the
    /// first question if there is a picture, then question and answer in turns. Ends with the last answer's
    /// end token.
    std::vector<PromptToken> conversation(std::span<const QaTurn> turns, bool picture) const;
    /// Ids of a word as it stands inside a sentence, without those of spaces alone.
    std::vector<int32_t> word_ids(const std::string& word) const;
    std::string text(std::span<const int32_t> ids) const { return model_->detokenize(ids); }

  private:
    std::unique_ptr<LanguageModel> model_;
    std::unique_ptr<ChatTemplate> template_;
    std::string system_prompt_;
    bool adds_space_ = false;  // the tokenizer puts a space before a text by itself
};

}  // namespace llava_mini::trainer
