// The model against the runtime, and batches against one question at a time.
#include "trainer/model.h"

#include <gtest/gtest.h>

#include "convert/convert.h"
#include "dump/dump.h"
#include "media/picture_writer.h"
#include "trainer/losses.h"
#include "trainer/small_run.h"

namespace llava_mini::trainer {
namespace {

using namespace test_support;

std::vector<float> values(const torch::Tensor& tensor) {
    const auto t = tensor.detach().contiguous();
    return {t.data_ptr<float>(), t.data_ptr<float>() + t.numel()};
}

struct Variant {
    std::vector<int> grids;  // empty: plain LLaVA
    int resolution_ratio = 1;
    bool average_pooling = false;
};

// For the tests' names.
void PrintTo(const Variant& variant, std::ostream* out) {
    *out << testing::PrintToString(variant.grids) << " ratio " << variant.resolution_ratio
         << (variant.average_pooling ? " pooled" : "");
}

class SmallCheckpoint : public testing::TestWithParam<Variant> {
  protected:
    void SetUp() override {
        auto options = small_options(write_small_tokenizer(dir_ / "tokenizer"), GetParam().grids);
        options.config["resolution_ratio"] = GetParam().resolution_ratio;
        if (GetParam().average_pooling) options.config["compressor"] = "average";
        write_initial_checkpoint(dir_ / "checkpoint", options);
    }
    test::TempDir dir_;
};

// 96 px, patches of 16, tied embeddings, grouped queries, high resolution, pooling: logits within 1e-3 of the runtime's (f32). The
// model was converted from what the trainer saved.
TEST_P(SmallCheckpoint, LogitsEqualTheRuntimes) {
    const torch::NoGradGuard no_gradients;
    SmallModel small(dir_ / "checkpoint");
    save_model(small.model->parameters(), dir_ / "checkpoint", dir_ / "saved");
    convert_folder(dir_ / "saved", dir_ / "gguf");
    const auto runtime = Model::load(
        {.model = dir_ / "gguf", .mmproj = {}, .threads = 1, .prefusion_kv = KvType::kF32, .progress = {}});

    const Sample sample = Squares().sample(4);
    const std::vector<uint8_t> png = encode_png(sample.frames[0]);
    dir_.write("picture.png", {reinterpret_cast<const char*>(png.data()), png.size()});
    QuestionTypes types;
    const ExampleMaker maker(*small.tokenizer, small.config.vision, types);
    Example example = maker.make(sample, {}, 1);
    example.conversations.resize(1);
    std::vector<int64_t> ids;
    for (const PromptToken& token : example.conversations[0].tokens) {
        if (token.kind != SegmentKind::kPlain) ids.push_back(token.id);
    }
    ids.pop_back();  // the last row of the prompt is followed by one more token below, so that it has a label
    ids.push_back(example.conversations[0].tokens[ids.size()].id);
    write_npy(dir_ / "ids.npy", std::vector<int64_t>{static_cast<int64_t>(ids.size())}, ids);

    const std::vector<int> grids = GetParam().grids.empty() ? std::vector<int>{0} : GetParam().grids;
    for (const int grid : grids) {
        const auto arrays = dump_stages(*runtime, {.image = dir_ / "picture.png",
                                                   .ids = dir_ / "ids.npy",
                                                   .image_options = {.vision_tokens = grid * grid},
                                                   .greedy = 1,
                                                   .threads = 1});
        const Batch batch = collate({example}, small.model->batch_shape(), grid, 0);
        const Outputs out = small.model->forward(batch);
        EXPECT_LT(test::max_difference(values(out.vision_tokens), array(arrays, "vision_tokens")), 1e-3)
            << grid;
        EXPECT_LT(test::max_difference(values(out.logits[0]), array(arrays, "logits_last")), 1e-3) << grid;
    }
}

// Four pictures with several questions, a clip and a text in one batch compute what each question does alone.
TEST_P(SmallCheckpoint, ABatchEqualsOneQuestionAtATime) {
    const torch::NoGradGuard no_gradients;
    SmallModel small(dir_ / "checkpoint");
    QuestionTypes types;
    const ExampleMaker maker(*small.tokenizer, small.config.vision, types);
    std::vector<Example> examples;
    for (uint64_t i = 0; i < 4; ++i)
        examples.push_back(maker.make(Squares().sample(i), {.targets = true}, i));
    examples.push_back(maker.make(Squares(true).sample(7), {.targets = true}, 7));
    examples.push_back(maker.make(Squares(false, true).sample(8), {.targets = true}, 8));
    examples.push_back(maker.make(Squares().sample(9), {.dialogue_share = 1.0}, 9));
    examples[1].conversations[1].unfused = true;

    const int grid = GetParam().grids.empty() ? 0 : GetParam().grids.back();
    const Outputs together = small.model->forward(collate(examples, small.model->batch_shape(), grid, 0));
    std::vector<torch::Tensor> alone;
    for (const Example& example : examples) {
        for (const Conversation& conversation : example.conversations) {
            Example one = example;
            one.conversations = {conversation};
            alone.push_back(small.model->forward(collate({one}, small.model->batch_shape(), grid, 0)).logits);
        }
    }
    EXPECT_LT((together.logits - torch::cat(alone)).abs().max().item<double>(), 1e-4);
}

// A clip whose frames return computes the same as one that holds every frame anew.
TEST_P(SmallCheckpoint, FramesThatReturnAreComputedOnce) {
    const torch::NoGradGuard no_gradients;
    SmallModel small(dir_ / "checkpoint");
    QuestionTypes types;
    const ExampleMaker maker(*small.tokenizer, small.config.vision, types);
    Sample sample = Squares(true).sample(7);
    for (const size_t i : {0, 1, 0}) sample.frames.push_back(Image(sample.frames[i]));
    Example once = maker.make(sample, {}, 7), anew = once;
    ASSERT_EQ(once.shown.size(), once.frames.size() + 3);
    anew.frames.clear();
    anew.shown.clear();
    for (const int frame : once.shown) anew.frames.push_back(once.frames[static_cast<size_t>(frame)]);
    const int grid = GetParam().grids.empty() ? 0 : GetParam().grids.back();
    const auto logits = [&](const Example& example) {
        return small.model->forward(collate({example}, small.model->batch_shape(), grid, 0)).logits;
    };
    EXPECT_LT((logits(once) - logits(anew)).abs().max().item<double>(), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Variants, SmallCheckpoint,
                         testing::Values(Variant{{1}}, Variant{{2, 1}}, Variant{{}}, Variant{{1, 2}, 2},
                                         Variant{{2, 3, 1}, 1, true}, Variant{{2}, 2, true}));

// The loss of looks is what the heads' attention says: nothing is lost where all that is seen is a target, and a step
// against its gradient lets rows look more at their targets and fetch more of the answer.
TEST(Looks, LossIsTheHeadsAttention) {
    const test::TempDir dir;
    write_initial_checkpoint(dir / "checkpoint", small_options(write_small_tokenizer(dir / "tokenizer")));
    SmallModel small(dir / "checkpoint");
    QuestionTypes types;
    const ExampleMaker maker(*small.tokenizer, small.config.vision, types);
    Example example = maker.make(Squares(true).sample(7), {}, 7);
    ASSERT_GT(example.frames.size(), 1u);
    example.conversations.resize(1);
    Conversation& conversation = example.conversations[0];
    // The last token of the question stands for a name; what it names is new in the second frame only, and came after
    // what is the answer.
    size_t name = 0;
    while (conversation.tokens[name + 1].kind != SegmentKind::kPlain) ++name;
    ASSERT_EQ(conversation.tokens[name].kind, SegmentKind::kFused);
    conversation.names = {name};
    const int32_t token = conversation.tokens[name].id, other = token + 1;
    conversation.answer_words = {other};
    for (size_t frame = 0; frame < example.frames.size(); ++frame) {
        example.changes.push_back({{frame == 1 ? token : other, 1}});
        example.earlier.push_back({{other, 1}});
        example.news.push_back(true);
    }
    const LossWeights weights{.answers = 1e-9, .looks = 1};
    Counts counts;
    const auto loss_of = [&](const Batch& batch) {
        counts = {};
        const auto loss = batch_loss(*small.model, batch, weights, counts);
        EXPECT_EQ(counts.looked, (std::array<int64_t, kLookHeads>{1, 1, 1}));
        EXPECT_EQ(counts.found_batches, 1);
        EXPECT_NEAR(loss.item<double>(),
                    (counts.looks[0] + counts.looks[1] + counts.looks[2]) / 3 + counts.found, 1e-5);
        return loss;
    };
    Batch batch = collate({example}, small.model->batch_shape(), 1, 0);
    ASSERT_TRUE(batch.looks[0].defined());
    // The second head has nothing to find: it looks at the beginning.
    EXPECT_TRUE(batch.looks[1].targets[0][0].item<bool>());
    EXPECT_EQ(batch.looks[1].targets.sum().item<int64_t>(), 1);
    EXPECT_TRUE(batch.looks[2].targets.equal(batch.looks[0].targets));
    {
        const torch::NoGradGuard no_gradients;
        const Outputs out = small.model->forward(batch);
        EXPECT_TRUE(out.earlier.equal(out.changes_kept.flip({1})));
    }
    for (size_t part = 0; part < kParts; ++part) {
        small.model->parameters().set_learning(static_cast<Part>(part),
                                               static_cast<Part>(part) == Part::kLanguage);
    }
    const auto loss = loss_of(batch);
    const Counts before = counts;
    EXPECT_GT(before.looks[0], 0.1);
    loss.backward();
    {
        const torch::NoGradGuard no_gradients;
        for (const Leaf& leaf : small.model->parameters().leaves()) {
            if (leaf.value.grad().defined()) leaf.value.sub_(leaf.value.grad() * 0.05);
        }
        loss_of(batch);
        EXPECT_LT(counts.looks[0], before.looks[0]);
        EXPECT_LT(counts.found, before.found);
        for (LookTargets& look : batch.looks) look.targets = look.visible;
        loss_of(batch);
        for (const double look : counts.looks) EXPECT_NEAR(look, 0, 1e-5);
    }
}

}  // namespace
}  // namespace llava_mini::trainer
