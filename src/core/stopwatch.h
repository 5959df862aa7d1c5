// Measures how long a scope takes.
#pragma once

#include <chrono>

namespace llava_mini {

/// Adds the seconds of its life to a total.
class Stopwatch {
  public:
    explicit Stopwatch(double& total) : total_(total), start_(std::chrono::steady_clock::now()) {}
    ~Stopwatch() {
        total_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    }
    Stopwatch(const Stopwatch&) = delete;
    Stopwatch& operator=(const Stopwatch&) = delete;

  private:
    double& total_;
    std::chrono::steady_clock::time_point start_;
};

}  // namespace llava_mini
