// vision.gguf: what is read back is what was written, and a table of files that are not as they must be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "core/error.h"
#include "model/vision_weights.h"
#include "support/random_vision_file.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using testing::HasSubstr;

std::string load_error(const std::filesystem::path& path) {
    try {
        Backends backends(false, 1);
        const VisionWeights weights(GgufFile(path), backends);
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kInput);
        return error.what();
    }
    return "no error";
}

TEST(VisionFile, HparamsAndTensorsComeBack) {
    const test::TempDir dir;
    const VisionHparams hp = test::small_vision_hparams();
    const std::vector<float> query(64, 0.25f);
    test::write_random_vision_file(dir / "vision.gguf", hp, {{"compressor.1.query", query}});
    Backends backends(false, 1);
    int calls = 0;
    const VisionWeights weights(GgufFile(dir / "vision.gguf"), backends,
                                [&](uint64_t done, uint64_t total, auto) {
                                    ++calls;
                                    return done <= total;
                                });
    EXPECT_GT(calls, 10);
    EXPECT_EQ(weights.hparams().compressor_grids, hp.compressor_grids);
    EXPECT_EQ(weights.hparams().image_size, 40);
    EXPECT_EQ(weights.hparams().prefusion.n_head_kv, 3);
    std::vector<float> read(64);
    ggml_backend_tensor_get(weights["compressor.1.query"], read.data(), 0, read.size() * sizeof(float));
    EXPECT_EQ(read, query);
    EXPECT_EQ(weights.find("no such tensor"), nullptr);
}

TEST(VisionFile, LoadingCanBeStopped) {
    const test::TempDir dir;
    test::write_random_vision_file(dir / "vision.gguf", test::small_vision_hparams());
    Backends backends(false, 1);
    EXPECT_THROW(
        VisionWeights(GgufFile(dir / "vision.gguf"), backends, [](auto, auto, auto) { return false; }),
        Error);
}

// Files whose bytes are damaged in one way each, and what the error must name besides the file.
struct Damage {
    const char* name;
    std::function<void(std::string&)> inflict;
    const char* expected;
};

void PrintTo(const Damage& damage, std::ostream* out) {
    *out << damage.name;
}

size_t find_bytes(const std::string& bytes, const std::string& what) {
    const size_t at = bytes.find(what);
    EXPECT_NE(at, std::string::npos) << what;
    return at;
}

void replace(std::string& bytes, const std::string& from, const std::string& to) {
    ASSERT_EQ(from.size(), to.size());
    bytes.replace(find_bytes(bytes, from), from.size(), to);
}

// Overwrites the u32 that stands behind a metadata key (after its type).
void set_u32(std::string& bytes, const std::string& key, uint32_t value) {
    const size_t at = find_bytes(bytes, key) + key.size() + sizeof(uint32_t);
    std::memcpy(bytes.data() + at, &value, sizeof value);
}

class DamagedVisionFile : public testing::TestWithParam<Damage> {};

TEST_P(DamagedVisionFile, IsRefusedWithAClearError) {
    const test::TempDir dir;
    test::write_random_vision_file(dir / "good.gguf", test::small_vision_hparams());
    std::string bytes = read_text_file(dir / "good.gguf", uint64_t{1} << 30);
    GetParam().inflict(bytes);
    const std::string message = load_error(dir.write("bad.gguf", bytes));
    EXPECT_THAT(message, HasSubstr("bad.gguf"));
    EXPECT_THAT(message, HasSubstr(GetParam().expected));
    EXPECT_EQ(message.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Table, DamagedVisionFile,
    testing::Values(
        Damage{"empty", [](std::string& b) { b.clear(); }, "not a readable GGUF"},
        Damage{"magic", [](std::string& b) { b[0] = 'X'; }, "not a readable GGUF"},
        Damage{"future_gguf", [](std::string& b) { b[4] = 99; }, "not a readable GGUF"},
        Damage{"cut_in_metadata", [](std::string& b) { b.resize(200); }, "not a readable GGUF"},
        Damage{"cut_in_data", [](std::string& b) { b.resize(b.size() - 5000); }, "truncated"},
        Damage{"huge_tensor_count", [](std::string& b) { b[8 + 5] = 0x7f; }, "not a readable GGUF"},
        Damage{"huge_key_count", [](std::string& b) { b[16 + 5] = 0x7f; }, "not a readable GGUF"},
        Damage{"architecture",
               [](std::string& b) { b[b.find("llava-mini", find_bytes(b, "general.architecture"))] = 'x'; },
               "architecture"},
        Damage{"version", [](std::string& b) { set_u32(b, "llava-mini.version", 2); }, "version"},
        Damage{"missing_key", [](std::string& b) { replace(b, "vision.patch_size", "vision.patch_sise"); },
               "patch_size"},
        Damage{"patch_zero", [](std::string& b) { set_u32(b, "llava-mini.vision.patch_size", 0); },
               "patch_size"},
        Damage{"layers_many",
               [](std::string& b) { set_u32(b, "llava-mini.vision.block_count", 4000000000u); },
               "block_count"},
        Damage{"heads_odd", [](std::string& b) { set_u32(b, "llava-mini.vision.attention.head_count", 7); },
               "head_count"},
        Damage{"size_not_of_patches", [](std::string& b) { set_u32(b, "llava-mini.vision.image_size", 41); },
               "image_size"},
        Damage{"one_layer_more", [](std::string& b) { set_u32(b, "llava-mini.vision.block_count", 3); },
               "missing 'v.blk.2."},
        Damage{"one_layer_less", [](std::string& b) { set_u32(b, "llava-mini.vision.block_count", 1); },
               "unknown 'v.blk.1."},
        Damage{"other_shape",
               [](std::string& b) { set_u32(b, "llava-mini.vision.feed_forward_length", 128); },
               "expected [128, 64]"},
        Damage{"renamed_tensor",
               [](std::string& b) { replace(b, "compressor.ln_q.weight", "compressor.ln_q.height"); },
               "missing 'compressor.ln_q.weight'"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(VisionFile, OtherKindsOfFilesAreRefused) {
    const test::TempDir dir;
    EXPECT_THAT(load_error(dir.path()), HasSubstr("a directory"));
    EXPECT_THAT(load_error(dir / "absent.gguf"), HasSubstr("cannot open"));
    ASSERT_EQ(std::system(("mkfifo '" + (dir / "pipe").string() + "'").c_str()), 0);
    EXPECT_THAT(load_error(dir / "pipe"), HasSubstr("a named pipe"));
}

}  // namespace
}  // namespace llava_mini
