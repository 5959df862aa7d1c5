// The model in models/tiny, taken back into the trainer: both compute the same, and convert gives the same
// files again.
#include <gtest/gtest.h>

#include "convert/convert.h"
#include "dump/dump.h"
#include "llm/language_gguf.h"
#include "media/picture_writer.h"
#include "model/gguf_file.h"
#include "scenes/generator.h"
#include "trainer/losses.h"
#include "trainer/small_run.h"

namespace llava_mini::trainer {
namespace {

namespace fs = std::filesystem;
using namespace test_support;

const fs::path kRoot = fs::path(LLAVA_MINI_GOLDEN_DIR).parent_path().parent_path();
const fs::path kModel = kRoot / "models" / "tiny";

std::vector<float> floats_of(const GgufFile& file, const TensorSpec& spec) {
    const GgufTensor* tensor = file.find(spec.gguf);
    if (tensor == nullptr) throw std::out_of_range(spec.gguf);
    std::vector<uint8_t> bytes(tensor->bytes);
    file.read(*tensor, 0, bytes);
    int64_t count = 1;
    for (const int64_t size : tensor->shape) count *= size;
    std::vector<float> values(static_cast<size_t>(count));
    if (tensor->type == GGML_TYPE_F32) {
        std::memcpy(values.data(), bytes.data(), bytes.size());
    } else {
        ggml_get_type_traits(tensor->type)->to_float(bytes.data(), values.data(), count);
    }
    if (spec.interleave_heads == 0) return values;
    // The order of GGUF's `llama` back to the half-split one.
    const int64_t columns = spec.shape.back(), rows = count / columns,
                  head_dim = rows / spec.interleave_heads;
    std::vector<float> split(values.size());
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t in_head = row % head_dim;
        const int64_t to = row - in_head + in_head / 2 + in_head % 2 * (head_dim / 2);
        std::copy_n(values.begin() + row * columns, columns, split.begin() + to * columns);
    }
    return split;
}

// Writes the checkpoint that the shipped files were converted from, its values as f16 kept them.
void write_checkpoint(const fs::path& folder) {
    const GgufFile language(kModel / kLanguageFile), vision(kModel / kVisionFile);
    const VisionHparams hparams = read_vision_hparams(vision.metadata(), vision.name());
    std::vector<SafetensorsWriter::Tensor> tensors;
    std::vector<std::vector<float>> values;
    const auto add = [&](const GgufFile& file, const std::vector<TensorSpec>& specs,
                         const std::string& prefix) {
        for (const TensorSpec& spec : specs) {
            tensors.push_back({prefix + spec.checkpoint, GGML_TYPE_F32, spec.shape});
            values.push_back(floats_of(file, spec));
        }
    };
    add(language, language_tensors(read_language_hparams(language)), "");
    add(vision, tower_tensors(hparams), kTowerInsidePrefix);
    add(vision, bridge_tensors(hparams), "model.");
    fs::create_directories(folder / "vision_tower");
    fs::copy(kModel / "training" / "config.json", folder / "config.json");
    fs::copy(kModel / "training" / "tower.json", folder / "vision_tower" / "config.json");
    for (const char* name : {"tokenizer.model", "tokenizer_config.json"}) {
        fs::copy(kRoot / "recipes" / "tiny-tokenizer" / name, folder / name);
    }
    SafetensorsWriter writer(folder / "model.safetensors", tensors);
    for (const std::vector<float>& v : values) {
        writer.write({reinterpret_cast<const uint8_t*>(v.data()), v.size() * sizeof(float)});
    }
    writer.commit();
}

std::vector<uint8_t> bytes_of(const GgufFile& file, const GgufTensor& tensor) {
    std::vector<uint8_t> bytes(tensor.bytes);
    file.read(tensor, 0, bytes);
    return bytes;
}

TEST(ShippedModel, TrainerEqualsRuntime) {
    const torch::NoGradGuard no_gradients;
    const test::TempDir dir;
    write_checkpoint(dir / "checkpoint");
    convert_checkpoint({.checkpoint = dir / "checkpoint",
                        .vision_tower = {},
                        .out = dir / "gguf",
                        .type = GGML_TYPE_F32,
                        .threads = 1,
                        .progress = {}});
    const auto runtime = Model::load(
        {.model = dir / "gguf", .mmproj = {}, .threads = 1, .prefusion_kv = KvType::kF32, .progress = {}});
    SmallModel small(dir / "checkpoint");
    QuestionTypes types;
    const ExampleMaker maker(*small.tokenizer, small.config.vision, types);
    const scenes::SceneGenerator scenes({.split = scenes::Split::kTest});
    for (const uint64_t number : {0, 1, 2}) {
        const Sample sample = scenes.sample(number);
        const std::vector<uint8_t> png = encode_png(sample.frames[0]);
        dir.write("picture.png", {reinterpret_cast<const char*>(png.data()), png.size()});
        Example example = maker.make(sample, {}, 1);
        example.conversations.resize(1);
        // The runtime's logits are those behind the prompt: the row that predicts the answer's first token.
        std::vector<int64_t> ids;
        for (const PromptToken& token : example.conversations[0].tokens) {
            if (token.kind == SegmentKind::kPlain) break;
            ids.push_back(token.id);
        }
        write_npy(dir / "ids.npy", std::vector<int64_t>{static_cast<int64_t>(ids.size())}, ids);
        for (const int grid : small.config.vision.compressor_grids) {
            const auto arrays = dump_stages(*runtime, {.image = dir / "picture.png",
                                                       .ids = dir / "ids.npy",
                                                       .image_options = {.vision_tokens = grid * grid},
                                                       .greedy = 1,
                                                       .threads = 1});
            const Outputs out = small.model->forward(collate({example}, small.model->batch_shape(), grid, 0));
            const auto logits = out.logits[0].contiguous();
            const std::vector<float> trainer(logits.data_ptr<float>(),
                                             logits.data_ptr<float>() + logits.numel());
            EXPECT_LT(test::max_difference(trainer, array(arrays, "logits_last")), 1e-3)
                << "scene " << number << ", grid " << grid;
        }
    }
}

TEST(ShippedModel, IsWhatConvertMakes) {
    const test::TempDir dir;
    write_checkpoint(dir / "checkpoint");
    convert_checkpoint({.checkpoint = dir / "checkpoint",
                        .vision_tower = {},
                        .out = dir / "gguf",
                        .type = GGML_TYPE_F16,
                        .threads = 1,
                        .progress = {}});
    for (const char* name : {kLanguageFile, kVisionFile}) {
        const GgufFile shipped(kModel / name), again(dir / "gguf" / name);
        ASSERT_EQ(shipped.tensors().size(), again.tensors().size());
        for (const GgufTensor& tensor : shipped.tensors()) {
            const GgufTensor* same = again.find(tensor.name);
            ASSERT_NE(same, nullptr) << tensor.name;
            EXPECT_EQ(bytes_of(shipped, tensor), bytes_of(again, *same)) << tensor.name;
        }
    }
}

}  // namespace
}  // namespace llava_mini::trainer
