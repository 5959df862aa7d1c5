#include "trainer/recompute.h"

namespace llava_mini::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;
using LayerFunction = std::function<torch::Tensor(const torch::Tensor&)>;

struct Layer : torch::CustomClassHolder {
    explicit Layer(LayerFunction f) : function(std::move(f)) {}
    LayerFunction function;
};

class Recomputed : public torch::autograd::Function<Recomputed> {
  public:
    // `marker` requires a gradient, so that the backward pass comes here even where x needs none.
    static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& x, const torch::Tensor& marker,
                                 const LayerFunction* layer) {
        static_cast<void>(marker);
        ctx->save_for_backward({x});
        ctx->saved_data["layer"] = c10::IValue::make_capsule(c10::make_intrusive<Layer>(*layer));
        return (*layer)(x);
    }
    static tensor_list backward(AutogradContext* ctx, tensor_list grads) {
        const auto x = ctx->get_saved_variables()[0];
        const auto capsule = ctx->saved_data["layer"].toCapsule();
        torch::Tensor input = x.detach(), out;
        {
            const at::AutoGradMode gradients(true);
            input.set_requires_grad(x.requires_grad());
            out = static_cast<const Layer&>(*capsule).function(input);
        }
        // Gradients of the weights are added where they stand.
        torch::autograd::backward({out}, {grads[0]});
        return {input.grad(), {}, {}};
    }
};

}  // namespace

torch::Tensor recomputed(const torch::Tensor& x, bool learns, const LayerFunction& layer) {
    if (!at::GradMode::is_enabled() || !(learns || x.requires_grad())) return layer(x);
    return Recomputed::apply(x, torch::zeros({1}).set_requires_grad(learns), &layer);
}

}  // namespace llava_mini::trainer
