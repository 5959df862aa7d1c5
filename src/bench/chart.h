// The benchmark as a picture: stacked bars of the stages' seconds and counted operations.
#pragma once

#include <string>

#include "bench/benchmark.h"

namespace llava_mini::bench {

/// A stand-alone SVG (UTF-8, no script, no external fonts): one bar a model, first seconds to the first
/// token, then FLOPs. Reads well on white.
std::string to_svg(const BenchmarkResult& result);

}  // namespace llava_mini::bench
