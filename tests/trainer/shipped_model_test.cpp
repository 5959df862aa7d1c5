// The model in models/tiny, taken back into the trainer: both compute the same, and convert gives the same
// files again.
#include <gtest/gtest.h>

#include "convert/convert.h"
#include "dump/dump.h"
#include "media/picture_writer.h"
#include "model/gguf_file.h"
#include "scenes/generator.h"
#include "trainer/losses.h"
#include "trainer/restore.h"
#include "trainer/small_run.h"

namespace llava_mini::trainer {
namespace {

namespace fs = std::filesystem;
using namespace test_support;

const fs::path kRoot = fs::path(LLAVA_MINI_GOLDEN_DIR).parent_path().parent_path();
const fs::path kModel = kRoot / "models" / "tiny", kTokenizer = kRoot / "recipes" / "tiny-tokenizer";

std::vector<uint8_t> bytes_of(const GgufFile& file, const GgufTensor& tensor) {
    std::vector<uint8_t> bytes(tensor.bytes);
    file.read(tensor, 0, bytes);
    return bytes;
}

TEST(ShippedModel, TrainerEqualsRuntime) {
    const torch::NoGradGuard no_gradients;
    const test::TempDir dir;
    restore_checkpoint(kModel, kTokenizer, dir / "checkpoint");
    convert_folder(dir / "checkpoint", dir / "gguf");
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
    restore_checkpoint(kModel, kTokenizer, dir / "checkpoint");
    convert_folder(dir / "checkpoint", dir / "gguf", GGML_TYPE_F16);
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
