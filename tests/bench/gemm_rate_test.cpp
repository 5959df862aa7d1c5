#include "bench/gemm_rate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bench/models.h"
#include "support/test_data.h"

namespace llava_mini::bench {
namespace {

TEST(GemmRate, MeasuresTypesWithAndWithoutRepackedLayouts) {
    const Backends backends(/*use_gpu=*/false, /*threads=*/1);
    for (const ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_Q4_0, GGML_TYPE_Q5_K}) {
        const GemmShape shape{type, 512, 256, 33};
        const GemmRate rate = measure_gemm(backends, shape, /*seconds=*/0.01);
        EXPECT_EQ(rate.shape, shape);
        EXPECT_FALSE(rate.buffer_type.empty()) << ggml_type_name(type);
        EXPECT_GT(rate.flops_per_second, 1e8) << ggml_type_name(type);
        EXPECT_LT(rate.flops_per_second, 1e13) << ggml_type_name(type);
    }
}

TEST(GemmRate, ShapesOfAFilesMatrices) {
    const test::TempDir dir;
    const auto folder = prepare_model(dir.path(), "llava-mini-small", GGML_TYPE_Q8_0, {});
    const GgufFile vision(folder / "vision.gguf");
    EXPECT_THAT(gemm_shapes(vision, "v.blk.", 577),
                testing::UnorderedElementsAre(GemmShape{GGML_TYPE_Q8_0, 256, 256, 577},
                                              GemmShape{GGML_TYPE_Q8_0, 256, 512, 577},
                                              GemmShape{GGML_TYPE_Q8_0, 512, 256, 577}));
    EXPECT_THAT(gemm_shapes(vision, "mm.", 1), testing::ElementsAre(GemmShape{GGML_TYPE_F16, 256, 256, 1}));
    EXPECT_THAT(gemm_shapes(vision, "no such", 1), testing::IsEmpty());
}

}  // namespace
}  // namespace llava_mini::bench
