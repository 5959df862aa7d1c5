// Which kernels the matrix products of libtorch run on.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace llava_mini::trainer {

/// Name of the kernels that the OpenBLAS in this process has chosen ("SkylakeX", "Haswell", ...); empty: another BLAS.
std::string openblas_kernels();

/// OpenBLAS goes by the processor's model number, and on one that is newer than itself falls back to its oldest
/// kernels (Prescott: SSE3), three times slower. The name of kernels that the processor can run and that are better
/// than `chosen`; none if those are right.
std::optional<std::string> better_kernels(std::string_view chosen, bool avx2_fma, bool avx512);

/// Starts this program anew with OPENBLAS_CORETYPE set, which OpenBLAS reads when it is loaded, if there are better
/// kernels and the variable is not set yet. To be called first in main; returns if there is nothing to do.
void start_with_best_kernels(char** argv);

}  // namespace llava_mini::trainer
