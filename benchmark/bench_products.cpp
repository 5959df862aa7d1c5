// What the time of tower and pre-fusion is made of, in isolation: matrix products by type, layout of the
// weight and number of rows, and attention as the stages use it. All cores; items are floating point
// operations.
#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
#include <vector>

#include "core/backend.h"
#include "model/layers.h"

namespace {

using namespace llava_mini;

Backends& cpu() {
    static Backends backends(/*use_gpu=*/false, /*threads=*/0);
    return backends;
}

std::vector<float> random_values(int64_t count) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = normal(random);
    return values;
}

// A weight [in, out] whose rows are all alike.
ggml_backend_buffer_ptr fill_weight(ggml_context* ctx, ggml_tensor* weight,
                                    ggml_backend_buffer_type_t buffer_type) {
    ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors_from_buft(ctx, buffer_type));
    const std::vector<float> row = random_values(weight->ne[0]);
    const size_t row_bytes = ggml_row_size(weight->type, weight->ne[0]);
    std::vector<uint8_t> bytes(ggml_nbytes(weight));
    ggml_quantize_chunk(weight->type, row.data(), bytes.data(), 0, 1, weight->ne[0], nullptr);
    for (int64_t i = 1; i < weight->ne[1]; ++i) {
        std::memcpy(bytes.data() + static_cast<size_t>(i) * row_bytes, bytes.data(), row_bytes);
    }
    ggml_backend_tensor_set(weight, bytes.data(), 0, bytes.size());
    return buffer;
}

void run(benchmark::State& state, Graph& graph, double flops) {
    graph.compute();  // the first touches the memory
    for (auto _ : state) graph.compute();
    state.counters["FLOP/s"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

// Arguments: type, rows, in, out, and 1 for the layout that the vision side would choose, 0 for the plain
// one.
void product(benchmark::State& state) {
    const auto type = static_cast<ggml_type>(state.range(0));
    const int64_t rows = state.range(1), in = state.range(2), out = state.range(3);
    ggml_backend_buffer_type_t buffer_type =
        state.range(4) != 0 ? cpu().product_weight_buffer_type(type, in, out) : cpu().default_buffer_type();
    state.SetLabel(std::string(ggml_type_name(type)) + " in " + ggml_backend_buft_name(buffer_type));
    const ggml_context_ptr ctx(ggml_init({ggml_tensor_overhead(), nullptr, /*no_alloc=*/true}));
    ggml_tensor* weight = ggml_new_tensor_2d(ctx.get(), type, in, out);
    const ggml_backend_buffer_ptr buffer = fill_weight(ctx.get(), weight, buffer_type);

    Graph graph(cpu());
    graph.output(ggml_mul_mat(graph.ctx(), weight, graph.input("x", GGML_TYPE_F32, {in, rows})), "y");
    graph.finish();
    graph.set("x", random_values(in * rows));
    run(state, graph, 2.0 * static_cast<double>(rows) * static_cast<double>(in) * static_cast<double>(out));
}

// Arguments: width of a head, heads, heads of keys and values, queries, keys.
void attention_of(benchmark::State& state) {
    const int64_t width = state.range(0), heads = state.range(1), heads_kv = state.range(2),
                  queries = state.range(3), keys = state.range(4);
    Graph graph(cpu());
    ggml_context* ctx = graph.ctx();
    const auto rows = [&](const char* name, int64_t count, int64_t of_heads) {
        return ggml_permute(ctx, graph.input(name, GGML_TYPE_F32, {width, of_heads, count}), 0, 2, 1, 3);
    };
    graph.output(
        attention(ctx, rows("q", queries, heads), rows("k", keys, heads_kv), rows("v", keys, heads_kv),
                  /*mask=*/nullptr, cpu().attention_type()),
        "y");
    graph.finish();
    graph.set("q", random_values(width * heads * queries));
    graph.set("k", random_values(width * heads_kv * keys));
    graph.set("v", random_values(width * heads_kv * keys));
    run(state, graph,
        4.0 * static_cast<double>(queries) * static_cast<double>(keys) * static_cast<double>(width * heads));
}

void product_arguments(benchmark::internal::Benchmark* benchmark) {
    for (const ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0,
                                 GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K}) {
        for (const int64_t rows : {577, 61}) {
            for (const int64_t chosen : {0, 1}) benchmark->Args({type, rows, 4096, 4096, chosen});
        }
    }
    // The tower's shapes.
    for (const int64_t out : {1024, 4096}) benchmark->Args({GGML_TYPE_Q6_K, 577, 1024, out, 1});
}

BENCHMARK(product)
    ->ArgNames({"type", "rows", "in", "out", "chosen"})
    ->Apply(product_arguments)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(attention_of)
    ->Name("attention")
    ->ArgNames({"width", "heads", "kv", "queries", "keys"})
    ->Args({64, 16, 16, 577, 577})  // CLIP-L
    ->Args({128, 32, 8, 577, 577})  // pre-fusion of a picture
    ->Args({128, 32, 8, 60, 637})   // pre-fusion of a text
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
