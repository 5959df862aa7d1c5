// libllama's tokenizer of a language.gguf, for comparisons.
#pragma once

#include <gtest/gtest.h>
#include <llama.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/log.h"

namespace llava_mini::test {

/// Loads only the vocabulary.
class LanguageVocabulary {
  public:
    explicit LanguageVocabulary(const std::filesystem::path& language_gguf) {
        set_log_sink({});  // links the log, which keeps the engine silent
        llama_model_params params = llama_model_default_params();
        params.vocab_only = true;
        model_.reset(llama_model_load_from_file(language_gguf.c_str(), params));
        if (!model_) throw std::runtime_error("libllama does not load " + language_gguf.string());
    }

    const llama_vocab* get() const { return llama_model_get_vocab(model_.get()); }

    /// Token ids without begin-of-text; special tokens in the text are recognised.
    std::vector<llama_token> tokens(const std::string& text) const {
        std::vector<llama_token> ids(text.size() + 8);
        const int n =
            llama_tokenize(get(), text.data(), static_cast<int32_t>(text.size()), ids.data(),
                           static_cast<int32_t>(ids.size()), /*add_special=*/false, /*parse_special=*/true);
        ids.resize(static_cast<size_t>(std::max(n, 0)));
        return ids;
    }

    /// The default chat template; empty if there is none.
    std::string chat_template() const {
        const char* text = llama_model_chat_template(model_.get(), nullptr);
        return text == nullptr ? "" : text;
    }

  private:
    struct Free {
        void operator()(llama_model* model) const { llama_model_free(model); }
    };
    std::unique_ptr<llama_model, Free> model_;
};

}  // namespace llava_mini::test
