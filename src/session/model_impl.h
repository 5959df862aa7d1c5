// What a Model is made of.
#pragma once

#include <filesystem>
#include <memory>

#include "llava_mini/llava_mini.hpp"
#include "llm/chat_template.h"
#include "llm/language_model.h"
#include "llm/token_embeddings.h"
#include "pipeline.h"
#include "session/image_cache.h"

namespace llava_mini {

class Model::Impl {
  public:
    explicit Impl(const ModelOptions& options);

    /// The encoding of a picture, from the cache or computed. `cached` tells which. Thread-safe.
    std::shared_ptr<const ImageEncoding> encode(const Picture& picture, const ImageOptions& options,
                                                bool pad_each_view, Timings& timings, bool& cached);
    /// Grid side C for a wished number of vision tokens (0: the model's default). Throws Error(kUsage) for a
    /// number the model does not offer.
    int grid_side(int vision_tokens) const;

    /// Tells models apart: of both files, and of the adapter, their sizes and 64 KiB at 64 places.
    Hash128 fingerprint() const;

    const std::pair<std::filesystem::path, std::filesystem::path> files;  // language model, vision side
    const std::filesystem::path lora;                                     // empty: none
    const std::shared_ptr<const LanguageModel> language;
    const TokenEmbeddings embeddings;
    const ChatTemplate chat_template;
    Pipeline pipeline;
    ImageCache image_cache;
    const int threads;
    const bool parity;  // f32 keys and values everywhere
};

/// The two files that `options` means: {language model, vision side}. Throws Error(kInput) if one is missing.
std::pair<std::filesystem::path, std::filesystem::path> model_files(const ModelOptions& options);

}  // namespace llava_mini
