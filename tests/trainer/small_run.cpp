#include "trainer/small_run.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>

#include "convert/convert.h"
#include "convert/synth_vocabulary.h"
#include "core/error.h"
#include "trainer/random.h"

namespace llava_mini::trainer::test_support {
namespace {

constexpr std::array<const char*, 3> kColours = {"red", "green", "blue"};
constexpr int kSide = 96;

// One thread: tests run side by side, and some fork.
class OneThread : public testing::Environment {
    void SetUp() override { at::set_num_threads(1); }
};
[[maybe_unused]] const testing::Environment* const one_thread =
    testing::AddGlobalTestEnvironment(new OneThread);  // gtest deletes it

void paint(Image& image, int colour, int left, int top) {
    for (int y = top; y < top + 32; ++y) {
        for (int x = left; x < left + 32; ++x) {
            image.rgb[static_cast<size_t>((y * kSide + x) * 3 + colour)] = 220;
        }
    }
}

}  // namespace

Sample Squares::sample(uint64_t number) const {
    const auto draw = [&](uint64_t what, uint64_t n) {
        return static_cast<int>(key_of(5, what, number) % n);
    };
    Sample sample;
    sample.id = fmt::format("squares {}", number);
    const int colour = draw(1, 3), column = draw(2, 3), row = draw(3, 3);
    if (!text_) {
        const int frames = clips_ ? 2 + draw(4, 2) : 1;
        for (int i = 0; i < frames; ++i) {
            Image image{kSide, kSide, std::vector<uint8_t>(static_cast<size_t>(kSide * kSide * 3), 20)};
            const int x = (column + i) % 3 * 32, y = row * 32;
            paint(image, colour, x, y);
            sample.frames.push_back(std::move(image));
            sample.marks.push_back(
                {{Mark::Kind::kColour, kColours[static_cast<size_t>(colour)], static_cast<float>(x),
                  static_cast<float>(y), static_cast<float>(x + 32), static_cast<float>(y + 32)}});
        }
    }
    sample.turns = {{"what colour is it?", kColours[static_cast<size_t>(colour)], "colour"},
                    {"which row?", std::to_string(row), "row"},
                    {"say something longer about it",
                     fmt::format("a {} square", kColours[static_cast<size_t>(colour)]), "caption"}};
    return sample;
}

std::filesystem::path write_small_tokenizer(const std::filesystem::path& folder) {
    std::filesystem::create_directories(folder);
    const Vocabulary vocabulary = synth_byte_level_bpe(768);
    std::ofstream(folder / "tokenizer.json") << tokenizer_json(vocabulary);
    std::ofstream(folder / "tokenizer_config.json") << tokenizer_config_json(vocabulary);
    return folder;
}

InitialiseOptions small_options(const std::filesystem::path& tokenizer_folder, std::vector<int> grids) {
    const Vocabulary vocabulary = synth_byte_level_bpe(768);
    InitialiseOptions options;
    options.config = {{"model_type", "llava_mini_llama"},
                      {"hidden_size", 64},
                      {"intermediate_size", 96},
                      {"num_hidden_layers", 2},
                      {"num_attention_heads", 4},
                      {"num_key_value_heads", 2},
                      {"head_dim", 16},
                      {"vocab_size", 768},
                      {"max_position_embeddings", 2048},
                      {"rms_norm_eps", 1e-5},
                      {"rope_theta", 10000.0},
                      {"tie_word_embeddings", true},
                      {"bos_token_id", *vocabulary.bos},
                      {"eos_token_id", *vocabulary.eos},
                      {"image_aspect_ratio", "pad"},
                      {"compressor_head_dim", 32},
                      {"prefusion_layer_num", 2}};
    if (!grids.empty()) options.config["compressor_size"] = grids;
    if (grids.empty()) options.config["prefusion_layer_num"] = 0;
    options.tower_config = {{"model_type", "clip_vision_model"},
                            {"image_size", kSide},
                            {"patch_size", 16},
                            {"hidden_size", 64},
                            {"intermediate_size", 96},
                            {"num_hidden_layers", 2},
                            {"num_attention_heads", 2},
                            {"hidden_act", "quick_gelu"}};
    options.tokenizer = tokenizer_folder;
    options.mimetic = true;
    options.embedding_deviation = 0.5;
    return options;
}

SmallModel::SmallModel(const std::filesystem::path& checkpoint) {
    const SafetensorsReader weights(checkpoint);
    config = read_checkpoint_config(checkpoint, {}, weights);
    tokenizer =
        std::make_unique<Tokenizer>(checkpoint, config.language.n_vocab, config.bos_id, config.eos_ids);
    model = std::make_unique<LlavaMini>(config.vision, config.language);
    model->parameters().load(weights, nullptr);
}

std::string small_recipe(int samples, const std::string& more) {
    return fmt::format(R"({{
  "name": "small", "seed": 3,
  "phases": [
    {{"name": "dense", "samples": {0}, "batch": 4, "lr": {{"tower": 1e-3, "projector": 1e-3, "embeddings": 1e-3}},
     "loss": {{"patches": 1}}, "background": "no", "data": [{{"source": "squares"}}]}},
    {{"name": "questions", "samples": {0}, "batch": 2, "accumulate": 2, "weight_decay": 0.01, "clip": 0.5,
     "lr": {{"tower": 1e-4, "projector": 1e-3, "compressor": 1e-3, "prefusion": 1e-3, "embeddings": 1e-3,
            "language": 1e-3}},
     "loss": {{"answers": 1, "patches": 0.5, "words": 0.1}}, "grids": [1, 2], "dialogue_share": 0.3,
     "unfused_share": 0.2,
     "data": [{{"source": "squares", "weight": 3}}, {{"source": "clips"}}, {{"source": "text", "from": 0.5}}]}}
  ],
  "validation": [{{"source": "squares"}}], "validation_samples": 6, "validate_every": 16{1}}})",
                       samples, more.empty() ? "" : ", " + more);
}

void convert_folder(const std::filesystem::path& checkpoint, const std::filesystem::path& out,
                    ggml_type type) {
    convert_checkpoint({.checkpoint = checkpoint,
                        .vision_tower = {},
                        .out = out,
                        .type = type,
                        .threads = 1,
                        .progress = {}});
}

std::shared_ptr<const SampleSource> make_test_source(const DataSpec& spec) {
    if (spec.source == "squares") return std::make_shared<Squares>();
    if (spec.source == "clips") return std::make_shared<Squares>(true);
    if (spec.source == "text") return std::make_shared<Squares>(false, true);
    throw_input("data source '{}' is not known", spec.source);
}

const std::vector<float>& array(const std::vector<DumpArray>& arrays, const std::string& name) {
    for (const DumpArray& a : arrays) {
        if (a.name == name) return std::get<std::vector<float>>(a.values);
    }
    throw std::out_of_range(name);
}

}  // namespace llava_mini::trainer::test_support
