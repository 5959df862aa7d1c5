#include "bench/benchmark.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <set>

#include "bench/picture.h"
#include "core/error.h"

namespace llava_mini::bench {
namespace {

// Bytes that can still be taken without swapping; unlimited where the system does not say.
uint64_t available_memory() {
    std::ifstream meminfo("/proc/meminfo");
    std::string key, unit;
    uint64_t kib = 0;
    while (meminfo >> key >> kib >> unit) {
        if (key == "MemAvailable:") return kib << 10;
    }
    return std::numeric_limits<uint64_t>::max();
}

uint64_t model_bytes(const std::filesystem::path& folder) {
    return std::filesystem::file_size(folder / "language.gguf") +
           std::filesystem::file_size(folder / "vision.gguf");
}

// A model that is loaded when it is its turn, and everything measured of it.
class Contestant {
  public:
    Contestant(const std::filesystem::path& folder, const Picture& picture, const BenchmarkOptions& options,
               bool with_libllama)
        : folder_(folder), picture_(picture), options_(options), with_libllama_(with_libllama) {}

    System& system() {
        if (!system_) {
            say("loading {}", folder_.string());
            system_ = std::make_unique<System>(folder_, picture_, options_.workload, options_.engine,
                                               with_libllama_, options_.progress);
            say("warming up");
            system_->warm_up();
            facts_ = system_->facts();
        }
        return *system_;
    }
    void unload() { system_.reset(); }

    void run(int round) {
        System& loaded = system();
        say("round {} of {}: {}", round + 1, options_.repeat, facts_.name);
        rounds_.push_back(loaded.run());
        say("  first token after {:.3f} s, second question {:.3f} s", rounds_.back().time_to_first_token,
            rounds_.back().second_question);
    }

    SystemResult result() const {
        const auto middle = [&](const auto& value) {
            std::vector<double> values;
            for (const Round& round : rounds_) values.push_back(value(round));
            return median(values);
        };
        const auto rate = [&](std::vector<double> Round::*seconds) {
            std::vector<double> all;
            for (const Round& round : rounds_)
                all.insert(all.end(), (round.*seconds).begin(), (round.*seconds).end());
            return 1.0 / median(all);
        };
        SystemResult result;
        result.facts = facts_;
        for (const Stage stage : kAllStages) {
            result.seconds[stage] = middle([&](const Round& round) { return round.stages[stage]; });
        }
        result.time_to_first_token = middle([](const Round& round) { return round.time_to_first_token; });
        result.second_question = middle([](const Round& round) { return round.second_question; });
        result.tokens_per_second = rate(&Round::token_seconds);
        if (with_libllama_) result.libllama_tokens_per_second = rate(&Round::libllama_token_seconds);
        return result;
    }

  private:
    template <typename... Args>
    void say(fmt::format_string<Args...> format, Args&&... args) const {
        if (options_.status) options_.status(fmt::format(format, std::forward<Args>(args)...));
    }

    const std::filesystem::path folder_;
    const Picture& picture_;
    const BenchmarkOptions& options_;
    const bool with_libllama_;
    std::unique_ptr<System> system_;
    SystemFacts facts_;
    std::vector<Round> rounds_;
};

using StageProducts = std::map<Stage, std::set<GemmShape>>;

// Best rate of every product that some stage has.
class GemmRates {
  public:
    // The stage's shapes, all with the same number of rows so that models share measurements.
    void add(const System& system, int64_t rows, StageProducts& by_stage) {
        for (const Stage stage : kAllStages) {
            for (const GemmShape& shape : system.products(stage, rows)) {
                by_stage[stage].insert(shape);
                best_.try_emplace(shape, GemmRate{shape, "", 0});
            }
        }
    }
    void measure(const Backends& backends, double seconds) {
        for (auto& [shape, best] : best_) {
            GemmRate rate = measure_gemm(backends, shape, seconds);
            if (rate.flops_per_second > best.flops_per_second) best = std::move(rate);
        }
    }
    void describe(const StageProducts& by_stage, SystemResult& result) const {
        for (const auto& [stage, shapes] : by_stage) {
            std::set<std::string> types;
            for (const GemmShape& shape : shapes) {
                types.insert(ggml_type_name(shape.type));
                result.own_peaks[stage] = std::max(result.own_peaks[stage], best_.at(shape).flops_per_second);
            }
            result.types[static_cast<size_t>(stage)] = fmt::format("{}", fmt::join(types, ", "));
        }
    }
    std::vector<GemmRate> all() const {
        std::vector<GemmRate> rates;
        for (const auto& [shape, best] : best_) rates.push_back(best);
        return rates;
    }

  private:
    std::map<GemmShape, GemmRate> best_;
};

}  // namespace

double median(std::vector<double> values) {
    const size_t middle = values.size() / 2;
    std::sort(values.begin(), values.end());
    return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double SystemResult::vision_side_share_of_own_peaks() const {
    double at_peak = 0;
    for (const Stage stage : kAllStages) {
        if (is_vision_side(stage) && own_peaks[stage] > 0) at_peak += facts.flops[stage] / own_peaks[stage];
    }
    return at_peak / seconds.vision_side();
}

const GemmRate& BenchmarkResult::gemm_peak() const {
    return *std::max_element(gemm.begin(), gemm.end(), [](const GemmRate& a, const GemmRate& b) {
        return a.flops_per_second < b.flops_per_second;
    });
}

double BenchmarkResult::vision_side_share() const {
    return model.facts.flops.vision_side() / model.seconds.vision_side() / gemm_peak().flops_per_second;
}

BenchmarkResult run_benchmark(const BenchmarkOptions& options) {
    if (options.repeat < 1) throw_usage("{} rounds, expected at least 1", options.repeat);
    if (options.status) {
        options.status(
            fmt::format("making a picture of {} x {} pixels", options.picture_width, options.picture_height));
    }
    const Picture picture{"the benchmark's picture",
                          make_photo_jpeg(options.picture_width, options.picture_height)};

    Contestant model(options.model, picture, options, /*with_libllama=*/true);
    std::optional<Contestant> baseline;
    if (!options.baseline.empty())
        baseline.emplace(options.baseline, picture, options, /*with_libllama=*/false);

    constexpr uint64_t kReserve = uint64_t{2} << 30;  // graphs, contexts, everybody else
    const bool keep_both =
        !baseline ||
        model_bytes(options.model) + model_bytes(options.baseline) + kReserve < available_memory();

    GemmRates rates;
    StageProducts products, baseline_products;
    const int64_t rows = model.system().vision_rows();
    rates.add(model.system(), rows, products);
    if (baseline) {
        if (!keep_both) model.unload();
        rates.add(baseline->system(), rows, baseline_products);
    }
    const Backends backends(options.engine.gpu_layers != 0, options.engine.threads);
    for (int round = 0; round < options.repeat; ++round) {
        if (options.status) options.status("measuring matrix products alone");
        rates.measure(backends, options.gemm_seconds);
        if (baseline && !keep_both) baseline->unload();
        model.run(round);
        if (!baseline) continue;
        if (!keep_both) model.unload();
        baseline->run(round);
    }

    BenchmarkResult result;
    result.device = backends.device_name();
    result.threads = backends.threads();
    result.repeat = options.repeat;
    result.picture_width = options.picture_width;
    result.picture_height = options.picture_height;
    result.picture_bytes = picture.bytes.size();
    result.workload = options.workload;
    result.kv_type = options.engine.kv_type;
    result.gemm = rates.all();
    result.model = model.result();
    rates.describe(products, result.model);
    if (baseline) {
        result.baseline = baseline->result();
        rates.describe(baseline_products, *result.baseline);
    }
    return result;
}

}  // namespace llava_mini::bench
