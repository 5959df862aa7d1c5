// The compressor against the recordings of the official one: C = 2 and 3, maps of several sides.
#include "vision/compressor.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "model/gguf_file.h"
#include "support/random_vision_file.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using test::golden_path;
using test::max_difference;

Matrix read_matrix(const std::string& path) {
    const NpyArray array = read_npy(golden_path(path));
    Matrix m(array.shape[0], array.shape[1]);
    m.data = array.as_float();
    return m;
}

struct Case {
    int grid;
    int map_side;
};

class RecordedCompressor : public testing::TestWithParam<Case> {};

TEST_P(RecordedCompressor, EqualsTheOfficialOne) {
    const auto [grid, map_side] = GetParam();
    const std::string weights_dir = fmt::format("unit/compressor/weights_c{}/", grid);
    const std::string case_dir = fmt::format("unit/compressor/c{}_side{}/", grid, map_side);
    const auto weight = [&](const char* name) {
        return read_npy(golden_path(weights_dir + name + ".npy")).as_float();
    };

    VisionHparams hp = test::small_vision_hparams();
    hp.n_embd = 256;
    hp.n_head = 4;
    hp.compressor_grids = {grid};
    hp.compressor_head_dim = 128;
    hp.layer_norm_eps = 1e-2f;  // the tower's: the compressor's is another matter
    const test::TempDir dir;
    test::write_random_vision_file(dir / "vision.gguf", hp,
                                   {{fmt::format("compressor.{}.query", grid), weight("query")},
                                    {fmt::format("compressor.{}.pos_embed", grid), weight("pos_embed")},
                                    {"compressor.ln_q.weight", weight("ln_q.weight")},
                                    {"compressor.ln_q.bias", weight("ln_q.bias")},
                                    {"compressor.ln_kv.weight", weight("ln_kv.weight")},
                                    {"compressor.ln_kv.bias", weight("ln_kv.bias")},
                                    {"compressor.attn_qkv.weight", weight("attn.in_proj_weight")},
                                    {"compressor.attn_qkv.bias", weight("attn.in_proj_bias")},
                                    {"compressor.attn_out.weight", weight("attn.out_proj.weight")},
                                    {"compressor.attn_out.bias", weight("attn.out_proj.bias")}});
    Backends backends(/*use_gpu=*/false, /*threads=*/2);
    const VisionWeights weights(GgufFile(dir / "vision.gguf"), backends);
    Compressor compressor(weights, backends);
    const CompressedFeatures result = compressor.compress(read_matrix(case_dir + "in.npy"), grid);

    // float32 against float32: the recordings' own noise is some 1e-6.
    EXPECT_LT(max_difference(result.tokens.data, read_matrix(case_dir + "out.npy").data), 2e-5);
    EXPECT_LT(max_difference(result.attention.data, read_matrix(case_dir + "attn.npy").data), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Recordings, RecordedCompressor,
                         testing::Values(Case{2, 24}, Case{2, 8}, Case{3, 10}));

TEST(Compressor, RefusesAGridThatTheModelDoesNotHave) {
    const test::TempDir dir;
    test::write_random_vision_file(dir / "vision.gguf", test::small_vision_hparams());
    Backends backends(false, 1);
    const VisionWeights weights(GgufFile(dir / "vision.gguf"), backends);
    Compressor compressor(weights, backends);
    EXPECT_THROW(compressor.compress(Matrix(25, 64), 3), Error);
    EXPECT_EQ(compressor.compress(Matrix(25, 64), 2).tokens.rows, 4);
    EXPECT_THROW(compressor.compress(Matrix(26, 64), 2), Error);  // no square map
}

TEST(PositionGrid, IsResizedAsTorchDoes) {
    for (const int grid : {1, 2, 3, 4}) {
        const Matrix stored = read_matrix(fmt::format("unit/pos_embed/grid{}_dim16.npy", grid));
        for (const int side : {8, 24, 48}) {
            const Matrix recorded =
                read_matrix(fmt::format("unit/pos_embed/grid{}_dim16_to{}.npy", grid, side));
            EXPECT_LT(max_difference(resize_position_grid(stored, side).data, recorded.data), 1e-6)
                << "from " << grid << " to " << side;
        }
    }
}

TEST(AveragePool, MeansOfEqualBlocks) {
    Matrix map(36, 2);
    for (int64_t i = 0; i < 36; ++i) {
        map.row(i)[0] = static_cast<float>(i % 6);
        map.row(i)[1] = static_cast<float>(i / 6);
    }
    const CompressedFeatures pooled = average_pool(map, 3);
    ASSERT_EQ(pooled.tokens.rows, 9);
    for (int64_t i = 0; i < 9; ++i) {
        EXPECT_NEAR(pooled.tokens.row(i)[0], static_cast<float>(i % 3) * 2 + 0.5f, 1e-6);
        EXPECT_NEAR(pooled.tokens.row(i)[1], static_cast<float>(i / 3) * 2 + 0.5f, 1e-6);
    }
    EXPECT_EQ(pooled.attention.row(5)[2 * 6 + 4], 0.25f);
    EXPECT_EQ(pooled.attention.row(5)[2 * 6 + 3], 0.0f);
    EXPECT_THROW(average_pool(map, 4), Error);
}

}  // namespace
}  // namespace llava_mini
