// The benchmark: two models, one workload, in turns; and what came out.
#pragma once

#include <ggml.h>

#include <array>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/gemm_rate.h"
#include "bench/stages.h"
#include "bench/system.h"
#include "core/progress.h"

namespace llava_mini::bench {

struct BenchmarkOptions {
    /// Folders of the models; `baseline` may be empty.
    std::filesystem::path model, baseline;
    Workload workload;
    EngineOptions engine;
    int repeat = 3;  ///< rounds; medians are reported
    int picture_width = 4000, picture_height = 3000;
    double gemm_seconds = 0.15;                    ///< for each matrix shape, layout and round
    Progress progress;                             ///< loading
    std::function<void(std::string_view)> status;  ///< one line at every step; may be empty
};

struct SystemResult {
    SystemFacts facts;
    ByStage seconds;                         ///< medians
    std::array<std::string, kStages> types;  ///< of the stage's matrices, e.g. "q4_0" or "f16, q8_0"
    /// Best GEMM rate among the stage's own types and shapes, FLOP/s; 0: it has no matrices.
    ByStage own_peaks;
    double time_to_first_token = 0;
    double second_question = 0;
    double tokens_per_second = 0;                      ///< of the median token
    std::optional<double> libllama_tokens_per_second;  ///< the same of libllama alone

    /// Seconds that tower, compressor, projector and pre-fusion would take at the peak of each one's own
    /// types, divided by those they take.
    double vision_side_share_of_own_peaks() const;
};

struct BenchmarkResult {
    std::string device;
    int threads = 0, repeat = 0;
    int picture_width = 0, picture_height = 0;
    size_t picture_bytes = 0;
    Workload workload;
    KvType kv_type = KvType::kF16;
    std::vector<GemmRate> gemm;  ///< best rate of every shape
    SystemResult model;
    std::optional<SystemResult> baseline;

    /// The GEMM peak: the fastest product among all matrices that are multiplied with many rows (vision side,
    /// pre-fusion, layers of the language model; its output matrix meets one row only), whatever its type.
    const GemmRate& gemm_peak() const;
    /// Share of the GEMM peak that tower, compressor, projector and pre-fusion reach together.
    double vision_side_share() const;
};

/// Runs `repeat` rounds: GEMM rates, one pass of the model, one of the baseline. Where memory does not
/// suffice for both models they take turns in memory too. Throws what loading and computing throw.
BenchmarkResult run_benchmark(const BenchmarkOptions& options);

/// The middle of the values, the mean of the two middle ones of an even number. Not of an empty set.
double median(std::vector<double> values);

}  // namespace llava_mini::bench
