// From a conversation to the text a chat model was trained on: the checkpoint's own Jinja template.
#pragma once

#include <memory>
#include <span>
#include <string>

namespace llava_mini {

class LanguageModel;

struct ChatMessage {
    std::string role;  // "system", "user", "assistant"
    std::string content;
};

/// A compiled template, rendered as Hugging Face's apply_chat_template does (trim_blocks, lstrip_blocks), by
/// llama.cpp's interpreter. The template sees `messages`, `bos_token`, `eos_token` and
/// `add_generation_prompt`. `strftime_now` is undefined, so that templates fall back to their fixed date and
/// a prompt is the same every day. Immutable and thread-safe. A template is a program: it cannot overflow the
/// stack, but nothing limits how long it runs.
class ChatTemplate {
  public:
    /// Throws Error(kInput) with the reason if the source is no valid template.
    ChatTemplate(const std::string& source, std::string bos_token, std::string eos_token);
    /// The template stored in the model's file. Throws Error(kInput) if there is none.
    explicit ChatTemplate(const LanguageModel& model);
    ~ChatTemplate();
    ChatTemplate(ChatTemplate&&) noexcept;
    ChatTemplate& operator=(ChatTemplate&&) noexcept;

    /// Throws Error(kInput) if the template refuses the messages (raise_exception) or fails.
    std::string render(std::span<const ChatMessage> messages, bool add_generation_prompt) const;

  private:
    struct Program;
    std::unique_ptr<const Program> program_;
    std::string bos_token_, eos_token_;
};

}  // namespace llava_mini
