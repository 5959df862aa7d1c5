#include "trainer/parameters.h"

#include <numeric>

#include "convert/checkpoint_config.h"
#include "convert/quantization.h"
#include "core/error.h"

namespace llava_mini::trainer {
namespace {

// What stands for several tensors of a checkpoint, in the order in which they are stacked; else the name
// itself.
std::string fused_name(const std::string& name) {
    for (const auto& [piece, whole] : {std::pair{".q_proj.", ".qkv."},
                                       {".k_proj.", ".qkv."},
                                       {".v_proj.", ".qkv."},
                                       {".gate_proj.", ".gate_up."},
                                       {".up_proj.", ".gate_up."}}) {
        if (const size_t at = name.find(piece); at != std::string::npos) {
            return name.substr(0, at) + whole + name.substr(at + std::string(piece).size());
        }
    }
    return name;
}

Part bridge_part(const std::string& name) {
    if (name.starts_with("compressor.")) return Part::kCompressor;
    return name.starts_with("mm_projector.") ? Part::kProjector : Part::kPrefusion;
}

Part language_part(const std::string& name) {
    if (name == "model.embed_tokens.weight") return Part::kEmbeddings;
    return name == "lm_head.weight" ? Part::kHead : Part::kLanguage;
}

int64_t elements(const std::vector<int64_t>& shape) {
    return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::span<float> values_of(const Leaf& leaf) {
    return {leaf.value.data_ptr<float>(), static_cast<size_t>(leaf.value.numel())};
}

}  // namespace

Parameters::Parameters(const VisionHparams& vision, const LlamaHparams& language) {
    const auto add = [&](const TensorSpec& spec, Part part, const std::string& prefix) {
        const std::string key = fused_name(spec.checkpoint);
        const auto [entry, is_new] = index_.try_emplace(key, leaves_.size());
        if (is_new) leaves_.push_back({key, part, {}, spec.shape, {}});
        Leaf& leaf = leaves_[entry->second];
        if (!is_new) leaf.shape[0] += spec.shape[0];
        leaf.pieces.push_back({prefix + spec.checkpoint, spec.shape});
    };
    for (const TensorSpec& spec : tower_tensors(vision)) add(spec, Part::kTower, kTowerInsidePrefix);
    for (const TensorSpec& spec : bridge_tensors(vision)) add(spec, bridge_part(spec.checkpoint), "model.");
    for (const TensorSpec& spec : language_tensors(language)) add(spec, language_part(spec.checkpoint), "");
    for (Leaf& leaf : leaves_) leaf.value = torch::empty(leaf.shape);
}

void Parameters::set_learning(Part part, bool learns) {
    for (Leaf& leaf : leaves_) {
        if (leaf.part != part) continue;
        leaf.value.set_requires_grad(learns);
        // Gradients are added to where they stand, so that they are allocated once.
        leaf.value.mutable_grad() = learns ? torch::zeros_like(leaf.value) : torch::Tensor();
    }
}

void Parameters::zero_gradients() {
    for (Leaf& leaf : leaves_) {
        if (leaf.value.requires_grad()) leaf.value.mutable_grad().zero_();
    }
}

void Parameters::load(const SafetensorsReader& weights, const SafetensorsReader* tower) {
    std::vector<std::string> missing, misshapen;
    for (Leaf& leaf : leaves_) {
        size_t offset = 0;
        for (const Leaf::Piece& piece : leaf.pieces) {
            const bool outside = tower != nullptr && leaf.part == Part::kTower;
            const SafetensorsReader& reader = outside ? *tower : weights;
            const std::string name =
                outside ? piece.checkpoint.substr(std::string(kTowerInsidePrefix).size()) : piece.checkpoint;
            const SafetensorsTensor* tensor = reader.find(name);
            const auto size = static_cast<size_t>(elements(piece.shape));
            if (tensor == nullptr) {
                missing.push_back(fmt::format("{} [{}]", name, fmt::join(piece.shape, ", ")));
            } else if (tensor->shape != piece.shape || tensor->type() == GGML_TYPE_COUNT) {
                misshapen.push_back(fmt::format("{} (expected [{}], found {} [{}])", name,
                                                fmt::join(piece.shape, ", "), tensor->dtype,
                                                fmt::join(tensor->shape, ", ")));
            } else {
                read_as_float(reader, *tensor, values_of(leaf).subspan(offset, size));
            }
            offset += size;
        }
    }
    if (missing.empty() && misshapen.empty()) return;
    std::string text;
    if (!missing.empty()) text += fmt::format(" missing: {};", fmt::join(missing, ", "));
    if (!misshapen.empty()) text += fmt::format(" misshapen: {};", fmt::join(misshapen, ", "));
    text.pop_back();
    throw_input("{}: the tensors do not fit the configuration:{}", weights.name(), text);
}

void Parameters::save(const std::filesystem::path& path) const {
    std::vector<SafetensorsWriter::Tensor> tensors;
    for (const Leaf& leaf : leaves_) {
        for (const auto& piece : leaf.pieces)
            tensors.push_back({piece.checkpoint, GGML_TYPE_F32, piece.shape});
    }
    SafetensorsWriter writer(path, tensors);
    for (const Leaf& leaf : leaves_) {
        const auto values = values_of(leaf);
        writer.write({reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()});
    }
    writer.commit();
}

void read_as_float(const SafetensorsReader& reader, const SafetensorsTensor& tensor, std::span<float> out) {
    std::vector<uint8_t> bytes(tensor.bytes);
    reader.read(tensor, 0, bytes);
    dequantize_rows(tensor.type(), bytes, 1, tensor.elements(), out, 1);
}

}  // namespace llava_mini::trainer
