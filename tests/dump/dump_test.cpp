// What dump does beside the recordings: defaults of the training, edges, wrong input.
#include "dump/dump.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "core/npy.h"
#include "dump/golden_case.h"
#include "llava_mini/error.hpp"
#include "support/golden_model.h"
#include "support/test_data.h"

namespace llava_mini::test {
namespace {

using testing::HasSubstr;

class Dump : public testing::Test {
  protected:
    const std::shared_ptr<Model> model_ =
        Model::load({.model = golden_model(), .prefusion_kv = KvType::kF32});
    const TempDir temp_;

    std::filesystem::path ids_file(const std::vector<int64_t>& ids) const {
        const auto size = static_cast<int64_t>(ids.size());
        write_npy(temp_ / "ids.npy", {{size}}, ids);
        return temp_ / "ids.npy";
    }
    std::string error_of(const DumpOptions& options, ErrorKind kind = ErrorKind::kInput) const {
        try {
            dump_stages(*model_, options);
        } catch (const Error& e) {
            EXPECT_EQ(e.kind(), kind) << e.what();
            return e.what();
        }
        ADD_FAILURE() << "no error";
        return {};
    }
};

TEST_F(Dump, ByDefaultOnlyThePlaceholderIsMasked) {
    DumpOptions options = golden_case("exclamation").options;
    options.greedy = 0;
    const auto quirks = dump_by_name(*model_, options);
    options.official_quirks = false;
    const auto ours = dump_by_name(*model_, options);

    const auto hidden = [](const auto& arrays) {
        const auto visible = integers(arrays, "prefusion_visible");
        return std::count(visible.begin(), visible.end(), 0);
    };
    EXPECT_EQ(hidden(quirks), 7);
    EXPECT_EQ(hidden(ours), 1);
    // Token 0 (the first at position 110) is fused: it no longer has its plain embedding.
    const auto row = [](const auto& arrays, const char* name, int64_t from_the_end) {
        const auto values = floats(arrays, name);
        return std::vector<float>(values.end() - from_the_end * 64, values.end() - (from_the_end - 1) * 64);
    };
    const auto n = static_cast<int64_t>(integers(ours, "input_ids").size());
    EXPECT_EQ(row(quirks, "fused_text", n - 110), row(quirks, "prefusion_in", n - 110));
    EXPECT_GT(max_difference(row(ours, "fused_text", n - 110), row(ours, "prefusion_in", n - 110)), 0.1);
}

TEST_F(Dump, WithoutTokenZeroQuirksChangeNothing) {
    DumpOptions options = golden_case("single_short").options;
    options.greedy = 0;
    const auto quirks = dump_by_name(*model_, options);
    options.official_quirks = false;
    EXPECT_EQ(floats(dump_by_name(*model_, options), "logits_last"), floats(quirks, "logits_last"));
}

TEST_F(Dump, HighResolutionPadsFirstByDefault) {
    DumpOptions options = golden_case("hires2").options;
    options.greedy = 0;
    const auto quirks = floats(dump_by_name(*model_, options), "pixel_values");
    options.official_quirks = false;
    const auto ours = floats(dump_by_name(*model_, options), "pixel_values");
    ASSERT_EQ(ours.size(), quirks.size());
    const size_t view = ours.size() / 5;
    EXPECT_GT(max_difference({ours.data(), view}, {quirks.data(), view}), 0.1);
    EXPECT_EQ(max_difference({ours.data() + 4 * view, view}, {quirks.data() + 4 * view, view}), 0.0);
}

TEST_F(Dump, PromptOfOneTokenIsNotFused) {
    const auto arrays = dump_by_name(
        *model_, {.image = golden_path("pictures/square_336.png"), .ids = ids_file({500}), .greedy = 2});
    EXPECT_FALSE(arrays.contains("prefusion_in"));
    EXPECT_EQ(arrays.at("vision_tokens").shape, (std::vector<int64_t>{1, 64}));
    const auto plain = dump_by_name(*model_, {.ids = ids_file({500}), .greedy = 0});
    EXPECT_EQ(floats(arrays, "inputs_embeds"), floats(plain, "inputs_embeds"));
    EXPECT_EQ(integers(arrays, "greedy_ids").size(), 2U);
}

TEST_F(Dump, EqualFramesGiveTheTextOfOne) {
    const NpyArray raw = read_npy(golden_path("video/raw_frames.npy"));
    const auto frame = static_cast<size_t>(raw.size() / raw.shape[0]);
    const auto frames = [&](int count) {
        std::ofstream file(temp_ / "frames.npy", std::ios::binary);
        std::string header = "{'descr': '|u1', 'fortran_order': False, 'shape': (" + std::to_string(count) +
                             ", " + std::to_string(raw.shape[1]) + ", " + std::to_string(raw.shape[2]) +
                             ", 3)}";
        header.resize(117, ' ');
        header += '\n';
        file << "\x93NUMPY" << '\1' << '\0' << '\x76' << '\0' << header;
        for (int i = 0; i < count; ++i) {
            file.write(reinterpret_cast<const char*>(raw.bytes.data()), static_cast<std::streamsize>(frame));
        }
        file.close();
        return DumpOptions{
            .frames = temp_ / "frames.npy", .ids = golden_case("video6").options.ids, .greedy = 0};
    };
    const auto one = dump_by_name(*model_, frames(1));
    const auto three = dump_by_name(*model_, frames(3));
    EXPECT_LE(max_difference(floats(three, "fused_text"), floats(one, "fused_text")), 1e-6);
    EXPECT_EQ(three.at("vision_tokens").shape, (std::vector<int64_t>{3, 64}));
    EXPECT_EQ(three.at("vision_features").shape, (std::vector<int64_t>{3, 576, 256}));
    EXPECT_EQ(floats(three, "prefusion_in_frame2"), floats(one, "prefusion_in"));
    EXPECT_EQ(three.at("inputs_embeds").shape[0], one.at("inputs_embeds").shape[0] + 2);
}

TEST_F(Dump, AnEarlierDumpLeavesNothing) {
    const std::filesystem::path out = temp_ / "out";
    write_dump(
        dump_stages(*model_,
                    {.image = golden_path("pictures/square_336.png"), .prompt = "<image> a", .greedy = 1}),
        out);
    ASSERT_TRUE(std::filesystem::exists(out / "prefusion_in.npy"));
    write_npy(out / "mine.npy", {{1}}, std::vector<int64_t>{7});
    write_dump(dump_stages(*model_, {.prompt = "", .greedy = 0}), out);
    EXPECT_FALSE(std::filesystem::exists(out / "prefusion_in.npy"));
    EXPECT_FALSE(std::filesystem::exists(out / "greedy_ids.npy"));
    EXPECT_EQ(read_npy(out / "input_ids.npy").as_int64(), std::vector<int64_t>{768});  // begin-of-text
    EXPECT_TRUE(std::filesystem::exists(out / "mine.npy"));
}

TEST_F(Dump, WrongInputIsNamed) {
    const std::filesystem::path picture = golden_path("pictures/square_336.png");
    EXPECT_THAT(error_of({}, ErrorKind::kUsage), HasSubstr("either a prompt or token ids"));
    EXPECT_THAT(error_of({.prompt = "a", .ids = ids_file({1})}, ErrorKind::kUsage), HasSubstr("either"));
    EXPECT_THAT(error_of({.image = picture, .prompt = "<image> and <image>"}),
                HasSubstr("2 image placeholders"));
    EXPECT_THAT(error_of({.prompt = "<image> alone"}), HasSubstr("there is no picture"));
    EXPECT_THAT(error_of({.image = picture, .frames = golden_path("video/raw_frames.npy"), .prompt = "a"},
                         ErrorKind::kUsage),
                HasSubstr("not both"));
    EXPECT_THAT(error_of({.ids = ids_file({1, 1024})}), HasSubstr("1024 is no token"));
    EXPECT_THAT(error_of({.ids = ids_file({1, -1})}), HasSubstr("-1 is no token"));
    EXPECT_THAT(error_of({.ids = ids_file({})}),
                HasSubstr("expected token ids, int32 or int64 [N], found <i8 [0]"));
    EXPECT_THAT(error_of({.ids = golden_path("cases/single_short/logits_last.npy")}),
                HasSubstr("found <f4 [1024]"));
    EXPECT_THAT(error_of({.frames = golden_path("cases/single_short/logits_last.npy"), .prompt = "a"}),
                HasSubstr("expected uint8 [frames, height, width, 3]"));
    EXPECT_THAT(error_of({.image = temp_ / "missing.png", .prompt = "a"}), HasSubstr("missing.png"));
    EXPECT_THAT(error_of({.ids = ids_file(std::vector<int64_t>(200'000, 5))}), HasSubstr("200000 tokens"));
}

}  // namespace
}  // namespace llava_mini::test
