// How good answers are.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "eval/prediction.h"

namespace llava_mini::eval {

/// A mean with its interval of 95 % confidence.
struct Estimate {
    double value = 0, low = 0, high = 0;
};

/// Share of `hits` among `total` with Wilson's score interval (1927); all zero if total is 0. `hits` may be a
/// sum of values between 0 and 1: these vary no more than yes and no would, so the interval is wide enough.
Estimate wilson(double hits, uint64_t total);

struct TypeScore {
    std::string type;  // "all": every question
    uint64_t questions = 0;
    Estimate exact;    // answers equal to the right one (same_answer)
    double prior = 0;  // share that the commonest right answer would get
    std::string common_answer = {};
};

/// Captions: things named right, whatever is said of their places.
struct CaptionScore {
    int things = 0;  // in the right caption; 0: all captions together
    uint64_t captions = 0;
    Estimate f1;  // mean over captions
};

struct Scores {
    std::vector<TypeScore> types;        // in the order of names, then "all"
    std::vector<CaptionScore> captions;  // by number of things, then all; empty without captions
};

/// Equal but for capitals, spaces around and a full stop at the end.
bool same_answer(std::string_view a, std::string_view b);

/// The things that a caption names, e.g. "cat" and "red circle" of "a cat in the top left and a red circle":
/// parts between commas and "and", without article and what follows " in the " or " saying ".
std::vector<std::string> things_named(std::string_view caption);

/// F1 of the things that `text` names against those that `answer` does, as multisets.
double caption_f1(std::string_view text, std::string_view answer);

Scores score(const std::vector<Prediction>& predictions);

/// A table for people, and JSON.
std::string to_table(const Scores& scores);
std::string to_json(const Scores& scores);

}  // namespace llava_mini::eval
