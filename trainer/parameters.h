// All weights of a LLaVA-Mini in training, under the names of a checkpoint.
#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

#include "convert/safetensors.h"
#include "model/hparams.h"
#include "model/tensor_names.h"
#include "trainer/torch.h"

namespace llava_mini::trainer {

/// The parts that learn or stay as they are, each with a learning rate of its own.
enum class Part : uint8_t { kTower, kCompressor, kProjector, kPrefusion, kEmbeddings, kLanguage, kHead };
inline constexpr std::array<const char*, 7> kPartNames = {
    "tower", "compressor", "projector", "prefusion", "embeddings", "language", "head"};
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
    torch::Tensor value;  // f32, contiguous

    /// Decoupled weight decay applies to matrices only, as in Hugging Face's trainer.
    bool decays() const { return shape.size() >= 2; }
};

/// Not thread-safe.
class Parameters {
  public:
    /// Memory for a model of that shape, not initialised.
    Parameters(const VisionHparams& vision, const LlamaHparams& language);

    const std::vector<Leaf>& leaves() const { return leaves_; }
    /// Throws std::out_of_range for a key the model does not have: a mistake in the code.
    const torch::Tensor& operator[](const std::string& key) const { return leaves_[index_.at(key)].value; }
    bool has(const std::string& key) const { return index_.contains(key); }

    /// A part that does not learn takes part in no gradient.
    void set_learning(Part part, bool learns);
    void zero_gradients();

    /// Reads every tensor; `tower` is the vision tower's own checkpoint, or null if it lies inside. Throws
    /// Error(kInput) with all missing and misshapen tensors in one message.
    void load(const SafetensorsReader& weights, const SafetensorsReader* tower);
    /// Writes model.safetensors in f32, the tower inside. Nothing stands at `path` before all is written.
    void save(const std::filesystem::path& path) const;

  private:
    std::vector<Leaf> leaves_;
    std::unordered_map<std::string, size_t> index_;
};

/// Reads a tensor of type F32, F16 or BF16 as f32 into `out`.
void read_as_float(const SafetensorsReader& reader, const SafetensorsTensor& tensor, std::span<float> out);

}  // namespace llava_mini::trainer
