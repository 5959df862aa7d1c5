// A checkpoint without compressor and pre-fusion is plain LLaVA-v1.5: against recordings of one that has the
// tower, projector and language model of the recordings' LLaVA-Mini (tests/golden/llava15).
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "convert/convert.h"
#include "convert/safetensors.h"
#include "convert/tiny_checkpoint.h"
#include "core/npy.h"
#include "dump/golden_case.h"
#include "support/test_data.h"

namespace llava_mini::test {
namespace {

constexpr double kTolerance = 2e-4;  // as for LLaVA-Mini: tests/golden/README.md, "How exact"

// The recordings' checkpoint without what LLaVA-v1.5 has not.
void write_plain_checkpoint(const std::filesystem::path& folder) {
    const std::filesystem::path mini = golden_path("models/llava-mini-tiny-a");
    std::filesystem::create_directories(folder);
    for (const char* file :
         {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"}) {
        std::filesystem::copy_file(mini / file, folder / file);
    }
    nlohmann::json config = nlohmann::json::parse(std::ifstream(mini / "config.json"));
    for (const char* key : {"compressor_size", "prefusion_layer_num"}) config.erase(key);
    std::ofstream(folder / "config.json") << config;

    const SafetensorsReader reader(mini);
    std::map<std::string, TinyTensor> tensors;
    for (const auto& [name, tensor] : reader.tensors()) {
        if (name.starts_with("model.compressor.") || name.starts_with("model.prefusion_layers.")) continue;
        ASSERT_EQ(tensor.dtype, "F32") << name;
        TinyTensor& copy = tensors[name];
        copy = {tensor.dtype, tensor.shape, std::vector<float>(static_cast<size_t>(tensor.elements()))};
        reader.read(tensor, 0, {reinterpret_cast<uint8_t*>(copy.values.data()), tensor.bytes});
    }
    EXPECT_LT(tensors.size(), reader.tensors().size());
    std::ofstream(folder / "model.safetensors", std::ios::binary) << safetensors_bytes(tensors);
}

TEST(PlainLlava, AgreesWithTheRecording) {
    const TempDir dir;
    ASSERT_NO_FATAL_FAILURE(write_plain_checkpoint(dir / "checkpoint"));
    convert_checkpoint({.checkpoint = dir / "checkpoint",
                        .vision_tower = golden_path("models/openai/clip-vit-tiny-a-patch14-336"),
                        .out = dir / "model",
                        .type = GGML_TYPE_F32,
                        .progress = {}});
    const auto model = Model::load({.model = dir / "model", .prefusion_kv = KvType::kF32});
    const DumpOptions options{.image = golden_path("pictures/photo_640x480.jpg"),
                              .ids = golden_path("llava15/photo/input_ids.npy"),
                              .image_options = {.aspect_ratio = "pad", .obey_exif = false},
                              .official_quirks = true,
                              .greedy = 0};
    const auto arrays = dump_by_name(*model, options);
    for (const char* name : {"inputs_embeds", "logits_last"}) {
        SCOPED_TRACE(name);
        const NpyArray recorded = read_npy(golden_path(std::string("llava15/photo/") + name + ".npy"));
        EXPECT_EQ(arrays.at(name).shape, recorded.shape);
        EXPECT_LE(max_difference(floats(arrays, name), recorded.as_float()), kTolerance);
    }
}

}  // namespace
}  // namespace llava_mini::test
