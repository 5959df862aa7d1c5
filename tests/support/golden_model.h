// The checkpoint of the recordings, converted by our own converter.
#pragma once

#include <ggml.h>

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>

#include "convert/convert.h"
#include "support/test_data.h"

namespace llava_mini::test {

/// A folder with language.gguf and vision.gguf made of tests/golden/models/llava-mini-tiny-a in the given
/// type. It is converted at the first call in this process, which takes less than a second, and removed when
/// the process ends. Not to be changed: copy it first. Thread-safe.
inline std::filesystem::path golden_model(ggml_type type = GGML_TYPE_F32) {
    static std::mutex mutex;
    static std::map<ggml_type, std::unique_ptr<TempDir>> converted;
    const std::lock_guard lock(mutex);
    std::unique_ptr<TempDir>& folder = converted[type];
    if (!folder) {
        auto made = std::make_unique<TempDir>();
        convert_checkpoint({.checkpoint = golden_path("models/llava-mini-tiny-a"),
                            .vision_tower = golden_path("models/openai/clip-vit-tiny-a-patch14-336"),
                            .out = made->path(),
                            .type = type,
                            .threads = 2,
                            .progress = {}});
        folder = std::move(made);
    }
    return folder->path();
}

}  // namespace llava_mini::test
