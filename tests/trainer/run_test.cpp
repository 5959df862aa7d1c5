// Runs: repeatable, resumable, and clear about what goes wrong.
#include "trainer/run.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <limits>

#include "support/error_text.h"
#include "tools/progress_bar.h"
#include "trainer/curves.h"
#include "trainer/small_run.h"

namespace llava_mini::trainer {
namespace {

using namespace test_support;
using testing::HasSubstr;

class Runs : public testing::Test {
  protected:
    void SetUp() override {
        write_initial_checkpoint(base_, small_options(write_small_tokenizer(dir_ / "tokenizer")));
    }

    // Runs until `stop_at` samples (0: to the end); the model starts from the base.
    RunEnd run(const std::string& name, const std::string& recipe, uint64_t stop_at = 0, int data_threads = 1,
               const SourceFactory& factory = make_test_source) {
        SmallModel small(base_);
        const Recipe parsed = parse_recipe(recipe, "recipe");
        prepare_model(parsed, *small.model);
        const auto progress = [&](uint64_t done, uint64_t, std::string_view) {
            return stop_at == 0 || done < stop_at;
        };
        return run_recipe(parsed, *small.model, *small.tokenizer, factory,
                          {dir_ / name, base_, data_threads, 5, progress});
    }
    std::string weights(const std::string& name) const {
        return read_text_file(dir_ / name / "model" / "model.safetensors", 1 << 28);
    }

    test::TempDir dir_;
    std::filesystem::path base_ = dir_ / "base";
};

TEST_F(Runs, TwoRunsAreEqualWhateverTheDataThreads) {
    const std::string recipe = small_recipe(16);
    EXPECT_EQ(run("a", recipe), RunEnd::kDone);
    EXPECT_EQ(run("b", recipe, 0, /*data_threads=*/3), RunEnd::kDone);
    EXPECT_EQ(weights("a"), weights("b"));
    EXPECT_NE(weights("a"), read_text_file(base_ / "model.safetensors", 1 << 28));
}

TEST_F(Runs, StoppedAndResumedEqualsNeverStopped) {
    const std::string recipe = small_recipe(16, R"("checkpoint_every": 1000)");
    ASSERT_EQ(run("whole", recipe), RunEnd::kDone);
    EXPECT_EQ(run("parts", recipe, 8), RunEnd::kStopped);   // in the first phase
    EXPECT_EQ(run("parts", recipe, 16), RunEnd::kStopped);  // between the phases
    EXPECT_EQ(run("parts", recipe, 24), RunEnd::kStopped);  // in the second
    EXPECT_EQ(run("parts", recipe), RunEnd::kDone);
    EXPECT_EQ(weights("whole"), weights("parts"));
}

TEST_F(Runs, LearnsTheSquares) {
    ASSERT_EQ(run("long", small_recipe(1200, R"("checkpoint_every": 0)")), RunEnd::kDone);
    std::ifstream log(dir_ / "long" / "log.jsonl");
    std::string line, last;
    while (std::getline(log, line)) {
        if (line.find("\"validation\"") != std::string::npos) last = line;
    }
    const auto entry = nlohmann::json::parse(last);
    EXPECT_GT(entry["types"]["colour"]["exact"].get<double>(), 0.9) << last;
    EXPECT_THAT(read_text_file(dir_ / "long" / "curves.svg", 1 << 24), HasSubstr("colour"));
}

TEST_F(Runs, KeepsTheNewestCheckpoints) {
    run("a", small_recipe(24, R"("checkpoint_every": 4, "keep_checkpoints": 2)"));
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_ / "a" / "checkpoints")) {
        EXPECT_THAT(entry.path().filename().string(), testing::SizeIs(10));
        ++count;
    }
    EXPECT_EQ(count, 2);
}

TEST_F(Runs, LossThatIsNotANumberNamesTheSample) {
    SmallModel small(base_);
    QuestionTypes types;
    const ExampleMaker maker(*small.tokenizer, small.config.vision, types);
    std::vector<Example> examples;
    for (uint64_t i = 0; i < 3; ++i) examples.push_back(maker.make(Squares().sample(i), {}, i));
    examples[1].frames[0].data[5] = std::numeric_limits<float>::quiet_NaN();
    const Batch batch = collate(examples, small.model->batch_shape(), 1, 12);
    Counts counts;
    EXPECT_THAT(test::error_text([&] { batch_loss(*small.model, batch, {}, counts); }),
                testing::AllOf(HasSubstr("squares 1"), HasSubstr("nan"), HasSubstr("12")));
}

TEST_F(Runs, FullDiskLeavesOlderCheckpointsWhole) {
    ASSERT_EQ(run("a", small_recipe(16), 8), RunEnd::kStopped);
    const auto before = *newest_checkpoint(dir_ / "a");
    rlimit old{};
    getrlimit(RLIMIT_FSIZE, &old);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    SmallModel small(base_);
    const auto fill_disk = [&](uint64_t done, uint64_t, std::string_view) {
        const rlimit limit{100000, old.rlim_max};
        if (done >= 12) setrlimit(RLIMIT_FSIZE, &limit);
        return done < 12;
    };
    const std::string text = test::error_text([&] {
        run_recipe(parse_recipe(small_recipe(16), "recipe"), *small.model, *small.tokenizer, make_test_source,
                   {dir_ / "a", base_, 1, 5, fill_disk});
    });
    setrlimit(RLIMIT_FSIZE, &old);
    std::signal(SIGXFSZ, handler);
    EXPECT_THAT(text, HasSubstr(".safetensors"));
    EXPECT_EQ(newest_checkpoint(dir_ / "a"), before);
    EXPECT_EQ(run("a", small_recipe(16)), RunEnd::kDone);
}

TEST_F(Runs, CheckpointOfAnotherShape) {
    ASSERT_EQ(run("a", small_recipe(16), 8), RunEnd::kStopped);
    auto options = small_options(dir_ / "tokenizer");
    options.config["intermediate_size"] = 128;
    std::filesystem::remove_all(base_);
    write_initial_checkpoint(base_, options);
    EXPECT_THAT(test::error_text([&] { run("a", small_recipe(16)); }),
                testing::AllOf(HasSubstr("misshapen"), HasSubstr("gate_proj.weight"),
                               HasSubstr("expected [128, 64]")));
}

TEST(Recipes, ThoseOfTheRepositoryAreRead) {
    const auto root = std::filesystem::path(LLAVA_MINI_GOLDEN_DIR).parent_path().parent_path();
    int recipes = 0;
    for (const auto& entry : std::filesystem::directory_iterator(root / "recipes")) {
        if (entry.path().extension() != ".json") continue;
        ++recipes;
        EXPECT_FALSE(read_recipe(entry.path()).phases.empty()) << entry.path();
    }
    EXPECT_GE(recipes, 6);
}

TEST_F(Runs, MistakesInRecipes) {
    const auto message = [&](const std::string& from, const std::string& to) {
        std::string recipe = small_recipe(16);
        const size_t at = recipe.find(from);
        EXPECT_NE(at, std::string::npos) << from;
        recipe.replace(at, from.size(), to);
        return test::error_text([&] { run("bad", recipe); });
    };
    EXPECT_THAT(message("\"batch\": 4", "\"batches\": 4"),
                testing::AllOf(HasSubstr("recipe: phases[0]"), HasSubstr("batches")));
    EXPECT_THAT(message("\"tower\": 1e-3", "\"towers\": 1e-3"),
                testing::AllOf(HasSubstr("lr"), HasSubstr("towers")));
    EXPECT_THAT(message("\"samples\": 16", "\"samples\": -1"), HasSubstr("samples"));
    EXPECT_THAT(message("\"squares\"", "\"circles\""), HasSubstr("circles"));
    EXPECT_THAT(message("[1, 2]", "[1, 3]"),
                testing::AllOf(HasSubstr("no grid of side 3"), HasSubstr("1, 2")));
    EXPECT_THAT(message("\"phases\": [", "\"phases\": [{]"), HasSubstr("recipe"));
    EXPECT_THAT(message("\"answers\": 1, ", ""),
                HasSubstr("words, mentions, changes, asked and looks need answers"));
    EXPECT_THAT(message("\"phases\": [", "\"lora\": {\"rank\": 4}, \"phases\": ["),
                HasSubstr("no phase has a rate"));
}

TEST_F(Runs, AveragePoolingTrains) {
    auto options = small_options(dir_ / "tokenizer", {2, 1});
    options.config["compressor"] = "average";
    std::filesystem::remove_all(base_);
    write_initial_checkpoint(base_, options);
    EXPECT_EQ(SafetensorsReader(base_).find("model.compressor.query.1"), nullptr);
    std::string recipe = small_recipe(240, R"("checkpoint_every": 0)");
    ASSERT_EQ(run("pooled", recipe), RunEnd::kDone);
    std::ifstream log(dir_ / "pooled" / "log.jsonl");
    std::vector<double> losses;
    for (std::string line; std::getline(log, line);) {
        const auto entry = nlohmann::json::parse(line);
        if (entry["event"] == "train" && entry["phase"] == "questions") losses.push_back(entry["answers"]);
    }
    ASSERT_GT(losses.size(), 4u);
    EXPECT_LT(losses.back(), 0.7 * losses.front());

    options.config["compressor_size"] = {4};
    EXPECT_THAT(test::error_text([&] { write_initial_checkpoint(dir_ / "four", options); }),
                testing::AllOf(HasSubstr("compressor_size"), HasSubstr("side 6")));
}

TEST(RecipeChanges, ReachFieldsListsAndNewFields) {
    const std::string text = small_recipe(16);
    const Recipe recipe = parse_recipe(text, "recipe",
                                       {"seed=7", "phases.1.lr.language=0", "phases.0.name=first",
                                        "gradient_checkpointing=true", "phases.1.grids=[1]"});
    EXPECT_EQ(recipe.seed, 7u);
    EXPECT_EQ(recipe.phases[1].rates[static_cast<size_t>(Part::kLanguage)], 0);
    EXPECT_EQ(recipe.phases[0].name, "first");
    EXPECT_EQ(recipe.phases[1].grids, std::vector<int>{1});
    EXPECT_TRUE(recipe.gradient_checkpointing);
    EXPECT_NE(recipe.text, text);
    const auto message = [&](const std::string& change) {
        return test::error_text([&] { parse_recipe(text, "recipe", {change}); });
    };
    EXPECT_THAT(message("seed"), HasSubstr("expected PATH=VALUE"));
    EXPECT_THAT(message("phases.2.batch=1"), HasSubstr("phases.2: expected a place in a list of 2"));
    EXPECT_THAT(message("model.config.x=1"), HasSubstr("there is no model"));
    EXPECT_THAT(message("sed=1"), HasSubstr("unknown field 'sed'"));
    EXPECT_THAT(message("phases.0.batch=many"), HasSubstr("batch"));
}

// What came behind the checkpoint that a killed run was resumed from is not drawn.
TEST(CurvesOfARun, LeaveOutWhatWasDoneInVain) {
    const test::TempDir dir;
    const std::string train = R"({"event": "train", "samples": %, "answers": 0.5, "loss": 0.5})";
    const auto at = [&](const std::string& samples) {
        std::string line = train;
        return line.replace(line.find('%'), 1, samples) + "\n";
    };
    const std::string resume = R"({"event": "resume", "samples": 200})"
                               "\n";
    write_curves(dir.write("a.jsonl", at("100") + at("200") + at("300")), dir / "a.svg");
    write_curves(dir.write("b.jsonl", at("100") + at("200") + at("350") + at("900") + resume + at("300")),
                 dir / "b.svg");
    EXPECT_EQ(read_text_file(dir / "a.svg", 1 << 20), read_text_file(dir / "b.svg", 1 << 20));
}

TEST(TimeLeft, DoesNotCountWhatWasDoneBefore) {
    tools::TimeLeft fresh, resumed;
    EXPECT_FALSE(fresh.update(0, 1000, 5));
    EXPECT_DOUBLE_EQ(*fresh.update(250, 1000, 15), 30);
    EXPECT_FALSE(resumed.update(900, 1000, 5));
    EXPECT_DOUBLE_EQ(*resumed.update(910, 1000, 15), 90);
    EXPECT_DOUBLE_EQ(*resumed.update(1000, 1000, 105), 0);
}

TEST(Shuffle, IsAPermutationThatDiffersByKey) {
    for (const uint64_t size : {1u, 2u, 3u, 17u, 64u, 1000u}) {
        std::vector<bool> seen(size, false);
        uint64_t moved = 0;
        for (uint64_t i = 0; i < size; ++i) {
            const uint64_t to = shuffled(i, size, 9);
            ASSERT_LT(to, size);
            EXPECT_FALSE(seen[to]);
            seen[to] = true;
            moved += shuffled(i, size, 10) != to ? 1 : 0;
        }
        if (size < 17) continue;
        EXPECT_GT(moved, size / 2);
    }
}

}  // namespace
}  // namespace llava_mini::trainer
