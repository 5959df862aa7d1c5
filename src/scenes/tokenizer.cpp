#include "scenes/tokenizer.h"

#include <sentencepiece_trainer.h>

#include <cctype>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "scenes/clip.h"
#include "scenes/english.h"
#include "scenes/questions.h"
#include "scenes/words.h"

namespace llava_mini::scenes {
namespace {

// Times that a word stands in the text for the trainer: those of the scenes become whole pieces before any of
// the others.
constexpr int kSceneTimes = 120, kOtherTimes = 12;

constexpr const char* kChatTemplate =
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content }} "
    "{% elif message.role == 'user' %}{{ message.content }}<r1><r2><r3><r4>"
    "{% else %}{{ message.content }}{{ eos_token }}"
    "{% endif %}"
    "{% endfor %}";

class Lines : public sentencepiece::SentenceIterator {
  public:
    explicit Lines(std::vector<std::string> lines) : lines_(std::move(lines)) {}
    bool done() const override { return next_ == lines_.size(); }
    void Next() override { ++next_; }
    const std::string& value() const override { return lines_[next_]; }
    sentencepiece::util::Status status() const override { return {}; }

  private:
    std::vector<std::string> lines_;
    size_t next_ = 0;
};

// Lower-case words of a text.
void add_words(const std::string& text, std::set<std::string>& words) {
    std::string word;
    for (const char c : text + " ") {
        if (std::isalpha(static_cast<unsigned char>(c)) != 0) {
            word += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        } else if (!word.empty()) {
            words.insert(word);
            word.clear();
        }
    }
}

std::string repeated(const std::string& word, int times) {
    std::string line;
    for (int i = 0; i < times; ++i) line += (i > 0 ? " " : "") + word;
    return line;
}

std::vector<std::string> training_lines() {
    std::set<std::string> scene_words, first_words;
    std::vector<std::string> phrasings = all_phrasings();
    for (const std::string& phrasing : all_clip_phrasings()) phrasings.push_back(phrasing);
    for (const std::string& phrasing : phrasings) {
        add_words(phrasing, scene_words);
        const std::string first = phrasing.substr(0, phrasing.find(' '));
        add_words(first, first_words);
    }
    for (int noun = 0; noun < noun_count(); ++noun) {
        add_words(noun_word(noun), scene_words);
        add_words(noun_plural(noun), scene_words);
    }
    for (const ColourWord& colour : kColours) add_words(colour.word, scene_words);
    for (const char* place : kPlaces) add_words(place, scene_words);
    for (int number = 0; number <= 10; ++number) add_words(number_word(number), scene_words);
    add_words(
        "yes no nothing a an the in and saying left right above below up down beginning middle end of to "
        "object things",
        scene_words);

    std::vector<std::string> lines;
    for (const std::string& word : scene_words) lines.push_back(repeated(word, kSceneTimes));
    // What a question starts with stands behind a line break, not behind a space.
    for (const std::string& word : first_words) lines.push_back(repeated("(" + word, kSceneTimes));
    std::set<std::string> other_words;
    add_words(english_words(), other_words);
    for (const std::string& word : other_words) lines.push_back(repeated(word, kOtherTimes));
    // Printable ASCII: letters in capitals, digits and marks stay single pieces.
    for (char c = '!'; c <= '~'; ++c) lines.emplace_back(1, c);
    return lines;
}

std::string train() {
    const std::unordered_map<std::string, std::string> settings = {
        {"model_type", "bpe"},
        {"vocab_size", std::to_string(kVocabularySize - static_cast<int>(kRegisters.size()))},
        {"byte_fallback", "true"},
        {"normalization_rule_name", "identity"},
        {"remove_extra_whitespaces", "false"},
        {"add_dummy_prefix", "true"},
        {"split_digits", "true"},
        {"allow_whitespace_only_pieces", "true"},
        {"character_coverage", "1.0"},
        {"num_threads", "1"},
        {"unk_id", std::to_string(kUnknownToken)},
        {"bos_id", std::to_string(kBeginToken)},
        {"eos_id", std::to_string(kEndToken)},
        {"pad_id", "-1"},
        {"minloglevel", "4"}};
    Lines lines(training_lines());
    std::string model;
    const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &lines, &model);
    if (!status.ok()) throw_system("SentencePiece cannot make the vocabulary: {}", status.ToString());
    return model;
}

nlohmann::ordered_json configuration() {
    nlohmann::ordered_json added = nlohmann::ordered_json::object();
    const auto add = [&added](int id, const char* text) {
        added[std::to_string(id)] = {{"content", text}, {"lstrip", false},      {"normalized", false},
                                     {"rstrip", false}, {"single_word", false}, {"special", true}};
    };
    add(kUnknownToken, "<unk>");
    add(kBeginToken, "<s>");
    add(kEndToken, "</s>");
    const int first = kVocabularySize - static_cast<int>(kRegisters.size());
    for (size_t i = 0; i < kRegisters.size(); ++i) add(first + static_cast<int>(i), kRegisters[i]);
    return {{"tokenizer_class", "LlamaTokenizer"},
            {"add_bos_token", true},
            {"add_eos_token", false},
            {"bos_token", "<s>"},
            {"eos_token", "</s>"},
            {"unk_token", "<unk>"},
            {"added_tokens_decoder", added},
            {"chat_template", kChatTemplate},
            {"system_prompt", ""}};
}

}  // namespace

void write_tokenizer(const std::filesystem::path& folder) {
    AtomicFile model(folder / "tokenizer.model"), config(folder / "tokenizer_config.json");
    model.write(train());
    config.write(configuration().dump(2) + "\n");
    model.commit();
    config.commit();
}

}  // namespace llava_mini::scenes
