#include "convert/byte_level_bpe.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "convert/json_input.h"
#include "core/error.h"

namespace llava_mini {
namespace {

using nlohmann::json;

// A pre-tokenizer that libllama has: the regular expressions that cut the text, and whether a whole piece
// that is in the vocabulary is taken without merging.
struct KnownPreTokenizer {
    const char* regex;
    bool ignore_merges;
    const char* name;
};

constexpr const char* kByteLevelRegex = "(the regular expression of ByteLevel)";
const KnownPreTokenizer kKnownPreTokenizers[] = {
    {kLlama3Regex, true, "llama-bpe"},
    {kLlama3Regex, false, "smaug-bpe"},  // the same cuts, with merges
    {kByteLevelRegex, false, "gpt-2"},
};

// Steps of the pre-tokenizer, whether it is one or a sequence of them.
std::vector<JsonObject> pre_tokenizer_steps(const JsonObject& root) {
    const std::optional<JsonObject> pre_tokenizer = root.object("pre_tokenizer");
    if (!pre_tokenizer) return {};
    if (pre_tokenizer->text_or("type", "") != "Sequence") return {*pre_tokenizer};
    std::vector<JsonObject> steps;
    const json& list = pre_tokenizer->at("pretokenizers");
    if (!list.is_array()) pre_tokenizer->fail("pretokenizers", "an array");
    for (size_t i = 0; i < list.size(); ++i) {
        steps.emplace_back(list[i], fmt::format("{}: pretokenizers[{}]", pre_tokenizer->where(), i));
    }
    return steps;
}

std::string name_of_pre_tokenizer(const JsonObject& root, bool ignore_merges) {
    std::vector<std::string> regexes;
    for (const JsonObject& step : pre_tokenizer_steps(root)) {
        const std::string type = step.text("type");
        if (type == "Split") {
            const std::optional<JsonObject> pattern = step.object("pattern");
            regexes.push_back(pattern ? pattern->text_or("Regex", "") : "");
            if (step.text_or("behavior", "Isolated") != "Isolated") step.fail("behavior", "\"Isolated\"");
            if (step.boolean_or("invert", false)) step.fail("invert", "false");
        } else if (type == "ByteLevel") {
            if (step.boolean_or("add_prefix_space", true)) step.fail("add_prefix_space", "false");
            if (step.boolean_or("use_regex", true)) regexes.emplace_back(kByteLevelRegex);
        } else {
            step.fail("type", "\"Split\" or \"ByteLevel\"");
        }
    }
    for (const KnownPreTokenizer& known : kKnownPreTokenizers) {
        if (regexes.size() == 1 && regexes[0] == known.regex && ignore_merges == known.ignore_merges) {
            return known.name;
        }
    }
    throw_input(
        "{}: pre_tokenizer: expected one that libllama has (Llama 3's or GPT-2's), found {} with "
        "ignore_merges {}",
        root.where(), printable(fmt::format("{}", fmt::join(regexes, " then "))), ignore_merges);
}

class Reader {
  public:
    Reader(const JsonObject& root, int n_vocab) : root_(root), n_vocab_(n_vocab) {
        out_.model = "gpt2";
        out_.tokens.resize(static_cast<size_t>(n_vocab));
        out_.types.resize(static_cast<size_t>(n_vocab), TokenType::kUnused);
    }

    Vocabulary read() {
        if (root_.has("normalizer")) root_.fail("normalizer", "null");
        const std::optional<JsonObject> model = root_.object("model");
        if (!model) root_.fail("model", "an object");
        if (model->text("type") != "BPE") model->fail("type", "\"BPE\"");
        for (const char* suffix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
            if (!model->text_or(suffix, "").empty()) model->fail(suffix, "null");
        }
        const bool ignore_merges = model->boolean_or("ignore_merges", false);
        out_.pre = name_of_pre_tokenizer(root_, ignore_merges);

        const json& vocab = model->at("vocab");
        if (!vocab.is_object()) model->fail("vocab", "an object");
        for (const auto& [token, id] : vocab.items()) {
            add(model->where() + ": vocab", token, id, TokenType::kNormal);
        }
        read_merges(*model);
        read_added_tokens();
        out_.pad_to(n_vocab_);
        out_.add_bos = starts_with_bos();
        return std::move(out_);
    }

  private:
    void add(const std::string& where, const std::string& token, const json& id, TokenType type) {
        if (token.empty() || token.find('\0') != std::string::npos) {
            throw_input("{}: an empty token, or one with a zero byte", where);
        }
        if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(n_vocab_)) {
            throw_input("{}: '{}': expected an id below vocab_size ({}), found {}", where, printable(token),
                        n_vocab_, describe_json(id));
        }
        const auto index = id.get<size_t>();
        const auto [position, is_new] = ids_.emplace(token, index);
        if (position->second != index || (is_new && !out_.tokens[index].empty())) {
            throw_input("{}: '{}' has id {}, but {}", where, printable(token), index,
                        is_new ? fmt::format("so has '{}'", printable(out_.tokens[index]))
                               : fmt::format("also id {}", position->second));
        }
        out_.tokens[index] = token;
        out_.types[index] = type;
    }

    // Merges are strings "left right" or, in newer files, pairs.
    void read_merges(const JsonObject& model) {
        const json& merges = model.at("merges");
        if (!merges.is_array()) model.fail("merges", "an array");
        out_.merges.reserve(merges.size());
        for (size_t i = 0; i < merges.size(); ++i) {
            const json& merge = merges[i];
            std::string left, right;
            if (merge.is_string()) {
                const auto& text = merge.get_ref<const std::string&>();
                const size_t space = text.find(' ');
                left = text.substr(0, space);
                if (space != std::string::npos) right = text.substr(space + 1);
            } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
                       merge[1].is_string()) {
                left = merge[0].get<std::string>();
                right = merge[1].get<std::string>();
            }
            if (!ids_.contains(left) || !ids_.contains(right) || !ids_.contains(left + right) ||
                (left + right).find(' ') != std::string::npos) {
                throw_input(
                    "{}: merges[{}]: expected two tokens of the vocabulary that make a third, found {}",
                    model.where(), i, describe_json(merge));
            }
            out_.merges.push_back(left + " " + right);
        }
    }

    void read_added_tokens() {
        const json* added = root_.find("added_tokens");
        if (added == nullptr) return;
        if (!added->is_array()) root_.fail("added_tokens", "an array");
        for (size_t i = 0; i < added->size(); ++i) {
            const JsonObject token((*added)[i], fmt::format("{}: added_tokens[{}]", root_.where(), i));
            add(token.where(), token.text("content"), token.at("id"),
                token.boolean_or("special", false) ? TokenType::kControl : TokenType::kUserDefined);
        }
    }

    // The post-processor's template starts with a special token: texts get begin-of-text.
    bool starts_with_bos() const {
        const std::optional<JsonObject> processor = root_.object("post_processor");
        if (!processor) return false;
        std::vector<const json*> processors;
        if (const json* list = processor->find("processors"); list != nullptr && list->is_array()) {
            for (const json& item : *list) processors.push_back(&item);
        } else {
            processors.push_back(root_.find("post_processor"));
        }
        for (const json* item : processors) {
            const JsonObject object(*item, processor->where());
            if (object.text_or("type", "") != "TemplateProcessing") continue;
            const json* single = object.find("single");
            if (single != nullptr && single->is_array() && !single->empty() && (*single)[0].is_object()) {
                return (*single)[0].contains("SpecialToken");
            }
        }
        return false;
    }

    const JsonObject& root_;
    int n_vocab_;
    Vocabulary out_;
    std::unordered_map<std::string, size_t> ids_;
};

}  // namespace

const char* const kLlama3Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

bool is_byte_level_bpe(const json& tokenizer) {
    const auto model = tokenizer.find("model");
    if (model == tokenizer.end() || !model->is_object()) return true;  // malformed: let the reader say so
    const auto byte_fallback = model->find("byte_fallback");
    return byte_fallback == model->end() || *byte_fallback != true;
}

Vocabulary read_byte_level_bpe(const json& tokenizer, const std::string& file, int n_vocab) {
    const JsonObject root(tokenizer, file);
    return Reader(root, n_vocab).read();
}

}  // namespace llava_mini
