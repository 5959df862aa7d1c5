#include "scenes/priors.h"

#include <algorithm>
#include <cctype>
#include <unordered_map>

#include "core/error.h"

namespace llava_mini::scenes {
namespace {

using Counts = std::unordered_map<std::string, uint64_t>;

std::string plain(std::string text) {
    std::erase_if(text, [](unsigned char c) { return std::ispunct(c) != 0; });
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return text;
}

// The first in the alphabet of equally common ones.
const std::string& commonest(const Counts& counts) {
    return std::max_element(counts.begin(), counts.end(),
                            [](const auto& a, const auto& b) {
                                return a.second != b.second ? a.second < b.second : a.first > b.first;
                            })
        ->first;
}

struct TypeCounts {
    uint64_t questions = 0, scored = 0, hits = 0;
    Counts answers;
    std::unordered_map<std::string, Counts> by_question;
};

}  // namespace

std::vector<Prior> measure_priors(const SceneGenerator& generator, uint64_t samples,
                                  const Progress& progress) {
    std::map<std::string, TypeCounts> types;
    for (const bool learn : {true, false}) {
        for (uint64_t i = learn ? 0 : samples / 2; i < (learn ? samples / 2 : samples); ++i) {
            if (progress && i % 256 == 0 && !progress(i, samples, "priors")) {
                throw_input("interrupted while measuring priors");
            }
            for (const QaTurn& turn : generator.text_of(i).turns) {
                TypeCounts& counts = types[turn.type];
                ++counts.questions;
                ++counts.answers[turn.answer];
                if (learn) {
                    ++counts.by_question[plain(turn.question)][turn.answer];
                    continue;
                }
                const auto it = counts.by_question.find(plain(turn.question));
                const std::string& guess =
                    commonest(it == counts.by_question.end() ? counts.answers : it->second);
                ++counts.scored;
                counts.hits += guess == turn.answer ? 1 : 0;
            }
        }
    }
    if (progress) progress(samples, samples, "priors");

    std::vector<Prior> priors;
    Prior all{.type = "all", .answer = "(the best of each type)"};
    double constant_hits = 0, hits = 0, scored = 0;
    for (const auto& [type, counts] : types) {
        const std::string& answer = commonest(counts.answers);
        const auto right = static_cast<double>(counts.answers.at(answer));
        priors.push_back(
            {type, counts.questions, answer, right / static_cast<double>(counts.questions),
             counts.scored == 0 ? 0 : static_cast<double>(counts.hits) / static_cast<double>(counts.scored)});
        all.questions += counts.questions;
        constant_hits += right;
        hits += static_cast<double>(counts.hits);
        scored += static_cast<double>(counts.scored);
    }
    if (all.questions > 0) all.constant = constant_hits / static_cast<double>(all.questions);
    if (scored > 0) all.from_question = hits / scored;
    priors.push_back(all);
    return priors;
}

}  // namespace llava_mini::scenes
