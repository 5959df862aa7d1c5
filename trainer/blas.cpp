#include "trainer/blas.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace llava_mini::trainer {
namespace {

constexpr const char* kVariable = "OPENBLAS_CORETYPE";

}  // namespace

std::string openblas_kernels() {
    using CoreName = char* (*)();
    const auto core_name = reinterpret_cast<CoreName>(dlsym(RTLD_DEFAULT, "openblas_get_corename"));
    return core_name == nullptr ? "" : core_name();
}

std::optional<std::string> better_kernels(std::string_view chosen, bool avx2_fma, bool avx512) {
    if (chosen != "Prescott") return std::nullopt;
    if (avx512) return "SkylakeX";
    if (avx2_fma) return "Haswell";
    return std::nullopt;
}

void start_with_best_kernels(char** argv) {
#if defined(__x86_64__)
    if (std::getenv(kVariable) != nullptr) return;
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    const auto better = better_kernels(
        openblas_kernels(), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), avx512);
    std::error_code failure;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", failure);
    if (!better || failure || setenv(kVariable, better->c_str(), 0) != 0) return;
    execv(self.c_str(), argv);  // returns only if it fails: then with the kernels there are
#else
    static_cast<void>(argv);
#endif
}

}  // namespace llava_mini::trainer
