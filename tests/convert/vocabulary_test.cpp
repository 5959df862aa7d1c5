#include "convert/vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <fstream>
#include <functional>
#include <random>
#include <unordered_map>

#include "convert/convert.h"
#include "convert/language_vocabulary.h"
#include "convert/sentencepiece_model.h"
#include "convert/synth_vocabulary.h"
#include "convert/tiny_checkpoint.h"
#include "core/file.h"
#include "support/error_text.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using nlohmann::json;
using test::error_text;
using test::TinyCheckpoint;
using ::testing::HasSubstr;

// Reads the tokenizer of a folder that holds these files only.
Vocabulary read_files(const std::map<std::string, std::string>& files, int n_vocab,
                      std::optional<int> bos = std::nullopt, const std::vector<int>& eos = {}) {
    const test::TempDir dir;
    for (const auto& [name, content] : files) dir.write(name, content);
    return read_vocabulary(dir.path(), n_vocab, bos, eos);
}

std::map<std::string, std::string> bpe_files(const json& tokenizer, const json& config) {
    return {{"tokenizer.json", tokenizer.dump()}, {"tokenizer_config.json", config.dump()}};
}

TEST(ByteLevelBpe, TokensOfTheGoldenCheckpointEqualTheRecordedOnes) {
    const test::TempDir dir;
    ConvertOptions options;
    options.checkpoint = test::golden_path("models/llava-mini-tiny-a");
    options.out = dir.path();
    convert_checkpoint(options);
    const test::LanguageVocabulary vocabulary(dir / kLanguageFile);
    const json recorded = json::parse(read_text_file(test::golden_path("unit/tokens.json"), 1 << 20));
    ASSERT_GT(recorded.size(), 20u);
    for (const json& entry : recorded) {
        EXPECT_EQ(vocabulary.tokens(entry["text"]), entry["plain"].get<std::vector<llama_token>>())
            << entry["text"];
    }
    EXPECT_EQ(llama_vocab_n_tokens(vocabulary.get()), 1024);
    EXPECT_EQ(llama_vocab_bos(vocabulary.get()), 768);
    EXPECT_EQ(llama_vocab_eos(vocabulary.get()), 777);
    EXPECT_EQ(llama_vocab_pad(vocabulary.get()), 772);
    EXPECT_TRUE(llama_vocab_get_add_bos(vocabulary.get()));
    EXPECT_FALSE(llama_vocab_get_add_eos(vocabulary.get()));
    for (const llama_token id : {769, 776, 777}) EXPECT_TRUE(llama_vocab_is_eog(vocabulary.get(), id)) << id;
    EXPECT_FALSE(llama_vocab_is_eog(vocabulary.get(), 768));
    const json config = json::parse(
        read_text_file(test::golden_path("models/llava-mini-tiny-a/tokenizer_config.json"), 1 << 20));
    EXPECT_EQ(vocabulary.chat_template(), config["chat_template"]);
}

TEST(ByteLevelBpe, MergesMayBePairs) {
    const TinyCheckpoint checkpoint = test::tiny_checkpoint();
    json pairs = checkpoint.tokenizer;
    for (json& merge : pairs["model"]["merges"]) {
        const std::string text = merge;
        merge = json::array({text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)});
    }
    const Vocabulary one = read_files(bpe_files(checkpoint.tokenizer, checkpoint.tokenizer_config), 768);
    const Vocabulary other = read_files(bpe_files(pairs, checkpoint.tokenizer_config), 768);
    EXPECT_EQ(one.merges, other.merges);
    EXPECT_EQ(one.merges.size(), 256u);
}

TEST(ByteLevelBpe, IdsWithoutATokenBecomeUnusedOnes) {
    const TinyCheckpoint checkpoint = test::tiny_checkpoint();
    json tokenizer = checkpoint.tokenizer;
    tokenizer["added_tokens"].push_back({{"id", 770}, {"content", "[PAD768]"}, {"special", false}});
    const Vocabulary vocabulary = read_files(bpe_files(tokenizer, checkpoint.tokenizer_config), 772);
    ASSERT_EQ(vocabulary.size(), 772);
    EXPECT_EQ(vocabulary.types[768], TokenType::kUnused);
    EXPECT_EQ(vocabulary.tokens[770], "[PAD768]");
    EXPECT_EQ(vocabulary.types[770], TokenType::kUserDefined);
    EXPECT_EQ(std::set<std::string>(vocabulary.tokens.begin(), vocabulary.tokens.end()).size(), 772u);
}

TEST(ByteLevelBpe, PreTokenizersAreRecognisedByTheirExpression) {
    const TinyCheckpoint checkpoint = test::tiny_checkpoint();
    json tokenizer = checkpoint.tokenizer;
    const auto name = [&] { return read_files(bpe_files(tokenizer, checkpoint.tokenizer_config), 768).pre; };
    EXPECT_EQ(name(), "llama-bpe");
    tokenizer["model"]["ignore_merges"] = false;
    EXPECT_EQ(name(), "smaug-bpe");
    tokenizer["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
    EXPECT_EQ(name(), "gpt-2");
}

TEST(ByteLevelBpe, EndTokensOfTheConfigurationAllStopLibllama) {
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    // Names that libllama does not know.
    for (json& token : checkpoint.tokenizer["added_tokens"]) {
        if (token["content"] == "<|eot_id|>") token["content"] = "<|stop one|>";
        if (token["content"] == "<|eom_id|>") token["content"] = "<|stop two|>";
    }
    checkpoint.tokenizer_config["eos_token"] = {{"content", "<|end_of_text|>"}};
    checkpoint.config["eos_token_id"] = {513, 520, 521};
    const test::TempDir dir;
    ConvertOptions options;
    options.checkpoint = checkpoint.write(dir.path());
    options.out = dir / "out";
    convert_checkpoint(options);
    const test::LanguageVocabulary vocabulary(options.out / kLanguageFile);
    for (const llama_token id : {513, 520, 521}) EXPECT_TRUE(llama_vocab_is_eog(vocabulary.get(), id)) << id;
    EXPECT_FALSE(llama_vocab_is_eog(vocabulary.get(), 519));
}

TEST(ChatTemplates, AreFoundInEveryPlaceAndForm) {
    const TinyCheckpoint checkpoint = test::tiny_checkpoint();
    json config = checkpoint.tokenizer_config;
    auto files = bpe_files(checkpoint.tokenizer, config);
    using Templates = std::vector<std::pair<std::string, std::string>>;

    config["chat_template"] = "one";
    files["tokenizer_config.json"] = config.dump();
    EXPECT_EQ(read_files(files, 768).chat_templates, (Templates{{"", "one"}}));

    config["chat_template"] = {{{"name", "default"}, {"template", "two"}},
                               {{"name", "tools"}, {"template", "three"}}};
    files["tokenizer_config.json"] = config.dump();
    EXPECT_EQ(read_files(files, 768).chat_templates, (Templates{{"", "two"}, {"tools", "three"}}));

    config.erase("chat_template");
    files["tokenizer_config.json"] = config.dump();
    EXPECT_TRUE(read_files(files, 768).chat_templates.empty());

    files["chat_template.json"] = R"({"chat_template": "four"})";
    EXPECT_EQ(read_files(files, 768).chat_templates, (Templates{{"", "four"}}));

    files["chat_template.jinja"] = "five";
    EXPECT_EQ(read_files(files, 768).chat_templates, (Templates{{"", "five"}}));
}

struct BadTokenizer {
    const char* name;
    std::function<void(json& tokenizer, json& config)> bend;
    const char* expected;
};

class MalformedTokenizer : public ::testing::TestWithParam<BadTokenizer> {};

TEST_P(MalformedTokenizer, IsRejectedWithOneClearLine) {
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    GetParam().bend(checkpoint.tokenizer, checkpoint.tokenizer_config);
    EXPECT_THAT(error_text([&] {
                    read_files(bpe_files(checkpoint.tokenizer, checkpoint.tokenizer_config), 768, 512, {521});
                }),
                HasSubstr(GetParam().expected));
}

INSTANTIATE_TEST_SUITE_P(
    Table, MalformedTokenizer,
    ::testing::Values(
        BadTokenizer{"array", [](json& t, json&) { t = json::array(); }, "expected a tokenizer"},
        BadTokenizer{"no_model", [](json& t, json&) { t.erase("model"); }, "model: expected an object"},
        BadTokenizer{"unigram", [](json& t, json&) { t["model"]["type"] = "Unigram"; },
                     "type: expected \"BPE\""},
        BadTokenizer{"byte_fallback", [](json& t, json&) { t["model"]["byte_fallback"] = true; },
                     "expected a tokenizer: tokenizer.json with a byte-level BPE, or tokenizer.model"},
        BadTokenizer{"normalizer",
                     [](json& t, json&) {
                         t["normalizer"] = {{"type", "NFC"}};
                     },
                     "normalizer: expected null"},
        BadTokenizer{"suffix", [](json& t, json&) { t["model"]["end_of_word_suffix"] = "</w>"; },
                     "end_of_word_suffix: expected null"},
        BadTokenizer{"no_pre_tokenizer", [](json& t, json&) { t.erase("pre_tokenizer"); },
                     "expected one that libllama has"},
        BadTokenizer{
            "other_expression",
            [](json& t, json&) { t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = R"(\p{L}+)"; },
            R"(found \p{L}+ with ignore_merges true)"},
        BadTokenizer{"other_step",
                     [](json& t, json&) { t["pre_tokenizer"]["pretokenizers"][1]["type"] = "Metaspace"; },
                     "pretokenizers[1]: type"},
        BadTokenizer{
            "prefix_space",
            [](json& t, json&) { t["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true; },
            "add_prefix_space: expected false"},
        BadTokenizer{"vocab_is_array",
                     [](json& t, json&) {
                         t["model"]["vocab"] = {"a", "b"};
                     },
                     "vocab: expected an object"},
        BadTokenizer{"id_is_text", [](json& t, json&) { t["model"]["vocab"]["a"] = "1"; },
                     "'a': expected an id below vocab_size (768), found \"1\""},
        BadTokenizer{"id_beyond", [](json& t, json&) { t["model"]["vocab"]["zzzz"] = 768; },
                     "expected an id below vocab_size"},
        BadTokenizer{"id_negative", [](json& t, json&) { t["model"]["vocab"]["a"] = -1; },
                     "expected an id below vocab_size"},
        BadTokenizer{"id_twice", [](json& t, json&) { t["model"]["vocab"]["zzzz"] = 3; },
                     "has id 3, but so has"},
        BadTokenizer{"empty_token", [](json& t, json&) { t["model"]["vocab"][""] = 3; }, "an empty token"},
        BadTokenizer{"zero_byte", [](json& t, json&) { t["model"]["vocab"][std::string("a\0b", 3)] = 3; },
                     "zero byte"},
        BadTokenizer{"merge_without_space", [](json& t, json&) { t["model"]["merges"][5] = "ab"; },
                     "merges[5]"},
        BadTokenizer{"merge_of_three",
                     [](json& t, json&) {
                         t["model"]["merges"][5] = {"a", "b", "c"};
                     },
                     "merges[5]"},
        BadTokenizer{"merge_of_numbers",
                     [](json& t, json&) {
                         t["model"]["merges"][5] = {1, 2};
                     },
                     "merges[5]"},
        BadTokenizer{"merge_of_unknown", [](json& t, json&) { t["model"]["merges"][5] = "qqqq a"; },
                     "merges[5]: expected two tokens of the vocabulary that make a third, found \"qqqq a\""},
        BadTokenizer{"added_is_object", [](json& t, json&) { t["added_tokens"] = json::object(); },
                     "added_tokens: expected an array"},
        BadTokenizer{"added_without_id", [](json& t, json&) { t["added_tokens"][2].erase("id"); },
                     "added_tokens[2]: the field id is missing"},
        BadTokenizer{"added_collides", [](json& t, json&) { t["added_tokens"][2]["content"] = "a"; },
                     "but also id"},
        BadTokenizer{"bos_unknown", [](json&, json& c) { c["bos_token"] = "<bos>"; },
                     "bos_token: expected a token of the vocabulary, found \"<bos>\""},
        BadTokenizer{"eos_is_number", [](json&, json& c) { c["eos_token"] = 17; },
                     "eos_token: expected a string"},
        BadTokenizer{"config_is_array", [](json&, json& c) { c = json::array(); }, "expected an object"},
        BadTokenizer{"template_is_number", [](json&, json& c) { c["chat_template"] = 5; }, "chat_template"},
        BadTokenizer{"template_without_name",
                     [](json&, json& c) { c["chat_template"] = {{{"template", "x"}}}; },
                     "chat_template[0]: the field name is missing"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Vocabulary, NoTokenizerAtAll) {
    EXPECT_THAT(error_text([] { read_files({}, 768); }), HasSubstr("expected a tokenizer"));
}

TEST(Vocabulary, NoEndToken) {
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    checkpoint.tokenizer_config.erase("eos_token");
    EXPECT_THAT(
        error_text([&] { read_files(bpe_files(checkpoint.tokenizer, checkpoint.tokenizer_config), 768); }),
        HasSubstr("eos_token is missing"));
}

// Hands sentences to the trainer.
class Sentences : public sentencepiece::SentenceIterator {
  public:
    explicit Sentences(std::vector<std::string> sentences) : sentences_(std::move(sentences)) {}
    bool done() const override { return next_ == sentences_.size(); }
    void Next() override { ++next_; }
    const std::string& value() const override { return sentences_[next_]; }
    sentencepiece::util::Status status() const override { return {}; }

  private:
    std::vector<std::string> sentences_;
    size_t next_ = 0;
};

// A SentencePiece model with Llama's settings, trained on a few sentences by the library itself.
using Settings = std::unordered_map<std::string, std::string>;
std::string trained_sentencepiece(const Settings& changes = {}) {
    Sentences sentences(
        {"The quick brown fox jumps over the lazy dog.",
         "A chat between a curious human and an artificial intelligence assistant.",
         "What is shown in this picture? There are two boats on the river, 12 birds and 345 trees.",
         "Der schnelle braune Fuchs springt \xc3\xbc"
         "ber den faulen Hund.",
         "\xd0\x91\xd1\x8b\xd1\x81\xd1\x82\xd1\x80\xd0\xb0\xd1\x8f \xd0\xbb\xd0\xb8\xd1\x81\xd0\xb0",
         "USER: describe the picture ASSISTANT: a small red boat on a wide green river"});
    Settings settings = {{"model_type", "bpe"},
                         {"vocab_size", "420"},
                         {"byte_fallback", "true"},
                         {"normalization_rule_name", "identity"},
                         {"remove_extra_whitespaces", "false"},
                         {"add_dummy_prefix", "true"},
                         {"split_digits", "true"},
                         {"character_coverage", "0.98"},
                         {"allow_whitespace_only_pieces", "true"},
                         {"minloglevel", "4"}};
    for (const auto& [key, value] : changes) settings[key] = value;
    std::string model;
    const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &sentences, &model);
    if (!status.ok()) ADD_FAILURE() << status.ToString();
    return model;
}

std::vector<std::string> texts_to_tokenize() {
    return {
        "",
        " ",
        "  ",
        "a",
        " a",
        "The quick brown fox",
        "hello,   world  !  ",
        "\n",
        "\nWhat is this?\n\n",
        "tab\tand\r\nlines",
        "1234567890 12 345",
        "\xc3\xbc"
        "ber den Fluss \xe2\x80\x94 \xf0\x9f\x98\x80\xf0\x9f\x9a\xa4",
        "\xe8\xbf\x99\xe5\xbc\xa0\xe5\x9b\xbe\xe7\x89\x87\xe9\x87\x8c\xe6\x9c\x89\xe4\xbb\x80\xe4\xb9\x88",
        "\xd0\xbb\xd0\xb8\xd1\x81\xd0\xb0 \xd8\xb3\xd9\x84\xd8\xa7\xd9\x85 \xe0\xa4\xa8\xe0\xa4\xae",
        "e\xcc\x81 (decomposed) and \xef\xac\x81 (ligature)",
        "USER: describe ASSISTANT:"};
}

// Converts a checkpoint with that tokenizer.model and compares libllama's ids with the library's own.
void expect_same_ids(const std::string& model, int n_vocab) {
    TinyCheckpoint checkpoint = test::tiny_checkpoint();
    checkpoint.tokenizer = nullptr;
    checkpoint.tokenizer_config = {
        {"bos_token", {{"content", "<s>"}}}, {"eos_token", "</s>"}, {"pad_token", "<unk>"}};
    checkpoint.config["vocab_size"] = n_vocab;
    checkpoint.config["bos_token_id"] = 1;
    checkpoint.config["eos_token_id"] = 2;
    checkpoint.add("model.embed_tokens.weight", {n_vocab, 32});
    checkpoint.add("lm_head.weight", {n_vocab, 32});
    const test::TempDir dir;
    ConvertOptions options;
    options.checkpoint = checkpoint.write(dir.path());
    options.out = dir / "out";
    std::ofstream(options.checkpoint / "tokenizer.model", std::ios::binary) << model;
    convert_checkpoint(options);

    sentencepiece::SentencePieceProcessor processor;
    ASSERT_TRUE(processor.LoadFromSerializedProto(model).ok());
    const test::LanguageVocabulary vocabulary(options.out / kLanguageFile);
    EXPECT_EQ(llama_vocab_n_tokens(vocabulary.get()), n_vocab);
    EXPECT_EQ(llama_vocab_bos(vocabulary.get()), 1);
    EXPECT_EQ(llama_vocab_eos(vocabulary.get()), 2);
    EXPECT_TRUE(llama_vocab_get_add_bos(vocabulary.get()));
    EXPECT_THAT(vocabulary.chat_template(), HasSubstr("USER: "));
    std::vector<std::string> texts = texts_to_tokenize();
    std::mt19937 random(3);
    const std::string letters = "etaoin shrdlu TAO 019.,\n";
    for (int i = 0; i < 50; ++i) {
        std::string text;
        for (int j = 0; j < 40; ++j) text += letters[random() % letters.size()];
        texts.push_back(text);
    }
    for (const std::string& text : texts) {
        std::vector<int> expected;
        processor.Encode(text, &expected).IgnoreError();
        EXPECT_EQ(vocabulary.tokens(text), expected) << "'" << text << "'";
    }
}

TEST(SentencePiece, LibllamaGivesTheIdsOfTheLibrary) {
    expect_same_ids(trained_sentencepiece(), 420);
}

TEST(SentencePiece, VocabularyPaddedToTheConfigurationsSize) {
    expect_same_ids(trained_sentencepiece(), 448);
}

TEST(SentencePiece, SyntheticVocabularyIsAValidModel) {
    const Vocabulary vocabulary = synth_sentencepiece(1024);
    expect_same_ids(write_sentencepiece_model(vocabulary), 1024);
}

TEST(SentencePiece, TypesAndSpecialTokens) {
    const std::string model =
        trained_sentencepiece({{"user_defined_symbols", "<place>"}, {"control_symbols", "<ctrl>"}});
    const Vocabulary vocabulary =
        read_sentencepiece_model({reinterpret_cast<const uint8_t*>(model.data()), model.size()}, "model");
    sentencepiece::SentencePieceProcessor processor;
    ASSERT_TRUE(processor.LoadFromSerializedProto(model).ok());
    ASSERT_EQ(vocabulary.size(), processor.GetPieceSize());
    for (int i = 0; i < vocabulary.size(); ++i) {
        const auto index = static_cast<size_t>(i);
        EXPECT_EQ(vocabulary.tokens[index], processor.IdToPiece(i));
        EXPECT_EQ(vocabulary.scores[index], processor.GetScore(i));
        EXPECT_EQ(vocabulary.types[index] == TokenType::kControl, processor.IsControl(i));
        EXPECT_EQ(vocabulary.types[index] == TokenType::kByte, processor.IsByte(i));
        EXPECT_EQ(vocabulary.types[index] == TokenType::kUnknown, processor.IsUnknown(i));
        EXPECT_EQ(vocabulary.types[index] == TokenType::kUserDefined, vocabulary.tokens[index] == "<place>");
    }
    EXPECT_EQ(vocabulary.unknown, processor.unk_id());
    EXPECT_EQ(vocabulary.bos, processor.bos_id());
    EXPECT_EQ(vocabulary.eos, processor.eos_id());
    EXPECT_FALSE(vocabulary.pad.has_value());
}

TEST(SentencePiece, AddedTokensTakeTheirPlaces) {
    const std::map<std::string, std::string> files = {
        {"tokenizer.model", trained_sentencepiece()},
        {"added_tokens.json", R"({"<pad>": 420})"},
        {"tokenizer_config.json",
         R"({"pad_token": "<pad>", "added_tokens_decoder": {"422": {"content": "<mark>", "special": false}}})"}};
    const Vocabulary vocabulary = read_files(files, 424);
    ASSERT_EQ(vocabulary.size(), 424);
    EXPECT_EQ(vocabulary.pad, 420);
    EXPECT_EQ(vocabulary.types[420], TokenType::kControl);
    EXPECT_EQ(vocabulary.types[421], TokenType::kUnused);
    EXPECT_EQ(vocabulary.tokens[422], "<mark>");
    EXPECT_EQ(vocabulary.types[422], TokenType::kUserDefined);
    EXPECT_EQ(vocabulary.scores.size(), 424u);
    EXPECT_EQ(vocabulary.chat_templates.front().second, kLlavaV15ChatTemplate);
}

TEST(SentencePiece, AddedTokensThatDoNotFit) {
    const std::string model = trained_sentencepiece();
    for (const auto& [added, expected] : std::map<std::string, std::string>{
             {R"({"<pad>": 430})", "expected a text and an id below vocab_size (424), found id 430"},
             {R"({"<pad>": -1})", "found id -1"},
             {R"({"<pad>": "x"})", "found id -1"},
             {R"({"": 421})", "expected a text"},
             {R"({"<s>": 421})", "'<s>' has two ids"}}) {
        EXPECT_THAT(error_text([&] {
                        read_files({{"tokenizer.model", model}, {"added_tokens.json", added}}, 424);
                    }),
                    HasSubstr(expected));
    }
}

TEST(SentencePiece, ModelsThatLibllamaWouldTokenizeDifferentlyAreRejected) {
    const auto rejected = [](const Settings& changes) {
        const std::string model = trained_sentencepiece(changes);
        return error_text([&] {
            read_sentencepiece_model({reinterpret_cast<const uint8_t*>(model.data()), model.size()}, "m");
        });
    };
    EXPECT_THAT(rejected({{"model_type", "unigram"}, {"vocab_size", "350"}}),
                HasSubstr("expected a SentencePiece model of type BPE"));
    EXPECT_THAT(rejected({{"byte_fallback", "false"}, {"vocab_size", "150"}}),
                HasSubstr("without byte fallback"));
    EXPECT_THAT(rejected({{"normalization_rule_name", "nmt_nfkc"}}), HasSubstr("leaves text as it is"));
    EXPECT_THAT(rejected({{"remove_extra_whitespaces", "true"}}), HasSubstr("leaves text as it is"));
    EXPECT_THAT(rejected({{"treat_whitespace_as_suffix", "true"}}), HasSubstr("treat_whitespace_as_suffix"));
}

TEST(SentencePiece, DamagedModelsAreRejected) {
    const std::string model = write_sentencepiece_model(synth_sentencepiece(512));
    const auto parse = [](const std::string& bytes) {
        const std::vector<uint8_t> copy(bytes.begin(),
                                        bytes.end());  // of exact size, for the address sanitizer
        return read_sentencepiece_model(copy, "m");
    };
    EXPECT_NO_THROW(parse(model));
    for (size_t size = 0; size < model.size(); size += 7)
        EXPECT_THROW(parse(model.substr(0, size)), Error) << size;
    std::mt19937 random(5);
    for (int i = 0; i < 2000; ++i) {  // must end, with or without an error
        std::string damaged = model;
        for (int j = 0; j < 4; ++j) damaged[random() % damaged.size()] = static_cast<char>(random());
        try {
            parse(damaged);
        } catch (const Error&) {
        }
    }
    EXPECT_THAT(error_text([&] { parse("IQ== 0\nIg== 1\n"); }),
                HasSubstr("not a SentencePiece model"));  // tiktoken
    EXPECT_THAT(error_text([&] { parse(""); }), HasSubstr("not a SentencePiece model"));
}

TEST(SynthVocabulary, ByteLevelVocabularyOfLlama3sSize) {
    const Vocabulary vocabulary = synth_byte_level_bpe(128256);
    EXPECT_EQ(vocabulary.size(), 128256);
    EXPECT_EQ(std::set<std::string>(vocabulary.tokens.begin(), vocabulary.tokens.end()).size(), 128256u);
    EXPECT_EQ(vocabulary.tokens[128000], "<|begin_of_text|>");
    EXPECT_EQ(vocabulary.tokens[128009], "<|eot_id|>");
    EXPECT_EQ(vocabulary.tokens[128255], "<|reserved_special_token_247|>");
    EXPECT_EQ(vocabulary.tokens[0], "!");
    // What it writes as a checkpoint reads back as the same.
    const Vocabulary read = read_files({{"tokenizer.json", tokenizer_json(vocabulary)},
                                        {"tokenizer_config.json", tokenizer_config_json(vocabulary)}},
                                       128256);
    EXPECT_EQ(read.tokens, vocabulary.tokens);
    EXPECT_EQ(read.types, vocabulary.types);
    EXPECT_EQ(read.merges, vocabulary.merges);
    EXPECT_EQ(read.bos, vocabulary.bos);
    EXPECT_EQ(read.eos, vocabulary.eos);
    EXPECT_THROW(synth_byte_level_bpe(500), Error);
}

}  // namespace
}  // namespace llava_mini
