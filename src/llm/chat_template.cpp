#include "llm/chat_template.h"

#include <jinja/lexer.h>
#include <jinja/parser.h>
#include <jinja/runtime.h>
#include <jinja/value.h>

#include <cstdlib>
#include <set>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "llm/language_model.h"

namespace llava_mini {
namespace {

// The interpreter is recursive, so what could make it recurse without bound is limited. Templates in use stay
// far below: a few hundred tokens in a tag, some ten levels.
constexpr size_t kMaxSourceBytes = size_t{1} << 20;
constexpr size_t kMaxTokensInTag = 2000;
constexpr int kMaxBrackets = 64;
constexpr int kMaxBlocks = 200;
constexpr ptrdiff_t kMaxStackBytes = ptrdiff_t{1} << 20;

constexpr const char* kStackGuard = "stack guard";  // no identifier of a template can be spelled like this

bool is_identifier(const jinja::token& token, std::string_view name) {
    return token.t == jinja::token::identifier && token.value == name;
}

// Whether the tag that starts at tokens[i] opens a block that an end tag closes.
bool opens_block(const std::vector<jinja::token>& tokens, size_t i) {
    static const std::set<std::string_view> kBlocks = {"if", "for", "macro", "call", "filter", "generation"};
    const std::string& name = tokens[i + 1].value;
    if (name != "set") return kBlocks.contains(name);
    while (++i < tokens.size() && tokens[i].t != jinja::token::close_statement) {
        if (tokens[i].t == jinja::token::equals) return false;  // {% set x = 1 %} is complete
    }
    return true;
}

void check_nesting(const std::vector<jinja::token>& tokens) {
    using jinja::token;
    size_t tag_start = 0;
    int brackets = 0, depth = 0;
    std::vector<int> blocks;  // levels of every open block: a chain of elif nests too
    for (size_t i = 0; i < tokens.size(); ++i) {
        const token::type type = tokens[i].t;
        if (type == token::open_paren || type == token::open_square_bracket ||
            type == token::open_curly_bracket) {
            ++brackets;
        } else if (type == token::close_paren || type == token::close_square_bracket ||
                   type == token::close_curly_bracket) {
            --brackets;
        } else if (type == token::open_expression || type == token::open_statement) {
            tag_start = i;
        }
        if (type == token::open_statement && i + 1 < tokens.size()) {
            const std::string& name = tokens[i + 1].value;
            if (opens_block(tokens, i)) {
                blocks.push_back(1);
                ++depth;
            } else if (!blocks.empty() && name == "elif") {
                ++blocks.back();
                ++depth;
            } else if (!blocks.empty() && name.starts_with("end")) {
                depth -= blocks.back();
                blocks.pop_back();
            }
        }
        if (brackets > kMaxBrackets || depth > kMaxBlocks || i - tag_start > kMaxTokensInTag) {
            throw_input("chat template: nested too deeply");
        }
    }
}

// Calls the guard at the start of every macro's body.
std::vector<jinja::token> guard_macros(const std::vector<jinja::token>& tokens) {
    using jinja::token;
    std::vector<token> guarded;
    bool in_macro_tag = false;
    for (const token& t : tokens) {
        if (is_identifier(t, "macro") && !guarded.empty() && guarded.back().t == token::open_statement) {
            in_macro_tag = true;
        }
        guarded.push_back(t);
        if (in_macro_tag && t.t == token::close_statement) {
            in_macro_tag = false;
            guarded.push_back({token::open_expression, "{{", t.pos});
            guarded.push_back({token::identifier, kStackGuard, t.pos});
            guarded.push_back({token::open_paren, "(", t.pos});
            guarded.push_back({token::close_paren, ")", t.pos});
            guarded.push_back({token::close_expression, "}}", t.pos});
        }
    }
    return guarded;
}

// The interpreter's messages show the source around the error over several lines; the reason is one of them.
std::string reason(const std::exception& error) {
    std::string_view text = error.what();
    constexpr std::string_view kMark = "\nError: ";
    if (const size_t mark = text.rfind(kMark); mark != std::string_view::npos) {
        text.remove_prefix(mark + kMark.size());
    }
    while (text.starts_with('\n')) text.remove_prefix(1);
    return std::string(text.substr(0, text.find('\n')));
}

}  // namespace

struct ChatTemplate::Program {
    std::string source;
    jinja::program ast;
};

ChatTemplate::ChatTemplate(const std::string& source, std::string bos_token, std::string eos_token)
    : bos_token_(std::move(bos_token)), eos_token_(std::move(eos_token)) {
    if (source.size() > kMaxSourceBytes) {
        throw_input("chat template: {} bytes, at most {} are accepted", source.size(), kMaxSourceBytes);
    }
    try {
        jinja::lexer_result lexed = jinja::lexer().tokenize(source);
        for (jinja::token& token : lexed.tokens) {
            if (is_identifier(token, "strftime_now")) token.value = "undefined strftime_now";
        }
        check_nesting(lexed.tokens);
        lexed.tokens = guard_macros(lexed.tokens);
        program_.reset(new Program{source, jinja::parse_from_tokens(lexed)});
    } catch (const Error&) {
        throw;
    } catch (const std::exception& error) {
        throw_input("chat template: {}", reason(error));
    }
}

namespace {

std::string template_of(const LanguageModel& model) {
    std::string source = model.chat_template();
    if (source.empty()) {
        throw_input("{}: the model has no chat template (metadata key 'tokenizer.chat_template')",
                    model.file().string());
    }
    return source;
}

}  // namespace

ChatTemplate::ChatTemplate(const LanguageModel& model)
    : ChatTemplate(template_of(model), model.token_text(model.bos()), model.token_text(model.eos())) {}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
    using jinja::mk_val;
    try {
        jinja::context context(program_->source);
        auto list = mk_val<jinja::value_array>();
        for (const ChatMessage& message : messages) {
            auto object = mk_val<jinja::value_object>();
            object->insert("role", mk_val<jinja::value_string>(message.role));
            object->insert("content", mk_val<jinja::value_string>(message.content));
            list->push_back(object);
        }
        context.set_val("messages", list);
        context.set_val("bos_token", mk_val<jinja::value_string>(bos_token_));
        context.set_val("eos_token", mk_val<jinja::value_string>(eos_token_));
        context.set_val("add_generation_prompt", mk_val<jinja::value_bool>(add_generation_prompt));

        const auto* stack_start = static_cast<const char*>(__builtin_frame_address(0));
        const jinja::func_handler guard = [stack_start](const jinja::func_args&) -> jinja::value {
            const auto* here = static_cast<const char*>(__builtin_frame_address(0));
            if (std::abs(stack_start - here) > kMaxStackBytes)
                throw std::runtime_error("macros call each other too deeply");
            return mk_val<jinja::value_string>("");
        };
        context.set_val(kStackGuard, mk_val<jinja::value_func>(kStackGuard, guard));

        jinja::runtime runtime(context);
        const auto parts = runtime.execute(program_->ast);
        return jinja::runtime::gather_string_parts(parts)->as_string().str();
    } catch (const std::exception& error) {
        throw_input("chat template: {}", reason(error));
    }
}

}  // namespace llava_mini
