// From prompts and conversations to tokens, each with what becomes of it: fused with the picture, plain, or
// the picture's place.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llm/chat_template.h"
#include "llm/language_model.h"

namespace llava_mini {

enum class SegmentKind : uint8_t {
    kFused,  ///< its embedding goes through the pre-fusion
    kPlain,  ///< enters the language model by its plain embedding and is hidden from the pre-fusion
    kImage   ///< the placeholder: vision tokens go here
};

/// The placeholder's text in prompts, and its id (no id of any vocabulary).
inline constexpr std::string_view kImagePlaceholder = "<image>";
inline constexpr int32_t kImageToken = -200;

struct PromptToken {
    int32_t id;
    SegmentKind kind;
    bool operator==(const PromptToken&) const = default;
};

struct PromptOptions {
    /// Conversations as the official inference sees them: rendered and tokenized as one text, earlier answers
    /// fused like the rest, control tokens recognised wherever they are written.
    bool official_quirks = false;
    /// Begin-of-text is put in front even of a text that starts with it, as the official command line does.
    /// Of conversations only together with official_quirks.
    bool double_bos = false;
};

/// Tokens of a text that is used as it is, chat markup included: split at every "<image>", each piece
/// tokenized alone, control tokens recognised, one begin-of-text in front. Everything but placeholders is
/// kFused; their number is not limited here. Same ids as the official tokenizer_image_token (with double_bos
/// in all cases, without it unless the text starts with begin-of-text).
std::vector<PromptToken> tokenize_prompt(const LanguageModel& model, std::string_view text,
                                         const PromptOptions& options = {});

/// One message of a conversation.
struct Turn {
    ChatMessage message;
    /// Of an answer (role "assistant"): its tokens as they were generated, an end token included if there was
    /// one. Empty: it is tokenized from message.content.
    std::vector<int32_t> answer_ids = {};
};

/// Tokens of a conversation up to where the next answer begins, as training saw them: earlier answers are
/// kPlain, everything else kFused. By construction the tokens of a conversation start with those of every
/// earlier state of it followed by the answer given there, so that KV caches can be kept from turn to turn.
///
/// How: for every answer and for the end, the conversation up to there is rendered with the generation
/// prompt; answers stand in it as markers, so that whatever the template trims or adds is known exactly, and
/// the text behind the last marker is what the turn adds. It is tokenized alone. An end token with which it
/// starts closes the answer: it is kPlain, and dropped if the answer ended with one of its own.
///
/// "<image>" in any message but an answer is the placeholder. Other texts of control tokens in messages are
/// letters: a message cannot forge markup. (With official_quirks they are control tokens.)
///
/// Throws Error(kInput) for a conversation without messages, more than one placeholder, or a template that
/// drops, repeats or changes the answers.
std::vector<PromptToken> tokenize_conversation(const LanguageModel& model, const ChatTemplate& chat_template,
                                               std::span<const Turn> turns,
                                               const PromptOptions& options = {});

}  // namespace llava_mini
