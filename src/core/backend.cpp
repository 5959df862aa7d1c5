#include "core/backend.h"

#include <ggml-cpu.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "core/error.h"
#include "core/log.h"

namespace llava_mini {
namespace {

template <typename Function>
Function device_function(ggml_backend_dev_t device, const char* name) {
    return reinterpret_cast<Function>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), name));
}

// Whether `device` can multiply f32 activations by a weight that lives in `buffer_type`.
bool can_multiply(ggml_backend_dev_t device, ggml_backend_buffer_type_t buffer_type, ggml_type type,
                  int64_t cols, int64_t rows) {
    const ggml_context_ptr ctx(ggml_init({ggml_tensor_overhead() * 4, nullptr, /*no_alloc=*/true}));
    ggml_tensor* weight = ggml_new_tensor_2d(ctx.get(), type, cols, rows);
    ggml_tensor* activations = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, cols, 512);
    ggml_tensor* product = ggml_mul_mat(ctx.get(), weight, activations);
    const ggml_backend_buffer_ptr buffer(ggml_backend_buft_alloc_buffer(buffer_type, 0));
    weight->buffer = buffer.get();
    return ggml_backend_dev_supports_op(device, product);
}

bool is_k_type(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q2_K:
        case GGML_TYPE_Q3_K:
        case GGML_TYPE_Q4_K:
        case GGML_TYPE_Q5_K:
        case GGML_TYPE_Q6_K:
            return true;
        default:
            return false;
    }
}

bool eval_callback(ggml_tensor* tensor, bool ask, void* user_data) {
    if (tensor->name[0] == '\0') return !ask;
    if (!ask) (*static_cast<const TensorTap*>(user_data))(tensor);
    return true;
}

}  // namespace

bool repacking_pays(ggml_type type) {
    return !is_k_type(type) || ggml_cpu_has_avx512_vnni() == 0;
}

Backends::Backends(bool use_gpu, int threads) {
    const auto add = [this](ggml_backend_dev_t device) {
        ggml_backend_ptr backend(ggml_backend_dev_init(device, nullptr));
        if (!backend) throw_system("device {}: cannot be opened", ggml_backend_dev_name(device));
        pointers_.push_back(backend.get());
        backends_.push_back(std::move(backend));
    };
    if (use_gpu) {
        ggml_backend_dev_t gpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU);
        if (gpu == nullptr) gpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_IGPU);
        if (gpu != nullptr) {
            add(gpu);
        } else {
            log_message(LogLevel::kWarning, "no GPU was found: everything stays on the CPU");
        }
    }
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (cpu == nullptr) throw_system("ggml has no CPU backend");
    add(cpu);
    set_threads(threads);
}

void Backends::set_threads(int threads) {
    threads_ = threads > 0 ? threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    ggml_backend_dev_t cpu = ggml_backend_get_device(pointers_.back());
    const auto set = device_function<ggml_backend_set_n_threads_t>(cpu, "ggml_backend_set_n_threads");
    if (set != nullptr) set(pointers_.back(), threads_);
}

ggml_backend_buffer_type_t Backends::product_weight_buffer_type(ggml_type type, int64_t cols,
                                                                int64_t rows) const {
    ggml_backend_dev_t device = ggml_backend_get_device(pointers_.front());
    const auto extra =
        device_function<ggml_backend_dev_get_extra_bufts_t>(device, "ggml_backend_dev_get_extra_bufts");
    if (extra != nullptr && repacking_pays(type)) {
        for (ggml_backend_buffer_type_t* candidate = extra(device);
             candidate != nullptr && *candidate != nullptr; ++candidate) {
            if (can_multiply(device, *candidate, type, cols, rows)) return *candidate;
        }
    }
    return default_buffer_type();
}

ggml_backend_buffer_type_t Backends::default_buffer_type() const {
    return ggml_backend_get_default_buffer_type(pointers_.front());
}

std::string Backends::device_name() const {
    return ggml_backend_dev_description(ggml_backend_get_device(pointers_.front()));
}

Graph::Graph(Backends& backends, int max_nodes) : backends_(backends) {
    const size_t nodes = static_cast<size_t>(max_nodes);
    ctx_.reset(ggml_init({ggml_tensor_overhead() * nodes + ggml_graph_overhead_custom(nodes, false), nullptr,
                          /*no_alloc=*/true}));
    graph_ = ggml_new_graph_custom(ctx_.get(), nodes, false);
    const auto all = backends.all();
    scheduler_.reset(ggml_backend_sched_new(const_cast<ggml_backend_t*>(all.data()), nullptr,
                                            static_cast<int>(all.size()), nodes, /*parallel=*/false,
                                            /*op_offload=*/true));
}

ggml_tensor* Graph::input(const char* name, ggml_type type, std::initializer_list<int64_t> shape) {
    ggml_tensor* tensor = ggml_new_tensor(ctx_.get(), type, static_cast<int>(shape.size()), shape.begin());
    ggml_set_name(tensor, name);
    ggml_set_input(tensor);
    named_.emplace(name, tensor);
    return tensor;
}

void Graph::output(ggml_tensor* tensor, const char* name) {
    ggml_set_name(tensor, name);
    ggml_set_output(tensor);
    named_.emplace(name, tensor);
    ggml_build_forward_expand(graph_, tensor);
}

void Graph::effect(ggml_tensor* tensor) {
    ggml_build_forward_expand(graph_, tensor);
}

void Graph::finish() {
    if (!ggml_backend_sched_alloc_graph(scheduler_.get(), graph_)) {
        throw_system("not enough memory for a graph of {} nodes", ggml_graph_n_nodes(graph_));
    }
}

ggml_tensor* Graph::find(const char* name) const {
    const auto found = named_.find(name);
    if (found == named_.end()) throw std::logic_error(fmt::format("graph has no tensor '{}'", name));
    return found->second;
}

void Graph::set_bytes(const char* name, ggml_type type, const void* data, size_t bytes) {
    ggml_tensor* tensor = find(name);
    if (tensor->type != type || ggml_nbytes(tensor) != bytes) {
        throw std::logic_error(fmt::format("graph input '{}': {} bytes of {} given, {} of {} expected", name,
                                           bytes, ggml_type_name(type), ggml_nbytes(tensor),
                                           ggml_type_name(tensor->type)));
    }
    // An input that no operation reads gets no memory.
    if (tensor->buffer != nullptr) ggml_backend_tensor_set(tensor, data, 0, bytes);
}

void Graph::set(const char* name, std::span<const float> values) {
    set_bytes(name, GGML_TYPE_F32, values.data(), values.size_bytes());
}
void Graph::set(const char* name, std::span<const int32_t> values) {
    set_bytes(name, GGML_TYPE_I32, values.data(), values.size_bytes());
}
void Graph::set(const char* name, std::span<const ggml_fp16_t> values) {
    set_bytes(name, GGML_TYPE_F16, values.data(), values.size_bytes());
}

void Graph::compute() {
    const TensorTap& tap = backends_.tap();
    ggml_backend_sched_set_eval_callback(scheduler_.get(), tap ? eval_callback : nullptr,
                                         const_cast<TensorTap*>(&tap));
    const ggml_status status = ggml_backend_sched_graph_compute(scheduler_.get(), graph_);
    if (status != GGML_STATUS_SUCCESS)
        throw_system("computing a graph failed: {}", ggml_status_to_string(status));
}

Matrix Graph::get(const char* name) const {
    const ggml_tensor* tensor = find(name);
    Matrix result(ggml_nrows(tensor), tensor->ne[0]);
    ggml_backend_tensor_get(tensor, result.data.data(), 0, ggml_nbytes(tensor));
    return result;
}

}  // namespace llava_mini
