// A sample of training or evaluation data: a picture, a clip or neither, and a conversation about it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/stages.h"

namespace llava_mini {

/// What a picture shows of a thing that a question names: words of its places and colours, of how many there are,
/// or "nothing". An auxiliary target of training like Mark.
struct Hint {
    std::string name;  // a word of the question; empty: the next part of the answer, for the prompt's end
    std::vector<std::string> words;
};

/// A question and the answer that is right.
struct QaTurn {
    std::string question;  // without the placeholder <image>
    std::string answer;
    std::string type;  // of the question ("what", "where", ...), for scores by type; empty: unknown
    std::vector<Hint> hints = {};
};

/// What is known about a part of a frame; auxiliary targets of training, never seen by a shipped model.
struct Mark {
    enum class Kind { kName, kColour, kLetter, kPlace };
    Kind kind = Kind::kName;
    std::string word;                      // as answers spell it: "cat", "red", "A", "top left"
    float x0 = 0, y0 = 0, x1 = 0, y1 = 0;  // box in pixels of the frame, x1 and y1 exclusive
};

struct Sample {
    std::string id;
    std::vector<Image> frames;  // none: text only; one: a picture; several: a clip at one frame a second
    std::vector<QaTurn> turns;
    std::vector<std::vector<Mark>>
        marks;  // of each frame, later marks lie on top; empty where nothing is known
};

/// A sample that cannot be used, and why.
struct SkippedSample {
    uint64_t index = 0;  // where it came from, from 0
    std::string id;      // empty if it has none
    std::string reason;
};

/// Samples by number. Thread-safe: the same number gives the same sample in any thread and order, which is
/// what makes runs repeatable and resumable.
class SampleSource {
  public:
    virtual ~SampleSource() = default;
    /// How many there are; UINT64_MAX for a generator.
    virtual uint64_t size() const = 0;
    /// Throws Error(kInput) naming the sample if it cannot be read.
    virtual Sample sample(uint64_t number) const = 0;
    /// The place, where the samples came from, of the one of this number: what was left out counts.
    virtual uint64_t index_of(uint64_t number) const { return number; }
    /// What was left out when the source was opened.
    virtual std::vector<SkippedSample> skipped() const { return {}; }
};

}  // namespace llava_mini
