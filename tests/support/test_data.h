// What tests share: where the recordings are, folders that vanish, comparison with recorded arrays.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>

#include "core/npy.h"

namespace llava_mini::test {

/// A path below tests/golden.
inline std::filesystem::path golden_path(const std::string& relative) {
    return std::filesystem::path(LLAVA_MINI_GOLDEN_DIR) / relative;
}

/// A folder of its own for one test, removed at the end.
class TempDir {
  public:
    TempDir() {
        std::string name = (std::filesystem::temp_directory_path() / "llava-mini-test-XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr) std::abort();
        path_ = name;
    }
    ~TempDir() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;

    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

    /// Writes a file and returns its path.
    std::filesystem::path write(const std::string& name, std::string_view content) const {
        std::ofstream(path_ / name, std::ios::binary) << content;
        return path_ / name;
    }

  private:
    std::filesystem::path path_;
};

/// Largest absolute difference; infinite when sizes differ or a value is not a number.
inline double max_difference(std::span<const float> a, std::span<const float> b) {
    if (a.size() != b.size()) return INFINITY;
    double worst = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        const double difference = std::fabs(double{a[i]} - double{b[i]});
        if (std::isnan(difference)) return INFINITY;
        worst = std::max(worst, difference);
    }
    return worst;
}

}  // namespace llava_mini::test
