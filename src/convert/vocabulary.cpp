#include "convert/vocabulary.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "convert/byte_level_bpe.h"
#include "convert/json_input.h"
#include "convert/sentencepiece_model.h"
#include "core/error.h"
#include "core/file.h"

namespace llava_mini {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr uint64_t kMaxTokenizerBytes = 64 << 20;
constexpr uint64_t kMaxConfigBytes = 16 << 20;

bool is_there(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
}

// A JSON file of the checkpoint that may be absent (an empty object then).
struct OptionalConfig {
    explicit OptionalConfig(const fs::path& path)
        : root(is_there(path) ? read_json_file(path, kMaxConfigBytes) : json::object()),
          object(root, path.string()) {}
    OptionalConfig(const OptionalConfig&) = delete;
    OptionalConfig& operator=(const OptionalConfig&) = delete;

    json root;
    JsonObject object;
};

using TokenIds = std::unordered_map<std::string, int>;

TokenIds ids_of(const Vocabulary& vocabulary) {
    TokenIds ids;
    for (int i = 0; i < vocabulary.size(); ++i) ids.emplace(vocabulary.tokens[static_cast<size_t>(i)], i);
    return ids;
}

// The id of a special token that a config names, as a string or as an object with its content.
std::optional<int> named_token(const JsonObject& config, const char* key, const TokenIds& ids) {
    const json* value = config.find(key);
    if (value == nullptr) return std::nullopt;
    const std::string text = value->is_object() ? config.object(key)->text("content") : config.text(key);
    const auto it = ids.find(text);
    if (it == ids.end()) config.fail(key, "a token of the vocabulary");
    return it->second;
}

// Puts tokens that tokenizer_config.json and added_tokens.json add to a SentencePiece model in their places.
void add_tokens(Vocabulary& vocabulary, const fs::path& checkpoint, const JsonObject& tokenizer_config,
                int n_vocab) {
    struct Added {
        std::string where, text;
        bool special;
    };
    std::vector<std::pair<int, Added>> added;
    const OptionalConfig plain(checkpoint / "added_tokens.json");
    for (const auto& [text, id] : plain.root.items()) {
        const int number = id.is_number_unsigned() && id.get<uint64_t>() < INT32_MAX ? id.get<int>() : -1;
        added.push_back({number, {plain.object.where(), text, true}});
    }
    if (const std::optional<JsonObject> decoder = tokenizer_config.object("added_tokens_decoder")) {
        for (const auto& [id, token] : tokenizer_config.find("added_tokens_decoder")->items()) {
            const JsonObject object(token, decoder->where() + ": " + printable(id));
            const bool is_number = !id.empty() && id.size() < 10 && std::ranges::all_of(id, ::isdigit);
            added.push_back(
                {is_number ? std::stoi(id) : -1,
                 {decoder->where(), object.text("content"), object.boolean_or("special", false)}});
        }
    }
    for (const auto& [id, token] : added) {
        if (id < 0 || id >= n_vocab || token.text.empty() || token.text.find('\0') != std::string::npos) {
            throw_input("{}: '{}': expected a text and an id below vocab_size ({}), found id {}", token.where,
                        printable(token.text), n_vocab, id);
        }
        const auto index = static_cast<size_t>(id);
        if (index >= vocabulary.tokens.size()) {
            vocabulary.tokens.resize(index + 1);
            vocabulary.types.resize(index + 1, TokenType::kUnused);
            vocabulary.scores.resize(index + 1, 0.0f);
        }
        TokenType& type = vocabulary.types[index];
        vocabulary.tokens[index] = token.text;
        if (type != TokenType::kUnknown && type != TokenType::kByte) {
            type = token.special ? TokenType::kControl : TokenType::kUserDefined;
        }
    }
    std::unordered_set<std::string> seen;
    for (const std::string& token : vocabulary.tokens) {
        if (!token.empty() && !seen.insert(token).second) {
            throw_input("{}: after adding tokens '{}' has two ids", tokenizer_config.where(),
                        printable(token));
        }
    }
}

void read_special_tokens(Vocabulary& vocabulary, const fs::path& checkpoint,
                         const JsonObject& tokenizer_config, std::optional<int> bos_id,
                         const std::vector<int>& eos_ids) {
    const TokenIds ids = ids_of(vocabulary);
    const OptionalConfig map(checkpoint / "special_tokens_map.json");
    const auto resolve = [&](const char* key, std::optional<int>& id, std::optional<int> otherwise) {
        if (const auto named = named_token(tokenizer_config, key, ids)) {
            id = named;
        } else if (const auto mapped = named_token(map.object, key, ids)) {
            id = mapped;
        } else if (otherwise) {
            id = otherwise;
        }
    };
    resolve("bos_token", vocabulary.bos, bos_id);
    resolve("eos_token", vocabulary.eos, eos_ids.empty() ? std::nullopt : std::optional(eos_ids.front()));
    resolve("pad_token", vocabulary.pad, std::nullopt);
    resolve("unk_token", vocabulary.unknown, std::nullopt);
    vocabulary.add_bos = tokenizer_config.boolean_or("add_bos_token", vocabulary.add_bos);
    vocabulary.add_eos = tokenizer_config.boolean_or("add_eos_token", vocabulary.add_eos);
    if (vocabulary.add_bos && !vocabulary.bos) {
        throw_input("{}: bos_token is missing, and config.json has no bos_token_id",
                    tokenizer_config.where());
    }
    if (!vocabulary.eos) {
        throw_input("{}: eos_token is missing, and config.json has no eos_token_id",
                    tokenizer_config.where());
    }

    // libllama stops at eos, eot and eom, and at tokens with the usual names. Other end tokens of config.json
    // take the places of eot and eom where those are free.
    const auto with_name = [&](const char* name) {
        const auto it = ids.find(name);
        return it == ids.end() ? std::nullopt : std::optional(it->second);
    };
    vocabulary.eot = with_name("<|eot_id|>");
    vocabulary.eom = with_name("<|eom_id|>");
    for (const int id : eos_ids) {
        const std::string& name = vocabulary.tokens[static_cast<size_t>(id)];
        if (id == vocabulary.eos || id == vocabulary.eot || id == vocabulary.eom ||
            name == "<|end_of_text|>" || name == "</s>") {
            continue;
        }
        if (!vocabulary.eot) {
            vocabulary.eot = id;
        } else if (!vocabulary.eom) {
            vocabulary.eom = id;
        }
    }
}

void read_chat_templates(Vocabulary& vocabulary, const fs::path& checkpoint,
                         const JsonObject& tokenizer_config) {
    const auto add = [&](const JsonObject& config, const json& value) {
        if (value.is_string()) {
            vocabulary.chat_templates.emplace_back("", value.get<std::string>());
            return;
        }
        if (!value.is_array()) config.fail("chat_template", "a string, or an array of named templates");
        for (size_t i = 0; i < value.size(); ++i) {
            const JsonObject item(value[i], fmt::format("{}: chat_template[{}]", config.where(), i));
            const std::string name = item.text("name");
            vocabulary.chat_templates.emplace_back(name == "default" ? "" : name, item.text("template"));
        }
    };
    const OptionalConfig separate(checkpoint / "chat_template.json");
    if (const fs::path jinja = checkpoint / "chat_template.jinja"; is_there(jinja)) {
        vocabulary.chat_templates.emplace_back("", read_text_file(jinja, kMaxConfigBytes));
    } else if (const json* in_config = tokenizer_config.find("chat_template")) {
        add(tokenizer_config, *in_config);
    } else if (const json* in_separate = separate.object.find("chat_template")) {
        add(separate.object, *in_separate);
    } else if (vocabulary.model == "llama") {
        vocabulary.chat_templates.emplace_back("", kLlavaV15ChatTemplate);
    }
}

}  // namespace

const char* const kLlavaV15ChatTemplate =
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content }} "
    "{% elif message.role == 'user' %}USER: {{ message.content }} "
    "{% else %}ASSISTANT: {{ message.content }}{{ eos_token }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}";

const char* const kLlama3SystemPrompt =
    "You are a helpful language and vision assistant. You are able to understand the visual content that the "
    "user "
    "provides, and assist the user with a variety of tasks using natural language.";

const char* const kVicunaSystemPrompt =
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, "
    "and polite answers to the human's questions.";

void Vocabulary::pad_to(int n_vocab) {
    const auto wanted = static_cast<size_t>(n_vocab);
    if (tokens.size() < wanted) {
        tokens.resize(wanted);
        types.resize(wanted, TokenType::kUnused);
        if (!scores.empty()) scores.resize(wanted, 0.0f);
    }
    std::unordered_set<std::string> seen(tokens.begin(), tokens.end());
    for (size_t i = 0; i < tokens.size(); ++i) {
        if (!tokens[i].empty()) continue;
        tokens[i] = fmt::format("[PAD{}]", i);
        while (!seen.insert(tokens[i]).second) tokens[i] += "_";
    }
}

Vocabulary read_vocabulary(const fs::path& checkpoint, int n_vocab, std::optional<int> bos_id,
                           const std::vector<int>& eos_ids) {
    const OptionalConfig tokenizer_config(checkpoint / "tokenizer_config.json");
    const fs::path fast = checkpoint / "tokenizer.json", sentencepiece = checkpoint / "tokenizer.model";
    Vocabulary vocabulary;
    const json tokenizer = is_there(fast) ? read_json_file(fast, kMaxTokenizerBytes) : json();
    if (tokenizer.is_object() && is_byte_level_bpe(tokenizer)) {
        vocabulary = read_byte_level_bpe(tokenizer, fast.string(), n_vocab);
    } else if (is_there(sentencepiece)) {
        const std::vector<uint8_t> bytes = read_file(sentencepiece, kMaxTokenizerBytes);
        vocabulary = read_sentencepiece_model(bytes, sentencepiece.string());
        if (vocabulary.size() > n_vocab) {
            throw_input("{}: {} pieces, but config.json's vocab_size is {}", sentencepiece.string(),
                        vocabulary.size(), n_vocab);
        }
        add_tokens(vocabulary, checkpoint, tokenizer_config.object, n_vocab);
        vocabulary.pad_to(n_vocab);
    } else {
        throw_input("{}: expected a tokenizer: tokenizer.json with a byte-level BPE, or tokenizer.model",
                    checkpoint.string());
    }
    read_special_tokens(vocabulary, checkpoint, tokenizer_config.object, bos_id, eos_ids);
    read_chat_templates(vocabulary, checkpoint, tokenizer_config.object);
    if (tokenizer_config.object.has("system_prompt")) {
        vocabulary.system_prompt = tokenizer_config.object.text("system_prompt");
    }
    return vocabulary;
}

void write_vocabulary(gguf_context* gguf, const Vocabulary& vocabulary) {
    const auto set_strings = [&](const char* key, const std::vector<std::string>& strings) {
        std::vector<const char*> pointers;
        pointers.reserve(strings.size());
        for (const std::string& text : strings) pointers.push_back(text.c_str());
        gguf_set_arr_str(gguf, key, pointers.data(), pointers.size());
    };
    gguf_set_val_str(gguf, "tokenizer.ggml.model", vocabulary.model.c_str());
    gguf_set_val_str(gguf, "tokenizer.ggml.pre", vocabulary.pre.c_str());
    set_strings("tokenizer.ggml.tokens", vocabulary.tokens);
    gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, vocabulary.types.data(),
                      vocabulary.types.size());
    if (!vocabulary.scores.empty()) {
        gguf_set_arr_data(gguf, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, vocabulary.scores.data(),
                          vocabulary.scores.size());
    }
    if (vocabulary.model == "gpt2") set_strings("tokenizer.ggml.merges", vocabulary.merges);

    const std::pair<const char*, std::optional<int>> ids[] = {
        {"tokenizer.ggml.bos_token_id", vocabulary.bos},
        {"tokenizer.ggml.eos_token_id", vocabulary.eos},
        {"tokenizer.ggml.eot_token_id", vocabulary.eot},
        {"tokenizer.ggml.eom_token_id", vocabulary.eom},
        {"tokenizer.ggml.unknown_token_id", vocabulary.unknown},
        {"tokenizer.ggml.padding_token_id", vocabulary.pad}};
    for (const auto& [key, id] : ids) {
        if (id) gguf_set_val_u32(gguf, key, static_cast<uint32_t>(*id));
    }
    gguf_set_val_bool(gguf, "tokenizer.ggml.add_bos_token", vocabulary.add_bos);
    gguf_set_val_bool(gguf, "tokenizer.ggml.add_eos_token", vocabulary.add_eos);
    if (vocabulary.add_space_prefix) {
        gguf_set_val_bool(gguf, "tokenizer.ggml.add_space_prefix", *vocabulary.add_space_prefix);
    }

    std::vector<std::string> names;
    for (const auto& [name, text] : vocabulary.chat_templates) {
        if (name.empty()) {
            gguf_set_val_str(gguf, "tokenizer.chat_template", text.c_str());
        } else {
            gguf_set_val_str(gguf, ("tokenizer.chat_template." + name).c_str(), text.c_str());
            names.push_back(name);
        }
    }
    if (!names.empty()) set_strings("tokenizer.chat_templates", names);
}

}  // namespace llava_mini
