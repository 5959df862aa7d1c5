// `llava-mini bench` as a program, with small models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

struct Result {
    int exit_code = -1;
    std::string out, err;
};

Result run_bench(const test::TempDir& dir, const std::string& arguments) {
    const std::string err_path = (dir / "stderr.txt").string();
    const std::string command = "'" LLAVA_MINI_BINARY "' bench --cache '" + dir.path().string() + "' " +
                                arguments + " 2>'" + err_path + "' </dev/null";
    Result result;
    FILE* pipe = popen(command.c_str(), "r");
    char buffer[4096];
    while (const size_t n = fread(buffer, 1, sizeof(buffer), pipe)) result.out.append(buffer, n);
    const int status = pclose(pipe);
    if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
    result.err = read_text_file(err_path, 1 << 20);
    return result;
}

TEST(BenchCommand, JsonAndChart) {
    const test::TempDir dir;
    const std::string chart = (dir / "chart.svg").string();
    Result result =
        run_bench(dir,
                  "--shape llava-mini-small --against llava-v1.5-small --type f16 --repeat 1 -n 4 "
                  "--megapixels 0.1 --json --svg '" +
                      chart + "'");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const nlohmann::json report = nlohmann::json::parse(result.out);
    EXPECT_EQ(report["text_tokens"], 60);
    EXPECT_EQ(report["new_tokens"], 15);
    EXPECT_EQ(report["model"]["name"], "llava-mini-small");
    EXPECT_EQ(report["model"]["prompt_tokens"], 61);
    EXPECT_EQ(report["baseline"]["prompt_tokens"], 636);
    for (const char* ratio : {"flops", "time_to_first_token", "second_question", "decode_against_libllama"}) {
        EXPECT_GT(report["ratios"][ratio].get<double>(), 0) << ratio;
    }
    EXPECT_FALSE(report.contains("targets"));  // they are those of the full-size pair
    EXPECT_THAT(read_text_file(chart, 1 << 20), StartsWith("<svg"));
    EXPECT_THAT(result.err, HasSubstr("round 1 of 1"));

    // The same model by its folder, as a table.
    result = run_bench(dir, "-m '" + (dir / "llava-mini-small-f16").string() +
                                "' --against none --repeat 1 -n 1 --megapixels 0.1");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("llava-mini-small: 1 vision tokens, 61 rows into the language model"));
}

TEST(BenchCommand, WrongUse) {
    const test::TempDir dir;
    for (const auto& [arguments, complaint] :
         std::vector<std::pair<std::string, std::string>>{{"--shape gpt-9", "gpt-9"},
                                                          {"--against gpt-9", "gpt-9"},
                                                          {"--type q7_0", "q7_0"},
                                                          {"--repeat 0", "--repeat"},
                                                          {"-m /no/such/folder", "/no/such/folder"}}) {
        const Result result = run_bench(dir, arguments);
        EXPECT_EQ(result.exit_code, 2) << arguments;
        EXPECT_THAT(result.err, HasSubstr(complaint));
        EXPECT_EQ(result.out, "");
    }
}

}  // namespace
}  // namespace llava_mini
