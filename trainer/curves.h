// The course of a run as a picture.
#pragma once

#include <filesystem>

namespace llava_mini::trainer {

/// Reads a run's log.jsonl and draws losses, exact answers by question type (validation, beside their priors)
/// and learning rates over samples as an SVG. Lines of the log that are no JSON (cut by a full disk) are left
/// out.
void write_curves(const std::filesystem::path& log, const std::filesystem::path& svg);

}  // namespace llava_mini::trainer
