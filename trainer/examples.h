// From samples to examples: pixels, tokens, targets.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/sample.h"
#include "model/hparams.h"
#include "trainer/batch.h"
#include "trainer/tokenizer.h"

namespace llava_mini::trainer {

/// Names of question types as small numbers. Thread-safe.
class QuestionTypes {
  public:
    int index(const std::string& name);
    std::vector<std::string> names() const;

  private:
    mutable std::mutex mutex_;
    std::vector<std::string> names_;
};

struct ExampleOptions {
    bool questions = true;  ///< false: the pictures and their marks alone
    bool targets = false;   ///< patch targets, and words of what is seen and where, from the marks
    bool mentions = false;  ///< targets of the words of questions that have hints
    bool changes = false;   ///< targets of what is new in the frames of clips, from the marks
    bool names = false;     ///< places of the names in questions that have hints
    bool looks = false;     ///< with names and changes: where in clips the names should look
    /// Tokens at the end of the prompt that take parts of the answer as targets, in turn.
    int registers = 0;

    double dialogue_share = 0;  ///< of the samples become one conversation of all turns; else one a turn
    double unfused_share = 0;   ///< of the conversations keep plain embeddings (see Conversation::unfused)
    /// Clips are spread over up to so many positions of the language model, by leaving some out before a few
    /// frames: long distances are learned from short clips. 0: positions are consecutive.
    int64_t position_span = 0;
    /// Word that patches of no mark should be near; empty: they have no target.
    std::string background = "nothing";
    double background_weight = 0.1;
    std::map<std::string, double> mark_weights = {{"name", 1}, {"colour", 1}, {"letter", 1}, {"place", 1}};
};

/// Thread-safe.
class ExampleMaker {
  public:
    ExampleMaker(const Tokenizer& tokenizer, const VisionHparams& vision, QuestionTypes& types)
        : tokenizer_(tokenizer), vision_(vision), types_(types) {}

    /// `key`: what is drawn by chance. Throws Error(kInput) naming the sample if a frame cannot be used.
    Example make(const Sample& sample, const ExampleOptions& options, uint64_t key) const;

  private:
    void add_mentions(std::span<const QaTurn> turns, int registers, Conversation& conversation) const;
    std::optional<int32_t> name_token(const Hint& hint) const;
    void add_names(const QaTurn& turn, Conversation& conversation) const;
    void add_changes(const Sample& sample, const ExampleOptions& options, Example& example) const;
    void add_targets(const Image& frame, const std::vector<Mark>& marks, bool video,
                     const ExampleOptions& options, Example& example) const;

    const Tokenizer& tokenizer_;
    const VisionHparams& vision_;
    QuestionTypes& types_;
};

}  // namespace llava_mini::trainer
