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

// The memory of a leaf, as it is kept.
std::span<const uint8_t> bytes_of(const torch::Tensor& value) {
    return {static_cast<const uint8_t*>(value.data_ptr()), value.nbytes()};
}

bool is_bf16(const torch::Tensor& value) {
    return value.scalar_type() == torch::kBFloat16;
}

// Throws what does not fit, all at once.
void expect_none(const std::string& file, const std::vector<std::string>& missing,
                 const std::vector<std::string>& misshapen) {
    if (missing.empty() && misshapen.empty()) return;
    std::string text;
    if (!missing.empty()) text += fmt::format(" missing: {};", fmt::join(missing, ", "));
    if (!misshapen.empty()) text += fmt::format(" misshapen: {};", fmt::join(misshapen, ", "));
    text.pop_back();
    throw_input("{}: the tensors do not fit the configuration:{}", file, text);
}

}  // namespace

std::vector<Leaf> model_leaves(const VisionHparams& vision, const LlamaHparams& language) {
    std::vector<Leaf> leaves;
    std::unordered_map<std::string, size_t> index;
    const auto add = [&](const TensorSpec& spec, Part part, const std::string& prefix) {
        const std::string key = fused_name(spec.checkpoint);
        const auto [entry, is_new] = index.try_emplace(key, leaves.size());
        if (is_new) leaves.push_back({key, part, {}, spec.shape, {}, {}});
        Leaf& leaf = leaves[entry->second];
        if (!is_new) leaf.shape[0] += spec.shape[0];
        leaf.pieces.push_back({prefix + spec.checkpoint, spec.shape});
    };
    for (const TensorSpec& spec : tower_tensors(vision)) add(spec, Part::kTower, kTowerInsidePrefix);
    for (const TensorSpec& spec : bridge_tensors(vision)) add(spec, bridge_part(spec.checkpoint), "model.");
    for (const TensorSpec& spec : language_tensors(language)) add(spec, language_part(spec.checkpoint), "");
    return leaves;
}

Parameters::Parameters(const VisionHparams& vision, const LlamaHparams& language)
    : leaves_(model_leaves(vision, language)) {
    for (size_t i = 0; i < leaves_.size(); ++i) {
        leaves_[i].value = torch::empty(leaves_[i].shape);
        index_[leaves_[i].key] = i;
    }
}

void Parameters::set_learning(Part part, bool learns) {
    learns_[static_cast<size_t>(part)] = learns;
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

void Parameters::store_as_bf16(Part part) {
    for (Leaf& leaf : leaves_) {
        if (leaf.part != part || !leaf.may_be_bf16()) continue;
        if (!is_bf16(leaf.value)) leaf.value = leaf.value.to(torch::kBFloat16);
    }
}

uint64_t Parameters::bytes(Part part) const {
    uint64_t bytes = 0;
    for (const Leaf& leaf : leaves_) bytes += leaf.part == part ? leaf.value.nbytes() : 0;
    return bytes;
}

void Parameters::add_adapter(const std::string& key, size_t piece, int rank, double scale) {
    const size_t place = index_.at(key);
    const Leaf::Piece adapted = leaves_[place].pieces[piece];
    leaves_[place].adapters.resize(leaves_[place].pieces.size());
    const std::string name = adapted.checkpoint.substr(0, adapted.checkpoint.rfind(".weight"));
    for (const bool up : {false, true}) {
        Leaf factor;
        factor.key = name + (up ? ".lora_B.weight" : ".lora_A.weight");
        factor.part = Part::kLora;
        factor.shape =
            up ? std::vector<int64_t>{adapted.shape[0], rank} : std::vector<int64_t>{rank, adapted.shape[1]};
        factor.pieces = {{"base_model.model." + factor.key, factor.shape}};
        factor.value = torch::empty(factor.shape);
        (up ? leaves_[place].adapters[piece].up : leaves_[place].adapters[piece].down) = leaves_.size();
        index_[factor.key] = leaves_.size();
        leaves_.push_back(std::move(factor));
    }
    adapter_scale_ = scale;
}

// Reads the pieces of a leaf from tensors of their names, without `prefix_cut`.
void Parameters::read(Leaf& leaf, const SafetensorsReader& reader, const std::string& prefix_cut,
                      std::vector<std::string>& missing, std::vector<std::string>& misshapen) const {
    const torch::NoGradGuard no_gradients;
    torch::Tensor flat = leaf.value.view({-1}), buffer;
    int64_t offset = 0;
    for (const Leaf::Piece& piece : leaf.pieces) {
        const std::string name = piece.checkpoint.substr(prefix_cut.size());
        const SafetensorsTensor* tensor = reader.find(name);
        const int64_t size = elements(piece.shape);
        if (tensor == nullptr) {
            missing.push_back(fmt::format("{} [{}]", name, fmt::join(piece.shape, ", ")));
        } else if (tensor->shape != piece.shape || tensor->type() == GGML_TYPE_COUNT) {
            misshapen.push_back(fmt::format("{} (expected [{}], found {} [{}])", name,
                                            fmt::join(piece.shape, ", "), tensor->dtype,
                                            fmt::join(tensor->shape, ", ")));
        } else if (is_bf16(leaf.value)) {
            buffer = torch::empty({size});
            read_as_float(reader, *tensor, {buffer.data_ptr<float>(), static_cast<size_t>(size)});
            flat.slice(0, offset, offset + size).copy_(buffer);
        } else {
            read_as_float(reader, *tensor,
                          {leaf.value.data_ptr<float>() + offset, static_cast<size_t>(size)});
        }
        offset += size;
    }
}

void Parameters::load(const SafetensorsReader& weights, const SafetensorsReader* tower) {
    std::vector<std::string> missing, misshapen;
    for (Leaf& leaf : leaves_) {
        if (leaf.part == Part::kLora) continue;
        const bool outside = tower != nullptr && leaf.part == Part::kTower;
        read(leaf, outside ? *tower : weights, outside ? kTowerInsidePrefix : "", missing, misshapen);
    }
    expect_none(weights.name(), missing, misshapen);
}

void Parameters::load_adapters(const SafetensorsReader& weights) {
    std::vector<std::string> missing, misshapen;
    for (Leaf& leaf : leaves_) {
        if (leaf.part == Part::kLora) read(leaf, weights, "", missing, misshapen);
    }
    expect_none(weights.name(), missing, misshapen);
}

// W + scale * B A, in f32.
torch::Tensor Parameters::merged(const Leaf& leaf) const {
    const torch::NoGradGuard no_gradients;
    torch::Tensor sum = leaf.value.to(torch::kFloat32, /*non_blocking=*/false, /*copy=*/true);
    int64_t row = 0;
    for (size_t i = 0; i < leaf.adapters.size(); ++i) {
        const int64_t rows = leaf.pieces[i].shape[0];
        if (const Leaf::Adapter& adapter = leaf.adapters[i]; adapter.down) {
            sum.slice(0, row, row + rows)
                .add_(torch::matmul(leaves_[*adapter.up].value, leaves_[*adapter.down].value),
                      adapter_scale_);
        }
        row += rows;
    }
    return sum;
}

void Parameters::save(const std::filesystem::path& path, Adapters adapters) const {
    const auto merges = [&](const Leaf& leaf) {
        return adapters == Adapters::kMerged && !leaf.adapters.empty();
    };
    std::vector<SafetensorsWriter::Tensor> tensors;
    for (const Leaf& leaf : leaves_) {
        if (leaf.part == Part::kLora) continue;
        const ggml_type type = is_bf16(leaf.value) && !merges(leaf) ? GGML_TYPE_BF16 : GGML_TYPE_F32;
        for (const auto& piece : leaf.pieces) tensors.push_back({piece.checkpoint, type, piece.shape});
    }
    SafetensorsWriter writer(path, tensors);
    for (const Leaf& leaf : leaves_) {
        if (leaf.part == Part::kLora) continue;
        const torch::Tensor value = merges(leaf) ? merged(leaf) : leaf.value;
        writer.write(bytes_of(value));
    }
    writer.commit();
}

void Parameters::save_adapters(const std::filesystem::path& path) const {
    std::vector<SafetensorsWriter::Tensor> tensors;
    for (const Leaf& leaf : leaves_) {
        if (leaf.part == Part::kLora)
            tensors.push_back({leaf.pieces[0].checkpoint, GGML_TYPE_F32, leaf.shape});
    }
    SafetensorsWriter writer(path, tensors);
    for (const Leaf& leaf : leaves_) {
        if (leaf.part == Part::kLora) writer.write(bytes_of(leaf.value));
    }
    writer.commit();
}

void read_as_float(const SafetensorsReader& reader, const SafetensorsTensor& tensor, std::span<float> out) {
    std::vector<uint8_t> bytes(tensor.bytes);
    reader.read(tensor, 0, bytes);
    dequantize_rows(tensor.type(), bytes, 1, tensor.elements(), out, 1);
}

}  // namespace llava_mini::trainer
