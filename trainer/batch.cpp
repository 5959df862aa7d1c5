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

// Different frames of an example: text alone is fused with an all-zero picture.
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

// WordTargets in the making.
struct TargetList {
    std::vector<int64_t> rows, tokens;
    std::vector<float> weights;

    void add(int64_t row, int64_t token, float weight) {
        rows.push_back(row);
        tokens.push_back(token);
        weights.push_back(weight);
    }
    WordTargets tensors() const {
        if (rows.empty()) return {};
        return {tensor_of(rows), tensor_of(tokens), tensor_of(weights)};
    }
};

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
            add_conversations(example, frame, batch);
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
        batch.patch_targets = patch_targets_.tensors();
        batch.mention_targets = mention_targets_.tensors();
        if (!change_rows_.empty()) batch.change_rows = tensor_of(change_rows_);
        batch.change_targets = change_targets_.tensors();
        if (!asked_rows_.empty()) batch.asked_rows = tensor_of(asked_rows_);
        batch.asked_targets = asked_targets_.tensors();
        for (size_t head = 0; head < looks_.size(); ++head) batch.looks[head] = look_targets(looks_[head]);
        batch.found_targets = found_targets_.tensors();
        batch.earlier_targets = earlier_targets_.tensors();
        batch.word_targets = word_targets_.tensors();
    }

  private:
    // Every frame sees the text of all conversations, each of which begins anew after the vision positions.
    void fuse_text(const Example& example, int64_t first_frame, int64_t vision, Batch& batch) {
        if (!shape_.prefusion) return;
        const int64_t frames = frame_count(example);
        videos_ |= frames > 1;
        std::vector<float> weights(static_cast<size_t>(frames), 1.0f / static_cast<float>(frames));
        if (!example.shown.empty()) {
            std::fill(weights.begin(), weights.end(), 0.0f);
            for (const int frame : example.shown) {
                weights[static_cast<size_t>(frame)] += 1.0f / static_cast<float>(example.shown.size());
            }
        }
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
                    text_weights_.push_back(weights[static_cast<size_t>(frame - first_frame)]);
                }
                batch.prefusion_segments.push_back({start, length, frame * vision, vision, true});
            }
        }
        fused_rows_ += text;
    }

    // The rows up to the last vision token of a conversation, which others about the same example share.
    struct Beginning {
        const Conversation* of = nullptr;
        size_t tokens = 0;
        int64_t start = 0, length = 0, position = 0;  // rows, and the position of the next
        std::vector<int64_t> moments = {};            // last row of what is shown
    };

    static size_t beginning_of(const Conversation& conversation) {
        size_t end = conversation.tokens.size();
        while (end > 0 && conversation.tokens[end - 1].kind != SegmentKind::kImage) --end;
        return end;
    }

    static bool begin_alike(const Conversation& a, const Conversation& b, size_t tokens) {
        return a.unfused == b.unfused && beginning_of(b) == tokens &&
               std::equal(a.tokens.begin(), a.tokens.begin() + static_cast<ptrdiff_t>(tokens),
                          b.tokens.begin(), [](const PromptToken& x, const PromptToken& y) {
                              return x.kind == y.kind && x.id == y.id;
                          });
    }

    void add_conversations(const Example& example, int64_t first_frame, Batch& batch) {
        std::vector<Beginning> known;
        for (const Conversation& conversation : example.conversations) {
            const auto same = std::find_if(known.begin(), known.end(), [&](const Beginning& one) {
                return begin_alike(*one.of, conversation, one.tokens);
            });
            Beginning beginning;
            if (same == known.end()) {
                beginning = add_beginning(example, conversation, first_frame);
                if (beginning.tokens > 0) {
                    known.push_back(beginning);
                    // A segment of its own, so that all that follow see it alike.
                    batch.segments.push_back({beginning.start, beginning.length, 0, 0, true});
                }
            } else {
                beginning = *same;
                skip_beginning(conversation, beginning.tokens);
            }
            add_rest(example, conversation, beginning, batch);
        }
    }

    void add_text(const Conversation& conversation, const PromptToken& token) {
        if (is_fused(conversation, token)) {
            rows_.push_back(fused_row_++);
        } else {
            plain_ids_.push_back(token.id);
            rows_.push_back(-static_cast<int64_t>(plain_ids_.size()));
        }
    }

    bool is_fused(const Conversation& conversation, const PromptToken& token) const {
        return token.kind == SegmentKind::kFused && shape_.prefusion && !conversation.unfused;
    }

    Beginning add_beginning(const Example& example, const Conversation& conversation, int64_t first_frame) {
        Beginning beginning{&conversation, beginning_of(conversation), static_cast<int64_t>(rows_.size())};
        int64_t position = 0;
        for (size_t index = 0; index < beginning.tokens; ++index) {
            const PromptToken& token = conversation.tokens[index];
            if (token.kind != SegmentKind::kImage) {
                row_positions_.push_back(position++);
                add_text(conversation, token);
                continue;
            }
            const size_t shown = example.shown.empty() ? example.frames.size() : example.shown.size();
            for (size_t moment = 0; moment < shown; ++moment) {
                const int64_t frame =
                    example.shown.empty() ? static_cast<int64_t>(moment) : example.shown[moment];
                if (!example.gaps.empty()) position += example.gaps[moment];
                for (int64_t i = 0; i < tokens_; ++i) {
                    rows_.push_back(fused_rows_ + (first_frame + frame) * tokens_ + i);
                    row_positions_.push_back(position++);
                }
                if (example.changes.empty()) continue;
                add_change(example.changes[moment], example.earlier[moment]);
                beginning.moments.push_back(static_cast<int64_t>(rows_.size()) - 1);
            }
        }
        beginning.length = static_cast<int64_t>(rows_.size()) - beginning.start;
        beginning.position = position;
        return beginning;
    }

    // Targets of the row that was added last.
    void add_change(const std::vector<Change>& changes, const std::vector<Change>& earlier) {
        const auto row = static_cast<int64_t>(change_rows_.size());
        for (const Change& target : changes) change_targets_.add(row, target.token, target.weight);
        for (const Change& target : earlier) earlier_targets_.add(row, target.token, target.weight);
        change_rows_.push_back(static_cast<int64_t>(rows_.size()) - 1);
    }

    // Where a row of a segment should look.
    struct Look {
        int64_t row;
        Segment segment;
        std::vector<int64_t> targets;
    };

    void add_looks(const Example& example, const std::vector<int64_t>& moments, int32_t name,
                   const std::vector<int32_t>& answer, int64_t row, const Segment& segment) {
        if (example.news.empty()) return;
        const auto says = [](const std::vector<Change>& words, const auto& wanted) {
            return std::any_of(words.begin(), words.end(), [&](const Change& c) {
                return std::count(std::begin(wanted), std::end(wanted), c.token) > 0;
            });
        };
        const std::array<int32_t, 1> names = {name};
        std::array<std::vector<int64_t>, kLookHeads> targets;
        for (size_t moment = 0; moment < example.news.size(); ++moment) {
            if (!example.news[moment]) continue;
            const std::vector<Change>&now = example.changes[moment], &before = example.earlier[moment];
            if (says(now, names)) targets[0].push_back(moments[moment]);
            if (says(before, names) && says(now, answer)) targets[1].push_back(moments[moment]);
            if (says(now, names) && says(before, answer)) targets[2].push_back(moments[moment]);
        }
        if (!targets[0].empty()) looks_[0].push_back({row, segment, std::move(targets[0])});
        if (!targets[1].empty() || !targets[2].empty()) {
            for (const int32_t word : answer) {
                found_targets_.add(static_cast<int64_t>(looks_[1].size()), word,
                                   1.0f / static_cast<float>(answer.size()));
            }
        }
        for (const size_t head : {1, 2}) {
            if (targets[head].empty()) targets[head].push_back(segment.prefix_start);
            looks_[head].push_back({row, segment, std::move(targets[head])});
        }
    }

    // What a row sees is its segment's prefix, and its segment up to itself.
    LookTargets look_targets(const std::vector<Look>& looks) const {
        if (looks.empty()) return {};
        const auto n = static_cast<int64_t>(looks.size()), rows = static_cast<int64_t>(rows_.size());
        LookTargets out{torch::empty({n}, torch::kInt64), torch::zeros({n, rows}, torch::kBool),
                        torch::zeros({n, rows}, torch::kBool)};
        auto from = out.rows.accessor<int64_t, 1>();
        auto visible = out.visible.accessor<bool, 2>(), targets = out.targets.accessor<bool, 2>();
        for (int64_t i = 0; i < n; ++i) {
            const Look& look = looks[static_cast<size_t>(i)];
            from[i] = look.row;
            const Segment& s = look.segment;
            for (int64_t row = 0; row < s.prefix_length; ++row) visible[i][s.prefix_start + row] = true;
            for (int64_t row = s.start; row <= look.row; ++row) visible[i][row] = true;
            for (const int64_t row : look.targets) targets[i][row] = true;
        }
        return out;
    }

    // Its fused rows are there, though none is used.
    void skip_beginning(const Conversation& conversation, size_t tokens) {
        for (size_t index = 0; index < tokens; ++index) {
            if (is_fused(conversation, conversation.tokens[index])) ++fused_row_;
        }
    }

    void add_rest(const Example& example, const Conversation& conversation, const Beginning& beginning,
                  Batch& batch) {
        const auto start = static_cast<int64_t>(rows_.size());
        size_t answers = 0;
        bool in_answer = false;
        int64_t position = beginning.position;
        auto target = conversation.mentions.begin();
        while (target != conversation.mentions.end() && target->position < beginning.tokens) ++target;
        for (size_t index = beginning.tokens; index < conversation.tokens.size(); ++index) {
            const PromptToken& token = conversation.tokens[index];
            const bool is_answer = token.kind == SegmentKind::kPlain;
            if (is_answer && !in_answer) {
                ++answers;
                batch.answer_examples.push_back(static_cast<int>(&example - examples_.data()));
            }
            in_answer = is_answer;
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
            if (is_fused(conversation, token)) {
                for (; target != conversation.mentions.end() && target->position == index; ++target) {
                    mention_targets_.add(fused_row_, target->token, target->weight);
                }
            }
            add_text(conversation, token);
        }
        const int64_t length = static_cast<int64_t>(rows_.size()) - start;
        batch.segments.push_back({start, length, beginning.start, beginning.length, true});
        for (const size_t name : conversation.names) {
            if (name < beginning.tokens) continue;
            const int64_t row = start + static_cast<int64_t>(name - beginning.tokens);
            for (const int32_t word : conversation.answer_words) {
                asked_targets_.add(static_cast<int64_t>(asked_rows_.size()), word,
                                   1.0f / static_cast<float>(conversation.answer_words.size()));
            }
            asked_rows_.push_back(row);
            add_looks(example, beginning.moments, conversation.tokens[name].id, conversation.answer_words,
                      row, batch.segments.back());
        }
        ++batch.conversations;
    }

    void add_targets(const Example& example, int64_t first_frame, Batch& batch) {
        for (size_t f = 0; f < example.patch_targets.size(); ++f) {
            const int64_t frame = first_frame + static_cast<int64_t>(f);
            for (const PatchTarget& target : example.patch_targets[f]) {
                patch_targets_.add(frame * shape_.patches + target.patch, target.token, target.weight);
                batch.target_kinds.push_back(target.kind);
            }
        }
        for (size_t f = 0; f < example.words.size(); ++f) {
            for (const int32_t word : example.words[f]) {
                word_targets_.add(first_frame + static_cast<int64_t>(f), word,
                                  1.0f / static_cast<float>(example.words[f].size()));
            }
        }
    }

    const std::vector<Example>& examples_;
    const BatchShape& shape_;
    const int64_t tokens_, blocks_;  // vision tokens a frame, block positions a frame
    int64_t frames_ = 0, fused_rows_ = 0, fused_row_ = 0;
    bool videos_ = false;
    std::vector<int64_t> text_ids_, positions_, text_targets_, plain_ids_, rows_, row_positions_, label_rows_,
        labels_, change_rows_, asked_rows_;
    std::vector<float> text_weights_;
    std::array<std::vector<Look>, kLookHeads> looks_;
    TargetList patch_targets_, mention_targets_, change_targets_, earlier_targets_, asked_targets_,
        found_targets_, word_targets_;
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
