// Puts the questions of a source of samples to a model.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "core/progress.h"
#include "data/sample.h"
#include "eval/prediction.h"
#include "llava_mini/llava_mini.hpp"

namespace llava_mini::eval {

/// Something to ask about. Its frames are made when they are needed: a long clip need not fit into memory.
struct Item {
    std::string id;
    std::vector<QaTurn> turns;
    int64_t frames = 0;  // none: text only; one: a picture; several: a clip
    std::function<Image(int64_t)> frame;
};
/// The item of a number. Called from several threads.
using Items = std::function<Item(uint64_t)>;

struct RunOptions {
    uint64_t first = 0, samples = 0;  ///< which samples
    int jobs = 1;                     ///< sessions side by side
    std::string model_id = {};        ///< what predictions call the model
    /// What else answers depend on that a run cannot see (the model's file, how samples are drawn), in words.
    std::string settings = {};
    SessionOptions session = {};
    ImageOptions image = {};
    SamplingOptions sampling = {.max_tokens = 64};
    /// Frames of a clip, evenly spaced, with which all questions about it but the first are fused, as if they
    /// came from an index; 0: all, kept in memory if they fit, else read again for every question.
    int fusion_frames = 0;
    /// Where predictions go: gathered in FILE.partial, from which an interrupted run is taken up again, and
    /// at the end, in the order of the questions, in FILE. Empty: they are only returned. FILE.partial holds in
    /// `model_id` `settings` and whatever options are not the usual ones too: a run with others does not take it up.
    std::filesystem::path out = {};
    Progress progress = {};  ///< questions done and in all (as far as known); false stops
};

/// Every question is asked alone, in a conversation of its own, as the official evaluations do. A sample's
/// picture is encoded once; so are the frames of a clip, a video of one frame a second, unless it is too long
/// to keep them. Returns predictions in the order of samples and turns. Throws what reading a
/// sample or asking throws (predictions so far stay in FILE.partial), Error(kInput) when progress stops it, or
/// FILE.partial is of another model or other settings.
std::vector<Prediction> run(const std::shared_ptr<Model>& model, const Items& items,
                            const RunOptions& options);
/// Of a source of samples. Throws Error(kUsage) if it has fewer.
std::vector<Prediction> run(const std::shared_ptr<Model>& model, const SampleSource& source,
                            const RunOptions& options);

}  // namespace llava_mini::eval
