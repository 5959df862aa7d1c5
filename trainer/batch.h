// What one optimiser step computes on, as tensors: made by the data threads, so that the optimiser does not
// wait for it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "llm/prompt.h"
#include "model/stages.h"
#include "trainer/layers.h"
#include "trainer/torch.h"

namespace llava_mini::trainer {

/// A word that the fused row of a text token should be near.
struct Mention {
    size_t position = 0;  // of the token in its conversation
    int32_t token = 0;
    float weight = 1;
};

/// A conversation in tokens: kPlain are answers, which are what is learned (end token included), kFused the
/// rest of the text, kImage the place of the vision tokens.
struct Conversation {
    std::vector<PromptToken> tokens;
    std::vector<int> answer_types;  // of each run of answer tokens, an index into the run's question types
    /// The text keeps its plain embeddings, as if there were no pre-fusion: the vision token must then carry
    /// what the answer needs.
    bool unfused = false;
    std::vector<Mention> mentions = {};
    /// Names in the question, by their places among the tokens, and the words of the answer.
    std::vector<size_t> names = {};
    std::vector<int32_t> answer_words = {};
};

/// A word that the projected features of a patch should be near.
struct PatchTarget {
    int64_t patch = 0;  // of the frame's whole view
    int32_t token = 0;
    float weight = 1;
    int kind = -1;  // Mark::Kind; -1: background
};

/// A word that the language model should see as new in a frame, a third of the way through its layers and half-way, or
/// as what was new before, half-way.
struct Change {
    int32_t token = 0;
    float weight = 1;
};

/// A sample ready for the model: frames as pixel values and the conversations about them.
struct Example {
    std::string id;
    std::vector<PixelValues> frames;  // all different; empty: text only
    /// Frames in the order of time, a frame as often as it is shown; empty: every frame once.
    std::vector<int> shown;
    /// Positions of the language model that are left out before what is shown; empty: none are.
    std::vector<int64_t> gaps;
    std::vector<Conversation> conversations;  // each begins anew
    // What is new, and what was new last before that, of everything shown, in the order of time.
    std::vector<std::vector<Change>> changes, earlier;
    std::vector<bool> news;  // whether anything is new at all; empty: names look nowhere
    std::vector<std::vector<PatchTarget>> patch_targets;  // of each frame
    std::vector<std::vector<int32_t>> words;              // of each frame: tokens of all that is seen
};

/// Words that rows should be near: row, token and weight of each; undefined if there are none.
struct WordTargets {
    torch::Tensor rows, tokens, weights;
    bool defined() const { return rows.defined(); }
};

/// Rows of the language model that should look, in one head, at some of the rows they see.
struct LookTargets {
    torch::Tensor rows;              // [N]
    torch::Tensor visible, targets;  // [N, T] of bool, T: all rows; every row has a target
    bool defined() const { return rows.defined(); }
};

/// Heads that are taught where to look.
inline constexpr size_t kLookHeads = 3;

/// F frames (text-only examples count as one, all zero), N fused text rows, A answers.
struct Batch {
    uint64_t number = 0;
    std::vector<std::string> ids;  // of the examples, for messages
    int64_t examples = 0, conversations = 0, frames = 0;
    int grid_side = 0;  // C; 0: no compressor

    torch::Tensor pixels;  // [F * views, 3, size, size]
    // Pre-fusion: rows are the vision positions of all frames, then the text of every frame.
    torch::Tensor text_ids;             // [rows of text]
    torch::Tensor prefusion_positions;  // [F * V + rows of text]
    std::vector<Segment> prefusion_segments;
    // Mean over the frames: text row i adds text_weights[i] times itself to fused row text_targets[i];
    // undefined when every example has one frame and the rows are the same.
    torch::Tensor text_targets, text_weights;
    int64_t fused_rows = 0;
    // Language model: rows are gathered from [fused text | vision tokens of all frames | plain embeddings]. What
    // conversations about one example begin with, up to its vision tokens, is there once.
    torch::Tensor plain_ids;  // [plain rows]
    torch::Tensor rows;       // [rows of all conversations]
    torch::Tensor positions;  // [rows]
    std::vector<Segment> segments;
    // Labels: the row that predicts, and the token that is right.
    torch::Tensor label_rows, labels;
    std::vector<int> label_types;      // type of the question
    std::vector<int> label_answers;    // which answer of the batch the token belongs to
    std::vector<int> answer_examples;  // of each answer
    // Targets of the auxiliary losses.
    WordTargets patch_targets;  // of rows of [F * P]
    std::vector<int> target_kinds;
    WordTargets mention_targets;  // of rows of [fused_rows]
    // What is new in the frames, and what was new before: of the rows change_rows of the language model (the
    // last vision token of what is shown), counted among themselves.
    torch::Tensor change_rows;
    // Names in questions, near the answer: of the rows asked_rows of the language model.
    torch::Tensor asked_rows;
    WordTargets asked_targets;
    // Names in questions about clips, by head. The first: where what they name is new. The second: where the next thing
    // is, if that tells the answer; the third: where what they name is new, if what was new before tells it. Where it
    // does not, these two look at the conversation's first row.
    std::array<LookTargets, kLookHeads> looks;
    WordTargets found_targets;  // what the second and third fetch together: the answer, of rows of looks[1]
    WordTargets change_targets, earlier_targets;
    WordTargets word_targets;  // of rows of [F]; weight 1 / number of words
};

/// What collate() must know of the model.
struct BatchShape {
    int64_t image_size = 0, patches = 0, resolution_ratio = 1;
    bool compressor = true;
    bool prefusion = true;
};

/// `grid_side` is ignored without a compressor. Throws Error(kInput) if examples have different numbers of
/// views. Thread-safe.
Batch collate(const std::vector<Example>& examples, const BatchShape& shape, int grid_side, uint64_t number);

}  // namespace llava_mini::trainer
