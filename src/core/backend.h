// The devices graphs run on, and a graph that is built once and computed many times.
#pragma once

#include <ggml-backend.h>
#include <ggml-cpp.h>
#include <ggml.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/matrix.h"

namespace llava_mini {

/// Sees every named tensor of every graph right after it was computed (the scheduler's eval callback):
/// dumps, analysis and parity tests use it. Computation is slower while a tap is set.
using TensorTap = std::function<void(const ggml_tensor* tensor)>;

/// Whether weights of this type should be repacked for products on the CPU. K types should not where the CPU
/// has AVX-512 VNNI: there ggml's tiled product on the plain layout is faster than its product on the
/// repacked one (q4_K at 577 rows: 486 against 258 GFLOP/s on two Zen 4 cores).
bool repacking_pays(ggml_type type);

/// The CPU and, if wanted and present, the first GPU. Owned by a model. Not thread-safe: whoever computes
/// holds the model's lock.
class Backends {
  public:
    /// `use_gpu`: put weights and graphs on the first GPU that ggml knows, if there is one.
    /// `threads`: CPU threads, 0 for one a core. Throws Error(kSystem) if a device cannot be opened.
    Backends(bool use_gpu, int threads);

    std::span<const ggml_backend_t> all() const { return pointers_; }
    int threads() const { return threads_; }
    void set_threads(int threads);
    /// Where a weight of this type and shape (ggml order) should live if it is used in matrix products:
    /// a buffer type of faster, repacked layout where the device has one that supports it.
    ggml_backend_buffer_type_t product_weight_buffer_type(ggml_type type, int64_t cols, int64_t rows) const;
    /// Where everything else lives.
    ggml_backend_buffer_type_t default_buffer_type() const;
    /// Type of keys and values in attention: f32 on the CPU, f16 on a GPU (see model/layers.h).
    ggml_type attention_type() const { return pointers_.size() > 1 ? GGML_TYPE_F16 : GGML_TYPE_F32; }
    /// "CPU" or the GPU's description.
    std::string device_name() const;

    void set_tap(TensorTap tap) { tap_ = std::move(tap); }
    const TensorTap& tap() const { return tap_; }

  private:
    std::vector<ggml_backend_ptr> backends_;  // GPU first, CPU last
    std::vector<ggml_backend_t> pointers_;
    int threads_ = 1;
    TensorTap tap_;
};

/// One ggml graph with its scheduler and memory. Build: create inputs and operations on `ctx()`, mark results
/// with `output`, then `finish`. Compute any number of times: `set` every input, `compute`, `get` outputs.
class Graph {
  public:
    explicit Graph(Backends& backends, int max_nodes = 4096);
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;

    ggml_context* ctx() const { return ctx_.get(); }
    /// A new input tensor.
    ggml_tensor* input(const char* name, ggml_type type, std::initializer_list<int64_t> shape);
    /// Names a result that is read after compute().
    void output(ggml_tensor* tensor, const char* name);
    /// An operation that only has an effect (a copy into a tensor outside the graph).
    void effect(ggml_tensor* tensor);
    /// Allocates. Throws Error(kSystem) when memory does not suffice.
    void finish();

    void set(const char* name, std::span<const float> values);
    void set(const char* name, std::span<const int32_t> values);
    void set(const char* name, std::span<const ggml_fp16_t> values);
    /// Throws Error(kSystem) if a device fails.
    void compute();
    /// Copies an f32 output: rows = the product of all dimensions but the first.
    Matrix get(const char* name) const;

  private:
    ggml_tensor* find(const char* name) const;
    void set_bytes(const char* name, ggml_type type, const void* data, size_t bytes);

    Backends& backends_;
    ggml_context_ptr ctx_;
    ggml_cgraph* graph_ = nullptr;
    ggml_backend_sched_ptr scheduler_;
    std::map<std::string, ggml_tensor*, std::less<>> named_;
};

}  // namespace llava_mini
