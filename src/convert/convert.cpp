#include "convert/convert.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <functional>
#include <set>

#include "convert/checkpoint_config.h"
#include "convert/gguf_writer.h"
#include "convert/interleave.h"
#include "convert/language_metadata.h"
#include "convert/output_folder.h"
#include "convert/progress_reporter.h"
#include "convert/quantization.h"
#include "convert/vocabulary.h"
#include "core/error.h"

namespace llava_mini {
namespace {

constexpr int64_t kChunkElements = 4 << 20;
constexpr float kMaxF16 = 65504.0f;

// One tensor's way from a checkpoint into a GGUF.
struct Job {
    TensorSpec spec;
    const SafetensorsReader* source = nullptr;
    const SafetensorsTensor* tensor = nullptr;
    ggml_type type = GGML_TYPE_F32;
};

// Pairs the tensors a model must have with those a checkpoint has.
class TensorPlan {
  public:
    TensorPlan(ggml_type wanted, bool tied_embeddings) : wanted_(wanted), tied_embeddings_(tied_embeddings) {}

    std::vector<Job> take(const std::vector<TensorSpec>& specs, const SafetensorsReader& source,
                          const std::string& prefix) {
        std::vector<Job> jobs;
        for (const TensorSpec& spec : specs) {
            const std::string name = prefix + spec.checkpoint;
            const SafetensorsTensor* tensor = source.find(name);
            if (tensor == nullptr) {
                missing_.push_back(fmt::format("{} [{}]", name, fmt::join(spec.shape, ", ")));
                continue;
            }
            used_.insert({&source, name});
            if (tensor->shape != spec.shape) {
                misshapen_.push_back(fmt::format("{} (expected [{}], found [{}])", name,
                                                 fmt::join(spec.shape, ", "),
                                                 fmt::join(tensor->shape, ", ")));
            } else if (tensor->type() == GGML_TYPE_COUNT) {
                wrong_type_.push_back(fmt::format("{} ({})", name, tensor->dtype));
            }
            jobs.push_back({spec, &source, tensor, storage_type(spec, wanted_, tied_embeddings_)});
        }
        return jobs;
    }

    // Whatever was not taken and is not `known` to be of no use is an error.
    void expect_no_others(const SafetensorsReader& source,
                          const std::function<bool(const std::string&)>& known) {
        for (const auto& [name, tensor] : source.tensors()) {
            if (!used_.contains({&source, name}) && !known(name)) unused_.push_back(name);
        }
    }

    // Throws one error with everything that does not fit.
    void check(const std::string& where) const {
        std::vector<std::string> parts;
        const auto add = [&](const char* title, const std::vector<std::string>& names) {
            if (!names.empty()) parts.push_back(fmt::format("{}: {}", title, fmt::join(names, ", ")));
        };
        add("missing", missing_);
        add("misshapen", misshapen_);
        add("of a dtype other than F32, F16 and BF16", wrong_type_);
        add("unused", unused_);
        if (!parts.empty()) {
            throw_input("{}: the tensors do not fit the configuration: {}", where, fmt::join(parts, "; "));
        }
    }

  private:
    ggml_type wanted_;
    bool tied_embeddings_;
    std::set<std::pair<const SafetensorsReader*, std::string>> used_;
    std::vector<std::string> missing_, misshapen_, wrong_type_, unused_;
};

// Tensors of a vision tower below its prefix that the runtime never needs.
bool is_known_unused_of_tower(std::string_view name, const VisionHparams& hp) {
    if (name == "logit_scale" || name == "visual_projection.weight" || name == "text_projection.weight" ||
        name == "vision_model.embeddings.position_ids" || name.starts_with("text_model.") ||
        name.starts_with("vision_model.post_layernorm.")) {
        return true;
    }
    constexpr std::string_view kLayers = "vision_model.encoder.layers.";
    if (!name.starts_with(kLayers)) return false;
    const std::string_view rest = name.substr(kLayers.size());
    const size_t digits = std::min(rest.find('.'), rest.size());
    if (digits == 0 || digits > 6 || !std::all_of(rest.begin(), rest.begin() + digits, ::isdigit))
        return false;
    return std::stoi(std::string(rest.substr(0, digits))) >= hp.n_layer;
}

bool is_known_unused(const std::string& name, const CheckpointConfig& config) {
    if (name.ends_with("rotary_emb.inv_freq")) return true;
    if (name == "lm_head.weight") return config.language.tied_embeddings;
    if (!name.starts_with(kTowerInsidePrefix)) return false;
    return !config.tower_folder.empty() ||
           is_known_unused_of_tower(
               std::string_view(name).substr(std::string_view(kTowerInsidePrefix).size()), config.vision);
}

void check_values(std::span<const float> values, const Job& job) {
    const float limit = job.type == GGML_TYPE_F16 ? kMaxF16 : FLT_MAX;
    bool good = true;
    for (const float value : values) good &= std::fabs(value) <= limit;  // false for not-a-number
    if (good) return;
    const auto bad =
        std::find_if(values.begin(), values.end(), [&](float value) { return !(std::fabs(value) <= limit); });
    throw_input("{}: tensor '{}' holds {}, which {} cannot store", job.source->name(), job.spec.checkpoint,
                *bad, ggml_type_name(job.type));
}

void stream_tensor(const Job& job, GgufWriter& writer, int threads, ProgressReporter& reporter,
                   std::string_view label) {
    const int64_t columns = job.spec.shape.back();
    const int64_t rows = job.tensor->elements() / columns;
    const int64_t head_dim = job.spec.interleave_heads > 0 ? rows / job.spec.interleave_heads : 1;
    int64_t chunk = std::max<int64_t>(1, kChunkElements / columns);
    chunk = std::max(chunk / head_dim, int64_t{1}) * head_dim;  // whole heads

    const size_t source_row = ggml_row_size(job.tensor->type(), columns);
    const size_t target_row = ggml_row_size(job.type, columns);
    std::vector<uint8_t> source, target;
    std::vector<float> values, permuted;
    for (int64_t row = 0; row < rows; row += chunk) {
        const int64_t n = std::min(chunk, rows - row);
        source.resize(static_cast<size_t>(n) * source_row);
        target.resize(static_cast<size_t>(n) * target_row);
        values.resize(static_cast<size_t>(n * columns));
        job.source->read(*job.tensor, static_cast<uint64_t>(row) * source_row, source);
        dequantize_rows(job.tensor->type(), source, n, columns, values, threads);
        check_values(values, job);
        if (job.spec.interleave_heads > 0) {
            permuted.resize(values.size());
            interleave_rows(values, head_dim, columns, permuted);
            values.swap(permuted);
        }
        quantize_rows(job.type, values, n, columns, target, threads);
        writer.write(target);
        reporter.add(source.size(), label);
    }
}

uint64_t source_bytes(const std::vector<Job>& jobs) {
    uint64_t bytes = 0;
    for (const Job& job : jobs) bytes += job.tensor->bytes;
    return bytes;
}

// Writes everything but the commit. `rope_factors` may be empty.
void write_file(GgufWriter& writer, const std::vector<Job>& jobs, const char* rope_name,
                const std::vector<float>& rope_factors, const ConvertOptions& options,
                ProgressReporter& reporter, std::string_view label) {
    gguf_set_val_u32(writer.metadata(), "general.file_type",
                     static_cast<uint32_t>(file_type_of(options.type)));
    gguf_set_val_u32(writer.metadata(), "general.quantization_version", GGML_QNT_VERSION);
    if (!rope_factors.empty()) {
        writer.add_tensor(rope_name, GGML_TYPE_F32, {static_cast<int64_t>(rope_factors.size())});
    }
    for (const Job& job : jobs) writer.add_tensor(job.spec.gguf, job.type, job.spec.shape);
    writer.begin();
    writer.write(
        {reinterpret_cast<const uint8_t*>(rope_factors.data()), rope_factors.size() * sizeof(float)});
    for (const Job& job : jobs) stream_tensor(job, writer, options.threads, reporter, label);
}

}  // namespace

void convert_checkpoint(const ConvertOptions& options) {
    const SafetensorsReader weights(options.checkpoint);
    CheckpointConfig config = read_checkpoint_config(options.checkpoint, options.vision_tower, weights);
    const Vocabulary vocabulary =
        read_vocabulary(options.checkpoint, config.language.n_vocab, config.bos_id, config.eos_ids);
    config.vision.system_prompt = vocabulary.system_prompt.value_or(
        vocabulary.model == "llama" ? kVicunaSystemPrompt : kLlama3SystemPrompt);
    std::optional<SafetensorsReader> tower;
    if (!config.tower_folder.empty()) tower.emplace(config.tower_folder);

    TensorPlan plan(options.type, config.language.tied_embeddings);
    const std::vector<Job> language = plan.take(language_tensors(config.language), weights, "");
    std::vector<Job> vision =
        plan.take(tower_tensors(config.vision), tower ? *tower : weights, tower ? "" : kTowerInsidePrefix);
    for (Job& job : plan.take(bridge_tensors(config.vision), weights, "model."))
        vision.push_back(std::move(job));
    plan.expect_no_others(weights, [&](const std::string& name) { return is_known_unused(name, config); });
    if (tower) {
        plan.expect_no_others(
            *tower, [&](const std::string& name) { return is_known_unused_of_tower(name, config.vision); });
    }
    plan.check(options.checkpoint.string());

    OutputFolder folder(options.out);
    GgufWriter language_file(options.out / kLanguageFile), vision_file(options.out / kVisionFile);
    ProgressReporter reporter(options.progress, source_bytes(language) + source_bytes(vision));
    write_language_metadata(language_file.metadata(), config.language, config.vision.name);
    write_vocabulary(language_file.metadata(), vocabulary);
    write_vision_hparams(vision_file.metadata(), config.vision);
    const std::vector<float>& rope_factors = config.language.rope_freq_factors;
    write_file(language_file, language, kLanguageRopeFactors, rope_factors, options, reporter, kLanguageFile);
    write_file(vision_file, vision, kPrefusionRopeFactors,
               config.vision.prefusion.n_layer > 0 ? rope_factors : std::vector<float>{}, options, reporter,
               kVisionFile);
    language_file.commit();
    vision_file.commit();
    folder.keep();
}

}  // namespace llava_mini
