// Samples to disk in the official LLaVA format (data/conversation_dataset.h reads it back).
#pragma once

#include <cstdint>
#include <filesystem>

#include "core/progress.h"
#include "data/sample.h"

namespace llava_mini {

/// Writes samples first .. first + count - 1 of a source: samples.json, pictures as images/ID.png, clips as
/// folders of frames videos/ID/0000.png ..., types of questions under the key "types". Everything is made in
/// FOLDER.partial, which becomes FOLDER at the end and vanishes when the work fails or progress stops it.
/// Throws Error(kUsage) if FOLDER is there already (unless it is empty), Error(kSystem) if it cannot be
/// written.
void write_dataset(const SampleSource& source, uint64_t first, uint64_t count,
                   const std::filesystem::path& folder, const Progress& progress = {});

}  // namespace llava_mini
