// Two processes on loopback against one with the joint batch, and a process that dies.
#include "trainer/distributed.h"

#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/error_text.h"
#include "trainer/small_run.h"

namespace llava_mini::trainer {
namespace {

using namespace test_support;
using testing::HasSubstr;

// Where the two meet: chosen before they part, another one for every pair.
int next_port() {
    static int port = 20000 + static_cast<int>(getpid() % 20000);
    return ++port;
}

std::string two_pass_recipe() {
    std::string recipe = small_recipe(16, R"("checkpoint_every": 8)");
    return recipe.replace(recipe.find("\"batch\": 4"), 10, "\"batch\": 2, \"accumulate\": 2");
}

// A process of its own that runs the recipe as `rank` of two; exits in the progress of sample `die_at`.
pid_t start(const std::filesystem::path& base, const std::filesystem::path& folder, int rank, int port,
            uint64_t die_at = 0) {
    const pid_t child = fork();
    if (child != 0) return child;
    int code = 1;
    try {
        ProcessGroup group(rank, 2, "127.0.0.1", port);
        SmallModel small(base);
        const auto progress = [&](uint64_t done, uint64_t, std::string_view) {
            if (die_at != 0 && done >= die_at) _exit(7);
            return true;
        };
        const RunEnd end =
            run_recipe(parse_recipe(two_pass_recipe(), "recipe"), *small.model, *small.tokenizer,
                       make_test_source, {folder, base, 1, 5, progress, &group});
        code = end == RunEnd::kDone ? 0 : 2;
    } catch (const std::exception& e) {
        code =
            std::string(e.what()).find("another process of this run has died") != std::string::npos ? 3 : 4;
        std::fprintf(stderr, "rank %d: %s\n", rank, e.what());
    }
    _exit(code);
}

int exit_code(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

class Processes : public testing::Test {
  protected:
    void SetUp() override {
        write_initial_checkpoint(base_, small_options(write_small_tokenizer(dir_ / "tokenizer")));
    }
    test::TempDir dir_;
    std::filesystem::path base_ = dir_ / "base";
};

// Sums are added in another order: weights agree to 1e-4 after eight steps of AdamW.
TEST_F(Processes, TwoEqualOneWithTheJointBatch) {
    const int port = next_port();
    const pid_t first = start(base_, dir_ / "two", 0, port), second = start(base_, dir_ / "two", 1, port);
    ASSERT_EQ(exit_code(first), 0);
    ASSERT_EQ(exit_code(second), 0);
    SmallModel alone(base_);
    run_recipe(parse_recipe(two_pass_recipe(), "recipe"), *alone.model, *alone.tokenizer, make_test_source,
               {dir_ / "one", base_, 1, 5, {}});
    SmallModel together(dir_ / "two" / "model");
    double worst = 0, moved = 0;
    const SmallModel before(base_);
    for (const Leaf& leaf : alone.model->parameters().leaves()) {
        const auto difference = [&](const SmallModel& other) {
            return (leaf.value.detach() - other.model->parameters()[leaf.key].detach())
                .abs()
                .max()
                .item<double>();
        };
        worst = std::max(worst, difference(together));
        moved = std::max(moved, difference(before));
    }
    EXPECT_LT(worst, 1e-4);
    EXPECT_GT(moved, 1e-3);
}

TEST_F(Processes, OneThatDiesEndsTheOthersWithAClearErrorAndAWholeCheckpoint) {
    const int port = next_port();
    const pid_t first = start(base_, dir_ / "two", 0, port),
                second = start(base_, dir_ / "two", 1, port, /*die_at=*/20);
    EXPECT_EQ(exit_code(second), 7);
    EXPECT_EQ(exit_code(first), 3);
    const auto checkpoint = newest_checkpoint(dir_ / "two");
    ASSERT_TRUE(checkpoint.has_value());
    SmallModel small(base_);
    AdamW optimizer(small.model->parameters());
    EXPECT_GE(load_checkpoint(*checkpoint, small.model->parameters(), optimizer).samples, 8u);
}

TEST(ProcessEnvironment, SaysWhoIsWho) {
    setenv("RANK", "2", 1);
    setenv("WORLD_SIZE", "2", 1);
    EXPECT_THAT(test::error_text([] { ProcessGroup::from_environment(); }), HasSubstr("RANK is 2"));
    setenv("WORLD_SIZE", "two", 1);
    EXPECT_THAT(test::error_text([] { ProcessGroup::from_environment(); }), HasSubstr("WORLD_SIZE"));
    setenv("RANK", "0", 1);
    setenv("WORLD_SIZE", "1", 1);
    EXPECT_EQ(ProcessGroup::from_environment(), nullptr);
    unsetenv("RANK");
    unsetenv("WORLD_SIZE");
}

}  // namespace
}  // namespace llava_mini::trainer
