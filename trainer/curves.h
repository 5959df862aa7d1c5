// The course of a run as a picture.
#pragma once

#include <filesystem>

namespace llava_mini::trainer {

/// Reads a run's log.jsonl and draws losses, exact answers by question type (validation, beside their priors)
/// and how many patches name what they show, over samples, as an SVG. Left out are lines that are no JSON (cut
/// by a full disk), and what a killed run did behind the checkpoint it was resumed from.
void write_curves(const std::filesystem::path& log, const std::filesystem::path& svg);

}  // namespace llava_mini::trainer
