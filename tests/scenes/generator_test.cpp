#include "scenes/generator.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <regex>
#include <set>
#include <thread>

#include "core/hash.h"
#include "scenes/long_clip.h"
#include "scenes/priors.h"
#include "scenes/words.h"
#include "support/error_text.h"

namespace llava_mini::scenes {
namespace {

using test::error_text;
using ::testing::HasSubstr;

bool same(const Sample& a, const Sample& b) {
    const auto same_turn = [](const QaTurn& x, const QaTurn& y) {
        return x.question == y.question && x.answer == y.answer && x.type == y.type;
    };
    if (a.id != b.id || a.frames.size() != b.frames.size() || a.marks.size() != b.marks.size() ||
        !std::equal(a.turns.begin(), a.turns.end(), b.turns.begin(), b.turns.end(), same_turn)) {
        return false;
    }
    for (size_t i = 0; i < a.frames.size(); ++i) {
        if (a.frames[i].rgb != b.frames[i].rgb || a.marks[i].size() != b.marks[i].size()) return false;
    }
    return true;
}

TEST(Generator, SameSampleInAnyThreadAndOrder) {
    const SceneGenerator generator({.seed = 7, .clip_share = 0.2}), other({.seed = 7, .clip_share = 0.2});
    std::vector<Sample> forwards, backwards(40);
    for (uint64_t i = 0; i < 40; ++i) forwards.push_back(generator.sample(i));
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 39 - t; i >= 0; i -= 3)
                backwards[static_cast<size_t>(i)] = other.sample(static_cast<uint64_t>(i));
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (size_t i = 0; i < 40; ++i) {
        EXPECT_TRUE(same(forwards[i], backwards[i])) << i;
        const Sample text = generator.text_of(i);
        EXPECT_EQ(text.turns.size(), forwards[i].turns.size());
        EXPECT_EQ(text.turns[0].question, forwards[i].turns[0].question);
        EXPECT_EQ(text.turns[0].answer, forwards[i].turns[0].answer);
    }
}

TEST(Generator, SeedsSplitsAndNumbersDiffer) {
    std::set<std::string> pictures;
    int count = 0;
    for (const uint64_t seed : {1, 2}) {
        for (const char* split : kSplits) {
            const SceneGenerator generator({.seed = seed, .split = parse_split(split), .augment = false});
            for (const uint64_t number : {uint64_t{0}, uint64_t{1}, uint64_t{2}, uint64_t{1} << 40}) {
                pictures.insert(hash_bytes(generator.sample(number).frames[0].rgb).hex());
                ++count;
            }
        }
    }
    EXPECT_EQ(pictures.size(), static_cast<size_t>(count));
}

// What marks say is what was painted: combinations that are held out are seen there alone.
TEST(Generator, HeldOutCombinations) {
    std::set<std::string> nouns;
    for (int noun = 0; noun < noun_count(); ++noun) nouns.insert(noun_word(noun));
    const auto combinations = [&](const Sample& sample) {
        // From the caption, which names every thing with colour and place.
        int held_out = 0;
        for (const QaTurn& turn : sample.turns) {
            if (turn.type != "caption") continue;
            static const std::regex part(
                R"(\ban? ((?:(red|orange|yellow|green|blue|purple|black|white) )?(\w+))(?: saying \w+)?)"
                R"((?: in the ([a-z]+(?: left| right)?))?)");
            for (std::sregex_iterator it(turn.answer.begin(), turn.answer.end(), part), end; it != end;
                 ++it) {
                const std::string colour = (*it)[2], noun = (*it)[3], place = (*it)[4];
                EXPECT_TRUE(nouns.contains(noun)) << turn.answer;
                for (int i = 0; i < noun_count(); ++i) {
                    if (noun != noun_word(i) || is_sign(i)) continue;
                    held_out += place == kPlaces[static_cast<size_t>(held_out_place(i))] ? 1 : 0;
                    if (is_shape(i)) {
                        held_out +=
                            colour == kColours[static_cast<size_t>(held_out_colour(i - emoji_count()))].word
                                ? 1
                                : 0;
                    }
                }
            }
        }
        return held_out;
    };
    std::map<std::string, double> captions;
    for (const char* type : kPictureTypes) captions[type] = std::string(type) == "caption" ? 1 : 0;
    for (const char* split : kSplits) {
        const SceneGenerator generator({.split = parse_split(split), .weights = captions});
        const bool held_out = generator.options().split == Split::kHeldOut;
        for (uint64_t i = 0; i < 1500; ++i) {
            const int found = combinations(generator.text_of(i));
            EXPECT_TRUE(held_out ? found > 0 : found == 0) << split << " " << i;
        }
    }
}

TEST(Generator, EveryColourIsHeldOutOfOneShape) {
    std::set<int> colours;
    for (int shape = 0; shape < kShapeCount; ++shape) colours.insert(held_out_colour(shape));
    EXPECT_EQ(colours.size(), static_cast<size_t>(kColourCount));
}

TEST(Generator, MarksLieInThePictureAndNameWhatAnswersName) {
    for (const int size : {96, 128}) {
        const SceneGenerator generator({.seed = 3, .size = size, .clip_share = 0.1});
        for (uint64_t i = 0; i < 150; ++i) {
            const Sample sample = generator.sample(i);
            ASSERT_EQ(sample.frames.size(), sample.marks.size());
            for (size_t f = 0; f < sample.frames.size(); ++f) {
                ASSERT_EQ(sample.frames[f].width, size);
                ASSERT_EQ(sample.frames[f].rgb.size(), static_cast<size_t>(3 * size * size));
                int places = 0;
                for (const Mark& mark : sample.marks[f]) {
                    EXPECT_FALSE(mark.word.empty());
                    EXPECT_TRUE(0 <= mark.x0 && mark.x0 < mark.x1 && mark.x1 <= static_cast<float>(size));
                    EXPECT_TRUE(0 <= mark.y0 && mark.y0 < mark.y1 && mark.y1 <= static_cast<float>(size));
                    places += mark.kind == Mark::Kind::kPlace ? 1 : 0;
                }
                EXPECT_EQ(places, kPlaceCount);
            }
            for (const QaTurn& turn : sample.turns) {
                if (turn.type == "what" || turn.type == "at" || turn.type == "relation") {
                    const bool named = std::any_of(
                        sample.marks[0].begin(), sample.marks[0].end(),
                        [&](const Mark& m) { return m.kind == Mark::Kind::kName && m.word == turn.answer; });
                    EXPECT_TRUE(named || turn.answer == "nothing") << sample.id << " " << turn.question;
                }
                if (turn.type == "sign") {
                    std::string letters;
                    for (const Mark& m : sample.marks[0])
                        letters += m.kind == Mark::Kind::kLetter ? m.word : "";
                    EXPECT_EQ(letters, turn.answer);
                }
            }
        }
    }
}

// A thing's mark lies where the answer says it is: the middle of its box is in the cell, or near it.
TEST(Generator, PlacesAndCountsAgreeWithMarks) {
    const SceneGenerator generator({.seed = 5, .split = Split::kVal});
    int places = 0, counts = 0;
    for (uint64_t i = 0; i < 600; ++i) {
        const Sample sample = generator.sample(i);
        const auto& marks = sample.marks[0];
        for (const QaTurn& turn : sample.turns) {
            if (turn.type == "where") {
                const Mark* cell = nullptr;
                for (const Mark& mark : marks) {
                    if (mark.kind == Mark::Kind::kPlace && mark.word == turn.answer) cell = &mark;
                }
                ASSERT_NE(cell, nullptr) << turn.answer;
                const bool there = std::any_of(marks.begin(), marks.end(), [&](const Mark& m) {
                    const float x = (m.x0 + m.x1) / 2, y = (m.y0 + m.y1) / 2;
                    return m.kind == Mark::Kind::kName && turn.question.find(m.word) != std::string::npos &&
                           x > cell->x0 - 2 && x < cell->x1 + 2 && y > cell->y0 - 2 && y < cell->y1 + 2;
                });
                EXPECT_TRUE(there) << sample.id << " " << turn.question << " " << turn.answer;
                ++places;
            }
            if (turn.type == "total" || turn.type == "count") {
                long number = 0;
                for (const Mark& m : marks) {
                    const bool counted = turn.type == "total" || [&] {
                        for (int noun = 0; noun < noun_count(); ++noun) {
                            if (m.word == noun_word(noun))
                                return turn.question.find(fmt::format(" {}", noun_plural(noun))) !=
                                       std::string::npos;
                        }
                        return false;
                    }();
                    number += m.kind == Mark::Kind::kName && counted ? 1 : 0;
                }
                EXPECT_EQ(number_word(static_cast<int>(number)), turn.answer)
                    << sample.id << " " << turn.question;
                ++counts;
            }
        }
    }
    EXPECT_GT(places, 200);
    EXPECT_GT(counts, 150);
}

TEST(Generator, DirectionsAgreeWithMarks) {
    const SceneGenerator generator({.seed = 5, .clip_share = 1});
    int seen = 0;
    for (uint64_t i = 0; i < 120; ++i) {
        const Sample sample = generator.sample(i);
        EXPECT_GE(sample.frames.size(), 2u);
        EXPECT_LE(sample.frames.size(), 16u);
        for (const QaTurn& turn : sample.turns) {
            if (turn.type != "direction") continue;
            const auto find = [&](const std::vector<Mark>& marks) -> const Mark& {
                return *std::find_if(marks.begin(), marks.end(), [&](const Mark& m) {
                    return m.kind == Mark::Kind::kName && turn.question.find(m.word) != std::string::npos;
                });
            };
            const Mark &first = find(sample.marks.front()), &last = find(sample.marks.back());
            const float dx = last.x0 - first.x0, dy = last.y0 - first.y0;
            const std::string way = std::fabs(dx) > std::fabs(dy) ? (dx < 0 ? "left" : "right")
                                    : dy < 0                      ? "up"
                                                                  : "down";
            EXPECT_EQ(way, turn.answer) << sample.id;
            ++seen;
        }
    }
    EXPECT_GT(seen, 15);
}

TEST(LongClip, FramesOnDemandAndOneNeedle) {
    std::map<std::string, int> times;
    for (uint64_t number = 0; number < 30; ++number) {
        const LongClip clip({.size = 32}, number, 10800);
        EXPECT_EQ(clip.frame(clip.needle_from()).rgb,
                  LongClip({.size = 32}, number, 10800).frame(clip.needle_from()).rgb);
        ASSERT_EQ(clip.turns().size(), 5u);
        EXPECT_EQ(clip.turns()[0].answer, "yes");
        EXPECT_EQ(clip.turns()[1].answer, "no");
        const char* const names[] = {"beginning", "middle", "end"};
        EXPECT_EQ(clip.turns()[2].answer, names[3 * clip.needle_from() / 10800]);
        ++times[clip.turns()[2].answer];
    }
    EXPECT_EQ(times.size(), 3u);
    EXPECT_NE(LongClip({.size = 32}, 0, 60).frame(0).rgb, LongClip({.size = 32}, 1, 60).frame(0).rgb);
    EXPECT_THAT(error_text([] { LongClip({}, 0, 60).frame(60); }), HasSubstr("frame 60: there are 60"));
    EXPECT_THAT(error_text([] { LongClip({}, 0, 2); }), HasSubstr("a long clip of 2 frames"));
    EXPECT_THAT(error_text([] { LongClips({}, 60, 50, 1); }), HasSubstr("the smaller number first"));
    EXPECT_THAT(error_text([] { LongClips({}, 5, 50, 2); }), HasSubstr("three times as many"));
    EXPECT_THAT(error_text([] { LongClips({}, 5, 100000, 1); }), HasSubstr("expected 4096 at most"));
    EXPECT_THAT(error_text([] { LongClips({.size = 8}, 5, 50, 1); }), HasSubstr("found 8"));
    EXPECT_THAT(error_text([] { LongClip({}, 0, 60, 1, 0); }), HasSubstr("expected 1 to 64, found 0"));
    EXPECT_THAT(error_text([] { LongClips({}, 5, 50, 1, 65); }), HasSubstr("expected 1 to 64, found 65"));
    EXPECT_THAT(error_text([] { SceneGenerator({.clip = {.sequence_share = 1.5}}); }),
                HasSubstr("share of clips that are sequences: expected 0 to 1"));
}

// No type is answered by a constant or by the question alone.
TEST(Generator, PriorsAreNearChance) {
    const std::map<std::string, double> most = {
        {"what", 0.08},     {"at", 0.15},    {"where", 0.15}, {"colour", 0.17},   {"exist", 0.54},
        {"count", 0.26},    {"total", 0.28}, {"sign", 0.05},  {"relation", 0.06}, {"compare", 0.54},
        {"caption", 0.02},  {"first", 0.06}, {"last", 0.06},  {"after", 0.06},    {"before", 0.06},
        {"different", 0.4}, {"when", 0.4},   {"seen", 0.54},  {"moved", 0.06},    {"change", 0.2},
        {"direction", 0.3}, {"story", 0.02}};
    size_t types = 0;
    for (const double clips : {0.0, 1.0}) {
        const SceneGenerator generator({.clip_share = clips});
        for (const Prior& prior : measure_priors(generator, 12000)) {
            if (prior.type == "all") continue;
            ++types;
            EXPECT_GT(prior.questions, 200u) << prior.type;
            EXPECT_LT(prior.constant, most.at(prior.type)) << prior.type << " " << prior.answer;
            EXPECT_LT(prior.from_question, most.at(prior.type) + 0.03) << prior.type;
        }
    }
    EXPECT_EQ(types, kPictureTypes.size() + kClipTypes.size());
}

TEST(Generator, WeightsAndNumbersAreObeyed) {
    std::map<std::string, double> weights;
    for (const char* type : kPictureTypes) weights[type] = 0;
    weights["where"] = 1;
    weights["exist"] = 1;
    const SceneGenerator generator(
        {.scene = {.min_things = 2, .max_things = 2, .big_share = 0, .sign_share = 0}, .weights = weights});
    for (uint64_t i = 0; i < 100; ++i) {
        const Sample sample = generator.sample(i);
        for (const QaTurn& turn : sample.turns)
            EXPECT_TRUE(turn.type == "where" || turn.type == "exist") << turn.type;
        const auto names = std::count_if(sample.marks[0].begin(), sample.marks[0].end(),
                                         [](const Mark& m) { return m.kind == Mark::Kind::kName; });
        EXPECT_EQ(names, 2) << sample.id;
    }
}

// More things than there are shapes: the rest become emoji, and "no" still finds something that is not there.
TEST(Generator, OnlyShapes) {
    for (const double clips : {0.0, 1.0}) {
        const SceneGenerator generator(
            {.scene = {.min_things = 9, .max_things = 9, .shape_share = 1, .sign_share = 0},
             .clip_share = clips});
        for (uint64_t i = 0; i < 300; ++i) EXPECT_FALSE(generator.text_of(i).turns.empty());
    }
    for (uint64_t i = 0; i < 20; ++i) LongClip({.size = 32, .scene = {.shape_share = 1}}, i, 60);
}

TEST(Generator, WrongOptions) {
    EXPECT_THAT(error_text([] { SceneGenerator({.size = 8}); }),
                HasSubstr("size of pictures: expected 32 to 1024"));
    EXPECT_THAT(error_text([] { SceneGenerator({.scene = {.min_things = 4, .max_things = 2}}); }),
                HasSubstr("things in a picture: expected a range within 1 to 9, found 4 to 2"));
    EXPECT_THAT(error_text([] { SceneGenerator({.clip_share = 1.5}); }),
                HasSubstr("share of clips: expected 0 to 1"));
    EXPECT_THAT(error_text([] {
                    SceneGenerator({.weights = {{"colors", 1}}});
                }),
                HasSubstr("'colors' is no type of question: expected one of what, at"));
    EXPECT_THAT(error_text([] {
                    SceneGenerator({.weights = {{"what", -1}}});
                }),
                HasSubstr("'what': expected 0 to"));
    EXPECT_THAT(error_text([] { parse_split("training"); }),
                HasSubstr("'training' is no split: expected one of train"));
    EXPECT_THAT(error_text([] { SceneGenerator({.samples = 3}).sample(3); }),
                HasSubstr("sample 3: there are 3"));
    EXPECT_THAT(
        error_text([] { SceneGenerator({.fonts = "/nowhere"}); }),
        HasSubstr("/nowhere/noto/NotoColorEmoji.ttf: the font is missing or cannot be read (Debian package "
                  "fonts-noto-color-emoji)"));
}

std::string utf8(char32_t code) {
    const auto rest = [code](int shift) { return static_cast<char>(0x80 | (code >> shift & 63)); };
    if (code < 0x10000) return {static_cast<char>(0xE0 | code >> 12), rest(6), rest(0)};
    return {static_cast<char>(0xF0 | code >> 18), rest(12), rest(6), rest(0)};
}

// Every name is a word of the emoji's English name or keywords in Unicode's CLDR.
TEST(Words, NamesAreThoseOfUnicode) {
    std::ifstream file("/usr/share/unicode/cldr/common/annotations/en.xml");
    if (!file) GTEST_SKIP() << "the package unicode-cldr-core is not installed";
    std::map<std::string, std::string> annotations;
    const std::regex annotation(R"re(<annotation cp="([^"]+)"[^>]*>([^<]+)<)re");
    for (std::string line; std::getline(file, line);) {
        std::smatch match;
        if (std::regex_search(line, match, annotation))
            annotations[match[1]] += fmt::format(" {} ", match[2].str());
    }
    std::set<std::string> words;
    for (const EmojiWord& emoji : emoji_words()) {
        EXPECT_THAT(annotations[utf8(emoji.code)], HasSubstr(std::string(" ") + emoji.word + " "))
            << emoji.word;
        EXPECT_TRUE(words.insert(emoji.word).second) << emoji.word << " stands twice";
    }
    EXPECT_GE(words.size(), 96u);
}

}  // namespace
}  // namespace llava_mini::scenes
