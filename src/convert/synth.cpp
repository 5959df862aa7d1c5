#include "convert/synth.h"

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>

#include "convert/checkpoint_config.h"
#include "convert/convert.h"
#include "convert/gguf_writer.h"
#include "convert/language_metadata.h"
#include "convert/output_folder.h"
#include "convert/progress_reporter.h"
#include "convert/quantization.h"
#include "convert/safetensors.h"
#include "convert/sentencepiece_model.h"
#include "convert/synth_vocabulary.h"
#include "convert/vocabulary.h"
#include "core/error.h"
#include "model/tensor_names.h"

namespace llava_mini {
namespace {

using nlohmann::json;

constexpr float kSpread = 0.02f;
constexpr int64_t kPoolElements = 4 << 20;
constexpr size_t kBufferBytes = 8 << 20;

// Random rows in a tensor type: a pool for every type and row length, from which tensors draw their rows.
// Making eight thousand million numbers one by one would take minutes, and no measurement can tell.
class RandomRows {
  public:
    explicit RandomRows(uint64_t seed) : random_(seed) {}

    /// Calls sink(bytes) with consecutive pieces of a tensor's data.
    template <typename Sink>
    void fill(ggml_type type, const std::vector<int64_t>& shape, bool near_one, Sink sink) {
        const int64_t columns = shape.back();
        int64_t rows = 1;
        for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
        const size_t row_bytes = ggml_row_size(type, columns);
        const std::vector<uint8_t>& pool = pool_of(type, columns, near_one);
        std::uniform_int_distribution<size_t> draw(0, pool.size() / row_bytes - 1);
        std::vector<uint8_t> buffer;
        for (int64_t row = 0; row < rows; ++row) {
            const auto from = pool.begin() + static_cast<std::ptrdiff_t>(draw(random_) * row_bytes);
            buffer.insert(buffer.end(), from, from + static_cast<std::ptrdiff_t>(row_bytes));
            if (buffer.size() >= kBufferBytes || row + 1 == rows) {
                sink(std::span<const uint8_t>(buffer));
                buffer.clear();
            }
        }
    }

  private:
    const std::vector<uint8_t>& pool_of(ggml_type type, int64_t columns, bool near_one) {
        std::vector<uint8_t>& pool = pools_[{type, columns, near_one}];
        if (!pool.empty()) return pool;
        const int64_t rows = std::clamp<int64_t>(kPoolElements / columns, 16, 2048);
        std::normal_distribution<float> normal(near_one ? 1.0f : 0.0f, kSpread);
        std::vector<float> values(static_cast<size_t>(rows * columns));
        for (float& value : values) value = normal(random_);
        pool.resize(static_cast<size_t>(rows) * ggml_row_size(type, columns));
        quantize_rows(type, values, rows, columns, pool, 2);
        return pool;
    }

    std::mt19937_64 random_;
    std::map<std::tuple<ggml_type, int64_t, bool>, std::vector<uint8_t>> pools_;
};

// Weights of norms are near one, everything else near zero.
bool is_norm_weight(const TensorSpec& spec) {
    return spec.shape.size() == 1 && spec.gguf.ends_with(".weight");
}

Vocabulary vocabulary_of(const SynthShape& shape) {
    return shape.sentencepiece ? synth_sentencepiece(shape.language.n_vocab)
                               : synth_byte_level_bpe(shape.language.n_vocab);
}

std::vector<TensorSpec> vision_tensors(const VisionHparams& hp) {
    std::vector<TensorSpec> specs = tower_tensors(hp);
    for (TensorSpec& spec : bridge_tensors(hp)) specs.push_back(std::move(spec));
    return specs;
}

class GgufSynthesizer {
  public:
    GgufSynthesizer(const std::filesystem::path& path, const std::vector<TensorSpec>& specs, ggml_type type,
                    bool tied_embeddings)
        : writer_(path), label_(path.filename().string()) {
        gguf_set_val_u32(writer_.metadata(), "general.file_type", static_cast<uint32_t>(file_type_of(type)));
        gguf_set_val_u32(writer_.metadata(), "general.quantization_version", GGML_QNT_VERSION);
        for (const TensorSpec& spec : specs)
            tensors_.push_back({spec, storage_type(spec, type, tied_embeddings)});
    }

    gguf_context* metadata() { return writer_.metadata(); }

    // Lays the file out; returns its bytes of weights. `rope_factors` may be empty.
    uint64_t plan(const char* rope_name, const std::vector<float>& rope_factors) {
        rope_factors_ = rope_factors;
        if (!rope_factors.empty()) {
            writer_.add_tensor(rope_name, GGML_TYPE_F32, {static_cast<int64_t>(rope_factors.size())});
        }
        for (const auto& [spec, type] : tensors_) writer_.add_tensor(spec.gguf, type, spec.shape);
        return writer_.tensor_bytes();
    }

    void write(RandomRows& random, ProgressReporter& reporter) {
        writer_.begin();
        writer_.write(
            {reinterpret_cast<const uint8_t*>(rope_factors_.data()), rope_factors_.size() * sizeof(float)});
        reporter.add(rope_factors_.size() * sizeof(float), label_);
        for (const auto& [spec, type] : tensors_) {
            random.fill(type, spec.shape, is_norm_weight(spec), [&](std::span<const uint8_t> bytes) {
                writer_.write(bytes);
                reporter.add(bytes.size(), label_);
            });
        }
    }

    void commit() { writer_.commit(); }

  private:
    GgufWriter writer_;
    std::string label_;
    std::vector<std::pair<TensorSpec, ggml_type>> tensors_;
    std::vector<float> rope_factors_;
};

json config_json(const SynthShape& shape) {
    const LlamaHparams& lm = shape.language;
    const VisionHparams& vision = shape.vision;
    const Vocabulary vocabulary = vocabulary_of(shape);
    json config = config_fields(lm, vision);
    config["bos_token_id"] = *vocabulary.bos;
    config["eos_token_id"] = *vocabulary.eos;
    config["mm_vision_select_layer"] = vision.n_layer - shape.tower_layers - 1;
    config["mm_vision_tower"] = "openai/clip-vit-large-patch14-336";
    config["torch_dtype"] = "bfloat16";
    if (!lm.rope_freq_factors.empty()) {
        config["rope_scaling"] = {{"rope_type", "llama3"},
                                  {"factor", 8.0},
                                  {"low_freq_factor", 1.0},
                                  {"high_freq_factor", 4.0},
                                  {"original_max_position_embeddings", 8192}};
    }
    if (!vision.compressor_grids.empty()) {
        config["compressor_size"] = vision.compressor_grids.front();
        config["prefusion_layer_num"] = vision.prefusion.n_layer;
    }
    return config;
}

// Checkpoint tensors with their full names.
std::vector<TensorSpec> checkpoint_tensors(const SynthShape& shape) {
    std::vector<TensorSpec> specs = language_tensors(shape.language);
    const auto add = [&](std::vector<TensorSpec> more, const std::string& prefix) {
        for (TensorSpec& spec : more) {
            spec.checkpoint = prefix + spec.checkpoint;
            specs.push_back(std::move(spec));
        }
    };
    add(bridge_tensors(shape.vision), "model.");
    VisionHparams whole_tower = shape.vision;
    whole_tower.n_layer = shape.tower_layers;
    add(tower_tensors(whole_tower), kTowerInsidePrefix);
    return specs;
}

uint64_t bf16_bytes(const TensorSpec& spec) {
    uint64_t bytes = ggml_type_size(GGML_TYPE_BF16);
    for (const int64_t dimension : spec.shape) bytes *= static_cast<uint64_t>(dimension);
    return bytes;
}

}  // namespace

void synthesize_gguf(const SynthShape& shape, ggml_type type, const SynthOptions& options) {
    OutputFolder folder(options.out);
    GgufSynthesizer language(options.out / kLanguageFile, language_tensors(shape.language), type,
                             shape.language.tied_embeddings);
    write_language_metadata(language.metadata(), shape.language, shape.name);
    write_vocabulary(language.metadata(), vocabulary_of(shape));
    GgufSynthesizer vision(options.out / kVisionFile, vision_tensors(shape.vision), type,
                           /*tied_embeddings=*/false);
    VisionHparams hparams = shape.vision;
    hparams.name = shape.name;
    hparams.system_prompt = shape.sentencepiece ? kVicunaSystemPrompt : kLlama3SystemPrompt;
    write_vision_hparams(vision.metadata(), hparams);

    const std::vector<float>& factors = shape.language.rope_freq_factors;
    const uint64_t total = language.plan(kLanguageRopeFactors, factors) +
                           vision.plan(kPrefusionRopeFactors,
                                       shape.vision.prefusion.n_layer > 0 ? factors : std::vector<float>{});
    ProgressReporter reporter(options.progress, total);
    RandomRows random(options.seed);
    language.write(random, reporter);
    vision.write(random, reporter);
    language.commit();
    vision.commit();
    folder.keep();
}

void synthesize_checkpoint(const SynthShape& shape, uint64_t shard_bytes, const SynthOptions& options) {
    std::vector<std::vector<TensorSpec>> shards(1);
    uint64_t in_shard = 0, total = 0;
    for (TensorSpec& spec : checkpoint_tensors(shape)) {
        const uint64_t bytes = bf16_bytes(spec);
        if (in_shard > 0 && in_shard + bytes > shard_bytes) {
            shards.emplace_back();
            in_shard = 0;
        }
        in_shard += bytes;
        total += bytes;
        shards.back().push_back(std::move(spec));
    }

    OutputFolder folder(options.out);
    json weight_map = json::object();
    std::vector<std::unique_ptr<SafetensorsWriter>> writers;
    ProgressReporter reporter(options.progress, total);
    RandomRows random(options.seed);
    for (size_t i = 0; i < shards.size(); ++i) {
        const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
        std::vector<SafetensorsWriter::Tensor> tensors;
        for (const TensorSpec& spec : shards[i]) {
            tensors.push_back({spec.checkpoint, GGML_TYPE_BF16, spec.shape});
            weight_map[spec.checkpoint] = name;
        }
        writers.push_back(std::make_unique<SafetensorsWriter>(options.out / name, tensors));
        for (const TensorSpec& spec : shards[i]) {
            random.fill(GGML_TYPE_BF16, spec.shape, is_norm_weight(spec),
                        [&](std::span<const uint8_t> bytes) {
                            writers.back()->write(bytes);
                            reporter.add(bytes.size(), name);
                        });
        }
    }

    const Vocabulary vocabulary = vocabulary_of(shape);
    std::vector<std::pair<std::string, std::string>> texts = {
        {"config.json", config_json(shape).dump(2)},
        {"tokenizer_config.json", tokenizer_config_json(vocabulary)},
        {"model.safetensors.index.json",
         json{{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}}.dump(2)}};
    if (shape.sentencepiece) {
        texts.emplace_back("tokenizer.model", write_sentencepiece_model(vocabulary));
    } else {
        texts.emplace_back("tokenizer.json", tokenizer_json(vocabulary));
    }
    std::vector<std::unique_ptr<AtomicFile>> files;
    for (const auto& [name, text] : texts) {
        files.push_back(std::make_unique<AtomicFile>(options.out / name));
        files.back()->write(text);
    }
    for (const auto& writer : writers) writer->commit();
    for (const auto& file : files) file->commit();
    folder.keep();
}

}  // namespace llava_mini
