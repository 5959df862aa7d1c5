// Stages that are only seen through hooks, against the recordings: each pre-fusion layer, each layer of the
// language model.
#include <gtest/gtest.h>

#include <map>

#include "core/npy.h"
#include "dump/golden_case.h"
#include "llm/language_context.h"
#include "session/model_impl.h"
#include "support/golden_model.h"
#include "support/test_data.h"

namespace llava_mini::test {
namespace {

constexpr double kTolerance = 2e-4;

std::vector<float> values_of(const ggml_tensor* tensor) {
    std::vector<float> values(static_cast<size_t>(ggml_nelements(tensor)));
    ggml_backend_tensor_get(tensor, values.data(), 0, ggml_nbytes(tensor));
    return values;
}

TEST(StageTaps, EveryPrefusionLayerIsReproduced) {
    const auto model = Model::load({.model = golden_model(), .prefusion_kv = KvType::kF32});
    // The first layer's outputs at the vision positions, then, from another graph, at those of the text.
    std::vector<float> first_layer;
    model->impl().pipeline.backends().set_tap([&](const ggml_tensor* tensor) {
        if (std::string_view(tensor->name) != "prefusion.blk.0.out") return;
        const std::vector<float> part = values_of(tensor);
        first_layer.insert(first_layer.end(), part.begin(), part.end());
    });
    DumpOptions options = golden_case("single_short").options;
    options.greedy = 0;
    std::vector<float> both = floats(dump_by_name(*model, options), "prefusion_out");
    both.insert(both.begin(), first_layer.begin(), first_layer.end());
    const NpyArray recorded = read_npy(golden_path("cases/single_short/prefusion_layers.npy"));
    EXPECT_EQ(recorded.shape, (std::vector<int64_t>{2, 700, 64}));
    EXPECT_LE(max_difference(both, recorded.as_float()), kTolerance);
}

TEST(StageTaps, EveryLayerOfTheLanguageModelIsReproduced) {
    const auto model = std::make_shared<LanguageModel>(golden_model() / "language.gguf");
    const NpyArray inputs = read_npy(golden_path("cases/single_short/inputs_embeds.npy"));
    const NpyArray recorded = read_npy(golden_path("cases/single_short/llm_hidden_states.npy"));
    ASSERT_EQ(recorded.shape, (std::vector<int64_t>{4, inputs.shape[0], 64}));
    const std::vector<float> states = recorded.as_float();
    const size_t state = states.size() / 4;
    EXPECT_EQ(max_difference({states.data(), state}, inputs.as_float()), 0.0);  // the first is the input

    std::map<std::string, std::vector<float>> seen;
    LanguageContext context(model, {.n_ctx = 256,
                                    .n_batch = 256,
                                    .kv_type = GGML_TYPE_F32,
                                    .flash_attention = FlashAttention::kOff,
                                    .tap = [&](ggml_tensor* tensor, bool ask) {
                                        const std::string name = tensor->name;
                                        const bool wanted =
                                            name.starts_with("l_out-") || name == "result_norm";
                                        if (wanted && !ask) seen[name] = values_of(tensor);
                                        return ask ? wanted : true;
                                    }});
    context.decode_embeddings(inputs.as_float().data(), static_cast<int>(inputs.shape[0]),
                              /*want_logits=*/true);
    EXPECT_LE(max_difference(seen.at("l_out-0"), {states.data() + state, state}), kTolerance);
    EXPECT_LE(max_difference(seen.at("l_out-1"), {states.data() + 2 * state, state}), kTolerance);
    // The last layer computes the last row only, and the recording has it after the final norm.
    EXPECT_LE(max_difference(seen.at("result_norm"), {states.data() + states.size() - 64, 64}), kTolerance);
}

}  // namespace
}  // namespace llava_mini::test
