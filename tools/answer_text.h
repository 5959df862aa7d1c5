// How ask and chat show an answer.
#pragma once

#include <string_view>

#include "llava_mini/llava_mini.hpp"

namespace llava_mini::tools {

/// The reason's name in JSON: "end_of_answer", "max_tokens", "context_full", "stopped".
const char* stop_reason_name(StopReason reason);

/// Writes a piece of an answer to stdout at once. Returns false, which stops the answer, if it cannot be
/// written.
bool print_piece(std::string_view text);

/// Says on stderr that an answer is incomplete, and what to do, when it is.
void explain_stop(StopReason reason);

}  // namespace llava_mini::tools
