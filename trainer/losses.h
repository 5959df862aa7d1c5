// Losses of a batch, and what is counted along with them.
#pragma once

#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "trainer/model.h"
#include "trainer/recipe.h"

namespace llava_mini::trainer {

/// Answers of one question type.
struct TypeCount {
    int64_t answers = 0, exact = 0, tokens = 0;
    double loss = 0;                             // sum over tokens
    std::unordered_map<uint64_t, int64_t> seen;  // how often each answer was right, by a hash of its tokens
    /// Share of the answers that always giving the most frequent one gets right.
    double prior() const;
};

/// Sums over batches; add them up with +=.
struct Counts {
    double loss = 0, answers = 0, patches = 0, words = 0, mentions = 0, changes = 0, changes_kept = 0,
           earlier = 0, asked = 0, found = 0;  // sums of the batches' losses
    std::array<double, kLookHeads> looks{};    // the same by head
    int64_t clips = 0;                         // batches that have changes
    std::array<int64_t, kLookHeads> looked{};  // batches that have looks, by head
    int64_t found_batches = 0;                 // batches that have what is found
    int64_t batches = 0, samples = 0, frames = 0;
    std::map<int, TypeCount> types;
    std::array<int64_t, 4> marks{}, marks_found{};  // by kind: targets, and those among the best four words
    Counts& operator+=(const Counts& other);
};

/// The weighted sum of the losses (with its graph); `counts` gets this batch added.
/// Answers: mean cross entropy over the labelled positions. Patches: cross entropy of the projected patch
/// features against the words of the marks, weighted mean. Words: the vision tokens' mean against all words
/// of the frame. Mentions: the fused rows of names in questions against the words of their hints.
/// Changes: the language model's rows of frames, a third of the way and half-way, against the words of what is new in
/// them, and half-way, with the channels in reverse order, against what was new before: a row holds both then, and
/// heads can look for one and fetch the other. Asked: its rows of names in questions, before the last layer, against
/// the words of the answer. Looks: minus the logarithm of what three heads of the layer half-way give, from names in
/// questions about clips, to where they should look (Batch::looks); and what the second and third add to their rows
/// against the words of the answer.
/// Throws Error(kInput) naming the sample when a loss is not finite.
torch::Tensor batch_loss(LlavaMini& model, const Batch& batch, const LossWeights& weights, Counts& counts);

}  // namespace llava_mini::trainer
