#include "core/log.h"

#include <ggml.h>
#include <llama.h>

#include <mutex>
#include <string>

namespace llava_mini {
namespace {

struct Sink {
    std::mutex mutex;
    LogSink function;
    LogLevel engine_level = LogLevel::kInfo;
    std::string engine_line;  // the engine sends lines in pieces
};

Sink& sink() {
    static Sink instance;
    return instance;
}

thread_local std::string* captured_error = nullptr;
thread_local std::string captured_error_text;
thread_local std::function<void()> on_engine_message;

void engine_log(ggml_log_level level, const char* text, void*) {
    if (captured_error != nullptr && captured_error->empty() && level == GGML_LOG_LEVEL_ERROR) {
        *captured_error = text;
    }
    if (on_engine_message) on_engine_message();
    Sink& s = sink();
    const std::lock_guard lock(s.mutex);
    if (level != GGML_LOG_LEVEL_CONT) {
        // A captured error becomes part of ours; it must not be told twice.
        // Its warnings are about what we do on purpose: a context shorter than the model's, a prefix kept.
        s.engine_level = level == GGML_LOG_LEVEL_ERROR && captured_error == nullptr ? LogLevel::kError
                         : level == GGML_LOG_LEVEL_WARN                             ? LogLevel::kInfo
                                                                                    : LogLevel::kDebug;
    }
    s.engine_line += text;
    size_t end;
    while ((end = s.engine_line.find('\n')) != std::string::npos) {
        if (s.function && end > 0) s.function(s.engine_level, std::string_view(s.engine_line).substr(0, end));
        s.engine_line.erase(0, end + 1);
    }
}

// The engine writes to stderr unless told otherwise, so it is told before anything runs.
const bool engine_log_installed = [] {
    llama_log_set(engine_log, nullptr);
    ggml_log_set(engine_log, nullptr);
    return true;
}();

}  // namespace

void set_log_sink(LogSink new_sink) {
    const std::lock_guard lock(sink().mutex);
    sink().function = std::move(new_sink);
}

void log_message(LogLevel level, std::string_view message) {
    const std::lock_guard lock(sink().mutex);
    if (sink().function) sink().function(level, message);
}

EngineLogCapture::EngineLogCapture(std::function<void()> on_message) {
    on_engine_message = std::move(on_message);
    captured_error_text.clear();
    captured_error = &captured_error_text;
}

EngineLogCapture::~EngineLogCapture() {
    captured_error = nullptr;
    on_engine_message = nullptr;
}

std::string EngineLogCapture::first_error() const {
    std::string_view text = captured_error_text;
    const size_t colon = text.find(": ");  // "function: reason\n"
    if (colon != std::string_view::npos && text.find(' ') > colon) text.remove_prefix(colon + 2);
    while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
    return text.empty() ? "no reason given" : std::string(text);
}

}  // namespace llava_mini
