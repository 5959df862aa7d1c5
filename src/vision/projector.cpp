#include "vision/projector.h"

#include "model/layers.h"

namespace llava_mini {

Projector::Projector(const VisionWeights& weights, Backends& backends)
    : weights_(weights), backends_(backends) {}

Matrix Projector::project(const Matrix& features) {
    if (graph_rows_ != features.rows) {
        auto graph = std::make_unique<Graph>(backends_);
        ggml_context* ctx = graph->ctx();
        ggml_tensor* x = graph->input("features", GGML_TYPE_F32, {features.cols, features.rows});
        x = linear(ctx, weights_["mm.0.weight"], weights_["mm.0.bias"], x);
        x = linear(ctx, weights_["mm.2.weight"], weights_["mm.2.bias"], ggml_gelu_erf_inplace(ctx, x));
        graph->output(x, "projected");
        graph->finish();
        graph_ = std::move(graph);
        graph_rows_ = features.rows;
    }
    graph_->set("features", features.data);
    graph_->compute();
    return graph_->get("projected");
}

}  // namespace llava_mini
