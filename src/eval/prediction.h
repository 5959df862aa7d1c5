// A question, the right answer and a model's answer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace llava_mini::eval {

struct Prediction {
    std::string question_id;  // "SAMPLE/NUMBER OF THE TURN"
    std::string prompt;       // the question
    std::string text;         // the model's answer
    std::string answer;       // the right one
    std::string type;         // of the question; empty: unknown
};

/// Predictions in the official answer format, one JSON object a line: {question_id, prompt, text, answer_id,
/// model_id, metadata}, where metadata holds the right answer and the type. answer_id is a hash of the rest.
std::string to_line(const Prediction& prediction, const std::string& model_id);

/// Reads them back. A line that is cut off at the end of the file (of a run that was killed) is left out.
/// Throws Error(kInput) naming file and line if another one is malformed, or of another model than
/// `model_id`.
std::vector<Prediction> read_predictions(const std::filesystem::path& file, const std::string& model_id);

}  // namespace llava_mini::eval
