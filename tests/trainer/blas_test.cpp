// Kernels that OpenBLAS would not choose by itself.
#include "trainer/blas.h"

#include <gtest/gtest.h>

namespace llava_mini::trainer {
namespace {

TEST(Blas, OnlyTheFallbackIsReplaced) {
    EXPECT_EQ(better_kernels("Prescott", true, true), "SkylakeX");
    EXPECT_EQ(better_kernels("Prescott", true, false), "Haswell");
    EXPECT_EQ(better_kernels("Prescott", false, false), std::nullopt);  // such a processor has nothing better
    for (const char* chosen : {"Haswell", "SkylakeX", "Zen", "Sapphirerapids", ""}) {
        EXPECT_EQ(better_kernels(chosen, true, true), std::nullopt) << chosen;
    }
}

}  // namespace
}  // namespace llava_mini::trainer
