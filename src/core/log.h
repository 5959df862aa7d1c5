// Messages of the library and of the engine. The library itself prints nothing: a front end sets a sink.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace llava_mini {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

/// Receives one message without a trailing newline. Called from any thread, one call at a time.
using LogSink = std::function<void(LogLevel, std::string_view)>;

/// Sets where messages go (ours and those of ggml and libllama); an empty sink, the default, drops them.
/// Thread-safe.
void set_log_sink(LogSink sink);

/// Sends a message to the sink. Thread-safe.
void log_message(LogLevel level, std::string_view message);

/// While it lives, remembers the first error the engine logs on this thread, so that our own error can carry
/// the engine's reason; the sink gets such errors as debug messages. Does not nest.
class EngineLogCapture {
  public:
    /// `on_message` is called at every message of the engine on this thread. It may throw, once, to end a
    /// call of the engine that turns exceptions into a failure (llama_model_quantize).
    explicit EngineLogCapture(std::function<void()> on_message = {});
    ~EngineLogCapture();
    EngineLogCapture(const EngineLogCapture&) = delete;
    EngineLogCapture& operator=(const EngineLogCapture&) = delete;

    /// The engine's words without its function name; "no reason given" if it logged none.
    std::string first_error() const;
};

}  // namespace llava_mini
