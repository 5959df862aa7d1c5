// How long work reports on itself. The library calls; the front end draws.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace llava_mini {

/// Called with what is done of `total` units (bytes, tensors, frames: the caller's choice) and a label.
/// Returns false to stop the work, which then throws Error(kInput, "interrupted ...") and leaves nothing
/// behind.
using Progress = std::function<bool(uint64_t done, uint64_t total, std::string_view label)>;

}  // namespace llava_mini
