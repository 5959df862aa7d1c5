#include "llm/prompt.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace llava_mini {
namespace {

bool is_answer(const Turn& turn) {
    return turn.message.role == "assistant";
}

std::string_view trim_left(std::string_view text) {
    const size_t start = text.find_first_not_of(" \t\r\n");
    return text.substr(std::min(start, text.size()));
}

// Collects tokens piece by piece.
class TokenWriter {
  public:
    explicit TokenWriter(const LanguageModel& model) : model_(model) {}

    void text(std::string_view text, bool parse_special, SegmentKind kind) {
        for (const int32_t id : model_.tokenize(text, parse_special)) token(id, kind);
    }
    void token(int32_t id, SegmentKind kind) { tokens_.push_back({id, kind}); }
    void image() { token(kImageToken, SegmentKind::kImage); }
    // To be called last. Puts begin-of-text in front.
    std::vector<PromptToken> finish(bool double_bos) {
        const int32_t bos = model_.bos();
        const bool there = !tokens_.empty() && tokens_.front().id == bos;
        if (model_.adds_bos() && (double_bos || !there)) {
            tokens_.insert(tokens_.begin(), {bos, SegmentKind::kFused});
        }
        return std::move(tokens_);
    }

  private:
    const LanguageModel& model_;
    std::vector<PromptToken> tokens_;
};

// Stands in the messages for what must not go through the template as it is. The template moves and trims
// around it and never looks inside, since it starts and ends with a visible character.
struct Marker {
    enum Kind { kAnswer, kImage, kLiteral } kind;
    std::string name;  // what stands in the rendered text
    std::string text;  // kLiteral: the text it stands for
    size_t turn = 0;   // kAnswer: index of the turn
};

// The conversation as the template gets it.
class MarkedConversation {
  public:
    MarkedConversation(const LanguageModel& model, std::span<const Turn> turns)
        : model_(model), special_starts_(kImagePlaceholder.substr(0, 1)) {
        for (const auto& token : model.control_tokens()) special_starts_ += token.text.substr(0, 1);
        choose_prefix(turns);
        for (size_t i = 0; i < turns.size(); ++i) {
            ChatMessage message = turns[i].message;
            message.content = is_answer(turns[i]) ? add({Marker::kAnswer, {}, {}, i}) : mark(message.content);
            messages_.push_back(std::move(message));
        }
    }

    const std::vector<ChatMessage>& messages() const { return messages_; }

    // A piece of rendered text: the text up to the next marker, and that marker (null at the end).
    struct Piece {
        std::string_view text;
        const Marker* marker;
    };

    // Takes the first piece off `rendered`.
    Piece next(std::string_view& rendered) const {
        const size_t start = rendered.find(prefix_);
        if (start == std::string_view::npos) {
            return {std::exchange(rendered, rendered.substr(rendered.size())), nullptr};
        }
        const std::string_view text = rendered.substr(0, start);
        rendered.remove_prefix(start);
        const auto marker = std::find_if(markers_.begin(), markers_.end(),
                                         [&](const Marker& m) { return rendered.starts_with(m.name); });
        if (marker == markers_.end()) throw_input("chat template: it changes the text of the messages");
        rendered.remove_prefix(marker->name.size());
        return {text, &*marker};
    }

  private:
    // A prefix that occurs in no message: then every occurrence in the rendered text is a marker.
    void choose_prefix(std::span<const Turn> turns) {
        const auto occurs = [&](const Turn& turn) {
            return turn.message.content.find(prefix_) != std::string::npos;
        };
        int attempt = 0;
        do {
            prefix_ = fmt::format("[mark{}:", attempt++);
        } while (std::any_of(turns.begin(), turns.end(), occurs));
    }

    std::string add(Marker marker) {
        marker.name = fmt::format("{}{}]", prefix_, markers_.size());
        markers_.push_back(std::move(marker));
        return markers_.back().name;
    }

    // A message with markers in place of the placeholder and of all texts of control tokens.
    std::string mark(std::string_view content) {
        std::string marked;
        while (!content.empty()) {
            const std::string_view special = special_at(content);
            if (special.empty()) {  // letters up to where the next could start
                const size_t length = std::min(content.find_first_of(special_starts_, 1), content.size());
                marked += content.substr(0, length);
                content.remove_prefix(length);
                continue;
            }
            const bool image = special == kImagePlaceholder;
            marked += add({image ? Marker::kImage : Marker::kLiteral, {}, std::string(special)});
            content.remove_prefix(special.size());
        }
        return marked;
    }

    // The placeholder or the control token's text with which `content` starts; empty if it starts with
    // neither.
    std::string_view special_at(std::string_view content) const {
        if (content.starts_with(kImagePlaceholder)) return kImagePlaceholder;
        for (const auto& token : model_.control_tokens()) {
            if (content.starts_with(token.text)) return content.substr(0, token.text.size());
        }
        return {};
    }

    const LanguageModel& model_;
    std::string special_starts_;  // first bytes of what special_at finds
    std::string prefix_;
    std::vector<Marker> markers_;
    std::vector<ChatMessage> messages_;
};

// The part of `rendered` behind the marker of the answer `turn`; all of it for the first answer (turn < 0).
std::string_view text_behind_answer(const MarkedConversation& conversation, std::string_view rendered,
                                    ptrdiff_t turn) {
    if (turn < 0) return rendered;
    std::string_view rest = rendered;
    while (true) {
        const auto piece = conversation.next(rest);
        if (piece.marker == nullptr) throw_input("chat template: it leaves earlier answers out");
        if (piece.marker->kind == Marker::kAnswer && piece.marker->turn == static_cast<size_t>(turn))
            return rest;
    }
}

class ConversationTokenizer {
  public:
    ConversationTokenizer(const LanguageModel& model, const ChatTemplate& chat_template,
                          std::span<const Turn> turns)
        : model_(model),
          template_(chat_template),
          turns_(turns),
          conversation_(model, turns),
          writer_(model) {}

    std::vector<PromptToken> run() {
        ptrdiff_t last_answer = -1;
        for (size_t i = 0; i < turns_.size(); ++i) {
            if (!is_answer(turns_[i])) continue;
            write_up_to(i, last_answer);
            write_answer(turns_[i]);
            last_answer = static_cast<ptrdiff_t>(i);
        }
        write_up_to(turns_.size(), last_answer);
        return writer_.finish(/*double_bos=*/false);
    }

  private:
    // What the template puts between the last answer and the next one, which would be turn `end`.
    void write_up_to(size_t end, ptrdiff_t last_answer) {
        const std::string rendered =
            template_.render(std::span(conversation_.messages()).first(end), /*add_generation_prompt=*/true);
        std::string_view text = text_behind_answer(conversation_, rendered, last_answer);
        if (last_answer >= 0) text = close_answer(text);
        while (!text.empty()) {
            const auto piece = conversation_.next(text);
            writer_.text(piece.text, /*parse_special=*/true, SegmentKind::kFused);
            if (piece.marker == nullptr) break;
            if (piece.marker->kind == Marker::kAnswer)
                throw_input("chat template: it repeats earlier answers");
            if (piece.marker->kind == Marker::kImage) {
                writer_.image();
            } else {
                writer_.text(piece.marker->text, /*parse_special=*/false, SegmentKind::kFused);
            }
        }
    }

    void write_answer(const Turn& turn) {
        if (turn.answer_ids.empty()) {
            writer_.text(turn.message.content, /*parse_special=*/false, SegmentKind::kPlain);
        }
        for (const int32_t id : turn.answer_ids) {
            if (!model_.is_token(id))
                throw_input("token id {} of an earlier answer is not in the vocabulary", id);
            writer_.token(id, SegmentKind::kPlain);
        }
        answer_has_ended_ = !turn.answer_ids.empty() && model_.is_end(turn.answer_ids.back());
    }

    // Writes the end token with which the text behind an answer starts, perhaps after spaces; returns the
    // rest.
    std::string_view close_answer(std::string_view text) {
        const std::string_view candidate = trim_left(text);
        for (const auto& token : model_.control_tokens()) {
            if (!candidate.starts_with(token.text)) continue;
            if (!model_.is_end(token.id)) break;
            if (!answer_has_ended_) writer_.token(token.id, SegmentKind::kPlain);
            return candidate.substr(token.text.size());
        }
        return text;
    }

    const LanguageModel& model_;
    const ChatTemplate& template_;
    std::span<const Turn> turns_;
    MarkedConversation conversation_;
    TokenWriter writer_;
    bool answer_has_ended_ = false;
};

void check_placeholders(std::span<const PromptToken> tokens) {
    const auto count = std::count_if(tokens.begin(), tokens.end(),
                                     [](const PromptToken& t) { return t.kind == SegmentKind::kImage; });
    if (count > 1) {
        throw_input("the conversation holds {} placeholders '{}', expected at most one", count,
                    kImagePlaceholder);
    }
}

}  // namespace

std::vector<PromptToken> tokenize_prompt(const LanguageModel& model, std::string_view text,
                                         const PromptOptions& options) {
    TokenWriter writer(model);
    while (true) {
        const size_t placeholder = text.find(kImagePlaceholder);
        writer.text(text.substr(0, placeholder), /*parse_special=*/true, SegmentKind::kFused);
        if (placeholder == std::string_view::npos) break;
        writer.image();
        text.remove_prefix(placeholder + kImagePlaceholder.size());
    }
    return writer.finish(options.double_bos);
}

std::vector<PromptToken> tokenize_conversation(const LanguageModel& model, const ChatTemplate& chat_template,
                                               std::span<const Turn> turns, const PromptOptions& options) {
    if (turns.empty()) throw_input("the conversation has no messages");
    std::vector<PromptToken> tokens;
    if (options.official_quirks) {
        std::vector<ChatMessage> messages;
        for (const Turn& turn : turns) messages.push_back(turn.message);
        const std::string text = chat_template.render(messages, /*add_generation_prompt=*/true);
        tokens = tokenize_prompt(model, text, options);
    } else {
        tokens = ConversationTokenizer(model, chat_template, turns).run();
    }
    check_placeholders(tokens);
    return tokens;
}

}  // namespace llava_mini
