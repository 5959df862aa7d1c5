// A model in GGUF, taken back as the checkpoint it was made of.
#include "trainer/restore.h"

#include <gmock/gmock.h>

#include <cstring>

#include "convert/convert.h"
#include "model/gguf_file.h"
#include "support/error_text.h"
#include "trainer/small_run.h"

namespace llava_mini::trainer {
namespace {

using namespace test_support;
using testing::HasSubstr;

const std::filesystem::path kRoot = std::filesystem::path(LLAVA_MINI_GOLDEN_DIR).parent_path().parent_path();

class Restore : public testing::Test {
  protected:
    void make(std::vector<int> grids, const nlohmann::ordered_json& more, ggml_type type) const {
        InitialiseOptions options =
            small_options(write_small_tokenizer(dir_ / "tokenizer"), std::move(grids));
        if (!more.is_null()) options.config.update(more);
        options.preprocessor = {{"image_mean", {0.5, 0.25, 0.125}}, {"image_std", {0.75, 0.5, 0.25}}};
        write_initial_checkpoint(dir_ / "checkpoint", options);
        convert_folder(dir_ / "checkpoint", dir_ / "gguf", type);
    }
    void restore() const { restore_checkpoint(dir_ / "gguf", dir_ / "tokenizer", dir_ / "restored"); }
    // All tensors of a checkpoint by name.
    std::map<std::string, std::vector<float>> tensors(const char* folder) const {
        const SafetensorsReader reader(dir_ / folder);
        std::map<std::string, std::vector<float>> all;
        for (const auto& [name, tensor] : reader.tensors()) {
            all[name].resize(static_cast<size_t>(tensor.elements()));
            read_as_float(reader, tensor, all[name]);
        }
        return all;
    }

    test::TempDir dir_;
};

TEST_F(Restore, GivesTheCheckpointBackToTheBit) {
    for (const auto& [grids, more] : std::vector<std::pair<std::vector<int>, nlohmann::ordered_json>>{
             {{1, 2}, {{"resolution_ratio", 2}, {"tie_word_embeddings", false}}},
             {{2},
              {{"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}, {"image_aspect_ratio", "square"}}},
             {{3}, {{"compressor", "average"}, {"num_key_value_heads", 1}}},
             {{}, {}}}) {
        SCOPED_TRACE(more.dump());
        make(grids, more, GGML_TYPE_F32);
        restore();
        EXPECT_EQ(tensors("restored"), tensors("checkpoint"));
        // The configuration says the same: what is converted of it is the same file.
        convert_folder(dir_ / "restored", dir_ / "again");
        for (const char* name : {kLanguageFile, kVisionFile}) {
            const GgufFile first(dir_ / "gguf" / name), again(dir_ / "again" / name);
            ASSERT_EQ(gguf_get_n_kv(first.metadata()), gguf_get_n_kv(again.metadata())) << name;
            for (int64_t i = 0; i < gguf_get_n_kv(first.metadata()); ++i) {
                const char* key = gguf_get_key(first.metadata(), i);
                const int64_t other = gguf_find_key(again.metadata(), key);
                ASSERT_GE(other, 0) << key;
                const gguf_type type = gguf_get_kv_type(first.metadata(), i);
                if (std::string(key) == "general.name") continue;
                if (type == GGUF_TYPE_ARRAY && gguf_get_arr_type(first.metadata(), i) != GGUF_TYPE_STRING) {
                    // All our arrays of numbers have four bytes each.
                    const size_t n = gguf_get_arr_n(first.metadata(), i);
                    ASSERT_EQ(n, gguf_get_arr_n(again.metadata(), other)) << key;
                    EXPECT_EQ(std::memcmp(gguf_get_arr_data(first.metadata(), i),
                                          gguf_get_arr_data(again.metadata(), other), n * 4),
                              0)
                        << key;
                }
                if (type == GGUF_TYPE_STRING) {
                    EXPECT_STREQ(gguf_get_val_str(first.metadata(), i),
                                 gguf_get_val_str(again.metadata(), other))
                        << key;
                } else if (type == GGUF_TYPE_UINT32) {
                    EXPECT_EQ(first.get_u32(key), again.get_u32(key)) << key;
                } else if (type == GGUF_TYPE_FLOAT32) {
                    EXPECT_EQ(first.get_f32(key), again.get_f32(key)) << key;
                }
            }
        }
        for (const char* folder : {"checkpoint", "gguf", "restored", "again", "tokenizer"})
            std::filesystem::remove_all(dir_ / folder);
    }
}

TEST_F(Restore, TakesQuantizedFiles) {
    make({1, 2}, {}, GGML_TYPE_Q8_0);
    restore();
    const auto before = tensors("checkpoint"), after = tensors("restored");
    double worst = 0, largest = 0;
    for (const auto& [name, values] : before) {
        worst = std::max(worst, test::max_difference(values, after.at(name)));
        for (const float value : values) largest = std::max(largest, std::abs(double{value}));
    }
    EXPECT_GT(worst, 0);
    EXPECT_LT(worst, largest / 127);
}

TEST_F(Restore, RefusesWhatIsNoSuchModel) {
    make({1}, {}, GGML_TYPE_F32);
    EXPECT_TRUE(holds_gguf(dir_ / "gguf"));
    EXPECT_FALSE(holds_gguf(dir_ / "checkpoint"));
    // Beside a checkpoint the files are of no use.
    std::filesystem::copy(dir_ / "gguf", dir_ / "checkpoint");
    EXPECT_FALSE(holds_gguf(dir_ / "checkpoint"));
    std::filesystem::copy_file(dir_ / "gguf" / kVisionFile, dir_ / "gguf" / kLanguageFile,
                               std::filesystem::copy_options::overwrite_existing);
    EXPECT_THAT(test::error_text([&] { restore(); }),
                HasSubstr("the architecture is 'llava-mini', expected 'llama'"));
    EXPECT_FALSE(std::filesystem::exists(dir_ / "restored"));
}

TEST_F(Restore, RefusesAnotherTokenizer) {
    make({1}, {}, GGML_TYPE_F32);
    EXPECT_THAT(test::error_text([&] {
                    restore_checkpoint(dir_ / "gguf", kRoot / "recipes" / "tiny-tokenizer",
                                       dir_ / "restored");
                }),
                HasSubstr("tiny-tokenizer"));
    EXPECT_FALSE(std::filesystem::exists(dir_ / "restored"));
}

TEST_F(Restore, RefusesWhatACheckpointCannotHold) {
    make({1}, {}, GGML_TYPE_F32);
    const std::filesystem::path first = dir_ / "first";
    std::filesystem::rename(dir_ / "gguf", first);
    std::filesystem::remove_all(dir_ / "checkpoint");
    make({1}, {{"rope_theta", 500.0}}, GGML_TYPE_F32);
    std::filesystem::copy_file(first / kVisionFile, dir_ / "gguf" / kVisionFile,
                               std::filesystem::copy_options::overwrite_existing);
    EXPECT_THAT(test::error_text([&] { restore(); }), HasSubstr("its pre-fusion has another shape"));
}

TEST_F(Restore, RefusesRopeFactors) {
    make({1},
         {{"rope_scaling",
           {{"rope_type", "llama3"},
            {"factor", 8.0},
            {"low_freq_factor", 1.0},
            {"high_freq_factor", 4.0},
            {"original_max_position_embeddings", 1024}}}},
         GGML_TYPE_F32);
    EXPECT_THAT(test::error_text([&] { restore(); }), HasSubstr("Llama 3's rope scaling"));
}

}  // namespace
}  // namespace llava_mini::trainer
