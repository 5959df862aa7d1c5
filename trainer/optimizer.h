// AdamW (Loshchilov and Hutter, arXiv 1711.05101) with a learning rate for each part.
#pragma once

#include <array>
#include <vector>

#include "trainer/parameters.h"

namespace llava_mini::trainer {

struct AdamWOptions {
    double beta1 = 0.9, beta2 = 0.98, eps = 1e-8, weight_decay = 0.0;
};

/// First and second moments of every leaf; those of parts that never learned take no memory. Not thread-safe.
class AdamW {
  public:
    explicit AdamW(Parameters& parameters);

    /// Square root of the sum of all gradients' squares, of the parts that learn.
    double gradient_norm() const;
    /// One step with gradients multiplied by `scale`; `rates` by part, those of parts that do not learn are
    /// not looked at. Does not clear the gradients.
    void step(const AdamWOptions& options, const std::array<double, kParts>& rates, double scale);
    /// Forgets the moments and the step count: a new phase with new rates begins.
    void reset();

    struct Moments {
        std::vector<float> first, second;  // empty: all zero
    };
    /// In the order of the leaves.
    std::vector<Moments>& moments() { return moments_; }
    int64_t steps() const { return steps_; }
    void set_steps(int64_t steps) { steps_ = steps; }

  private:
    Parameters& parameters_;
    std::vector<Moments> moments_;
    int64_t steps_ = 0;
};

}  // namespace llava_mini::trainer
