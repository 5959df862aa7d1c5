#include "scenes/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <memory>
#include <random>

#include "convert/convert.h"
#include "convert/tiny_checkpoint.h"
#include "core/file.h"
#include "llm/chat_template.h"
#include "llm/language_model.h"
#include "llm/prompt.h"
#include "model/gguf_file.h"
#include "model/hparams.h"
#include "scenes/questions.h"
#include "scenes/words.h"
#include "support/test_data.h"

namespace llava_mini::scenes {
namespace {

// The tokenizer in a checkpoint with small random weights, converted; and SentencePiece with the same model.
class TokenizerTest : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        folder_ = std::make_unique<test::TempDir>();
        test::TinyCheckpoint checkpoint = test::tiny_checkpoint();
        checkpoint.tokenizer = nullptr;
        checkpoint.tokenizer_config = nullptr;
        checkpoint.config["vocab_size"] = kVocabularySize;
        checkpoint.config["bos_token_id"] = kBeginToken;
        checkpoint.config["eos_token_id"] = kEndToken;
        checkpoint.add("model.embed_tokens.weight", {kVocabularySize, 32});
        checkpoint.add("lm_head.weight", {kVocabularySize, 32});
        const auto written = checkpoint.write(folder_->path());
        write_tokenizer(written);
        ConvertOptions options;
        options.checkpoint = written;
        options.out = *folder_ / "out";
        convert_checkpoint(options);
        vision_ = std::make_unique<GgufFile>(options.out / kVisionFile);
        model_ = std::make_unique<LanguageModel>(options.out / kLanguageFile);
        processor_ = std::make_unique<sentencepiece::SentencePieceProcessor>();
        ASSERT_TRUE(processor_->Load((written / "tokenizer.model").string()).ok());
    }
    static void TearDownTestSuite() {
        model_.reset();
        processor_.reset();
        vision_.reset();
        folder_.reset();
    }

    static std::vector<int> pieces(const std::string& text) {
        std::vector<int> ids;
        processor_->Encode(text, &ids).IgnoreError();
        return ids;
    }

    static inline std::unique_ptr<test::TempDir> folder_;
    static inline std::unique_ptr<GgufFile> vision_;
    static inline std::unique_ptr<LanguageModel> model_;
    static inline std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
};

TEST_F(TokenizerTest, AnswersAreOneToken) {
    std::vector<std::string> answers = {"yes",  "no",  "nothing", "left",      "right",  "up",
                                        "down", "top", "bottom",  "beginning", "middle", "end"};
    for (int noun = 0; noun < noun_count(); ++noun) answers.push_back(noun_word(noun));
    for (const ColourWord& colour : kColours) answers.push_back(colour.word);
    for (int number = 0; number <= 10; ++number) answers.push_back(number_word(number));
    for (const std::string& answer : answers) EXPECT_EQ(pieces(answer).size(), 1u) << answer;
    EXPECT_EQ(pieces("top left").size(), 2u);
    // A sign is read letter by letter, behind a space.
    EXPECT_EQ(pieces("STOP").size(), 5u);
    EXPECT_EQ(pieces("1024").size(), 5u);
}

TEST_F(TokenizerTest, QuestionsAreShort) {
    EXPECT_EQ(pieces("\nwhat is in the top left?").size(), 9u);  // a space, the line break, 6 words, a mark
    EXPECT_EQ(pieces("\nhow many butterflies are there?").size(), 8u);
}

TEST_F(TokenizerTest, LibllamaTokenizesAsSentencePieceDoes) {
    std::vector<std::string> texts = {
        "",
        " ",
        "  ",
        "a",
        " a",
        "a ",
        "   three   spaces   ",
        "\n",
        "\n\n",
        "\nwhat is this?",
        "tab\tand\r\nlines",
        "what  is\nthis?\n",
        "1234567890 12 345",
        "STOP 42",
        "\xc3\xbc"
        "ber den Flu\xc3\x9f \xe2\x80\x94 \xf0\x9f\x98\x80\xf0\x9f\x9a\xa4 ok",
        "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7 family",
        "\xe8\xbf\x99\xe5\xbc\xa0\xe5\x9b\xbe\xe7\x89\x87",
        "\xd0\xbb\xd0\xb8\xd1\x81\xd0\xb0 \xd8\xb3\xd9\x84\xd8\xa7\xd9\x85 \xe0\xa4\xa8\xe0\xa4\xae",
        "e\xcc\x81 (decomposed) and \xef\xac\x81 (ligature)",
        "\xe2\x96\x81 the mark itself"};
    for (std::string phrasing : all_phrasings()) texts.push_back("\n" + phrasing);
    std::mt19937 random(3);
    const std::string letters = "etaoin shrdlu catdog TAO 019.,\n";
    for (int i = 0; i < 200; ++i) {
        std::string text;
        for (int j = 0; j < 40; ++j) text += letters[random() % letters.size()];
        texts.push_back(text);
    }
    for (const std::string& text : texts) {
        EXPECT_EQ(model_->tokenize(text, /*parse_special=*/true), pieces(text)) << "'" << text << "'";
        // U+2581 is SentencePiece's own sign for a space.
        if (text.find("\xe2\x96\x81") == std::string::npos) {
            EXPECT_EQ(model_->detokenize(pieces(text)), (text.empty() ? "" : " ") + text);
        }
    }
}

// What the header says of prompts holds for what sessions make.
TEST_F(TokenizerTest, PromptsOfConversations) {
    const ChatTemplate chat_template(*model_);
    const std::vector<Turn> turns = {
        {{"user", "<image>\nwhat is this?"}}, {{"assistant", "cat"}}, {{"user", "is there a dog?"}}};
    std::vector<PromptToken> expected = {{kBeginToken, SegmentKind::kFused},
                                         {kImageToken, SegmentKind::kImage}};
    const auto add = [&expected](const std::vector<int>& ids, SegmentKind kind) {
        for (const int id : ids) expected.push_back({id, kind});
    };
    const std::vector<int> registers = {2044, 2045, 2046, 2047};
    add(pieces("\nwhat is this?"), SegmentKind::kFused);
    add(registers, SegmentKind::kFused);
    EXPECT_EQ(tokenize_conversation(*model_, chat_template, std::span(turns).first(1)), expected);
    add(pieces("cat"), SegmentKind::kPlain);
    add({kEndToken}, SegmentKind::kPlain);
    add(pieces("is there a dog?"), SegmentKind::kFused);
    add(registers, SegmentKind::kFused);
    EXPECT_EQ(tokenize_conversation(*model_, chat_template, turns), expected);
    EXPECT_TRUE(model_->is_end(kEndToken));
    EXPECT_EQ(model_->detokenize(registers), "");
    // No system prompt: every token counts at this size.
    EXPECT_EQ(read_vision_hparams(vision_->metadata(), "vision.gguf").system_prompt, "");
}

TEST(Tokenizer, SameBytesEveryTime) {
    const test::TempDir dir;
    write_tokenizer(dir / "a");
    write_tokenizer(dir / "b");
    for (const char* name : {"tokenizer.model", "tokenizer_config.json"}) {
        EXPECT_EQ(read_file(dir / "a" / name, 1 << 20), read_file(dir / "b" / name, 1 << 20)) << name;
    }
}

}  // namespace
}  // namespace llava_mini::scenes
