// Where a run starts from: a language model and a vision tower apart.
#include "trainer/initialise.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "core/file.h"
#include "support/error_text.h"
#include "trainer/small_run.h"

namespace llava_mini::trainer {
namespace {

using namespace test_support;
using nlohmann::ordered_json;
using testing::HasSubstr;

class Parts : public testing::Test {
  protected:
    // A folder with a Llama alone and one with a whole CLIP of three layers, both random.
    void SetUp() override {
        const InitialiseOptions options = small_options(write_small_tokenizer(dir_ / "tokenizer"), {1});
        ordered_json language = options.config;
        for (const char* field :
             {"compressor_head_dim", "prefusion_layer_num", "compressor_size", "image_aspect_ratio"})
            language.erase(field);
        language["model_type"] = "llama";
        copy_tokenizer(dir_ / "tokenizer", dir_ / "llama");
        write("llama/config.json", language.dump());
        ordered_json tower = options.tower_config;
        tower["num_hidden_layers"] = 3;
        write("clip/config.json", ordered_json{{"model_type", "clip"}, {"vision_config", tower}}.dump());
        write("clip/preprocessor_config.json", R"({"image_mean": [0.5, 0.25, 0.125]})");

        VisionHparams vision;
        vision.image_size = 96;
        vision.patch_size = 16;
        vision.n_layer = 3;
        vision.n_embd = 64;
        vision.n_ff = 96;
        vision.n_head = 2;
        LlamaHparams llama;
        llama.n_layer = 2;
        llama.n_embd = 64;
        llama.n_ff = 96;
        llama.n_head = 4;
        llama.n_head_kv = 2;
        llama.head_dim = 16;
        llama.n_vocab = 768;
        llama.tied_embeddings = true;
        save("llama/model.safetensors", language_tensors(llama), 1);
        save("clip/model.safetensors", tower_tensors(vision), 2);
    }

    void write(const std::string& name, const std::string& text) const {
        AtomicFile file(dir_ / name);
        file.write(text);
        file.commit();
    }
    void save(const std::string& name, const std::vector<TensorSpec>& specs, uint64_t seed) const {
        std::vector<SafetensorsWriter::Tensor> tensors;
        for (const TensorSpec& spec : specs) tensors.push_back({spec.checkpoint, GGML_TYPE_F32, spec.shape});
        SafetensorsWriter writer(dir_ / name, tensors);
        torch::manual_seed(seed);
        for (const TensorSpec& spec : specs) {
            const auto value = torch::randn(spec.shape) * 0.05;
            writer.write({static_cast<const uint8_t*>(value.data_ptr()), value.nbytes()});
        }
        writer.commit();
    }
    static std::vector<float> values(const std::filesystem::path& file, const std::string& name) {
        const SafetensorsReader reader(file);
        const SafetensorsTensor* tensor = reader.find(name);
        if (tensor == nullptr) return {};
        std::vector<float> out(static_cast<size_t>(tensor->elements()));
        read_as_float(reader, *tensor, out);
        return out;
    }

    test::TempDir dir_;
    const ordered_json head_ = {{"config", {{"compressor_head_dim", 32}, {"prefusion_layer_num", 2}}}};
};

TEST_F(Parts, BecomeAModelThatTrains) {
    write_initial_checkpoint(dir_ / "base", options_of_parts(dir_ / "llama", dir_ / "clip", head_));
    const auto base = dir_ / "base" / "model.safetensors";
    for (const char* name :
         {"model.layers.1.self_attn.q_proj.weight", "model.embed_tokens.weight", "model.norm.weight"}) {
        EXPECT_EQ(values(base, name), values(dir_ / "llama/model.safetensors", name)) << name;
    }
    const std::string layer = "vision_model.encoder.layers.1.mlp.fc1.weight";
    EXPECT_EQ(values(base, "model.vision_tower.vision_tower." + layer),
              values(dir_ / "clip/model.safetensors", layer));
    EXPECT_EQ(
        values(base, "model.vision_tower.vision_tower.vision_model.encoder.layers.2.mlp.fc1.weight").size(),
        0u);  // the last layer but one is the feature
    const auto prefusion = values(base, "model.prefusion_layers.1.mlp.up_proj.weight");
    ASSERT_EQ(prefusion.size(), 96u * 64u);
    double squares = 0;
    for (const float v : prefusion) squares += double{v} * v;
    EXPECT_NEAR(std::sqrt(squares / static_cast<double>(prefusion.size())), 0.02, 0.001);

    SmallModel small(dir_ / "base");
    EXPECT_EQ(small.config.vision.n_layer, 2);
    EXPECT_EQ(small.config.vision.compressor_grids, std::vector<int>{1});
    EXPECT_EQ(small.config.vision.image_aspect_ratio, "pad");
    EXPECT_EQ(small.config.vision.image_mean[1], 0.25f);
    const Recipe recipe = parse_recipe(
        R"({"name": "parts", "phases": [{"name": "stage 1", "samples": 4, "batch": 2,
          "lr": {"compressor": 1e-3, "projector": 1e-3, "prefusion": 1e-3}, "data": [{"source": "squares"}]}]})",
        "recipe");
    EXPECT_EQ(run_recipe(recipe, *small.model, *small.tokenizer, make_test_source,
                         {dir_ / "run", dir_ / "base", 1, 1, {}}),
              RunEnd::kDone);
    EXPECT_EQ(values(dir_ / "run/model/model.safetensors", "model.norm.weight"),
              values(base, "model.norm.weight"));
}

// What the recipe renews, and what its configuration changes the shape of, begins anew; all else is kept.
TEST_F(Parts, OfACheckpointMayBeginAnew) {
    write_initial_checkpoint(dir_ / "base", options_of_parts(dir_ / "llama", dir_ / "clip", head_));
    const auto begin = [&](const ordered_json& model) {
        InitialiseOptions options = options_of_checkpoint(dir_ / "base", {}, model);
        options.seed = 2;
        std::filesystem::remove_all(dir_ / "again");
        write_initial_checkpoint(dir_ / "again", options);
        return dir_ / "again" / "model.safetensors";
    };
    const auto base = dir_ / "base" / "model.safetensors";
    const char *query = "model.compressor.query", *layer = "model.prefusion_layers.0.mlp.up_proj.weight",
               *kept = "model.layers.1.self_attn.q_proj.weight", *projector = "model.mm_projector.0.weight";
    const auto same = begin(nullptr);
    for (const char* name : {query, layer, kept, projector})
        EXPECT_EQ(values(same, name), values(base, name));
    const auto changed =
        begin({{"config", {{"prefusion_layer_num", 1}}}, {"init", {{"renew", {"compressor"}}}}});
    EXPECT_NE(values(changed, query), values(base, query));
    EXPECT_EQ(values(changed, query).size(), values(base, query).size());
    EXPECT_EQ(values(changed, layer), values(base, layer));
    EXPECT_EQ(values(changed, "model.prefusion_layers.1.mlp.up_proj.weight").size(), 0u);
    EXPECT_EQ(values(changed, kept), values(base, kept));
    const auto plain = begin({{"config", {{"prefusion_layer_num", 0}, {"compressor_size", nullptr}}}});
    EXPECT_EQ(values(plain, query).size(), 0u);
    EXPECT_EQ(values(plain, projector), values(base, projector));
    // Layers that come after those of the checkpoint add nothing at first.
    const auto deeper = begin({{"init", {{"added_layers", 2}, {"mimetic", true}}}});
    EXPECT_EQ(values(deeper, kept), values(base, kept));
    EXPECT_EQ(SmallModel(dir_ / "again").config.language.n_layer,
              SmallModel(dir_ / "base").config.language.n_layer + 2);
    for (const char* name : {"self_attn.o_proj", "mlp.down_proj", "self_attn.v_proj"}) {
        const auto added = values(deeper, fmt::format("model.layers.3.{}.weight", name));
        const bool zero = std::all_of(added.begin(), added.end(), [](float x) { return x == 0; });
        EXPECT_FALSE(added.empty()) << name;
        EXPECT_EQ(zero, !std::string(name).ends_with("v_proj")) << name;
    }
    EXPECT_THAT(test::error_text([&] {
                    begin({{"init", {{"added_layers", -1}}}});
                }),
                testing::AllOf(HasSubstr("added_layers"), HasSubstr("-1")));
    for (const ordered_json& init :
         {ordered_json{{"added_layers", 1}}, ordered_json{{"renew", {"compressor"}}}}) {
        EXPECT_THAT(
            test::error_text([&] {
                options_of_recipe(
                    {{"config", ordered_json::object()}, {"tower", ordered_json::object()}, {"init", init}});
            }),
            HasSubstr("need a checkpoint to start from"));
    }
    EXPECT_THAT(test::error_text([&] {
                    begin({{"init", {{"renew", {"queries"}}}}});
                }),
                testing::AllOf(HasSubstr("renew"), HasSubstr("compressor, projector")));
    EXPECT_THAT(test::error_text([&] {
                    begin({{"tower", ordered_json::object()}});
                }),
                HasSubstr("the vision tower is given"));
}

TEST_F(Parts, Mistakes) {
    const auto message = [&](const ordered_json& model) {
        return test::error_text([&] {
            write_initial_checkpoint(dir_ / "bad", options_of_parts(dir_ / "llama", dir_ / "clip", model));
        });
    };
    EXPECT_THAT(message({{"config", {{"compressor_head_dim", 48}}}}), HasSubstr("compressor_head_dim"));
    EXPECT_THAT(message({{"tower", ordered_json::object()}}), HasSubstr("the vision tower is given"));
    EXPECT_THAT(message({{"config", {{"compressor_head_dim", 32}, {"num_hidden_layers", 3}}}}),
                HasSubstr("model.layers.2"));
    EXPECT_FALSE(std::filesystem::exists(dir_ / "bad") || std::filesystem::exists(dir_ / "bad.partial"));
    std::filesystem::remove(dir_ / "clip/config.json");
    EXPECT_THAT(message(head_), HasSubstr("clip/config.json"));
    write("llama/config.json", "[1]");
    EXPECT_THAT(message(head_), testing::AllOf(HasSubstr("llama/config.json"), HasSubstr("an object")));
}

}  // namespace
}  // namespace llava_mini::trainer
