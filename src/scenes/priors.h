// How far one gets without looking at the pictures.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/progress.h"
#include "scenes/generator.h"

namespace llava_mini::scenes {

struct Prior {
    std::string type;
    uint64_t questions = 0;
    std::string answer;   // the commonest one
    double constant = 0;  // share of questions that it answers
    /// Share that is answered by the commonest answer to the very same question (capitals and marks apart):
    /// learned on the first half of the samples, scored on the second, `answer` where a question is new.
    double from_question = 0;
};

/// Priors of the first `samples` samples, by type in the order of their names; "all" comes last. Throws
/// Error(kInput) when progress stops it.
std::vector<Prior> measure_priors(const SceneGenerator& generator, uint64_t samples,
                                  const Progress& progress = {});

}  // namespace llava_mini::scenes
