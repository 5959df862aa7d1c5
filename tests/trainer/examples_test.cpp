// What becomes of a sample before it is trained on.
#include "trainer/examples.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

#include "preprocess/clip_image_processor.h"
#include "scenes/generator.h"
#include "scenes/long_clip.h"
#include "trainer/batch.h"

namespace llava_mini::trainer {
namespace {

class SceneExamples : public testing::Test {
  protected:
    static VisionHparams vision() {
        VisionHparams vision;
        vision.image_size = 96;
        vision.patch_size = 16;
        vision.image_mean = {0.5f, 0.5f, 0.5f};
        vision.image_std = {0.25f, 0.25f, 0.25f};
        return vision;
    }

    const std::filesystem::path root_ =
        std::filesystem::path(LLAVA_MINI_GOLDEN_DIR).parent_path().parent_path();
    const Tokenizer tokenizer_{root_ / "recipes" / "tiny-tokenizer", 2048, 1, {2}};
    const VisionHparams vision_ = vision();
    QuestionTypes types_;
    const ExampleMaker maker_{tokenizer_, vision_, types_};
};

// What a name's fused row should be near is what the question asks for.
TEST_F(SceneExamples, HintsAreTheAnswers) {
    const scenes::SceneGenerator scenes(
        {.scene = {.min_things = 2, .max_things = 4}, .weights = {{"where", 5}, {"count", 5}}});
    const auto says = [&](const Conversation& conversation, const std::string& answer) {
        const std::vector<int32_t> ids = tokenizer_.word_ids(answer);
        return std::all_of(ids.begin(), ids.end(), [&](int32_t id) {
            return std::any_of(conversation.mentions.begin(), conversation.mentions.end(),
                               [id](const Mention& target) { return target.token == id; });
        });
    };
    int asked = 0, absent = 0, kept = 0;
    for (uint64_t number = 0; number < 60; ++number) {
        const Sample sample = scenes.sample(number);
        const Example example = maker_.make(sample, {.mentions = true}, 1);
        ASSERT_EQ(example.conversations.size(), sample.turns.size());
        for (size_t i = 0; i < sample.turns.size(); ++i) {
            const Conversation& conversation = example.conversations[i];
            for (const Mention& target : conversation.mentions) {
                EXPECT_EQ(conversation.tokens.at(target.position).kind, SegmentKind::kFused);
            }
            const QaTurn& turn = sample.turns[i];
            if (turn.type == "exist" && turn.answer == "no") {
                ++absent;
                EXPECT_TRUE(says(conversation, "nothing")) << turn.question;
            }
            // Whatever it is near, the row still says which thing it is.
            for (const Hint& hint : turn.hints) {
                if (hint.name == "things" || hint.name.empty()) continue;
                EXPECT_TRUE(says(conversation, hint.words[0])) << turn.question;
                const std::vector<int32_t> name = tokenizer_.word_ids(hint.name);
                if (hint.words[0] != hint.name || hint.words.size() < 2 || name.size() != 1) continue;
                ++kept;
                for (const Mention& target : conversation.mentions) {
                    if (conversation.tokens[target.position].id != name[0] || target.token != name[0])
                        continue;
                    EXPECT_EQ(target.weight, 0.5f) << turn.question;
                }
            }
            if (turn.type == "count" && turn.answer != "zero") {
                EXPECT_TRUE(says(conversation, turn.answer)) << turn.question;
            }
            if (turn.type != "where") continue;
            ++asked;
            EXPECT_TRUE(says(conversation, turn.answer)) << turn.question;
            const auto& targets = conversation.mentions;
            const float sum = std::accumulate(targets.begin(), targets.end(), 0.0f,
                                              [](float s, const Mention& t) { return s + t.weight; });
            EXPECT_NEAR(sum, std::round(sum), 1e-4) << turn.question;
        }
    }
    EXPECT_GE(asked, 30);
    EXPECT_GE(kept, 30);
    EXPECT_GE(absent, 5);
}

// Gaps spread a clip's frames, in order, over no more positions than are allowed.
TEST_F(SceneExamples, GapsSpreadTheFramesOfClips) {
    const scenes::SceneGenerator scenes({.clip = {.min_frames = 6, .max_frames = 6}, .clip_share = 1.0});
    constexpr int64_t kSpan = 3000;
    int64_t longest = 0;
    for (uint64_t number = 0; number < 8; ++number) {
        const Example example = maker_.make(scenes.sample(number), {.position_span = kSpan}, number);
        const Batch batch = collate({example}, {.image_size = 96, .patches = 36}, 1, 0);
        const int64_t* positions = batch.positions.data_ptr<int64_t>();
        for (const Segment& segment : batch.segments) {
            const int64_t prefix_end = segment.prefix_start + segment.prefix_length;
            EXPECT_EQ(positions[segment.start],
                      segment.prefix_length == 0 ? 0 : positions[prefix_end - 1] + 1);
            for (int64_t i = 1; i < segment.length; ++i) {
                EXPECT_GT(positions[segment.start + i], positions[segment.start + i - 1]);
            }
            const int64_t last = positions[segment.start + segment.length - 1];
            longest = std::max(longest, last);
            EXPECT_LT(last, kSpan + segment.length);
        }
    }
    EXPECT_GT(longest, kSpan / 10);
}

// The words of a picture are what is seen and where: no other places.
TEST_F(SceneExamples, WordsAreWhatIsSeenAndWhere) {
    const scenes::SceneGenerator scenes({.scene = {.max_things = 1, .big_share = 0, .sign_share = 0},
                                         .augment = false,
                                         .weights = {{"where", 20}, {"what", 20}}});
    std::map<std::string, int> asked;
    for (uint64_t number = 0; number < 60; ++number) {
        const Sample sample = scenes.sample(number);
        const Example example = maker_.make(sample, {.targets = true}, 1);
        ASSERT_EQ(example.words.size(), 1u);
        const std::set<int32_t> words(example.words[0].begin(), example.words[0].end());
        for (const QaTurn& turn : sample.turns) {
            if (turn.type != "where" && turn.type != "what") continue;
            ++asked[turn.type];
            for (const int32_t id : tokenizer_.word_ids(turn.answer)) {
                EXPECT_TRUE(words.contains(id)) << number << " " << turn.question << " " << turn.answer;
            }
        }
        EXPECT_LE(words.size(), 6u) << number;  // name and colour and place, of two tokens at most
    }
    EXPECT_GE(asked["where"], 15);
    EXPECT_GE(asked["what"], 15);
}

// What is new in a clip's frames is what the questions about it ask for.
TEST_F(SceneExamples, ChangesAreTheAnswers) {
    const scenes::SceneGenerator scenes(
        {.clip = {.min_frames = 3, .max_frames = 8}, .clip_share = 1.0, .min_turns = 8, .max_turns = 12});
    const auto says = [&](const std::vector<Change>& changes, const std::string& word) {
        const std::vector<int32_t> ids = tokenizer_.word_ids(word);
        return std::all_of(ids.begin(), ids.end(), [&](int32_t id) {
            return std::any_of(changes.begin(), changes.end(),
                               [id](const Change& c) { return c.token == id; });
        });
    };
    std::map<std::string, int> asked;
    for (uint64_t number = 0; number < 60; ++number) {
        const Sample sample = scenes.sample(number);
        const Example example = maker_.make(sample, {.changes = true}, 1);
        ASSERT_EQ(example.changes.size(), sample.frames.size());
        for (const auto& changes : example.changes) {
            float sum = 0;
            for (const Change& change : changes) sum += change.weight;
            EXPECT_NEAR(sum, 1, 1e-4);
        }
        // What was new before is what some earlier frame has as new; "nothing" at first.
        EXPECT_TRUE(says(example.earlier[0], "nothing"));
        for (size_t i = 1; i < example.earlier.size(); ++i) {
            const bool was_new =
                std::any_of(example.changes.begin(), example.changes.begin() + static_cast<ptrdiff_t>(i),
                            [&](const auto& changes) {
                                return changes.size() == example.earlier[i].size() &&
                                       changes[0].token == example.earlier[i][0].token;
                            });
            EXPECT_TRUE(was_new) << number << " frame " << i;
        }
        for (const QaTurn& turn : sample.turns) {
            if (turn.type != "after" && turn.type != "seen") continue;
            ASSERT_EQ(turn.hints.size(), 1u) << turn.question;
            const auto& words = turn.hints[0].words;
            EXPECT_EQ(words[0], turn.hints[0].name);
            EXPECT_EQ(words.back() == "nothing", turn.answer == "no") << turn.question;
        }
        std::vector<Change> later;
        for (size_t i = 1; i < example.changes.size(); ++i)
            later.insert(later.end(), example.changes[i].begin(), example.changes[i].end());
        for (const QaTurn& turn : sample.turns) {
            ++asked[turn.type];
            if (turn.type == "first") {
                EXPECT_TRUE(says(example.changes[0], turn.answer)) << number;
            }
            if (turn.type == "last" || turn.type == "after" || turn.type == "direction") {
                EXPECT_TRUE(says(later, turn.answer)) << number << " " << turn.question << turn.answer;
            }
        }
    }
    for (const char* type : {"first", "last", "after", "direction"}) EXPECT_GE(asked[type], 8) << type;

    const Example example = maker_.make(scenes.sample(1), {.changes = true}, 1);
    const Batch batch = collate({example}, {.image_size = 96, .patches = 36}, 2, 0);
    const auto moments = static_cast<int64_t>(example.changes.size());
    EXPECT_EQ(batch.change_rows.size(0), moments);
    EXPECT_EQ(batch.change_targets.rows.max().item<int64_t>(), moments - 1);
}

// The language model's rows of names in questions have the answer as their targets.
TEST_F(SceneExamples, NamesAskedForHaveTheAnswer) {
    const scenes::SceneGenerator scenes({.weights = {{"where", 5}, {"exist", 5}}});
    int names = 0;
    for (uint64_t number = 0; number < 30; ++number) {
        const Sample sample = scenes.sample(number);
        const Example example = maker_.make(sample, {.names = true}, 1);
        const Batch batch = collate({example}, {.image_size = 96, .patches = 36}, 1, 0);
        // Rows of the language model that are fused text are rows of the only frame's text.
        std::multimap<int64_t, int64_t> expected, found;  // name and word of the answer
        for (const QaTurn& turn : sample.turns) {
            for (const Hint& hint : turn.hints) {
                const std::vector<int32_t> name = tokenizer_.word_ids(hint.name);
                if (hint.name.empty() || name.size() != 1) continue;
                for (const int32_t id : tokenizer_.word_ids(turn.answer)) expected.emplace(name[0], id);
            }
        }
        names += static_cast<int>(expected.size());
        ASSERT_EQ(batch.asked_targets.defined(), !expected.empty());
        for (int64_t i = 0; batch.asked_targets.defined() && i < batch.asked_targets.rows.size(0); ++i) {
            const auto row = batch.asked_rows[batch.asked_targets.rows[i].item<int64_t>()].item<int64_t>();
            const auto text = batch.rows[row].item<int64_t>();
            ASSERT_LT(text, batch.fused_rows);
            found.emplace(batch.text_ids[text].item<int64_t>(),
                          batch.asked_targets.tokens[i].item<int64_t>());
        }
        EXPECT_EQ(std::multiset(found.begin(), found.end()), std::multiset(expected.begin(), expected.end()))
            << number;
    }
    EXPECT_GT(names, 30);
}

// A name in a question about a clip looks at the frames in which it is new, and where the answer is told: where the next
// thing is, or where it is new and follows the answer; else at the beginning.
TEST_F(SceneExamples, NamesLookAtTheirFrames) {
    const scenes::SceneGenerator scenes({.clip = {.min_frames = 3, .max_frames = 8, .sequence_share = 0.7},
                                         .clip_share = 1.0,
                                         .min_turns = 6,
                                         .max_turns = 8});
    std::array<int, kLookHeads> looks{};
    std::map<std::string, std::array<int, kLookHeads>>
        told;  // by type of question, names that look at frames
    for (uint64_t number = 0; number < 30; ++number) {
        const Example example =
            maker_.make(scenes.sample(number), {.changes = true, .names = true, .looks = true}, 1);
        const Batch batch = collate({example}, {.image_size = 96, .patches = 36}, 1, 0);
        ASSERT_TRUE(batch.looks[1].defined());
        ASSERT_TRUE(batch.looks[1].rows.equal(batch.looks[2].rows));
        // Names in the order of conversations, as the rows of heads that always look somewhere.
        std::vector<std::pair<const Conversation*, size_t>> names;
        for (const Conversation& c : example.conversations) {
            for (const size_t name : c.names) names.emplace_back(&c, name);
        }
        ASSERT_EQ(batch.looks[1].rows.size(0), static_cast<int64_t>(names.size()));
        std::set<int64_t> found_rows;
        for (int64_t i = 0; batch.found_targets.defined() && i < batch.found_targets.rows.size(0); ++i) {
            const auto row = batch.found_targets.rows[i].item<int64_t>();
            found_rows.insert(row);
            const auto& words = names[static_cast<size_t>(row)].first->answer_words;
            EXPECT_EQ(std::count(words.begin(), words.end(), batch.found_targets.tokens[i].item<int64_t>()),
                      1);
        }
        for (size_t head = 0; head < kLookHeads; ++head) {
            const LookTargets& look = batch.looks[head];
            size_t at = 0;
            for (int64_t i = 0; look.defined() && i < look.rows.size(0); ++i, ++at) {
                ++looks[head];
                const auto row = look.rows[i].item<int64_t>();
                // The first head passes over names of what is nowhere new.
                while (batch.looks[1].rows[static_cast<int64_t>(at)].item<int64_t>() != row) ++at;
                const auto& [conversation, position] = names[at];
                const auto says = [](const std::vector<Change>& words, const std::vector<int32_t>& wanted) {
                    return std::any_of(words.begin(), words.end(), [&](const Change& c) {
                        return std::count(wanted.begin(), wanted.end(), c.token) > 0;
                    });
                };
                const std::vector<int32_t> name = {conversation->tokens[position].id},
                                           &answer = conversation->answer_words;
                const auto segment = std::find_if(
                    batch.segments.begin(), batch.segments.end(),
                    [&](const Segment& s) { return row >= s.start && row < s.start + s.length; });
                std::set<int64_t> expected;
                for (size_t m = 0; m < example.news.size(); ++m) {
                    if (!example.news[m]) continue;
                    const bool is_new = says(example.changes[m], name),
                               was_new = says(example.earlier[m], name);
                    if (head == 0   ? is_new
                        : head == 1 ? was_new && says(example.changes[m], answer)
                                    : is_new && says(example.earlier[m], answer)) {
                        expected.insert(batch.change_rows[static_cast<int64_t>(m)].item<int64_t>());
                    }
                }
                if (!expected.empty()) {
                    ++told[types_.names()[static_cast<size_t>(conversation->answer_types[0])]][head];
                    EXPECT_TRUE(head == 0 || found_rows.contains(static_cast<int64_t>(at))) << number;
                } else {
                    EXPECT_GT(head, 0u);
                    const int64_t both =
                        batch.change_rows.size(0) == 0 ? 0 : batch.change_rows.min().item<int64_t>();
                    EXPECT_LT(segment->prefix_start, both);  // before all frames
                    expected.insert(segment->prefix_start);
                }
                std::set<int64_t> found;
                for (int64_t other = 0; other < batch.rows.size(0); ++other) {
                    if (look.targets[i][other].item<bool>()) found.insert(other);
                }
                EXPECT_EQ(found, expected) << number << " row " << row << " head " << head;
                // It sees its own segment up to itself, and the rows that begin it.
                EXPECT_EQ(look.visible[i].sum().item<int64_t>(),
                          segment->prefix_length + row + 1 - segment->start);
                EXPECT_TRUE((look.targets[i] & ~look.visible[i]).sum().item<int64_t>() == 0);
            }
        }
    }
    EXPECT_GT(looks[0], 30);
    EXPECT_GT(told["after"][1], 5);
    EXPECT_EQ(told["after"][2], 0);
    EXPECT_GT(told["before"][2], 5);
    EXPECT_EQ(told["before"][1], 0);
    EXPECT_EQ(told["seen"][1] + told["seen"][2], 0);
}

// Frames that are equal are computed once, and count as often as they are shown.
TEST_F(SceneExamples, EqualFramesAreThereOnce) {
    const scenes::LongClips clips({.size = 96}, 50, 60, 1);
    const Sample sample = clips.sample(3);
    const Example example = maker_.make(sample, {}, 1);
    ASSERT_EQ(example.shown.size(), sample.frames.size());
    EXPECT_LT(example.frames.size(), 40);
    for (size_t i = 0; i < sample.frames.size(); ++i) {
        const PixelValues alone = preprocess_frame(sample.frames[i], vision_);
        EXPECT_EQ(example.frames[static_cast<size_t>(example.shown[i])].data, alone.data) << i;
    }
    const Batch batch = collate({example}, {.image_size = 96, .patches = 36}, 1, 0);
    EXPECT_NEAR(batch.text_weights.sum().item<double>(), static_cast<double>(batch.fused_rows), 1e-3);
}

}  // namespace
}  // namespace llava_mini::trainer
