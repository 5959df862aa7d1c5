// One model under measurement: a first question about a picture, the answer's tokens, a second question.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/flops.h"
#include "bench/gemm_rate.h"
#include "bench/libllama_alone.h"
#include "bench/stages.h"
#include "core/progress.h"
#include "llava_mini/llava_mini.hpp"
#include "llm/language_context.h"
#include "llm/sampler.h"
#include "pipeline.h"

namespace llava_mini::bench {

/// What is asked of every system alike.
struct Workload {
    int text_tokens = 60;       ///< of the first question, template and begin-of-text counted
    int new_tokens = 15;        ///< of the second question
    int generated_tokens = 32;  ///< tokens after the first one that are timed
};

struct EngineOptions {
    int threads = 0;     ///< 0: one a core
    int gpu_layers = 0;  ///< as ModelOptions::gpu_layers
    KvType kv_type = KvType::kF16;
};

/// One pass of the workload. Seconds.
struct Round {
    ByStage stages;
    double time_to_first_token =
        0;                       ///< on the clock from the picture's bytes to the first token, all included
    double second_question = 0;  ///< the same for the second question
    std::vector<double> token_seconds;           ///< each generated token
    std::vector<double> libllama_token_seconds;  ///< the same by libllama alone, in turns with ours
};

/// What does not change from round to round.
struct SystemFacts {
    std::string name;
    int vision_tokens = 0, prompt_tokens = 0;
    ByStage flops;  ///< of the first question
    double second_question_flops = 0;
    uint64_t vision_bytes = 0, language_bytes = 0;  ///< weights
    uint64_t kv_f16_bytes = 0, kv_q8_0_bytes = 0;   ///< of one picture in the language model's KV cache
    uint64_t image_cache_bytes = 0;  ///< of one picture's encoding, K/V of the pre-fusion included
};

/// A loaded model. It is driven below Session, through the same Pipeline and LanguageContext in the same
/// order, so that the numbers of tokens are exact: text is given as token ids (begin-of-text and ordinary
/// tokens), since the work does not depend on which tokens they are. The whole prompt is one batch. Not
/// thread-safe.
class System {
  public:
    /// Loads language.gguf and vision.gguf from `folder`. `with_libllama`: also measure libllama alone.
    System(const std::filesystem::path& folder, const Picture& picture, const Workload& workload,
           const EngineOptions& engine, bool with_libllama, const Progress& progress = {});

    /// One picture and a few tokens, so that graphs are built and all weights are in memory.
    void warm_up();
    /// One pass over the workload; everything is computed anew.
    Round run();

    SystemFacts facts() const;
    /// Rows that the picture has in projector and pre-fusion.
    int64_t vision_rows() const;
    /// Shapes of the stage's matrices as products with `rows` rows; empty for stages without.
    std::vector<GemmShape> products(Stage stage, int64_t rows) const;

  private:
    std::shared_ptr<const ImageEncoding> encode(Timings& timings);
    Matrix input_rows(const Matrix& text, const ImageEncoding& encoding) const;
    void generate(int32_t token, Sampler& sampler, Round& round);

    const Workload workload_;
    const std::filesystem::path folder_;
    const Picture picture_;
    std::shared_ptr<Model> model_;
    std::vector<int32_t> text_ids_, new_ids_;
    std::unique_ptr<LanguageContext> context_;
    std::unique_ptr<LibllamaAlone> libllama_;
    uint64_t image_cache_bytes_ = 0;
};

}  // namespace llava_mini::bench
