// One training step of the official code: inputs, loss and gradients.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "convert/checkpoint_config.h"
#include "convert/json_input.h"
#include "core/npy.h"
#include "media/image_decoder.h"
#include "preprocess/clip_image_processor.h"
#include "support/test_data.h"
#include "trainer/model.h"

namespace llava_mini::trainer {
namespace {

using test::golden_path;

constexpr int64_t kIgnored = -100;

struct Step {
    std::unique_ptr<LlavaMini> model;
    Batch batch;
    std::vector<int64_t> lengths;
};

Step recorded_step() {
    Step step;
    const auto folder = golden_path("models/llava-mini-tiny-a");
    const SafetensorsReader weights(folder), tower(golden_path("models/openai/clip-vit-tiny-a-patch14-336"));
    const CheckpointConfig config = read_checkpoint_config(folder, {}, weights);
    step.model = std::make_unique<LlavaMini>(config.vision, config.language);
    step.model->parameters().load(weights, &tower);
    for (size_t part = 0; part < kParts; ++part) {
        const auto which = static_cast<Part>(part);
        step.model->parameters().set_learning(which, which != Part::kTower && which != Part::kEmbeddings);
    }
    const NpyArray ids_file = read_npy(golden_path("training/input_ids.npy"));
    const auto ids = ids_file.as_int64(), labels = read_npy(golden_path("training/labels.npy")).as_int64(),
               mask = read_npy(golden_path("training/attention_mask.npy")).as_int64();
    const auto length = static_cast<size_t>(ids_file.shape[1]);
    std::vector<Example> examples;
    for (size_t row = 0; row < 2; ++row) {
        Example example;
        example.id = std::to_string(row);
        const Image picture =
            load_image(golden_path(row == 0 ? "pictures/photo_640x480.jpg" : "pictures/square_336.png"),
                       {.obey_exif = false});
        example.frames.push_back(preprocess_image(picture, config.vision));
        Conversation conversation;
        for (size_t i = row * length; i < (row + 1) * length && mask[i] != 0; ++i) {
            const auto kind = ids[i] == kImageToken   ? SegmentKind::kImage
                              : labels[i] == kIgnored ? SegmentKind::kFused
                                                      : SegmentKind::kPlain;
            conversation.tokens.push_back({static_cast<int32_t>(ids[i]), kind});
        }
        step.lengths.push_back(static_cast<int64_t>(conversation.tokens.size()));
        example.conversations.push_back(std::move(conversation));
        examples.push_back(std::move(example));
    }
    step.batch = collate(examples, step.model->batch_shape(), 1, 0);
    return step;
}

std::vector<float> values(const torch::Tensor& tensor) {
    const auto t = tensor.detach().contiguous();
    return {t.data_ptr<float>(), t.data_ptr<float>() + t.numel()};
}

// Tolerances: the embeddings' as everywhere (2e-4, tests/golden/README.md); the loss 1e-4; gradients 1e-3 of
// their own largest value; norms of all gradients of a part 1e-3 of themselves.
TEST(Recordings, LossAndGradientsOfOneOfficialStep) {
    Step step = recorded_step();
    const Outputs out = step.model->forward(step.batch);

    const NpyArray recorded = read_npy(golden_path("training/inputs_embeds.npy"));
    const auto all = recorded.as_float();
    const auto d = static_cast<size_t>(recorded.shape[2]), padded = static_cast<size_t>(recorded.shape[1]);
    std::vector<float> expected;
    for (size_t row = 0; row < 2; ++row) {
        const auto from = all.begin() + static_cast<std::ptrdiff_t>(row * padded * d);
        expected.insert(expected.end(), from, from + static_cast<std::ptrdiff_t>(step.lengths[row] * d));
    }
    EXPECT_LT(test::max_difference(values(out.inputs), expected), 2e-4);

    const auto loss = at::cross_entropy_loss(out.logits, step.batch.labels);
    const auto manifest = read_json_file(golden_path("training/manifest.json"), 1 << 20);
    const auto& one = manifest["cases"][0];
    EXPECT_NEAR(loss.item<double>(), one["loss"].get<double>(), 1e-4);

    loss.backward();
    const Parameters& parameters = step.model->parameters();
    for (const auto& [file, key] : std::map<std::string, std::string>{
             {"compressor.query", "compressor.query"},
             {"compressor.attn.in_proj_bias", "compressor.attn.in_proj_bias"},
             {"mm_projector.2.bias", "mm_projector.2.bias"},
             {"prefusion_layers.0.input_layernorm.weight", "prefusion_layers.0.input_layernorm.weight"},
             {"norm.weight", "model.norm.weight"}}) {
        const auto gradient = read_npy(golden_path("training/grad/" + file + ".npy")).as_float();
        float largest = 0;
        for (const float g : gradient) largest = std::max(largest, std::fabs(g));
        EXPECT_LT(test::max_difference(values(parameters[key].grad()), gradient), 1e-3 * largest) << file;
    }
    std::map<std::string, double> norms;
    const auto part_of = [](const Leaf& leaf) -> std::string {
        if (leaf.part == Part::kLanguage) return leaf.key == "model.norm.weight" ? "norm" : "layers";
        return std::map<Part, std::string>{
            {Part::kTower, "vision_tower"},      {Part::kCompressor, "compressor"},
            {Part::kProjector, "mm_projector"},  {Part::kPrefusion, "prefusion_layers"},
            {Part::kEmbeddings, "embed_tokens"}, {Part::kHead, "lm_head"}}
            .at(leaf.part);
    };
    for (const Leaf& leaf : parameters.leaves()) {
        double& norm = norms[part_of(leaf)];
        if (leaf.value.grad().defined()) norm += leaf.value.grad().square().sum().item<double>();
    }
    for (const auto& [part, entry] : one["gradients"].items()) {
        const double expected_norm = entry["norm2"].get<double>();
        EXPECT_NEAR(norms.at(part), expected_norm, 1e-3 * expected_norm) << part;
    }
}

}  // namespace
}  // namespace llava_mini::trainer
