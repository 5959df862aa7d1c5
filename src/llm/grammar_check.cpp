#include "llm/grammar_check.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "core/error.h"
#include "llm/utf8_stream.h"

namespace llava_mini {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 18;
constexpr uint64_t kMaxSymbols = 10000;      // rules, written and generated
constexpr uint64_t kMaxElements = 1u << 20;  // characters and references after repetitions are written out
constexpr uint64_t kMaxRepetitions = 2000;   // libllama's own limit
constexpr int kMaxNesting = 100;

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || is_digit(c);
}

// A recursive descent over the text that follows libllama's parser step by step.
class GrammarChecker {
  public:
    GrammarChecker(std::string_view text, const LanguageModel& model) : text_(text), model_(model) {}

    void run() {
        skip_space(/*newlines=*/true);
        while (!at_end()) rule();
        for (const auto& [name, place] : references_) {
            if (!rules_.contains(name)) fail(place, fmt::format("the rule '{}' is not defined", name));
        }
        if (!rules_.contains("root")) throw_input("grammar: it has no rule 'root'");
    }

  private:
    bool at_end() const { return place_ == text_.size(); }
    // The character at the place, or some way behind it; NUL at the end.
    char peek(size_t ahead = 0) const { return place_ + ahead < text_.size() ? text_[place_ + ahead] : '\0'; }

    [[noreturn]] void fail(size_t place, const std::string& what) const {
        const std::string_view before = text_.substr(0, place);
        const size_t line_start = before.rfind('\n') + 1;  // npos + 1 == 0
        throw_input("grammar: line {}, column {}: {}", 1 + std::count(before.begin(), before.end(), '\n'),
                    1 + place - line_start, what);
    }
    [[noreturn]] void fail(const std::string& what) const { fail(place_, what); }
    void expect(std::string_view wanted) {
        if (!text_.substr(place_).starts_with(wanted)) fail(fmt::format("expected '{}'", wanted));
        place_ += wanted.size();
    }

    void skip_space(bool newlines) {
        while (!at_end()) {
            const char c = peek();
            if (c == '#') {
                place_ = std::min(text_.find_first_of("\r\n", place_), text_.size());
            } else if (c == ' ' || c == '\t' || (newlines && (c == '\r' || c == '\n'))) {
                ++place_;
            } else {
                return;
            }
        }
    }

    std::string name() {
        const size_t start = place_;
        while (is_name(peek())) ++place_;
        if (place_ == start) fail("expected the name of a rule");
        return std::string(text_.substr(start, place_ - start));
    }

    uint64_t number() {
        const size_t start = place_;
        while (is_digit(peek())) ++place_;
        if (place_ == start) fail("expected a number");
        if (place_ - start > 9) fail(start, "the number is too large");
        return std::stoull(std::string(text_.substr(start, place_ - start)));
    }

    void rule() {
        const std::string rule_name = name();
        add_symbol(rule_name);
        rules_.insert(rule_name);
        skip_space(false);
        expect("::=");
        skip_space(true);
        alternatives(/*nested=*/0);
        if (peek() == '\r') {
            place_ += peek(1) == '\n' ? 2 : 1;
        } else if (peek() == '\n') {
            ++place_;
        } else if (!at_end()) {
            fail("expected a new line or the end of the grammar");
        }
        skip_space(true);
    }

    void alternatives(int nesting) {
        if (nesting > kMaxNesting) fail(fmt::format("more than {} groups inside each other", kMaxNesting));
        sequence(nesting);
        while (peek() == '|') {
            ++place_;
            skip_space(true);
            sequence(nesting);
        }
    }

    void sequence(int nesting) {
        const bool nested = nesting > 0;
        uint64_t item_size = 0;   // elements of the item a repetition would repeat; 0: there is none
        uint64_t item_rules = 1;  // as libllama counts them for its limit
        while (!at_end()) {
            const char c = peek();
            if (std::optional<Repetition> repeat = repetition(nested)) {
                if (item_size == 0) fail("there is nothing to repeat");
                apply(*repeat, item_size, item_rules);
                skip_space(nested);
                continue;
            }
            if (c == '"') {
                item_size = literal();
                item_rules = 1;
            } else if (c == '[') {
                item_size = character_class();
                item_rules = 1;
            } else if (c == '<' || c == '!') {
                vocabulary_token();
                item_size = item_rules = 1;
            } else if (c == '.') {
                ++place_;
                item_size = item_rules = 1;
            } else if (is_name(c)) {
                const size_t start = place_;
                const std::string rule_name = name();
                add_symbol(rule_name);
                references_.emplace(rule_name, start);
                item_size = item_rules = 1;
            } else if (c == '(') {
                ++place_;
                skip_space(true);
                const uint64_t before = symbols();
                generate_symbols(1);
                alternatives(nesting + 1);
                expect(")");
                item_size = 1;
                item_rules = std::max<uint64_t>(1, symbols() - before);
            } else {
                return;
            }
            add_elements(item_size);
            skip_space(nested);
        }
    }

    struct Repetition {
        uint64_t min;
        std::optional<uint64_t> max;
    };

    // Reads *, +, ?, {n}, {n,} or {n,m}; nothing if none stands here.
    std::optional<Repetition> repetition(bool newlines) {
        const char c = peek();
        if (c != '*' && c != '+' && c != '?' && c != '{') return std::nullopt;
        const size_t start = place_++;
        if (c == '*') return Repetition{0, std::nullopt};
        if (c == '+') return Repetition{1, std::nullopt};
        if (c == '?') return Repetition{0, 1};
        skip_space(newlines);
        Repetition repeat{number(), std::nullopt};
        skip_space(newlines);
        if (peek() == '}') {
            repeat.max = repeat.min;
        } else {
            if (peek() != ',') fail("expected ',' or '}'");
            ++place_;
            skip_space(newlines);
            if (is_digit(peek())) repeat.max = number();
            skip_space(newlines);
        }
        expect("}");
        if (repeat.max && *repeat.max < repeat.min)
            fail(start, "the largest number of repetitions is below the smallest");
        if (repeat.min > kMaxRepetitions)
            fail(start, fmt::format("more than {} repetitions", kMaxRepetitions));
        if (repeat.max && *repeat.max > kMaxRepetitions)
            repeat.max.reset();  // libllama takes it for unlimited
        return repeat;
    }

    void apply(const Repetition& repeat, uint64_t& item_size, uint64_t& item_rules) {
        const uint64_t times = std::max<uint64_t>(1, repeat.max ? *repeat.max : repeat.min);
        item_rules *= times;
        if (item_rules > kMaxRepetitions)
            fail(fmt::format("more than {} rules by repetitions", kMaxRepetitions));
        const uint64_t optional_rules = repeat.max ? *repeat.max - repeat.min : 1;
        generate_symbols(optional_rules);
        add_elements((item_size + 3) * (repeat.min + optional_rules));
        if (repeat.max == 0) item_size = 0;  // the item is gone
    }

    uint64_t literal() {
        uint64_t characters = 0;
        ++place_;
        while (peek() != '"') {
            character();
            ++characters;
        }
        ++place_;
        return characters;
    }

    uint64_t character_class() {
        uint64_t characters = 0;
        ++place_;
        if (peek() == '^') ++place_;
        while (peek() != ']') {
            character();
            ++characters;
            if (peek() == '-' && peek(1) != ']') {
                ++place_;
                character();
                ++characters;
            }
        }
        ++place_;
        return characters;
    }

    void character() {
        if (at_end()) fail("unexpected end, a string or class is not closed");
        if (peek() != '\\') {
            do ++place_;  // a whole UTF-8 sequence
            while ((static_cast<unsigned char>(peek()) & 0xC0) == 0x80);
            return;
        }
        const char kind = peek(1);
        const int digits = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
        if (digits == 0 &&
            (kind == '\0' || std::string_view("trn\\\"[]-").find(kind) == std::string_view::npos)) {
            fail(fmt::format("unknown escape '\\{}'", kind == '\0' ? "" : std::string(1, kind)));
        }
        place_ += 2;
        for (int i = 0; i < digits; ++i, ++place_) {
            if (std::string_view("0123456789abcdefABCDEF").find(peek()) == std::string_view::npos ||
                at_end()) {
                fail(fmt::format("expected {} hexadecimal digits", digits));
            }
        }
    }

    // <[id]> or <text of one token>, after ! any other token.
    void vocabulary_token() {
        if (peek() == '!') ++place_;
        const size_t start = place_;
        expect("<");
        if (peek() == '[') {
            ++place_;
            const uint64_t id = number();
            if (id >= static_cast<uint64_t>(model_.n_vocab())) {
                fail(start, fmt::format("the vocabulary has {} tokens", model_.n_vocab()));
            }
            expect("]>");
            return;
        }
        const size_t end = text_.find('>', place_);
        if (end == std::string_view::npos) fail("expected '>'");
        place_ = end + 1;
        const std::string_view token = text_.substr(start, place_ - start);
        if (model_.tokenize(token, /*parse_special=*/true).size() != 1) {
            fail(start, fmt::format("'{}' is no token of the vocabulary", token));
        }
    }

    void add_symbol(const std::string& rule_name) {
        names_.insert(rule_name);
        check_symbols();
    }
    void generate_symbols(uint64_t count) {
        generated_ += count;
        check_symbols();
    }
    uint64_t symbols() const { return names_.size() + generated_; }
    void check_symbols() const {
        if (symbols() > kMaxSymbols) fail(fmt::format("more than {} rules", kMaxSymbols));
    }
    void add_elements(uint64_t count) {
        elements_ += count;
        if (elements_ > kMaxElements) fail(fmt::format("more than {} elements", kMaxElements));
    }

    std::string_view text_;
    const LanguageModel& model_;
    size_t place_ = 0;
    std::set<std::string> rules_, names_;       // defined; defined or referred to
    std::map<std::string, size_t> references_;  // with the place of the first
    uint64_t generated_ = 0;                    // rules libllama makes up for groups and repetitions
    uint64_t elements_ = 0;
};

}  // namespace

void check_grammar(std::string_view grammar, const LanguageModel& model) {
    if (grammar.size() > kMaxBytes) {
        throw_input("grammar: {} bytes, at most {} are accepted", grammar.size(), kMaxBytes);
    }
    Utf8Stream utf8;
    if (utf8.push(grammar) != grammar || grammar.find('\0') != std::string_view::npos) {
        throw_input("grammar: it is no UTF-8 text");
    }
    GrammarChecker(grammar, model).run();
}

}  // namespace llava_mini
