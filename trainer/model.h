// LLaVA-Mini in training: the forward pass as SPEC.md and the paper (arXiv 2501.03895, section 4) have it.
#pragma once

#include <array>
#include <map>

#include "model/hparams.h"
#include "trainer/batch.h"
#include "trainer/parameters.h"

namespace llava_mini::trainer {

/// What a forward pass leaves for the losses.
struct Outputs {
    torch::Tensor projected_patches;  // [F, P, d] of the whole views
    torch::Tensor vision_tokens;      // [F, C * C, d] as they enter the language model
    torch::Tensor fused;              // [fused_rows, d]; empty without pre-fusion
    // Inside the language model, normed as at its end: [change_rows, d] a third of the way, half-way, and half-way
    // with the channels in reverse order; [asked_rows, d] before its last layer.
    torch::Tensor changes, changes_kept, earlier, asked;
    // Of the batch's looks, in the layer half-way: attention before the softmax, -inf where nothing is seen [N, T].
    std::array<torch::Tensor, kLookHeads> look_scores;
    torch::Tensor
        found;  // what the second and third head add to their rows, as the final norm would scale it: [N, d]
    torch::Tensor inputs;  // [rows, d] of the language model
    torch::Tensor logits;  // [labels, V] at the labelled positions
};

/// Weights and shape. Not thread-safe.
class LlavaMini {
  public:
    LlavaMini(const VisionHparams& vision, const LlamaHparams& language);

    Parameters& parameters() { return parameters_; }
    const Parameters& parameters() const { return parameters_; }
    const VisionHparams& vision() const { return vision_; }
    const LlamaHparams& language() const { return language_; }
    BatchShape batch_shape() const;
    /// Decoder layers keep only their input and are computed again in the backward pass (recompute.h).
    void set_gradient_checkpointing(bool on) { checkpointing_ = on; }

    /// Patch features and their projection alone: [F, P, d].
    torch::Tensor project_patches(const Batch& batch);
    /// Everything. Without labels in the batch there are no logits.
    Outputs forward(const Batch& batch);
    /// Scores of every token for rows of width d: against the embeddings (`head` false) or by the output
    /// matrix.
    torch::Tensor scores(const torch::Tensor& rows, bool head) const;

  private:
    torch::Tensor tower(const torch::Tensor& pixels);
    torch::Tensor compress(const torch::Tensor& features, int grid_side);
    torch::Tensor project(const torch::Tensor& features);
    torch::Tensor llama_layer(const std::string& prefix, const torch::Tensor& x, const Rope& rope,
                              const std::vector<Segment>& segments) const;
    torch::Tensor llama_layers(const std::string& prefix, int first, int end, torch::Tensor x,
                               const Rope& rope, const std::vector<Segment>& segments) const;
    void look(const Batch& batch, const torch::Tensor& x, const Rope& rope, int layer, Outputs& out) const;
    torch::Tensor product(const torch::Tensor& x, const std::string& key, bool bias = false) const;
    torch::Tensor value(const std::string& key) const;
    torch::Tensor embed(const torch::Tensor& ids) const;
    Rope rope(const torch::Tensor& positions) const;
    torch::Tensor position_resize(int grid_side, int64_t to_side);

    VisionHparams vision_;
    LlamaHparams language_;
    Parameters parameters_;
    bool checkpointing_ = false;
    std::vector<double> frequencies_;                          // [head_dim / 2]
    std::map<std::pair<int, int64_t>, torch::Tensor> resize_;  // [keys, C * C]: bicubic, a linear map
};

}  // namespace llava_mini::trainer
