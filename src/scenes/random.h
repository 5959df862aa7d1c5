// Random numbers that are the same on every machine (those of <random>'s distributions are not).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace llava_mini::scenes {

/// One step of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64-bit numbers that scatters them.
inline uint64_t scatter(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/// A stream of random numbers that is a function of its key alone.
class Random {
  public:
    explicit Random(uint64_t key) : state_(scatter(key)) {}

    uint64_t next() {
        state_ += 0x9E3779B97F4A7C15u;
        return scatter(state_);
    }
    /// Uniform in 0..n-1; n > 0.
    int below(int n) { return static_cast<int>(((next() >> 32) * static_cast<uint64_t>(n)) >> 32); }
    /// Uniform in low..high, both included.
    int integer(int low, int high) { return low + below(high - low + 1); }
    /// Uniform in [0, 1).
    double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
    float between(double low, double high) { return static_cast<float>(low + (high - low) * uniform()); }
    bool chance(double probability) { return uniform() < probability; }
    /// An index with probability in proportion to its weight; the weights' sum is positive.
    size_t weighted(std::span<const double> weights) {
        double sum = 0;
        for (const double w : weights) sum += w;
        double left = uniform() * sum;
        size_t last = 0;
        for (size_t i = 0; i < weights.size(); ++i) {
            if (weights[i] <= 0) continue;
            last = i;
            left -= weights[i];
            if (left < 0) break;
        }
        return last;
    }
    template <typename Container>
    const auto& pick(const Container& items) {
        return items[static_cast<size_t>(below(static_cast<int>(std::size(items))))];
    }
    template <typename T>
    void shuffle(std::vector<T>& items) {
        for (size_t i = items.size(); i > 1; --i) {
            std::swap(items[i - 1], items[static_cast<size_t>(below(static_cast<int>(i)))]);
        }
    }

  private:
    uint64_t state_;
};

}  // namespace llava_mini::scenes
