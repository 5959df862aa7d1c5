#include "answer_text.h"

#include <cstdio>

namespace llava_mini::tools {

const char* stop_reason_name(StopReason reason) {
    switch (reason) {
        case StopReason::kEndOfAnswer:
            return "end_of_answer";
        case StopReason::kMaxTokens:
            return "max_tokens";
        case StopReason::kContextFull:
            return "context_full";
        case StopReason::kStopped:
            return "stopped";
    }
    return "unknown";
}

bool print_piece(std::string_view text) {
    return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
}

void explain_stop(StopReason reason) {
    if (reason == StopReason::kMaxTokens) {
        std::fprintf(stderr, "llava-mini: the answer was cut at the most tokens allowed (-n)\n");
    } else if (reason == StopReason::kContextFull) {
        std::fprintf(stderr, "llava-mini: the answer was cut because the context is full (-c)\n");
    }
}

}  // namespace llava_mini::tools
