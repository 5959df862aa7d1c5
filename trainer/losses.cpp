#include "trainer/losses.h"

#include <cmath>

#include "core/error.h"
#include "trainer/random.h"

namespace llava_mini::trainer {
namespace {

// Sum of -log p(token) * weight over the targets, divided by the sum of weights.
torch::Tensor sparse_cross_entropy(const torch::Tensor& scores, const WordTargets& targets) {
    const auto flat = targets.rows * scores.size(1) + targets.tokens;
    const auto picked = scores.log_softmax(1).view({-1}).index_select(0, flat);
    return -(picked * targets.weights).sum() / targets.weights.sum();
}

std::string sample_list(const Batch& batch) {
    return fmt::format("{}", fmt::join(batch.ids, ", "));
}

void check_finite(double loss, const char* what, const Batch& batch) {
    if (!std::isfinite(loss)) {
        throw_input("the {} loss of batch {} is {}: one of the samples {}", what, batch.number, loss,
                    sample_list(batch));
    }
}

void count_marks(const torch::Tensor& scores, const Batch& batch, Counts& counts) {
    const auto best = std::get<1>(scores.detach().topk(4, 1)).contiguous();
    const int64_t *top = best.data_ptr<int64_t>(), *rows = batch.patch_targets.rows.data_ptr<int64_t>(),
                  *tokens = batch.patch_targets.tokens.data_ptr<int64_t>();
    for (size_t i = 0; i < batch.target_kinds.size(); ++i) {
        if (batch.target_kinds[i] < 0) continue;
        const auto kind = static_cast<size_t>(batch.target_kinds[i]);
        ++counts.marks[kind];
        for (int64_t j = 0; j < 4; ++j) counts.marks_found[kind] += top[rows[i] * 4 + j] == tokens[i] ? 1 : 0;
    }
}

// Losses and exact answers by question type.
void count_answers(const torch::Tensor& logits, const torch::Tensor& losses, const Batch& batch,
                   Counts& counts) {
    const auto best = logits.detach().argmax(1);
    const auto loss = losses.detach().contiguous();
    const int64_t *guess = best.data_ptr<int64_t>(), *label = batch.labels.data_ptr<int64_t>();
    const float* value = loss.data_ptr<float>();
    bool right = true;
    uint64_t answer = 0;
    const size_t n = batch.label_answers.size();
    for (size_t i = 0; i < n; ++i) {
        if (!std::isfinite(value[i])) {
            const auto example =
                static_cast<size_t>(batch.answer_examples[static_cast<size_t>(batch.label_answers[i])]);
            throw_input("the loss of sample {} is {} (batch {})", batch.ids[example], value[i], batch.number);
        }
        TypeCount& type = counts.types[batch.label_types[i]];
        ++type.tokens;
        type.loss += value[i];
        right &= guess[i] == label[i];
        answer = mix(answer ^ static_cast<uint64_t>(label[i]));
        if (i + 1 == n || batch.label_answers[i + 1] != batch.label_answers[i]) {
            ++type.answers;
            type.exact += right ? 1 : 0;
            ++type.seen[answer];
            right = true;
            answer = 0;
        }
    }
}

}  // namespace

double TypeCount::prior() const {
    int64_t most = 0;
    for (const auto& [answer, times] : seen) most = std::max(most, times);
    return answers == 0 ? 0.0 : static_cast<double>(most) / static_cast<double>(answers);
}

Counts& Counts::operator+=(const Counts& other) {
    loss += other.loss;
    answers += other.answers;
    patches += other.patches;
    words += other.words;
    mentions += other.mentions;
    changes += other.changes;
    changes_kept += other.changes_kept;
    earlier += other.earlier;
    asked += other.asked;
    found += other.found;
    found_batches += other.found_batches;
    for (size_t head = 0; head < looks.size(); ++head) {
        looks[head] += other.looks[head];
        looked[head] += other.looked[head];
    }
    clips += other.clips;
    batches += other.batches;
    samples += other.samples;
    frames += other.frames;
    for (const auto& [index, type] : other.types) {
        TypeCount& to = types[index];
        to.answers += type.answers;
        to.exact += type.exact;
        to.tokens += type.tokens;
        to.loss += type.loss;
        for (const auto& [answer, times] : type.seen) to.seen[answer] += times;
    }
    for (size_t i = 0; i < marks.size(); ++i) {
        marks[i] += other.marks[i];
        marks_found[i] += other.marks_found[i];
    }
    return *this;
}

torch::Tensor batch_loss(LlavaMini& model, const Batch& batch, const LossWeights& weights, Counts& counts) {
    Counts now;
    now.batches = 1;
    now.samples = batch.examples;
    now.frames = batch.frames;
    Outputs out;
    if (weights.answers > 0 || weights.words > 0) {
        out = model.forward(batch);
    } else {
        out.projected_patches = model.project_patches(batch);
    }
    torch::Tensor total = torch::zeros({});
    if (weights.answers > 0 && batch.labels.size(0) > 0) {
        const auto losses = at::cross_entropy_loss(out.logits, batch.labels, {}, at::Reduction::None);
        count_answers(out.logits, losses, batch, now);
        const auto loss = losses.mean();
        now.answers = loss.item<double>();
        total = total + loss * weights.answers;
    }
    // Adds the loss of scores against words; `sum` gets its value.
    const auto add = [&](const torch::Tensor& scores, const WordTargets& targets, double weight, double& sum,
                         const char* name) {
        const auto loss = sparse_cross_entropy(scores, targets);
        sum = loss.item<double>();
        check_finite(sum, name, batch);
        total = total + loss * weight;
    };
    if (weights.patches > 0 && batch.patch_targets.defined()) {
        const auto scores = model.scores(out.projected_patches.reshape({-1, model.language().n_embd}), false);
        add(scores, batch.patch_targets, weights.patches, now.patches, "patch");
        if (batch.number % 16 == 0) count_marks(scores, batch, now);
    }
    if (weights.words > 0 && batch.word_targets.defined()) {
        add(model.scores(out.vision_tokens.mean(1), false), batch.word_targets, weights.words, now.words,
            "word");
    }
    if (weights.mentions > 0 && batch.mention_targets.defined() && out.fused.size(0) > 0) {
        add(model.scores(out.fused, false), batch.mention_targets, weights.mentions, now.mentions, "mention");
    }
    if (weights.changes > 0 && batch.change_targets.defined() && batch.earlier_targets.defined()) {
        add(model.scores(out.changes, true), batch.change_targets, weights.changes, now.changes, "change");
        add(model.scores(out.changes_kept, true), batch.change_targets, weights.changes, now.changes_kept,
            "change");
        add(model.scores(out.earlier, true), batch.earlier_targets, weights.changes, now.earlier, "earlier");
        now.clips = 1;
    }
    if (weights.asked > 0 && batch.asked_targets.defined()) {
        add(model.scores(out.asked, true), batch.asked_targets, weights.asked, now.asked, "asked");
    }
    for (size_t head = 0; head < batch.looks.size() && weights.looks > 0; ++head) {
        const LookTargets& look = batch.looks[head];
        if (!look.defined() || !out.look_scores[head].defined()) continue;  // models with fewer heads
        const auto share = out.look_scores[head].log_softmax(1);
        const auto loss = -share.masked_fill(~look.targets, -INFINITY).logsumexp(1).mean();
        now.looks[head] = loss.item<double>();
        now.looked[head] = 1;
        check_finite(now.looks[head], "look", batch);
        total = total + loss * (weights.looks / static_cast<double>(batch.looks.size()));
    }
    if (weights.looks > 0 && batch.found_targets.defined()) {
        add(model.scores(out.found, true), batch.found_targets, weights.looks, now.found, "found");
        now.found_batches = 1;
    }
    now.loss = total.item<double>();
    counts += now;
    return total;
}

}  // namespace llava_mini::trainer
