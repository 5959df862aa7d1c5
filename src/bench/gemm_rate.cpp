#include "bench/gemm_rate.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <set>

#include "core/error.h"

namespace llava_mini::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<float> random_values(int64_t count) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.0f, 0.02f);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = normal(random);
    return values;
}

// A random matrix: a few rows in the type, over and over.
std::vector<uint8_t> random_weight(const GemmShape& shape) {
    const int64_t pool_rows = std::min<int64_t>(shape.out, 16);
    const size_t row_bytes = ggml_row_size(shape.type, shape.in);
    const std::vector<float> values = random_values(pool_rows * shape.in);
    std::vector<uint8_t> pool(static_cast<size_t>(pool_rows) * row_bytes);
    ggml_quantize_chunk(shape.type, values.data(), pool.data(), 0, pool_rows, shape.in, nullptr);
    std::vector<uint8_t> weight;
    weight.reserve(static_cast<size_t>(shape.out) * row_bytes);
    for (int64_t row = 0; row < shape.out; ++row) {
        const auto from =
            pool.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(row % pool_rows) * row_bytes);
        weight.insert(weight.end(), from, from + static_cast<std::ptrdiff_t>(row_bytes));
    }
    return weight;
}

// One product with its weight in one buffer type.
class Product {
  public:
    Product(ggml_backend_t backend, ggml_backend_buffer_type_t weight_buffer_type, const GemmShape& shape)
        : backend_(backend), weight_buffer_type_(weight_buffer_type) {
        weight_ctx_.reset(ggml_init({ggml_tensor_overhead(), nullptr, /*no_alloc=*/true}));
        ctx_.reset(
            ggml_init({3 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, /*no_alloc=*/true}));
        weight_ = ggml_new_tensor_2d(weight_ctx_.get(), shape.type, shape.in, shape.out);
        activations_ = ggml_new_tensor_2d(ctx_.get(), GGML_TYPE_F32, shape.in, shape.rows);
        product_ = ggml_mul_mat(ctx_.get(), weight_, activations_);
        graph_ = ggml_new_graph(ctx_.get());
        ggml_build_forward_expand(graph_, product_);
    }

    // Whether the device can do it with the weight in this buffer type.
    bool supported() {
        const ggml_backend_buffer_ptr empty(ggml_backend_buft_alloc_buffer(weight_buffer_type_, 0));
        weight_->buffer = empty.get();
        const bool result = ggml_backend_supports_op(backend_, product_);
        weight_->buffer = nullptr;
        return result;
    }

    void fill(std::span<const uint8_t> weight, std::span<const float> activations) {
        weight_buffer_.reset(
            ggml_backend_alloc_ctx_tensors_from_buft(weight_ctx_.get(), weight_buffer_type_));
        buffer_.reset(ggml_backend_alloc_ctx_tensors(ctx_.get(), backend_));
        if (!weight_buffer_ || !buffer_)
            throw_system("not enough memory for a matrix product of the benchmark");
        ggml_backend_tensor_set(weight_, weight.data(), 0, weight.size());
        ggml_backend_tensor_set(activations_, activations.data(), 0, activations.size_bytes());
    }

    // Seconds of one run.
    double run() {
        const auto start = Clock::now();
        if (ggml_backend_graph_compute(backend_, graph_) != GGML_STATUS_SUCCESS) {
            throw_system("a matrix product of the benchmark failed");
        }
        return seconds_since(start);
    }

  private:
    ggml_backend_t backend_;
    ggml_backend_buffer_type_t weight_buffer_type_;
    ggml_context_ptr weight_ctx_, ctx_;
    ggml_backend_buffer_ptr weight_buffer_, buffer_;
    ggml_tensor *weight_ = nullptr, *activations_ = nullptr, *product_ = nullptr;
    ggml_cgraph* graph_ = nullptr;
};

// Every buffer type of the device a weight may live in.
std::vector<ggml_backend_buffer_type_t> buffer_types(ggml_backend_t backend) {
    std::vector<ggml_backend_buffer_type_t> types = {ggml_backend_get_default_buffer_type(backend)};
    ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend));
    const auto extra = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
        ggml_backend_reg_get_proc_address(registry, "ggml_backend_dev_get_extra_bufts"));
    if (extra == nullptr) return types;
    for (ggml_backend_buffer_type_t* type = extra(ggml_backend_get_device(backend));
         type != nullptr && *type != nullptr; ++type) {
        types.push_back(*type);
    }
    return types;
}

}  // namespace

GemmRate measure_gemm(const Backends& backends, const GemmShape& shape, double seconds) {
    ggml_backend_t backend = backends.all().front();
    const std::vector<uint8_t> weight = random_weight(shape);
    const std::vector<float> activations = random_values(shape.in * shape.rows);
    const double flops = 2.0 * static_cast<double>(shape.in) * static_cast<double>(shape.out) *
                         static_cast<double>(shape.rows);
    GemmRate best{shape, "", 0};
    for (ggml_backend_buffer_type_t buffer_type : buffer_types(backend)) {
        Product product(backend, buffer_type, shape);
        if (!product.supported()) continue;
        product.fill(weight, activations);
        product.run();  // the first touches the memory
        const auto start = Clock::now();
        for (int runs = 0; runs < 3 || seconds_since(start) < seconds; ++runs) {
            const double rate = flops / product.run();
            if (rate > best.flops_per_second) best = {shape, ggml_backend_buft_name(buffer_type), rate};
        }
    }
    return best;
}

std::vector<GemmShape> gemm_shapes(const GgufFile& file, const std::string& prefix, int64_t rows) {
    std::set<GemmShape> shapes;
    for (const GgufTensor& tensor : file.tensors()) {
        const bool is_matrix = tensor.shape[1] > 1 && tensor.shape[2] == 1 && tensor.shape[3] == 1;
        if (is_matrix && !ggml_quantize_requires_imatrix(tensor.type) && tensor.name.starts_with(prefix) &&
            tensor.name.ends_with(".weight")) {
            shapes.insert({tensor.type, tensor.shape[0], tensor.shape[1], rows});
        }
    }
    return {shapes.begin(), shapes.end()};
}

}  // namespace llava_mini::bench
