#include "eval/scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace llava_mini::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// By its definition: the ends are the shares p that lie z standard errors, those of p, away from what was
// found.
TEST(Scorer, WilsonInterval) {
    const double z = 1.959963984540054;
    for (const auto& [hits, total] : {std::pair{8u, 10u}, {1u, 3u}, {250u, 1000u}, {999u, 1000u}}) {
        const Estimate estimate = wilson(hits, total);
        const double found = static_cast<double>(hits) / total;
        EXPECT_DOUBLE_EQ(estimate.value, found);
        EXPECT_LT(estimate.low, found);
        EXPECT_GT(estimate.high, found);
        for (const double p : {estimate.low, estimate.high}) {
            EXPECT_NEAR(std::fabs(found - p), z * std::sqrt(p * (1 - p) / total), 1e-12);
        }
    }
    EXPECT_EQ(wilson(0, 20).low, 0.0);
    EXPECT_NEAR(wilson(0, 20).high, z * z / (20 + z * z), 1e-12);
    EXPECT_NEAR(wilson(20, 20).low, 20 / (20 + z * z), 1e-12);
    EXPECT_NEAR(wilson(20, 20).high, 1.0, 1e-12);
    EXPECT_EQ(wilson(0, 0).high, 0.0);
}

TEST(Scorer, SameAnswer) {
    EXPECT_TRUE(same_answer("Cat.", " cat"));
    EXPECT_TRUE(same_answer("STOP", "stop\n"));
    EXPECT_FALSE(same_answer("cats", "cat"));
    EXPECT_FALSE(same_answer("", "cat"));
}

TEST(Scorer, ThingsNamed) {
    EXPECT_THAT(things_named("a cat in the top left, a red circle in the center and an apple in the bottom"),
                ElementsAre("cat", "red circle", "apple"));
    EXPECT_THAT(things_named("A sign saying STOP in the top"), ElementsAre("sign"));
    EXPECT_THAT(things_named(""), ElementsAre());
}

TEST(Scorer, CaptionF1) {
    EXPECT_DOUBLE_EQ(caption_f1("a cat in the top", "a cat in the bottom"), 1.0);
    EXPECT_DOUBLE_EQ(caption_f1("a cat, a cat and a dog", "a cat and a dog"),
                     0.8);  // a thing named once too often
    EXPECT_DOUBLE_EQ(caption_f1("a fox", "a cat and a dog"), 0.0);
    EXPECT_DOUBLE_EQ(caption_f1("", "a cat"), 0.0);
}

TEST(Scorer, TypesPriorsAndCaptions) {
    const std::vector<Prediction> predictions = {
        {"1/0", "q", "yes", "yes", "exist"},
        {"1/1", "q", "yes", "no", "exist"},
        {"2/0", "q", "No", "no", "exist"},
        {"2/1", "q", "red", "red", "colour"},
        {"3/0", "q", "a cat in the top", "a cat in the top and a dog in the left", "caption"},
        {"3/1", "q", "a cat", "a cat", "caption"}};
    const Scores scores = score(predictions);
    ASSERT_EQ(scores.types.size(), 4u);  // caption, colour, exist, all
    EXPECT_EQ(scores.types[2].type, "exist");
    EXPECT_EQ(scores.types[2].questions, 3u);
    EXPECT_DOUBLE_EQ(scores.types[2].exact.value, 2.0 / 3);
    EXPECT_DOUBLE_EQ(scores.types[2].prior, 2.0 / 3);
    EXPECT_EQ(scores.types[2].common_answer, "no");
    EXPECT_EQ(scores.types[3].type, "all");
    EXPECT_DOUBLE_EQ(scores.types[3].exact.value, 4.0 / 6);
    ASSERT_EQ(scores.captions.size(), 3u);
    EXPECT_EQ(scores.captions[0].things, 1);
    EXPECT_EQ(scores.captions[1].things, 2);
    EXPECT_DOUBLE_EQ(scores.captions[1].f1.value, 2.0 / 3);
    EXPECT_DOUBLE_EQ(scores.captions[2].f1.value, 5.0 / 6);
    EXPECT_THAT(to_table(scores), HasSubstr("exist              3   0.667"));
    const auto json = nlohmann::json::parse(to_json(scores));
    EXPECT_EQ(json["types"][2]["questions"], 3);
    EXPECT_EQ(json["captions"][2]["things"], "all");
    EXPECT_TRUE(score({}).types.empty());
}

}  // namespace
}  // namespace llava_mini::eval
