#include "trainer/optimizer.h"

#include <cmath>

namespace llava_mini::trainer {
namespace {

struct Rates {
    float beta1, beta2, scale;  // of the gradient
    float step, correction2;    // rate / (1 - beta1^t), 1 / sqrt(1 - beta2^t)
    float eps, decay;           // 1 - rate * weight decay
};

// One pass over memory instead of a dozen tensor operations.
__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"))) void update(
    float* __restrict w, const float* __restrict g, float* __restrict m, float* __restrict v, size_t n,
    const Rates& r) {
    const Rates rates = r;
    for (size_t i = 0; i < n; ++i) {
        const float gradient = g[i] * rates.scale;
        m[i] += (1.0f - rates.beta1) * (gradient - m[i]);
        v[i] += (1.0f - rates.beta2) * (gradient * gradient - v[i]);
        w[i] = w[i] * rates.decay - rates.step * m[i] / (std::sqrt(v[i]) * rates.correction2 + rates.eps);
    }
}

}  // namespace

AdamW::AdamW(Parameters& parameters) : parameters_(parameters), moments_(parameters.leaves().size()) {}

double AdamW::gradient_norm() const {
    double sum = 0;
    for (const Leaf& leaf : parameters_.leaves()) {
        if (!leaf.value.requires_grad()) continue;
        const float* g = leaf.value.grad().data_ptr<float>();
        // Partial sums, so that the compiler may compute them side by side.
        std::array<double, 16> part{};
        const auto n = static_cast<size_t>(leaf.value.numel());
        size_t i = 0;
        for (; i + part.size() <= n; i += part.size()) {
            for (size_t j = 0; j < part.size(); ++j) part[j] += double{g[i + j]} * double{g[i + j]};
        }
        for (; i < n; ++i) part[0] += double{g[i]} * double{g[i]};
        for (const double p : part) sum += p;
    }
    return std::sqrt(sum);
}

void AdamW::step(const AdamWOptions& options, const std::array<double, kParts>& rates, double scale) {
    ++steps_;
    const double correction1 = 1.0 - std::pow(options.beta1, static_cast<double>(steps_));
    const double correction2 = 1.0 - std::pow(options.beta2, static_cast<double>(steps_));
    for (size_t i = 0; i < moments_.size(); ++i) {
        const Leaf& leaf = parameters_.leaves()[i];
        if (!leaf.value.requires_grad()) continue;
        const auto n = static_cast<size_t>(leaf.value.numel());
        if (moments_[i].first.empty()) {
            moments_[i].first.assign(n, 0.0f);
            moments_[i].second.assign(n, 0.0f);
        }
        const double rate = rates[static_cast<size_t>(leaf.part)];
        const double decay = leaf.decays() ? 1.0 - rate * options.weight_decay : 1.0;
        update(
            leaf.value.data_ptr<float>(), leaf.value.grad().data_ptr<float>(), moments_[i].first.data(),
            moments_[i].second.data(), n,
            {static_cast<float>(options.beta1), static_cast<float>(options.beta2), static_cast<float>(scale),
             static_cast<float>(rate / correction1), static_cast<float>(1.0 / std::sqrt(correction2)),
             static_cast<float>(options.eps), static_cast<float>(decay)});
    }
}

void AdamW::reset() {
    for (Moments& m : moments_) m = {};
    steps_ = 0;
}

}  // namespace llava_mini::trainer
