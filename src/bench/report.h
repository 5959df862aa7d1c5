// What the benchmark found: as JSON, as a table for people, and held against the figures it is meant to
// reach.
#pragma once

#include <string>
#include <vector>

#include "bench/benchmark.h"

namespace llava_mini::bench {

/// A figure to reach.
struct Target {
    std::string key;   ///< in JSON
    std::string what;  ///< for people
    double goal = 0;
    bool at_least = true;  ///< else: at most
    double measured = 0;
    std::string unit = "";

    bool met() const { return at_least ? measured >= goal : measured <= goal; }
};

/// The figures that LLaVA-Mini on Llama 3.1 8B is to reach beside LLaVA-v1.5 7B with 60 tokens of text and 15
/// of the second question, in the order of docs/benchmark.md. Of other models or workloads they say little.
std::vector<Target> targets(const BenchmarkResult& result);

/// One JSON object (the fields are described in docs/benchmark.md), indented. `with_targets`: hold the result
/// against targets().
std::string to_json(const BenchmarkResult& result, bool with_targets);

/// Tables of at most 100 columns.
std::string to_text(const BenchmarkResult& result, bool with_targets);

}  // namespace llava_mini::bench
