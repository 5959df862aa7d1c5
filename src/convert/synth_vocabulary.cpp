#include "convert/synth_vocabulary.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "convert/byte_level_bpe.h"
#include "core/error.h"

namespace llava_mini {
namespace {

using nlohmann::json;

constexpr int kSpecialTokens = 256;

// Llama 3's order: the special tokens' numbers from the first on.
constexpr std::pair<int, const char*> kLlama3SpecialTokens[] = {
    {0, "<|begin_of_text|>"},   {1, "<|end_of_text|>"},   {4, "<|finetune_right_pad_id|>"},
    {6, "<|start_header_id|>"}, {7, "<|end_header_id|>"}, {8, "<|eom_id|>"},
    {9, "<|eot_id|>"},          {10, "<|python_tag|>"}};

constexpr const char* kLlama3ChatTemplate =
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + (message.content | trim) + "
    "'<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}";

std::string utf8(int code_point) {
    if (code_point < 0x80) return {static_cast<char>(code_point)};
    return {static_cast<char>(0xc0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3f))};
}

// The characters that stand for bytes in byte-level BPE (GPT-2): printable Latin-1 for itself, the others
// from U+0100 on. In the order of token ids, which is that of these two groups.
std::vector<std::string> byte_characters() {
    const auto printable = [](int byte) {
        return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    };
    std::vector<std::string> characters;
    for (int byte = 0; byte < 256; ++byte) {
        if (printable(byte)) characters.push_back(utf8(byte));
    }
    for (int byte = 0, next = 0x100; byte < 256; ++byte) {
        if (!printable(byte)) characters.push_back(utf8(next++));
    }
    return characters;
}

// Letters by their frequency in English first, so that small vocabularies merge what is common; then the
// rest.
std::vector<std::string> common_first(std::vector<std::string> characters, const std::string& space) {
    const std::string letters = "etaoinshrdlcumwfgypbvk";
    const auto rank = [&](const std::string& character) {
        if (character == space) return size_t{0};
        const size_t at = character.size() == 1 ? letters.find(character[0]) : std::string::npos;
        return at == std::string::npos ? letters.size() + 1 : at + 1;
    };
    std::stable_sort(characters.begin(), characters.end(),
                     [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
    return characters;
}

// Calls add(left, right) for pairs of characters, those of low rank first, then for pairs followed by a
// character, until it returns false. Returns whether there were enough.
template <typename Add>
bool for_merges(const std::vector<std::string>& characters, Add add) {
    std::vector<std::string> pairs;
    const size_t n = characters.size();
    for (size_t last = 0; last < n; ++last) {
        for (size_t i = 0; i <= last; ++i) {
            pairs.push_back(characters[i] + characters[last]);
            if (!add(characters[i], characters[last])) return true;
            if (i == last) continue;
            pairs.push_back(characters[last] + characters[i]);
            if (!add(characters[last], characters[i])) return true;
        }
    }
    for (const std::string& pair : pairs) {
        for (const std::string& character : characters) {
            if (!add(pair, character)) return true;
        }
    }
    return false;
}

void push(Vocabulary& vocabulary, const std::string& token, TokenType type) {
    vocabulary.tokens.push_back(token);
    vocabulary.types.push_back(type);
}

}  // namespace

Vocabulary synth_byte_level_bpe(int n_vocab) {
    Vocabulary out;
    out.model = "gpt2";
    out.pre = "llama-bpe";
    const std::vector<std::string> characters = byte_characters();
    for (const std::string& character : characters) push(out, character, TokenType::kNormal);
    const int base = n_vocab - kSpecialTokens;
    const bool enough = out.size() < base && for_merges(common_first(characters, "\xc4\xa0"),
                                                        [&](const auto& left, const auto& right) {
                                                            out.merges.push_back(left + " " + right);
                                                            push(out, left + right, TokenType::kNormal);
                                                            return out.size() < base;
                                                        });
    if (!enough) throw_usage("a synthetic byte-level vocabulary cannot have {} tokens", n_vocab);
    for (int i = 0, reserved = 0; i < kSpecialTokens; ++i) {
        const auto* named = std::find_if(std::begin(kLlama3SpecialTokens), std::end(kLlama3SpecialTokens),
                                         [&](const auto& special) { return special.first == i; });
        push(out,
             named != std::end(kLlama3SpecialTokens)
                 ? named->second
                 : fmt::format("<|reserved_special_token_{}|>", reserved++),
             TokenType::kControl);
    }
    out.bos = base;
    out.pad = base + 4;
    out.eom = base + 8;
    out.eos = out.eot = base + 9;
    out.chat_templates = {{"", kLlama3ChatTemplate}};
    return out;
}

Vocabulary synth_sentencepiece(int n_vocab) {
    Vocabulary out;
    out.model = "llama";
    out.pre = "default";
    push(out, "<unk>", TokenType::kUnknown);
    push(out, "<s>", TokenType::kControl);
    push(out, "</s>", TokenType::kControl);
    for (int byte = 0; byte < 256; ++byte) push(out, fmt::format("<0x{:02X}>", byte), TokenType::kByte);
    const std::string space = "\xe2\x96\x81";  // U+2581, SentencePiece's space
    std::vector<std::string> characters = {space};
    for (int character = '!'; character <= '~'; ++character) characters.push_back(utf8(character));
    for (const std::string& character : characters) push(out, character, TokenType::kNormal);
    const int first_merge = out.size();
    if (!for_merges(common_first(characters, space), [&](const auto& left, const auto& right) {
            push(out, left + right, TokenType::kNormal);
            return out.size() < n_vocab;
        })) {
        throw_usage("a synthetic SentencePiece vocabulary cannot have {} tokens", n_vocab);
    }
    out.scores.resize(out.tokens.size(), 0.0f);
    for (int i = first_merge; i < out.size(); ++i) {
        out.scores[static_cast<size_t>(i)] = static_cast<float>(first_merge - i);
    }
    out.unknown = 0;
    out.bos = 1;
    out.eos = 2;
    out.pad = 0;
    out.add_space_prefix = true;
    out.chat_templates = {{"", kLlavaV15ChatTemplate}};
    return out;
}

std::string tokenizer_json(const Vocabulary& vocabulary) {
    json vocab = json::object(), added = json::array();
    for (int i = 0; i < vocabulary.size(); ++i) {
        const std::string& token = vocabulary.tokens[static_cast<size_t>(i)];
        if (vocabulary.types[static_cast<size_t>(i)] == TokenType::kControl) {
            added.push_back({{"id", i}, {"content", token}, {"special", true}});
        } else {
            vocab[token] = i;
        }
    }
    const json bos = {{"SpecialToken", {{"id", vocabulary.tokens[static_cast<size_t>(*vocabulary.bos)]}}}};
    const json split = {{"type", "Split"}, {"pattern", {{"Regex", kLlama3Regex}}}, {"behavior", "Isolated"}};
    const json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
    return json{{"version", "1.0"},
                {"added_tokens", added},
                {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {split, bytes}}}},
                {"post_processor",
                 {{"type", "TemplateProcessing"}, {"single", {bos, {{"Sequence", {{"id", "A"}}}}}}}},
                {"decoder", {{"type", "ByteLevel"}}},
                {"model",
                 {{"type", "BPE"}, {"ignore_merges", true}, {"vocab", vocab}, {"merges", vocabulary.merges}}}}
        .dump();
}

std::string tokenizer_config_json(const Vocabulary& vocabulary) {
    const auto name = [&](int id) { return vocabulary.tokens[static_cast<size_t>(id)]; };
    json config = {{"bos_token", name(*vocabulary.bos)},
                   {"eos_token", name(*vocabulary.eos)},
                   {"pad_token", name(*vocabulary.pad)}};
    // LLaVA's Vicuna checkpoints carry no template.
    if (vocabulary.model == "gpt2") config["chat_template"] = vocabulary.chat_templates.front().second;
    return config.dump(2);
}

}  // namespace llava_mini
