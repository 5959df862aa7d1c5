// All weights of a LLaVA-Mini in training, under the names of a checkpoint.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "convert/safetensors.h"
#include "model/hparams.h"
#include "model/tensor_names.h"
#include "trainer/torch.h"

namespace llava_mini::trainer {

/// The parts that learn or stay as they are, each with a learning rate of its own.
enum class Part : uint8_t {
    kTower,
    kCompressor,
    kProjector,
    kPrefusion,
    kEmbeddings,
    kLanguage,
    kHead,
    kLora
};
inline constexpr std::array<const char*, 8> kPartNames = {
    "tower", "compressor", "projector", "prefusion", "embeddings", "language", "head", "lora"};
inline constexpr size_t kParts = kPartNames.size();

/// Tensors that are multiplied with the same input lie one below the other in one leaf, so that one product
/// does for all: q, k, v, and gate, up. `pieces` are the checkpoint's tensors, in order.
struct Leaf {
    struct Piece {
        std::string checkpoint;      // full name
        std::vector<int64_t> shape;  // rows x ... as in the checkpoint
    };
    std::string key;  // of the model's code: "tower.0.qkv.weight"
    Part part;
    std::vector<Piece> pieces;
    std::vector<int64_t> shape;
    torch::Tensor value;  // contiguous; f32, or bf16 (see Parameters::store_as_bf16)
    /// Low-rank adapters of the pieces (trainer/lora.h): places of their factors among the leaves, or none.
    struct Adapter {
        std::optional<size_t> down, up;  // [rank, in], [out, rank]
    };
    std::vector<Adapter> adapters;  // one a piece, or empty

    /// Decoupled weight decay applies to matrices only, as in Hugging Face's trainer.
    bool decays() const { return shape.size() >= 2; }
    /// Matrices may be kept in bf16; vectors and the compressor's small tensors may not.
    bool may_be_bf16() const { return shape.size() >= 2 && key.ends_with(".weight"); }
};

/// The leaves of a model of that shape, without memory (`value` is undefined).
std::vector<Leaf> model_leaves(const VisionHparams& vision, const LlamaHparams& language);

/// Not thread-safe.
class Parameters {
  public:
    /// Memory for a model of that shape, not initialised.
    Parameters(const VisionHparams& vision, const LlamaHparams& language);

    const std::vector<Leaf>& leaves() const { return leaves_; }
    /// Throws std::out_of_range for a key the model does not have: a mistake in the code.
    const torch::Tensor& operator[](const std::string& key) const { return leaves_[index_.at(key)].value; }
    bool has(const std::string& key) const { return index_.contains(key); }
    const Leaf& leaf(const std::string& key) const { return leaves_[index_.at(key)]; }
    /// Whether it holds adapters; what the product of their factors is multiplied with: alpha / rank.
    bool has_adapters() const { return adapter_scale_ > 0; }
    double adapter_scale() const { return adapter_scale_; }

    /// A part that does not learn takes part in no gradient.
    void set_learning(Part part, bool learns);
    bool learns(Part part) const { return learns_[static_cast<size_t>(part)]; }
    /// From now on the matrices of a part that does not learn are kept in bf16: half the memory. What is
    /// computed with them is computed in f32.
    void store_as_bf16(Part part);
    /// Adds the factors of an adapter of one piece of a leaf (part kLora), not initialised.
    void add_adapter(const std::string& leaf, size_t piece, int rank, double scale);
    /// Memory of a part's values.
    uint64_t bytes(Part part) const;
    void zero_gradients();

    /// Reads every tensor but those of adapters; `tower` is the vision tower's own checkpoint, or null if it lies inside. Throws
    /// Error(kInput) with all missing and misshapen tensors in one message.
    void load(const SafetensorsReader& weights, const SafetensorsReader* tower);
    enum class Adapters { kLeftOut, kMerged };
    /// Writes model.safetensors, the tower inside: f32, and bf16 what is kept so. Adapters are left out, or
    /// added to what they adapt (then f32). Nothing stands at `path` before all is written.
    void save(const std::filesystem::path& path, Adapters adapters = Adapters::kMerged) const;
    /// The adapters' factors alone, under PEFT's names.
    void save_adapters(const std::filesystem::path& path) const;
    /// Throws as load().
    void load_adapters(const SafetensorsReader& weights);

  private:
    void read(Leaf& leaf, const SafetensorsReader& reader, const std::string& prefix_cut,
              std::vector<std::string>& missing, std::vector<std::string>& misshapen) const;
    torch::Tensor merged(const Leaf& leaf) const;

    std::vector<Leaf> leaves_;
    std::unordered_map<std::string, size_t> index_;
    std::array<bool, kParts> learns_{};
    double adapter_scale_ = 0;
};

/// Reads a tensor of type F32, F16 or BF16 as f32 into `out`.
void read_as_float(const SafetensorsReader& reader, const SafetensorsTensor& tensor, std::span<float> out);

}  // namespace llava_mini::trainer
