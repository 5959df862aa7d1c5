#include "trainer/batch.h"

#include <algorithm>

#include "core/error.h"

namespace llava_mini::trainer {
namespace {

torch::Tensor tensor_of(const std::vector<int64_t>& values) {
    return torch::tensor(values, torch::kInt64);
}

torch::Tensor tensor_of(const std::vector<float>& values) {
    return torch::tensor(values, torch::kFloat32);
}

// Frames an example takes up: text alone is fused with an all-zero picture.
int64_t frame_count(const Example& example) {
    return std::max<int64_t>(1, static_cast<int64_t>(example.frames.size()));
}

torch::Tensor stack_pixels(const std::vector<Example>& examples, const BatchShape& shape, int64_t frames,
                           int64_t views) {
    const int64_t size = shape.image_size, view_values = 3 * size * size;
    torch::Tensor pixels = torch::zeros({frames * views, 3, size, size});
    float* to = pixels.data_ptr<float>();
    for (const Example& example : examples) {
        for (const PixelValues& frame : example.frames) {
            if (frame.views != views || frame.size != size) {
                throw_input("sample {}: a frame has {} views of side {}, expected {} of {}", example.id,
                            frame.views, frame.size, views, size);
            }
            std::copy(frame.data.begin(), frame.data.end(), to);
            to += views * view_values;
        }
        if (example.frames.empty()) to += views * view_values;
    }
    return pixels;
}

// Builds the index lists, example by example.
class Collator {
  public:
    Collator(const std::vector<Example>& examples, const BatchShape& shape, int grid_side)
        : examples_(examples),
          shape_(shape),
          tokens_(shape.compressor ? int64_t{grid_side} * grid_side : shape.patches),
          blocks_(shape.resolution_ratio > 1 ? shape.resolution_ratio * shape.resolution_ratio * shape.patches
                                             : 0) {
        for (const Example& example : examples) frames_ += frame_count(example);
    }

    void run(Batch& batch) {
        batch.frames = frames_;
        // Vision positions of a frame in the pre-fusion. Without a compressor the tokens are the patches.
        const int64_t vision = shape_.compressor ? blocks_ + shape_.patches + tokens_ : shape_.patches;
        if (shape_.prefusion) {
            for (int64_t frame = 0; frame < frames_; ++frame) {
                batch.prefusion_segments.push_back({frame * vision, vision, 0, 0, true});
                for (int64_t i = 0; i < vision; ++i) positions_.push_back(i);
            }
        }
        int64_t frame = 0;
        for (const Example& example : examples_) {
            fuse_text(example, frame, vision, batch);
            frame += frame_count(example);
        }
        batch.fused_rows = fused_rows_;
        fused_row_ = 0;
        frame = 0;
        for (const Example& example : examples_) {
            for (const Conversation& conversation : example.conversations) {
                add_conversation(example, conversation, frame, batch);
            }
            add_targets(example, frame, batch);
            frame += frame_count(example);
        }
        // What is not fused follows the fused text and the vision tokens.
        for (int64_t& row : rows_) {
            if (row < 0) row = fused_rows_ + frames_ * tokens_ + (-row - 1);
        }
        batch.text_ids = tensor_of(text_ids_);
        batch.prefusion_positions = tensor_of(positions_);
        if (videos_) {
            batch.text_targets = tensor_of(text_targets_);
            batch.text_weights = tensor_of(text_weights_);
        }
        batch.plain_ids = tensor_of(plain_ids_);
        batch.rows = tensor_of(rows_);
        batch.positions = tensor_of(row_positions_);
        batch.label_rows = tensor_of(label_rows_);
        batch.labels = tensor_of(labels_);
        if (!target_rows_.empty()) {
            batch.target_rows = tensor_of(target_rows_);
            batch.target_tokens = tensor_of(target_tokens_);
            batch.target_weights = tensor_of(target_weights_);
        }
        if (!mention_rows_.empty()) {
            batch.mention_rows = tensor_of(mention_rows_);
            batch.mention_tokens = tensor_of(mention_tokens_);
            batch.mention_weights = tensor_of(mention_weights_);
        }
        if (!word_rows_.empty()) {
            batch.word_rows = tensor_of(word_rows_);
            batch.word_tokens = tensor_of(word_tokens_);
            batch.word_weights = tensor_of(word_weights_);
        }
    }

  private:
    // Every frame sees the text of all conversations, each of which begins anew after the vision positions.
    void fuse_text(const Example& example, int64_t first_frame, int64_t vision, Batch& batch) {
        if (!shape_.prefusion) return;
        const int64_t frames = frame_count(example);
        videos_ |= frames > 1;
        int64_t text = 0;
        for (int64_t frame = first_frame; frame < first_frame + frames; ++frame) {
            text = 0;
            for (const Conversation& conversation : example.conversations) {
                if (conversation.unfused) continue;
                const int64_t start = frames_ * vision + static_cast<int64_t>(text_ids_.size());
                int64_t length = 0;
                for (const PromptToken& token : conversation.tokens) {
                    if (token.kind != SegmentKind::kFused) continue;
                    text_ids_.push_back(token.id);
                    positions_.push_back(vision + length++);
                    text_targets_.push_back(fused_rows_ + text++);
                    text_weights_.push_back(1.0f / static_cast<float>(frames));
                }
                batch.prefusion_segments.push_back({start, length, frame * vision, vision, true});
            }
        }
        fused_rows_ += text;
    }

    void add_conversation(const Example& example, const Conversation& conversation, int64_t first_frame,
                          Batch& batch) {
        const auto start = static_cast<int64_t>(rows_.size());
        size_t answers = 0;
        bool in_answer = false;
        int64_t position = 0;
        auto target = conversation.mentions.begin();
        for (const PromptToken& token : conversation.tokens) {
            const bool is_answer = token.kind == SegmentKind::kPlain;
            if (is_answer && !in_answer) {
                ++answers;
                batch.answer_examples.push_back(static_cast<int>(&example - examples_.data()));
            }
            in_answer = is_answer;
            if (token.kind == SegmentKind::kImage) {
                const auto frames = static_cast<int64_t>(example.frames.size());
                for (int64_t i = 0; i < frames * tokens_; ++i) {
                    if (!conversation.gaps.empty() && i % tokens_ == 0) {
                        position += conversation.gaps[static_cast<size_t>(i / tokens_)];
                    }
                    rows_.push_back(fused_rows_ + first_frame * tokens_ + i);
                    row_positions_.push_back(position++);
                }
                continue;
            }
            row_positions_.push_back(position++);
            // The row before predicts it; there is always one, as a conversation never starts with an answer.
            if (is_answer && static_cast<int64_t>(rows_.size()) > start) {
                label_rows_.push_back(static_cast<int64_t>(rows_.size()) - 1);
                labels_.push_back(token.id);
                batch.label_types.push_back(answers <= conversation.answer_types.size()
                                                ? conversation.answer_types[answers - 1]
                                                : -1);
                batch.label_answers.push_back(static_cast<int>(batch.answer_examples.size()) - 1);
            }
            if (token.kind == SegmentKind::kFused && shape_.prefusion && !conversation.unfused) {
                const auto index = static_cast<size_t>(&token - conversation.tokens.data());
                for (; target != conversation.mentions.end() && target->position == index; ++target) {
                    mention_rows_.push_back(fused_row_);
                    mention_tokens_.push_back(target->token);
                    mention_weights_.push_back(target->weight);
                }
                rows_.push_back(fused_row_++);
            } else {
                plain_ids_.push_back(token.id);
                rows_.push_back(-static_cast<int64_t>(plain_ids_.size()));
            }
        }
        const int64_t length = static_cast<int64_t>(rows_.size()) - start;
        batch.segments.push_back({start, length, 0, 0, true});
        ++batch.conversations;
    }

    void add_targets(const Example& example, int64_t first_frame, Batch& batch) {
        for (size_t f = 0; f < example.patch_targets.size(); ++f) {
            const int64_t frame = first_frame + static_cast<int64_t>(f);
            for (const PatchTarget& target : example.patch_targets[f]) {
                target_rows_.push_back(frame * shape_.patches + target.patch);
                target_tokens_.push_back(target.token);
                target_weights_.push_back(target.weight);
                batch.target_kinds.push_back(target.kind);
            }
        }
        for (size_t f = 0; f < example.words.size(); ++f) {
            for (const int32_t word : example.words[f]) {
                word_rows_.push_back(first_frame + static_cast<int64_t>(f));
                word_tokens_.push_back(word);
                word_weights_.push_back(1.0f / static_cast<float>(example.words[f].size()));
            }
        }
    }

    const std::vector<Example>& examples_;
    const BatchShape& shape_;
    const int64_t tokens_, blocks_;  // vision tokens a frame, block positions a frame
    int64_t frames_ = 0, fused_rows_ = 0, fused_row_ = 0;
    bool videos_ = false;
    std::vector<int64_t> text_ids_, positions_, text_targets_, plain_ids_, rows_, row_positions_, label_rows_,
        labels_, target_rows_, target_tokens_, mention_rows_, mention_tokens_, word_rows_, word_tokens_;
    std::vector<float> text_weights_, target_weights_, mention_weights_, word_weights_;
};

}  // namespace

Batch collate(const std::vector<Example>& examples, const BatchShape& shape, int grid_side, uint64_t number) {
    Batch batch;
    batch.number = number;
    batch.examples = static_cast<int64_t>(examples.size());
    batch.grid_side = shape.compressor ? grid_side : 0;
    for (const Example& example : examples) batch.ids.push_back(example.id);
    Collator(examples, shape, grid_side).run(batch);
    const int64_t n = shape.resolution_ratio;
    batch.pixels = stack_pixels(examples, shape, batch.frames, n > 1 ? n * n + 1 : 1);
    return batch;
}

}  // namespace llava_mini::trainer
