#include "scenes/long_clip.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"
#include "scenes/paint.h"

namespace llava_mini::scenes {
namespace {

constexpr int kOthers = 12;     // other things
constexpr int kMostLooks = 64;  // places and sizes of each

void check_looks(int looks) {
    if (looks < 1 || looks > kMostLooks)
        throw_usage("looks of a thing in long clips: expected 1 to {}, found {}", kMostLooks, looks);
}

}  // namespace

LongClip::LongClip(const GeneratorOptions& options, uint64_t number, int64_t frames, int64_t needle_frames,
                   int looks)
    : assets_(Assets::load(options.fonts)),
      scene_(options.scene),
      key_(scatter(number << 2 | static_cast<uint64_t>(options.split)) ^ scatter(~options.seed)),
      frames_(frames),
      stretch_(needle_frames),
      looks_(looks),
      background_(0, 0) {
    check_looks(looks);
    if (needle_frames < 1 || frames / needle_frames < 3) {
        throw_usage(
            "a long clip of {} frames, {} of them with the needle: expected three times as many at least",
            frames, needle_frames);
    }
    Random random(key_);
    const int64_t stretches = (frames_ + stretch_ - 1) / stretch_;
    // Neither the first nor the last, so that something came before and after.
    needle_stretch_ = 1 + static_cast<int64_t>(random.uniform() * static_cast<double>(stretches - 2));
    const auto add = [&](int noun) {
        things_.push_back(make_thing(noun, random));
        put_at(things_.back(), draw_place(noun, {}, random), random);
    };
    add(draw_noun(scene_, {}, random));
    std::vector<int> taken = {things_[0].noun};
    while (static_cast<int>(taken.size()) <= kOthers) {
        taken.push_back(draw_noun(scene_, taken, random));
        for (int look = 0; look < looks_; ++look) add(taken.back());
    }
    background_ = paint_background(options.size, random);
    if (options.augment.value_or(options.split == Split::kTrain)) look_ = draw_look(options.size, random);

    const char* needle = noun_word(taken[0]);
    const int absent = similar_noun(taken[0], taken, random);
    turns_ = {ask_seen(taken[0], true, random), ask_seen(absent, false, random)};
    const int64_t third = 3 * needle_from() / frames_;
    turns_.push_back(ask_when(needle, static_cast<int>(third), random));
    turns_.push_back(ask_order(needle, noun_word(thing_of(needle_stretch_ + 1).noun), true, random));
    turns_.push_back(ask_order(needle, noun_word(thing_of(needle_stretch_ - 1).noun), false, random));
}

int LongClip::content_of(int64_t stretch) const {
    if (stretch == needle_stretch_) return 0;
    return 1 + Random(key_ ^ scatter(static_cast<uint64_t>(stretch))).below(kOthers * looks_);
}

int LongClip::content(int64_t index) const {
    if (index < 0 || index >= frames_) throw_usage("frame {}: there are {}", index, frames_);
    return content_of(index / stretch_);
}

Image LongClip::frame(int64_t index) const {
    std::vector<Mark> marks;
    return frame(index, marks);
}

Image LongClip::frame(int64_t index, std::vector<Mark>& marks) const {
    if (index < 0 || index >= frames_) throw_usage("frame {}: there are {}", index, frames_);
    Canvas canvas = paint_things(*assets_, {thing_of(index / stretch_)}, background_, look_, marks);
    Random noise(key_ ^ scatter(~static_cast<uint64_t>(index)));
    return develop(canvas, look_, noise);
}

LongClips::LongClips(const GeneratorOptions& options, int64_t min_frames, int64_t max_frames,
                     int64_t needle_frames, int looks)
    : options_(options),
      min_frames_(min_frames),
      max_frames_(max_frames),
      needle_frames_(needle_frames),
      looks_(looks) {
    constexpr int64_t kMostFrames = 4096;  // a sample holds all of its own
    if (options.size < 32 || options.size > 1024) {
        throw_usage("size of long clips: expected 32 to 1024 pixels, found {}", options.size);
    }
    if (max_frames > kMostFrames) {
        throw_usage("long clips of up to {} frames: expected {} at most", max_frames, kMostFrames);
    }
    check_looks(looks);
    if (needle_frames < 1 || min_frames < 3 * needle_frames || max_frames < min_frames) {
        throw_usage(
            "long clips of {} to {} frames, {} of them with the needle: expected three times as many at "
            "least, and the smaller number first",
            min_frames, max_frames, needle_frames);
    }
}

Sample LongClips::sample(uint64_t number) const {
    Random random(scatter(number ^ scatter(options_.seed)));
    const double ratio = static_cast<double>(max_frames_) / static_cast<double>(min_frames_);
    const auto frames = std::min(max_frames_, static_cast<int64_t>(static_cast<double>(min_frames_) *
                                                                   std::pow(ratio, random.uniform())));
    const LongClip clip(options_, number, frames, needle_frames_, looks_);
    Sample sample;
    sample.id = fmt::format("long-{}-{}-{}-{}", frames, options_.seed,
                            kSplits[static_cast<size_t>(options_.split)], number);
    std::map<int, size_t> seen;  // frame that shows a content first
    for (int64_t i = 0; i < frames; ++i) {
        const auto [first, is_new] = seen.emplace(clip.content(i), sample.frames.size());
        if (is_new) {
            sample.marks.emplace_back();
            sample.frames.push_back(clip.frame(i, sample.marks.back()));
        } else {
            sample.marks.push_back(std::vector<Mark>(sample.marks[first->second]));
            sample.frames.push_back(Image(sample.frames[first->second]));
        }
    }
    sample.turns = clip.turns();
    for (QaTurn& turn : sample.turns) turn.hints = hints_of_names(clip.things(), turn.question);
    return sample;
}

}  // namespace llava_mini::scenes
