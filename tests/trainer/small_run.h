// A small model, a small world of coloured squares, and runs of both: for the trainer's tests.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "convert/checkpoint_config.h"
#include "dump/dump.h"
#include "support/test_data.h"
#include "trainer/initialise.h"
#include "trainer/run.h"

namespace llava_mini::trainer::test_support {

/// Pictures of one or two coloured squares with marks; what colour, where, and captions.
class Squares : public SampleSource {
  public:
    explicit Squares(bool clips = false, bool text = false) : clips_(clips), text_(text) {}
    uint64_t size() const override { return UINT64_MAX; }
    Sample sample(uint64_t number) const override;

  private:
    bool clips_, text_;
};

/// config.json and the tower's: 96 px (or `size`), patches of 16, tied embeddings, several grids. With the
/// synthetic byte-level vocabulary of 768 tokens.
InitialiseOptions small_options(const std::filesystem::path& tokenizer_folder,
                                std::vector<int> grids = {1, 2});

/// Writes the vocabulary's files into a folder and returns it.
std::filesystem::path write_small_tokenizer(const std::filesystem::path& folder);

/// A checkpoint made of small_options in `folder`, and all that is needed to train it.
struct SmallModel {
    explicit SmallModel(const std::filesystem::path& checkpoint);
    CheckpointConfig config;
    std::unique_ptr<Tokenizer> tokenizer;
    std::unique_ptr<LlavaMini> model;
};

/// A recipe with a phase that aligns and one that answers; `samples` each.
std::string small_recipe(int samples, const std::string& more = "");

/// Converts a checkpoint's folder to GGUF files in `out`.
void convert_folder(const std::filesystem::path& checkpoint, const std::filesystem::path& out,
                    ggml_type type = GGML_TYPE_F32);

/// A dump's array of floats by name.
const std::vector<float>& array(const std::vector<DumpArray>& arrays, const std::string& name);

/// Sources by name: "squares", "clips", "text".
std::shared_ptr<const SampleSource> make_test_source(const DataSpec& spec);

}  // namespace llava_mini::trainer::test_support
