// What makes large models trainable: adapters, frozen parts in bf16, gradient checkpointing.
#include <gmock/gmock.h>

#include "convert/convert.h"
#include "convert/gguf_writer.h"
#include "core/file.h"
#include "llm/language_context.h"
#include "support/error_text.h"
#include "trainer/losses.h"
#include "trainer/small_run.h"

namespace llava_mini::trainer {
namespace {

using namespace test_support;
using testing::HasSubstr;

class LargeModels : public testing::Test {
  protected:
    void SetUp() override {
        auto options = small_options(write_small_tokenizer(dir_ / "tokenizer"), {1});
        options.config["tie_word_embeddings"] = false;
        options.config["num_hidden_layers"] = 3;
        options.mimetic = false;
        options.embedding_deviation = 0.5;
        write_initial_checkpoint(base_, options);
    }

    static Batch batch_of(const SmallModel& small) {
        QuestionTypes types;
        const ExampleMaker maker(*small.tokenizer, small.config.vision, types);
        std::vector<Example> examples = {maker.make(Squares().sample(1), {}, 1),
                                         maker.make(Squares(true).sample(2), {}, 2),
                                         maker.make(Squares(false, true).sample(3), {}, 3)};
        return collate(examples, small.model->batch_shape(), 1, 0);
    }

    // Loss of the batch; gradients stay in the parameters.
    static double step(SmallModel& small, const std::vector<Part>& learning) {
        for (size_t part = 0; part < kParts; ++part) {
            const auto which = static_cast<Part>(part);
            small.model->parameters().set_learning(which,
                                                   std::count(learning.begin(), learning.end(), which) > 0);
        }
        Counts counts;
        const auto loss = batch_loss(*small.model, batch_of(small), {}, counts);
        loss.backward();
        return loss.item<double>();
    }

    // Largest difference of gradients, as a share of the largest gradient of the leaf.
    static double gradient_difference(const SmallModel& a, const SmallModel& b) {
        double worst = 0;
        size_t compared = 0;
        for (size_t i = 0; i < a.model->parameters().leaves().size(); ++i) {
            const Leaf &x = a.model->parameters().leaves()[i], &y = b.model->parameters().leaves()[i];
            if (!x.value.requires_grad()) continue;
            ++compared;
            const double largest = x.value.grad().abs().max().item<double>();
            const double difference = (x.value.grad() - y.value.grad()).abs().max().item<double>();
            worst = std::max(worst, largest > 0 ? difference / largest : difference);
        }
        EXPECT_GT(compared, 5u);
        return worst;
    }

    test::TempDir dir_;
    std::filesystem::path base_ = dir_ / "base";
};

TEST_F(LargeModels, RecomputedLayersGiveTheSameGradients) {
    const std::vector<std::vector<Part>> cases = {
        {Part::kProjector, Part::kCompressor, Part::kPrefusion},
        {Part::kLanguage, Part::kHead},  // nothing before the layers needs a gradient
        {Part::kTower, Part::kCompressor, Part::kProjector, Part::kPrefusion, Part::kEmbeddings,
         Part::kLanguage, Part::kHead}};
    for (const auto& learning : cases) {
        SmallModel kept(base_), recomputed(base_);
        recomputed.model->set_gradient_checkpointing(true);
        EXPECT_EQ(step(kept, learning), step(recomputed, learning));
        EXPECT_LT(gradient_difference(kept, recomputed), 1e-6);
    }
}

TEST_F(LargeModels, FrozenPartsInBf16TakeHalfTheMemory) {
    const std::vector<Part> learning = {Part::kProjector, Part::kCompressor, Part::kPrefusion},
                            frozen = {Part::kTower, Part::kEmbeddings, Part::kLanguage, Part::kHead};
    SmallModel full(base_), half(base_), rounded(base_);
    for (const Part part : frozen) half.model->parameters().store_as_bf16(part);
    {
        const torch::NoGradGuard no_gradients;
        for (const Leaf& leaf : half.model->parameters().leaves()) {
            torch::Tensor value = rounded.model->parameters()[leaf.key];
            value.copy_(leaf.value);
        }
    }
    const double loss = step(half, learning);
    EXPECT_NEAR(loss, step(full, learning), 1e-2);
    // The same weights in f32 compute the same.
    EXPECT_NEAR(loss, step(rounded, learning), 1e-6);
    EXPECT_LT(gradient_difference(half, rounded), 1e-5);
    for (const Part part : frozen) {
        const double share = static_cast<double>(half.model->parameters().bytes(part)) /
                             static_cast<double>(full.model->parameters().bytes(part));
        EXPECT_LT(share, 0.52) << kPartNames[static_cast<size_t>(part)];  // norms and biases stay f32
    }
    for (const Part part : learning)
        EXPECT_EQ(half.model->parameters().bytes(part), full.model->parameters().bytes(part));
    // Saved and loaded again: the same bits.
    half.model->parameters().save(dir_ / "half.safetensors");
    SmallModel again(base_);
    for (const Part part : frozen) again.model->parameters().store_as_bf16(part);
    again.model->parameters().load(SafetensorsReader(dir_ / "half.safetensors"), nullptr);
    EXPECT_EQ(step(again, learning), loss);
}

std::string adapter_recipe(const std::string& more = "") {
    return R"({"name": "adapters", "seed": 3, "lora": {"rank": 4, "alpha": 8}, "frozen_dtype": "f32",
      "phases": [{"name": "stage 2", "samples": 24, "batch": 2, "accumulate": 2, "clip": 0.5,
        "lr": {"compressor": 1e-3, "projector": 1e-3, "prefusion": 1e-3, "lora": 1e-2},
        "data": [{"source": "squares"}, {"source": "clips"}]}])" +
           more + "}";
}

class Adapters : public LargeModels {
  protected:
    RunEnd run(const std::string& name, const std::string& text, uint64_t stop_at = 0) {
        const Recipe recipe = parse_recipe(text, "recipe");
        SmallModel small(base_);
        prepare_model(recipe, *small.model);
        const auto progress = [&](uint64_t done, uint64_t, std::string_view) {
            return stop_at == 0 || done < stop_at;
        };
        return run_recipe(recipe, *small.model, *small.tokenizer, make_test_source,
                          {dir_ / name, base_, 1, 5, progress});
    }
    std::string file(const std::string& name) const { return read_text_file(dir_ / name, 1 << 28); }

    std::filesystem::path convert(const std::string& checkpoint) {
        convert_folder(dir_ / checkpoint, dir_ / checkpoint / "gguf");
        return dir_ / checkpoint / "gguf" / "language.gguf";
    }

    static std::vector<float> logits(const std::filesystem::path& model, const std::filesystem::path& lora,
                                     const std::vector<int32_t>& ids) {
        const auto language =
            std::make_shared<LanguageModel>(model, LanguageModelOptions{.n_gpu_layers = 0, .lora = lora});
        LanguageContext context(
            language,
            {.n_ctx = 64, .threads = 1, .kv_type = GGML_TYPE_F32, .flash_attention = FlashAttention::kOff});
        context.decode_tokens(ids, /*want_logits=*/true);
        return {context.logits().begin(), context.logits().end()};
    }
};

TEST_F(Adapters, MergedModelAndAdapterComputeTheSame) {
    ASSERT_EQ(run("run", adapter_recipe()), RunEnd::kDone);
    const std::vector<int32_t> ids = {300, 17, 90, 411, 5, 77, 300, 12};
    const auto base = logits(convert("base"), {}, ids), merged = logits(convert("run/model"), {}, ids),
               adapted = logits(dir_ / "base/gguf/language.gguf", dir_ / "run/adapter.gguf", ids);
    EXPECT_GT(test::max_difference(base, merged), 0.05);  // they have learned something
    EXPECT_LT(test::max_difference(merged, adapted), 1e-4);

    // And the trainer computes with its factors what the merged model computes.
    const Recipe recipe = parse_recipe(adapter_recipe(), "recipe");
    SmallModel with(base_), without(dir_ / "run/model");
    prepare_model(recipe, *with.model);
    AdamW optimizer(with.model->parameters());
    load_checkpoint(*newest_checkpoint(dir_ / "run"), with.model->parameters(), optimizer);
    EXPECT_NEAR(step(with, {Part::kLora}), step(without, {Part::kProjector}), 1e-5);
}

TEST_F(Adapters, OnlyTheFactorsOfTheLanguageModelLearn) {
    ASSERT_EQ(run("run", adapter_recipe()), RunEnd::kDone);
    const auto before = SafetensorsReader(base_),
               after = SafetensorsReader(*newest_checkpoint(dir_ / "run") / "model.safetensors");
    const auto equal = [&](const std::string& name) {
        const SafetensorsTensor &a = *before.find(name), &b = *after.find(name);
        std::vector<float> x(static_cast<size_t>(a.elements())), y(x.size());
        read_as_float(before, a, x);
        read_as_float(after, b, y);
        return x == y;
    };
    for (const auto& [name, tensor] : after.tensors()) {
        const bool learns = name.starts_with("model.compressor.") ||
                            name.starts_with("model.mm_projector.") ||
                            name.starts_with("model.prefusion_layers.");
        if (learns) continue;
        EXPECT_TRUE(equal(name)) << name;
    }
    EXPECT_FALSE(equal("model.mm_projector.0.weight"));
}

TEST_F(Adapters, StoppedAndResumedEqualsNeverStopped) {
    const std::string recipe = adapter_recipe(R"(, "gradient_checkpointing": true)");
    ASSERT_EQ(run("whole", recipe), RunEnd::kDone);
    EXPECT_EQ(run("parts", recipe, 12), RunEnd::kStopped);
    EXPECT_EQ(run("parts", recipe), RunEnd::kDone);
    EXPECT_EQ(file("whole/model/model.safetensors"), file("parts/model/model.safetensors"));
    EXPECT_EQ(file("whole/adapter.gguf"), file("parts/adapter.gguf"));
}

TEST_F(Adapters, Mistakes) {
    const auto message = [&](const std::string& from, const std::string& to) {
        std::string recipe = adapter_recipe();
        recipe.replace(recipe.find(from), from.size(), to);
        return test::error_text([&] { parse_recipe(recipe, "recipe"); });
    };
    EXPECT_THAT(message("\"rank\": 4", "\"rank\": 0"), HasSubstr("rank"));
    EXPECT_THAT(message("\"rank\": 4", "\"rank\": 4, \"targets\": [\"lm_head\"]"),
                testing::AllOf(HasSubstr("targets"), HasSubstr("q_proj")));
    EXPECT_THAT(message("\"lora\": 1e-2", "\"lora\": 1e-2, \"language\": 1e-4"),
                HasSubstr("only the adapters of the language model learn"));
    EXPECT_THAT(message("\"lora\": {\"rank\": 4, \"alpha\": 8}, ", ""),
                HasSubstr("the recipe has no field lora"));
    EXPECT_THAT(message("\"f32\"", "\"f16\""), HasSubstr("frozen_dtype"));

    // Files that are no adapter of this model.
    const auto model = convert("base");
    const auto load = [&](const std::filesystem::path& lora) {
        return test::error_text([&] { logits(model, lora, {1}); });
    };
    EXPECT_THAT(load(dir_ / "none.gguf"), HasSubstr("none.gguf"));
    EXPECT_THAT(load(model), HasSubstr("expected an adapter"));
    dir_.write("junk.gguf", "GGUFjunk");
    EXPECT_THAT(load(dir_ / "junk.gguf"), HasSubstr("junk.gguf"));
    const auto load_odd = [&](const char* architecture, const char* tensor) {
        GgufWriter writer(dir_ / "odd.gguf");
        gguf_set_val_str(writer.metadata(), "general.architecture", architecture);
        gguf_set_val_str(writer.metadata(), "general.type", "adapter");
        gguf_set_val_str(writer.metadata(), "adapter.type", "lora");
        gguf_set_val_f32(writer.metadata(), "adapter.lora.alpha", 8);
        writer.add_tensor(tensor, GGML_TYPE_F32, {2, 4});
        writer.begin();
        writer.write(std::vector<uint8_t>(8 * sizeof(float)));
        writer.commit();
        return load(dir_ / "odd.gguf");
    };
    EXPECT_THAT(load_odd("qwen2", "blk.0.attn_q.weight.lora_a"),
                testing::AllOf(HasSubstr("expected \"llama\""), HasSubstr("qwen2")));
    EXPECT_THAT(load_odd("llama", "token_embd.weight.lora_a"),
                HasSubstr("adapters of the token embeddings are not supported"));
    EXPECT_THAT(load_odd("llama", "blk.0.attn_q.weight.lora_a"), HasSubstr("does not fit"));
}

}  // namespace
}  // namespace llava_mini::trainer
