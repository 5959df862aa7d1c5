#include "bench/models.h"

#include <gtest/gtest.h>

#include "model/gguf_file.h"
#include "support/error_text.h"
#include "support/test_data.h"

namespace llava_mini::bench {
namespace {

constexpr const char* kShape = "llava-mini-small";

ggml_type tower_type(const std::filesystem::path& folder) {
    return GgufFile(folder / "vision.gguf").find("v.blk.0.attn_q.weight")->type;
}

TEST(MadeModels, AreMadeOnceForEachType) {
    const test::TempDir dir;
    int pieces = 0;
    const Progress progress = [&](uint64_t, uint64_t, std::string_view) { return ++pieces > 0; };
    const auto folder = prepare_model(dir.path(), kShape, GGML_TYPE_F16, progress);
    EXPECT_EQ(folder, dir / "llava-mini-small-f16");
    EXPECT_EQ(tower_type(folder), GGML_TYPE_F16);
    EXPECT_GT(pieces, 0);

    pieces = 0;
    EXPECT_EQ(prepare_model(dir.path(), kShape, GGML_TYPE_F16, progress), folder);
    EXPECT_EQ(pieces, 0);
    EXPECT_EQ(tower_type(prepare_model(dir.path(), kShape, GGML_TYPE_Q8_0, progress)), GGML_TYPE_Q8_0);
    EXPECT_GT(pieces, 0);
}

TEST(MadeModels, WhatDoesNotFitIsMadeAgain) {
    const test::TempDir dir;
    const auto folder = prepare_model(dir.path(), kShape, GGML_TYPE_F16, {});

    // A damaged file.
    std::filesystem::resize_file(folder / "language.gguf", 1000);
    prepare_model(dir.path(), kShape, GGML_TYPE_F16, {});
    EXPECT_NO_THROW(GgufFile(folder / "language.gguf"));

    // A model that was made in another type, by a program with other habits.
    const auto other = prepare_model(dir.path(), kShape, GGML_TYPE_Q8_0, {});
    std::filesystem::copy_file(other / "vision.gguf", folder / "vision.gguf",
                               std::filesystem::copy_options::overwrite_existing);
    prepare_model(dir.path(), kShape, GGML_TYPE_F16, {});
    EXPECT_EQ(tower_type(folder), GGML_TYPE_F16);
}

TEST(MadeModels, UnknownShape) {
    const test::TempDir dir;
    const std::string text = test::error_text([&] { prepare_model(dir.path(), "gpt-9", GGML_TYPE_F16, {}); });
    EXPECT_NE(text.find("gpt-9"), std::string::npos);
    EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

}  // namespace
}  // namespace llava_mini::bench
