#include "model/vision_weights.h"

#include <algorithm>
#include <set>

#include "core/error.h"

namespace llava_mini {
namespace {

std::vector<TensorSpec> expected_tensors(const VisionHparams& hparams, bool rope_factors) {
    std::vector<TensorSpec> specs = tower_tensors(hparams);
    for (TensorSpec& spec : bridge_tensors(hparams)) specs.push_back(std::move(spec));
    if (rope_factors) {
        specs.push_back({kPrefusionRopeFactors, "", {hparams.prefusion.head_dim / 2}, Keep::kFull});
    }
    return specs;
}

std::string shape_text(const std::vector<int64_t>& shape) {
    return fmt::format("[{}]", fmt::join(shape, ", "));
}

// GGUF's shape (fastest dimension first) in row-major order, without leading ones beyond `rank`.
std::vector<int64_t> row_major(const GgufTensor& tensor, size_t rank) {
    std::vector<int64_t> shape(tensor.shape, tensor.shape + 4);
    while (shape.size() > std::max<size_t>(rank, 1) && shape.back() == 1) shape.pop_back();
    std::reverse(shape.begin(), shape.end());
    return shape;
}

bool type_allowed(Keep keep, ggml_type type) {
    if (keep == Keep::kFull) return type == GGML_TYPE_F32;
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16 ||
           ggml_is_quantized(type);
}

void check_tensors(const GgufFile& file, const std::vector<TensorSpec>& specs) {
    std::string problems;
    std::set<std::string> known;
    for (const TensorSpec& spec : specs) {
        known.insert(spec.gguf);
        const GgufTensor* tensor = file.find(spec.gguf);
        if (tensor == nullptr) {
            problems += fmt::format("; missing '{}' {}", spec.gguf, shape_text(spec.shape));
        } else if (row_major(*tensor, spec.shape.size()) != spec.shape) {
            problems +=
                fmt::format("; '{}' has shape {}, expected {}", spec.gguf,
                            shape_text(row_major(*tensor, spec.shape.size())), shape_text(spec.shape));
        } else if (!type_allowed(spec.keep, tensor->type)) {
            problems +=
                fmt::format("; '{}' has type {}, expected {}", spec.gguf, ggml_type_name(tensor->type),
                            spec.keep == Keep::kFull ? "f32" : "a float or quantized type");
        }
    }
    for (const GgufTensor& tensor : file.tensors()) {
        if (!known.contains(tensor.name)) problems += fmt::format("; unknown '{}'", tensor.name);
    }
    if (!problems.empty()) {
        throw_input("{}: the tensors do not fit the metadata: {}", file.name(), problems.substr(2));
    }
}

}  // namespace

std::vector<TensorSpec> checked_vision_tensors(const GgufFile& file, const VisionHparams& hparams) {
    std::vector<TensorSpec> specs = expected_tensors(hparams, file.find(kPrefusionRopeFactors) != nullptr);
    check_tensors(file, specs);
    return specs;
}

VisionWeights::VisionWeights(const GgufFile& file, Backends& backends, const Progress& progress)
    : hparams_(read_vision_hparams(file.metadata(), file.name())) {
    const std::vector<TensorSpec> specs = checked_vision_tensors(file, hparams_);

    // One ggml context and one buffer for every buffer type in use.
    std::map<ggml_backend_buffer_type_t, ggml_context*> contexts;
    uint64_t total = 0;
    for (const TensorSpec& spec : specs) {
        const GgufTensor& source = *file.find(spec.gguf);
        total += source.bytes;
        const bool large = is_large_matrix(spec.keep);
        ggml_backend_buffer_type_t buffer_type =
            large ? backends.product_weight_buffer_type(source.type, source.shape[0], source.shape[1])
                  : backends.default_buffer_type();
        ggml_context*& ctx = contexts[buffer_type];
        if (ctx == nullptr) {
            contexts_.emplace_back(
                ggml_init({ggml_tensor_overhead() * specs.size(), nullptr, /*no_alloc=*/true}));
            ctx = contexts_.back().get();
        }
        ggml_tensor* tensor =
            ggml_new_tensor(ctx, source.type, static_cast<int>(spec.shape.size()), source.shape);
        ggml_set_name(tensor, spec.gguf.c_str());
        tensors_.emplace(spec.gguf, tensor);
    }
    bytes_ = total;
    for (const auto& [buffer_type, ctx] : contexts) {
        buffers_.emplace_back(ggml_backend_alloc_ctx_tensors_from_buft(ctx, buffer_type));
        if (!buffers_.back())
            throw_system("{}: not enough memory for {} bytes of weights", file.name(), total);
        ggml_backend_buffer_set_usage(buffers_.back().get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    }

    std::vector<uint8_t> bytes;
    uint64_t done = 0;
    for (const TensorSpec& spec : specs) {
        const GgufTensor& source = *file.find(spec.gguf);
        bytes.resize(source.bytes);
        file.read(source, 0, bytes);
        ggml_backend_tensor_set(tensors_.at(spec.gguf), bytes.data(), 0, bytes.size());
        done += source.bytes;
        if (progress && !progress(done, total, "loading the vision side")) {
            throw_input("{}: interrupted while loading", file.name());
        }
    }
}

ggml_tensor* VisionWeights::find(const std::string& name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : found->second;
}

ggml_tensor* VisionWeights::operator[](const std::string& name) const {
    return tensors_.at(name);
}

}  // namespace llava_mini
