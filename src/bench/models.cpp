#include "bench/models.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "convert/convert.h"
#include "convert/quantization.h"
#include "convert/synth.h"
#include "core/error.h"
#include "model/gguf_file.h"
#include "model/tensor_names.h"

namespace llava_mini::bench {
namespace {

bool holds(const std::filesystem::path& file, const std::vector<TensorSpec>& specs, ggml_type type,
           bool tied) {
    if (!std::filesystem::exists(file)) return false;
    try {
        const GgufFile gguf(file);
        return std::all_of(specs.begin(), specs.end(), [&](const TensorSpec& spec) {
            const GgufTensor* tensor = gguf.find(spec.gguf);
            if (tensor == nullptr || tensor->type != storage_type(spec, type, tied)) return false;
            return std::equal(spec.shape.rbegin(), spec.shape.rend(), tensor->shape);
        });
    } catch (const Error&) {  // damaged, or of an older version
        return false;
    }
}

}  // namespace

std::filesystem::path default_model_cache() {
    const auto variable = [](const char* name) {
        const char* value = std::getenv(name);
        return std::filesystem::path(value == nullptr ? "" : value);
    };
    if (const auto cache = variable("LLAVA_MINI_CACHE"); !cache.empty()) return cache / "bench";
    if (const auto cache = variable("XDG_CACHE_HOME"); !cache.empty()) return cache / "llava-mini" / "bench";
    const auto home = variable("HOME");
    return (home.empty() ? std::filesystem::temp_directory_path() : home / ".cache") / "llava-mini" / "bench";
}

std::filesystem::path prepare_model(const std::filesystem::path& cache, const std::string& shape_name,
                                    ggml_type type, const Progress& progress) {
    const SynthShape& shape = find_synth_shape(shape_name);
    std::filesystem::path folder = cache / fmt::format("{}-{}", shape.name, ggml_type_name(type));
    std::vector<TensorSpec> vision = tower_tensors(shape.vision);
    for (TensorSpec& spec : bridge_tensors(shape.vision)) vision.push_back(std::move(spec));
    if (!holds(folder / kVisionFile, vision, type, /*tied=*/false) ||
        !holds(folder / kLanguageFile, language_tensors(shape.language), type,
               shape.language.tied_embeddings)) {
        SynthOptions options;
        options.out = folder;
        options.progress = progress;
        synthesize_gguf(shape, type, options);
    }
    return folder;
}

}  // namespace llava_mini::bench
