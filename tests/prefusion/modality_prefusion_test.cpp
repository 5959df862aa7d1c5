// Pre-fusion: every shortcut against the long way round.
#include "prefusion/modality_prefusion.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "core/error.h"
#include "model/gguf_file.h"
#include "support/random_vision_file.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using test::max_difference;

constexpr int64_t kPatches = 25, kText = 11;

Matrix random_rows(int64_t rows, int64_t cols, unsigned seed) {
    Matrix m(rows, cols);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (float& v : m.data) v = normal(random);
    return m;
}

Matrix row_range(const Matrix& m, int64_t begin, int64_t end) {
    Matrix part(end - begin, m.cols);
    std::copy(m.data.begin() + begin * m.cols, m.data.begin() + end * m.cols, part.data.begin());
    return part;
}

TextRows text_rows(const Matrix& embeddings, int32_t first) {
    TextRows text{embeddings, std::vector<int32_t>(static_cast<size_t>(embeddings.rows)),
                  std::vector<uint8_t>(static_cast<size_t>(embeddings.rows), 1)};
    std::iota(text.positions.begin(), text.positions.end(), first);
    return text;
}

class Prefusion : public testing::Test {
  protected:
    Prefusion() : backends_(/*use_gpu=*/false, /*threads=*/2) {
        test::write_random_vision_file(dir_ / "vision.gguf", hp_);
        weights_ = std::make_unique<VisionWeights>(GgufFile(dir_ / "vision.gguf"), backends_);
    }

    test::TempDir dir_;
    VisionHparams hp_ = test::small_vision_hparams();
    Backends backends_;
    std::unique_ptr<VisionWeights> weights_;
};

TEST_F(Prefusion, TrimmedLastLayerEqualsTheWholeOne) {
    for (const int64_t tokens : {1, 4}) {
        const Matrix rows = random_rows(kPatches + tokens, hp_.prefusion.n_embd, 1);
        ModalityPrefusion prefusion(*weights_, backends_, GGML_TYPE_F32);
        const PrefusedVision trimmed = prefusion.encode_vision(rows, tokens, /*trim=*/true);
        const PrefusedVision whole = prefusion.encode_vision(rows, tokens, /*trim=*/false);
        EXPECT_EQ(trimmed.outputs.rows, 0);
        EXPECT_EQ(whole.outputs.rows, kPatches + tokens);
        EXPECT_EQ(trimmed.tokens.rows, tokens);
        // Other row counts go through other kernels: rounding only.
        EXPECT_LT(max_difference(trimmed.tokens.data, whole.tokens.data), 1e-5);

        const TextRows text = text_rows(random_rows(kText, hp_.prefusion.n_embd, 2), 0);
        EXPECT_EQ(prefusion.fuse_text(text, *trimmed.kv, nullptr, 0, false).rows.data,
                  prefusion.fuse_text(text, *whole.kv, nullptr, 0, false).rows.data);
    }
}

// Text behind stored vision K/V is the same as text behind the vision rows in one causal sequence, which is
// what encode_vision computes if the text is handed to it as "compressed tokens".
TEST_F(Prefusion, StoredVisionEqualsOneSequence) {
    const Matrix vision = random_rows(kPatches + 1, hp_.prefusion.n_embd, 3);
    const Matrix text = random_rows(kText, hp_.prefusion.n_embd, 4);
    Matrix both(vision.rows + text.rows, vision.cols);
    both.data = vision.data;
    both.data.insert(both.data.end(), text.data.begin(), text.data.end());

    ModalityPrefusion prefusion(*weights_, backends_, GGML_TYPE_F32);
    const PrefusedVision once = prefusion.encode_vision(both, text.rows);
    const PrefusedVision stored = prefusion.encode_vision(vision, 1);
    const FusedText fused = prefusion.fuse_text(text_rows(text, 0), *stored.kv, nullptr, 0, false);
    EXPECT_LT(max_difference(fused.rows.data, once.tokens.data), 1e-5);
}

TEST_F(Prefusion, TextContinuedFromStoredKeysEqualsTextFusedAtOnce) {
    ModalityPrefusion prefusion(*weights_, backends_, GGML_TYPE_F32);
    const PrefusedVision vision =
        prefusion.encode_vision(random_rows(kPatches + 1, hp_.prefusion.n_embd, 5), 1);
    const Matrix text = random_rows(kText, hp_.prefusion.n_embd, 6);
    const FusedText whole = prefusion.fuse_text(text_rows(text, 0), *vision.kv, nullptr, 0, false);

    const FusedText first =
        prefusion.fuse_text(text_rows(row_range(text, 0, 6), 0), *vision.kv, nullptr, 0, true);
    // Only the first four positions of the six are taken over.
    const FusedText rest =
        prefusion.fuse_text(text_rows(row_range(text, 4, kText), 4), *vision.kv, first.kv.get(), 4, true);
    EXPECT_EQ(rest.kv->positions(), kText);
    EXPECT_LT(max_difference(rest.rows.data, row_range(whole.rows, 4, kText).data), 1e-5);
}

TEST_F(Prefusion, AMaskedPositionChangesNothingElse) {
    ModalityPrefusion prefusion(*weights_, backends_, GGML_TYPE_F32);
    const PrefusedVision vision =
        prefusion.encode_vision(random_rows(kPatches + 1, hp_.prefusion.n_embd, 7), 1);
    const Matrix text = random_rows(kText, hp_.prefusion.n_embd, 8);
    Matrix with_hole(kText + 1, text.cols);
    std::copy_n(text.data.begin(), 3 * text.cols, with_hole.data.begin());
    std::fill_n(with_hole.data.begin() + 3 * text.cols, text.cols, 9.0f);
    std::copy(text.data.begin() + 3 * text.cols, text.data.end(), with_hole.data.begin() + 4 * text.cols);
    TextRows masked = text_rows(with_hole, 0);
    masked.visible[3] = 0;
    for (size_t i = 4; i < masked.positions.size(); ++i) --masked.positions[i];

    const Matrix plain = prefusion.fuse_text(text_rows(text, 0), *vision.kv, nullptr, 0, false).rows;
    const Matrix holed = prefusion.fuse_text(masked, *vision.kv, nullptr, 0, false).rows;
    EXPECT_LT(max_difference(row_range(holed, 0, 3).data, row_range(plain, 0, 3).data), 1e-5);
    EXPECT_LT(max_difference(row_range(holed, 4, kText + 1).data, row_range(plain, 3, kText).data), 1e-5);
}

TEST_F(Prefusion, SmallerKvTypesStayClose) {
    const Matrix rows = random_rows(kPatches + 1, hp_.prefusion.n_embd, 9);
    const TextRows text = text_rows(random_rows(kText, hp_.prefusion.n_embd, 10), 0);
    const auto fuse = [&](ggml_type type) {
        ModalityPrefusion prefusion(*weights_, backends_, type);
        const PrefusedVision vision = prefusion.encode_vision(rows, 1);
        return std::pair{prefusion.fuse_text(text, *vision.kv, nullptr, 0, false).rows, vision.kv->bytes()};
    };
    const auto [exact, exact_bytes] = fuse(GGML_TYPE_F32);
    const auto [half, half_bytes] = fuse(GGML_TYPE_F16);
    const auto [eighth, eighth_bytes] = fuse(GGML_TYPE_Q8_0);
    // Outputs have a spread of about 1; f16 keeps 11 bits, q8_0 about 7.
    EXPECT_LT(max_difference(half.data, exact.data), 5e-3);
    EXPECT_LT(max_difference(eighth.data, exact.data), 5e-2);
    EXPECT_LT(half_bytes, exact_bytes);
    EXPECT_LT(eighth_bytes, half_bytes);
}

TEST_F(Prefusion, RefusesAKvTypeThatDoesNotDivideTheWidth) {
    LlamaHparams odd = hp_.prefusion;
    odd.head_dim = 8;
    odd.n_head_kv = 3;  // 24 wide
    EXPECT_THROW(PrefusionKv(backends_, odd, 10, GGML_TYPE_Q8_0), Error);
}

}  // namespace
}  // namespace llava_mini
