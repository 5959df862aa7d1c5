#include "llm/models.h"

#include <fmt/format.h>
#include <ggml-cpp.h>

#include <vector>

#include "support/golden_model.h"

namespace llava_mini::test {
namespace {

const TempDir& models_dir() {
    static const TempDir dir;
    return dir;
}

}  // namespace

const std::filesystem::path& tiny_language_gguf() {
    static const std::filesystem::path path = golden_model(GGML_TYPE_F32) / kLanguageFile;
    return path;
}

std::shared_ptr<const LanguageModel> tiny_model() {
    static const auto model = std::make_shared<const LanguageModel>(tiny_language_gguf());
    return model;
}

void write_edited_gguf(const std::filesystem::path& path, const std::function<void(gguf_context*)>& edit) {
    ggml_context* tensors = nullptr;
    const gguf_context_ptr source(
        gguf_init_from_file(tiny_language_gguf().c_str(), {/*no_alloc=*/false, &tensors}));
    ASSERT_NE(source, nullptr);
    const ggml_context_ptr owner(tensors);
    const gguf_context_ptr copy(gguf_init_empty());
    gguf_set_kv(copy.get(), source.get());
    for (int64_t i = 0; i < gguf_get_n_tensors(source.get()); ++i) {
        gguf_add_tensor(copy.get(), ggml_get_tensor(tensors, gguf_get_tensor_name(source.get(), i)));
    }
    edit(copy.get());
    ASSERT_TRUE(gguf_write_to_file(copy.get(), path.c_str(), /*only_meta=*/false));
}

std::shared_ptr<const LanguageModel> vicuna_like_model() {
    static const auto model = [] {
        std::vector<std::string> texts = {"<unk>", "<s>", "</s>"};
        std::vector<int32_t> types = {2, 3, 3};  // unknown, control, control
        std::vector<float> scores = {0, 0, 0};
        const auto add = [&](std::string text, int32_t type, float score) {
            texts.push_back(std::move(text));
            types.push_back(type);
            scores.push_back(score);
        };
        for (int i = 0; i < 256; ++i) add(fmt::format("<0x{:02X}>", i), 6, 0);
        const char* words[] = {"\u2581U", "SE",        "SER",        "\u2581USER", "\u2581A",     "SS",
                               "IS",      "SIS",       "TA",         "NT",         "\u2581ASSIS", "\u2581AS",
                               "\u2581t", "\u2581the", "he",         "\u2581b",    "oa",          "oat",
                               "\u2581c", "\u2581ca",  "\u2581cat",  "\u2581boat", "in",          "\u2581in",
                               "wh",      "\u2581wh",  "\u2581what", "at"};
        float score = -1;
        for (const char* word : words) add(word, 1, score--);
        add("\u2581", 1, -100);
        for (char c = 33; c < 127; ++c) add(std::string(1, c), 1, -101.0f - c);
        while (texts.size() < 1024) add(fmt::format("unused{}", texts.size()), 5, -1000);

        write_edited_gguf(models_dir() / "vicuna.gguf", [&](gguf_context* gguf) {
            std::vector<const char*> pointers;
            for (const std::string& text : texts) pointers.push_back(text.c_str());
            gguf_set_val_str(gguf, "tokenizer.ggml.model", "llama");
            gguf_remove_key(gguf, "tokenizer.ggml.merges");
            gguf_remove_key(gguf, "tokenizer.ggml.pre");
            gguf_set_arr_str(gguf, "tokenizer.ggml.tokens", pointers.data(), pointers.size());
            gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types.data(), types.size());
            gguf_set_arr_data(gguf, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores.data(), scores.size());
            gguf_set_val_u32(gguf, "tokenizer.ggml.bos_token_id", 1);
            gguf_set_val_u32(gguf, "tokenizer.ggml.eos_token_id", 2);
            gguf_set_val_bool(gguf, "tokenizer.ggml.add_bos_token", true);
            gguf_set_val_bool(gguf, "tokenizer.ggml.add_space_prefix", true);
            gguf_set_val_str(gguf, "tokenizer.chat_template", kVicunaTemplate);
        });
        return std::make_shared<const LanguageModel>(models_dir() / "vicuna.gguf");
    }();
    return model;
}

}  // namespace llava_mini::test
