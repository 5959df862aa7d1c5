#include "trainer/restore.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>
#include <vector>

#include "convert/checkpoint_config.h"
#include "convert/convert.h"
#include "convert/interleave.h"
#include "convert/json_input.h"
#include "convert/language_metadata.h"
#include "convert/quantization.h"
#include "convert/safetensors.h"
#include "convert/vocabulary.h"
#include "core/error.h"
#include "core/file.h"
#include "llm/language_gguf.h"
#include "model/gguf_file.h"
#include "model/tensor_names.h"
#include "model/vision_weights.h"
#include "trainer/initialise.h"

namespace llava_mini::trainer {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr const char* kBosKey = "tokenizer.ggml.bos_token_id";
constexpr const char* kEosKey = "tokenizer.ggml.eos_token_id";

// A tensor of a GGUF file under the checkpoint's full name.
struct Source {
    const GgufFile* file;
    TensorSpec spec;
    std::string name;
};

ordered_json language_config(const LlamaHparams& lm, const VisionHparams& vision, const GgufFile& file) {
    ordered_json config = config_fields(lm, vision);
    if (vision.image_aspect_ratio != "pad") config["image_aspect_ratio"] = "square";
    config["mm_vision_tower"] = "vision_tower";
    config["unfreeze_mm_vision_tower"] = true;  // the weights inside the checkpoint count
    config["mm_vision_select_layer"] = -1;      // the file holds no layer that is never used
    config["prefusion_layer_num"] = vision.prefusion.n_layer;
    config["torch_dtype"] = "float32";
    for (const auto& [key, field] : {std::pair{kBosKey, "bos_token_id"}, {kEosKey, "eos_token_id"}}) {
        if (file.has(key)) config[field] = file.get_u32(key);
    }
    if (lm.rope_linear_factor != 1.0f) {
        config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", lm.rope_linear_factor}};
    }
    if (vision.max_prompt_tokens > 0) config["tokenizer_model_max_length"] = vision.max_prompt_tokens;
    if (!vision.compressor_grids.empty()) {
        config["compressor_size"] = vision.compressor_grids;
        if (vision.compressor_grids.size() == 1) config["compressor_size"] = vision.compressor_grids.front();
        config["compressor_head_dim"] = vision.compressor_head_dim;
        if (vision.average_pooling) config["compressor"] = "average";
    }
    return config;
}

// Whole, as f32 in the checkpoint's order of rows.
std::vector<float> values_of(const Source& source) {
    const GgufTensor& tensor = *source.file->find(source.spec.gguf);
    const int64_t columns = tensor.shape[0], rows = tensor.shape[1] * tensor.shape[2] * tensor.shape[3];
    std::vector<uint8_t> bytes(tensor.bytes);
    source.file->read(tensor, 0, bytes);
    std::vector<float> values(static_cast<size_t>(rows * columns));
    dequantize_rows(tensor.type, bytes, rows, columns, values, 1);
    if (source.spec.interleave_heads == 0) return values;
    std::vector<float> ordered(values.size());
    deinterleave_rows(values, rows / source.spec.interleave_heads, columns, ordered);
    return ordered;
}

void write(const std::vector<Source>& sources, const ordered_json& config, const ordered_json& tower,
           const VisionHparams& vision, const fs::path& tokenizer, const fs::path& out) {
    copy_tokenizer(tokenizer, out);
    write_text_file(out / "config.json", config.dump(2) + "\n");
    write_text_file(out / "vision_tower/config.json", tower.dump(2) + "\n");
    write_text_file(
        out / "vision_tower/preprocessor_config.json",
        ordered_json{{"image_mean", vision.image_mean}, {"image_std", vision.image_std}}.dump(2) + "\n");
    std::vector<SafetensorsWriter::Tensor> tensors;
    for (const Source& source : sources) tensors.push_back({source.name, GGML_TYPE_F32, source.spec.shape});
    SafetensorsWriter writer(out / "model.safetensors", tensors);
    for (const Source& source : sources) {
        const std::vector<float> values = values_of(source);
        writer.write({reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)});
    }
    writer.commit();
}

// What a checkpoint cannot say: it has one shape for the language model and the pre-fusion, and no more tensors than
// these have.
void check_restorable(const GgufFile& language_file, const LlamaHparams& language,
                      const GgufFile& vision_file, const VisionHparams& vision) {
    for (const auto& [file, name] :
         {std::pair{&language_file, kLanguageRopeFactors}, {&vision_file, kPrefusionRopeFactors}}) {
        if (file->find(name) == nullptr) continue;
        throw_input(
            "{}: Llama 3's rope scaling cannot be restored from GGUF, which holds its factors alone: start "
            "from the "
            "checkpoint",
            file->name());
    }
    const char* attention = "llama.rope.scaling.attn_factor";
    if (language_file.has(attention) && language_file.get_f32(attention) != 1.0f) {
        throw_input("{}: '{}' is {}: a checkpoint cannot hold it", language_file.name(), attention,
                    language_file.get_f32(attention));
    }
    const LlamaHparams& prefusion = vision.prefusion;
    const auto shape = [](const LlamaHparams& hp) {
        return std::tuple(hp.n_embd, hp.n_ff, hp.n_head, hp.n_head_kv, hp.head_dim, hp.rms_eps, hp.rope_theta,
                          hp.rope_linear_factor);
    };
    if (prefusion.n_embd != language.n_embd ||
        (prefusion.n_layer > 0 && shape(prefusion) != shape(language))) {
        throw_input("{}: its pre-fusion has another shape than the language model of {}", vision_file.name(),
                    language_file.name());
    }
    const std::vector<TensorSpec> known = language_tensors(language);
    for (const GgufTensor& tensor : language_file.tensors()) {
        if (std::none_of(known.begin(), known.end(),
                         [&](const TensorSpec& s) { return s.gguf == tensor.name; })) {
            throw_input("{}: tensor '{}': a checkpoint cannot hold it", language_file.name(), tensor.name);
        }
    }
    for (const GgufFile* file : {&language_file, &vision_file}) {
        for (const GgufTensor& tensor : file->tensors()) {
            if (tensor.type == GGML_TYPE_F32 || ggml_get_type_traits(tensor.type)->to_float != nullptr)
                continue;
            throw_input("{}: tensor '{}' has type {}, which has no way back to floats", file->name(),
                        tensor.name, ggml_type_name(tensor.type));
        }
    }
}

// Tokens of another tokenizer would stand for other rows of the embeddings.
void check_tokenizer(const GgufFile& file, int n_vocab, const fs::path& folder) {
    std::optional<int> bos;
    std::vector<int> eos;
    if (file.has(kBosKey)) bos = static_cast<int>(file.get_u32(kBosKey));
    if (file.has(kEosKey)) eos.push_back(static_cast<int>(file.get_u32(kEosKey)));
    const Vocabulary vocabulary = read_vocabulary(folder, n_vocab, bos, eos);
    const int64_t key = gguf_find_key(file.metadata(), "tokenizer.ggml.tokens");
    for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
        const std::string token = gguf_get_arr_str(file.metadata(), key, i);
        if (token == vocabulary.tokens[i]) continue;
        throw_input("{}: not the tokenizer of {}: token {} is '{}', expected '{}'", folder.string(),
                    file.name(), i, printable(vocabulary.tokens[i]), printable(token));
    }
}

}  // namespace

bool holds_gguf(const fs::path& folder) {
    return fs::exists(folder / kLanguageFile) && fs::exists(folder / kVisionFile) &&
           !fs::exists(folder / "config.json");
}

void restore_checkpoint(const fs::path& folder, const fs::path& tokenizer, const fs::path& out) {
    const GgufFile language_file(folder / kLanguageFile), vision_file(folder / kVisionFile);
    const LlamaHparams language = read_language_hparams(language_file);
    const VisionHparams vision = read_vision_hparams(vision_file.metadata(), vision_file.name());
    checked_vision_tensors(vision_file, vision);
    check_restorable(language_file, language, vision_file, vision);
    check_tokenizer(language_file, language.n_vocab, tokenizer);

    std::vector<Source> sources;
    const auto add = [&](const GgufFile& file, const std::vector<TensorSpec>& specs,
                         const std::string& prefix) {
        for (const TensorSpec& spec : specs) sources.push_back({&file, spec, prefix + spec.checkpoint});
    };
    add(language_file, language_tensors(language), "");
    add(vision_file, bridge_tensors(vision), "model.");
    add(vision_file, tower_tensors(vision), kTowerInsidePrefix);

    fs::path aside = out;
    aside += ".partial";
    std::error_code ignored;
    fs::remove_all(aside, ignored);  // of a run that was killed
    try {
        write(sources, language_config(language, vision, language_file), tower_fields(vision), vision,
              tokenizer, aside);
        fs::rename(aside, out);
    } catch (...) {
        fs::remove_all(aside, ignored);
        throw;
    }
}

}  // namespace llava_mini::trainer
