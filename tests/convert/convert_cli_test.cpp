// The commands convert, quantize, info and synth as programs: exit codes, and one clear line on stderr.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "convert/tiny_checkpoint.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

struct Result {
    int exit_code = -1;
    std::string out, err;
};

Result run(const test::TempDir& dir, const std::string& arguments) {
    const auto err_path = dir / "stderr.txt";
    const std::string command =
        "'" LLAVA_MINI_BINARY "' " + arguments + " 2>'" + err_path.string() + "' </dev/null";
    Result result;
    FILE* pipe = popen(command.c_str(), "r");
    char buffer[4096];
    while (const size_t n = fread(buffer, 1, sizeof(buffer), pipe)) result.out.append(buffer, n);
    const int status = pclose(pipe);
    if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
    std::ifstream err(err_path);
    result.err.assign(std::istreambuf_iterator<char>(err), {});
    return result;
}

std::string quoted(const std::filesystem::path& path) {
    return "'" + path.string() + "'";
}

TEST(ConvertCommands, FromCheckpointToInfo) {
    const test::TempDir dir;
    const auto checkpoint = test::golden_path("models/llava-mini-tiny-a");
    Result result = run(dir, "convert --checkpoint " + quoted(checkpoint) + " --out " +
                                 quoted(dir / "model") + " --outtype f32");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out, IsEmpty());

    result = run(dir, "quantize " + quoted(dir / "model/vision.gguf") + " " +
                          quoted(dir / "model/vision.gguf") + " Q8_0");
    ASSERT_EQ(result.exit_code, 0) << result.err;
    result = run(dir, "quantize " + quoted(dir / "model/language.gguf") + " " + quoted(dir / "small.gguf") +
                          " q4_k_m");
    ASSERT_EQ(result.exit_code, 0) << result.err;

    result = run(dir, "info --json " + quoted(dir / "model"));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.err, IsEmpty());
    const nlohmann::json info = nlohmann::json::parse(result.out);
    EXPECT_EQ(info["language"]["layers"], 3);
    EXPECT_EQ(info["vision"]["name"], "llava-mini-tiny-a");
    EXPECT_TRUE(info["vision"]["types"].contains("q8_0"));
    EXPECT_EQ(info["picture"][0]["vision_tokens"], 1);
    EXPECT_EQ(info["picture"][0]["kv_cache_bytes"]["f16"], 3 * 2 * 2 * 16 * 2);
    EXPECT_EQ(info["picture"][0]["hour_of_video_at_1_fps"]["vision_tokens"], 3600);

    result = run(dir, "info " + quoted(dir / "small.gguf"));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("vocabulary 1024"));
    result = run(dir, "info " + quoted(dir / "model/vision.gguf"));
    EXPECT_THAT(result.out, HasSubstr("unknown (no language model)"));
}

TEST(ConvertCommands, SynthesizeBothKinds) {
    const test::TempDir dir;
    Result result = run(dir, "synth --shape llava-v1.5-small --type q8_0 --out " + quoted(dir / "gguf"));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    result = run(dir, "synth --shape llava-v1.5-small --checkpoint --out " + quoted(dir / "checkpoint"));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    result = run(
        dir, "convert --checkpoint " + quoted(dir / "checkpoint") + " --out " + quoted(dir / "converted"));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_TRUE(std::filesystem::exists(dir / "converted/language.gguf"));
}

struct BadCommand {
    const char* name;
    std::function<std::string(const test::TempDir&)> arguments;  // prepares files, returns the command line
    int exit_code;
    const char* expected;
};

class BadCommands : public ::testing::TestWithParam<BadCommand> {};

TEST_P(BadCommands, FailWithOneLineAndLeaveNothing) {
    const test::TempDir dir;
    const Result result = run(dir, GetParam().arguments(dir));
    EXPECT_EQ(result.exit_code, GetParam().exit_code) << result.err;
    EXPECT_THAT(result.err, HasSubstr(GetParam().expected));
    EXPECT_THAT(result.err, StartsWith("llava-mini: error: "));
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    EXPECT_THAT(result.out, IsEmpty());
    for (const auto& entry : std::filesystem::recursive_directory_iterator(dir.path())) {
        EXPECT_THAT(entry.path().filename().string(), ::testing::Not(StartsWith("out"))) << entry.path();
    }
}

std::string convert(const std::filesystem::path& checkpoint, const test::TempDir& dir,
                    const std::string& more = "") {
    return "convert --checkpoint " + quoted(checkpoint) + " --out " + quoted(dir / "out") + more;
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadCommands,
    ::testing::Values(
        BadCommand{"no_checkpoint", [](const test::TempDir& dir) { return convert(dir / "x", dir); }, 1,
                   "cannot open"},
        BadCommand{"empty_folder", [](const test::TempDir& dir) { return convert(dir.path(), dir); }, 1,
                   "found 0 index files"},
        BadCommand{"unknown_type",
                   [](const test::TempDir& dir) { return convert(dir.path(), dir, " --outtype q9"); }, 2,
                   "expected one of"},
        BadCommand{"missing_option", [](const test::TempDir&) { return "convert --checkpoint x"; }, 2,
                   "--out"},
        BadCommand{"truncated_shard",
                   [](const test::TempDir& dir) {
                       const auto folder = test::tiny_checkpoint().write(dir.path());
                       std::filesystem::resize_file(folder / "model.safetensors", 5000);
                       return convert(folder, dir);
                   },
                   1, "model.safetensors"},
        BadCommand{"checkpoint_is_fifo",
                   [](const test::TempDir& dir) {
                       mkfifo((dir / "pipe.safetensors").c_str(), 0600);
                       return convert(dir / "pipe.safetensors", dir);
                   },
                   1, "found a named pipe"},
        BadCommand{"config_without_width",
                   [](const test::TempDir& dir) {
                       auto checkpoint = test::tiny_checkpoint();
                       checkpoint.config.erase("hidden_size");
                       return convert(checkpoint.write(dir.path()), dir);
                   },
                   1, "config.json: the field hidden_size is missing"},
        BadCommand{"tokenizer_damaged",
                   [](const test::TempDir& dir) {
                       const auto folder = test::tiny_checkpoint().write(dir.path());
                       std::filesystem::resize_file(folder / "tokenizer.json", 100);
                       return convert(folder, dir);
                   },
                   1, "tokenizer.json: not valid JSON"},
        BadCommand{"tensors_missing",
                   [](const test::TempDir& dir) {
                       auto checkpoint = test::tiny_checkpoint();
                       checkpoint.tensors.erase("model.norm.weight");
                       return convert(checkpoint.write(dir.path()), dir);
                   },
                   1, "missing: model.norm.weight [32]"},
        BadCommand{"info_of_nothing",
                   [](const test::TempDir& dir) { return "info " + quoted(dir / "x.gguf"); }, 1,
                   "cannot open"},
        BadCommand{"info_of_empty_folder",
                   [](const test::TempDir& dir) { return "info " + quoted(dir.path()); }, 1, "found neither"},
        BadCommand{"info_of_text",
                   [](const test::TempDir& dir) { return "info " + quoted(dir.write("x.gguf", "no GGUF")); },
                   1, "not a readable GGUF file"},
        BadCommand{"quantize_text",
                   [](const test::TempDir& dir) {
                       return "quantize " + quoted(dir.write("x.gguf", "no GGUF")) + " " +
                              quoted(dir / "out") + " q8_0";
                   },
                   1, "not a readable GGUF file"},
        BadCommand{"quantize_to_nothing",
                   [](const test::TempDir& dir) {
                       return "quantize " + quoted(dir / "x.gguf") + " " + quoted(dir / "out") + " q9";
                   },
                   2, "expected one of"},
        BadCommand{"synth_unknown",
                   [](const test::TempDir& dir) { return "synth --shape gpt --out " + quoted(dir / "out"); },
                   2, "expected one of"},
        BadCommand{"synth_where_a_file_is",
                   [](const test::TempDir& dir) {
                       return "synth --shape llava-v1.5-small --out " + quoted(dir.write("file", "x"));
                   },
                   1, "cannot make the folder"}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace llava_mini
