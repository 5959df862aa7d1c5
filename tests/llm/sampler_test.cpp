#include "llm/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "llava_mini/error.hpp"
#include "llm/models.h"

namespace llava_mini {
namespace {

using ::testing::HasSubstr;

constexpr size_t kVocabulary = 1024;

// Token i has logit -i / 10: probabilities fall by a tenth from one to the next.
std::vector<float> falling_logits() {
    std::vector<float> logits(kVocabulary);
    for (size_t i = 0; i < kVocabulary; ++i) logits[i] = -0.1f * static_cast<float>(i);
    return logits;
}

std::set<int32_t> drawn(const SamplerOptions& options, int draws = 2000) {
    Sampler sampler(test::tiny_model(), options);
    const auto logits = falling_logits();
    std::set<int32_t> ids;
    for (int i = 0; i < draws; ++i) ids.insert(sampler.sample(logits));
    return ids;
}

TEST(Sampler, GreedyTakesTheLikeliest) {
    auto logits = falling_logits();
    logits[77] = 3.0f;
    Sampler sampler(test::tiny_model(), {});
    EXPECT_EQ(sampler.sample(logits), 77);
    logits[78] = std::nanf("");
    logits[79] = INFINITY;  // neither is a number to trust
    EXPECT_EQ(sampler.sample(logits), 77);
}

TEST(Sampler, FiltersLimitTheChoice) {
    EXPECT_GT(drawn({.temperature = 1.0f}).size(), 20u);
    EXPECT_EQ(drawn({.temperature = 1.0f, .top_k = 3}), (std::set<int32_t>{0, 1, 2}));
    // 1 - 0.9048^n >= 0.3 from n = 4 on.
    EXPECT_EQ(drawn({.temperature = 1.0f, .top_p = 0.3f}), (std::set<int32_t>{0, 1, 2, 3}));
    // exp(-0.1 n) >= 0.75 up to n = 2.
    EXPECT_EQ(drawn({.temperature = 1.0f, .min_p = 0.75f}), (std::set<int32_t>{0, 1, 2}));
    EXPECT_LT(*drawn({.temperature = 0.01f}).rbegin(), 3);
    EXPECT_EQ(drawn({.temperature = 1e-38f}), std::set<int32_t>{0});
    EXPECT_EQ(drawn({.temperature = 1e-4f}), std::set<int32_t>{0});
}

TEST(Sampler, SeedDecidesTheChoice) {
    const auto sequence = [](uint32_t seed) {
        Sampler sampler(test::tiny_model(), {.temperature = 1.0f, .seed = seed});
        const auto logits = falling_logits();
        std::vector<int32_t> ids(30);
        for (int32_t& id : ids) id = sampler.sample(logits);
        return ids;
    };
    EXPECT_EQ(sequence(1), sequence(1));
    EXPECT_NE(sequence(1), sequence(2));
    EXPECT_EQ(sequence(UINT32_MAX), sequence(UINT32_MAX));
}

// Samples until an end token and returns the text; every logit but the filter's is the same for all tokens.
std::string generate(const SamplerOptions& options, const std::vector<float>& logits) {
    const auto model = test::tiny_model();
    Sampler sampler(model, options);
    std::vector<int32_t> ids;
    while (ids.size() < 200) {
        ids.push_back(sampler.sample(logits));
        if (model->is_end(ids.back())) return model->detokenize(ids);
    }
    return "no end: " + model->detokenize(ids);
}

TEST(Sampler, AnswersFollowTheGrammar) {
    const auto logits = falling_logits();
    EXPECT_EQ(generate({.grammar = "root ::= \"yes, it is\""}, logits), "yes, it is");
    for (uint32_t seed = 1; seed <= 10; ++seed) {
        const SamplerOptions options{
            .temperature = 1.0f,
            .seed = seed,
            .grammar = "root ::= colour (\", \" colour)?\ncolour ::= \"red\" | \"blue\"\n"};
        EXPECT_THAT(generate(options, logits), ::testing::MatchesRegex("(red|blue)(, (red|blue))?"));
    }
    EXPECT_THAT(generate({.grammar = "root ::= [a-c]{3} # letters\n"}, logits),
                ::testing::MatchesRegex("[abc]{3}"));
    EXPECT_EQ(generate({.grammar = "root ::= \"\\u00e9\\x41\\n\""}, logits), "\u00e9A\n");
}

TEST(Sampler, BrokenGrammarsAreErrors) {
    const struct {
        const char* grammar;
        const char* expected;
    } cases[] = {
        {"root := \"a\"", "::="},
        {"root ::= \"a", "end"},
        {"root ::= [a", "end"},
        {"root ::= other", "other"},
        {"start ::= \"a\"", "root"},
        {"root ::= root \"a\" | \"b\"", "left recursion"},
        {"root ::= (\"a\"", ")"},
        {"root ::= \"a\" )", "line 1"},
        {"root ::= *", "line 1"},
        {"root ::= \"a\"{0}*", "nothing to repeat"},
        {"root ::= \"a\"{\n3}", "line 1"},
        {"root ::= \"a\"{3,2}", "below the smallest"},
        {"root ::= \"a\"{99}{99}", "2000"},
        {"root ::= <[1024]>", "1024 tokens"},
        {"root ::= <no such token>", "no token"},
        {"root ::= \"a\xff\"", "UTF-8"},
        {"root ::= \"a\"{3", "}"},
        {"root ::= \"a\"{x}", "number"},
        {"root ::= \"a\"{5000}", "2000"},
        {"root ::= \"\\q\"", "\\q"},
        {"root ::= \"\\xZZ\"", "hexadecimal"},
        {"\n\nroot ::= \"a\" =", "line 3"},
        {"???", "line 1"},
    };
    for (const auto& c : cases) {
        testing::internal::CaptureStderr();
        try {
            const Sampler sampler(test::tiny_model(), {.grammar = c.grammar});
            ADD_FAILURE() << "no error for " << c.grammar;
        } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::kInput);
            EXPECT_THAT(error.what(), HasSubstr("grammar: "));
            EXPECT_THAT(error.what(), HasSubstr(c.expected)) << c.grammar;
            EXPECT_THAT(error.what(), ::testing::Not(HasSubstr("\n")));
        }
        EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << c.grammar;
    }
}

TEST(Sampler, DeeplyNestedGrammarIsAnError) {
    std::string grammar = "root ::= ";
    for (int i = 0; i < 100000; ++i) grammar += '(';
    EXPECT_THROW(Sampler(test::tiny_model(), {.grammar = grammar}), Error);
}

TEST(Sampler, BadLogitsAreErrors) {
    Sampler sampler(test::tiny_model(), {});
    EXPECT_THROW(sampler.sample(std::vector<float>(kVocabulary, std::nanf(""))), Error);
    EXPECT_THROW(sampler.sample(std::vector<float>(kVocabulary - 1, 0.0f)), Error);
    EXPECT_THROW(sampler.sample({}), Error);
}

TEST(Sampler, OptionsOutOfRangeAreErrors) {
    for (const SamplerOptions& options :
         {SamplerOptions{.temperature = -1.0f}, SamplerOptions{.temperature = std::nanf("")},
          SamplerOptions{.temperature = 1.0f, .top_k = -5},
          SamplerOptions{.temperature = 1.0f, .top_p = 1.5f},
          SamplerOptions{.temperature = 1.0f, .min_p = -0.1f}}) {
        EXPECT_THROW(Sampler(test::tiny_model(), options), Error);
    }
}

}  // namespace
}  // namespace llava_mini
