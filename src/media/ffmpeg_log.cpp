#include "media/ffmpeg_log.h"

extern "C" {
#include <libavutil/error.h>
#include <libavutil/log.h>
}

#include <mutex>
#include <string_view>

#include "core/log.h"

namespace llava_mini {
namespace {

thread_local std::string* collected_error = nullptr;

// Called by FFmpeg from any thread; must not throw into C code, so an allocation that fails drops the
// message.
void on_message(void* source, int level, const char* format, va_list arguments) noexcept {
    if (level > AV_LOG_WARNING) return;
    int print_prefix = 1;
    char line[1024];
    av_log_format_line2(source, level, format, arguments, line, sizeof(line), &print_prefix);
    std::string_view text(line);
    // "[png @ 0x55...] text\n": the address is of no use to anybody.
    while (text.starts_with('[')) {
        const size_t end = text.find("] ");
        if (end == std::string_view::npos) break;
        text.remove_prefix(end + 2);
    }
    while (!text.empty() && (text.back() == '\n' || text.back() == '.')) text.remove_suffix(1);
    if (text.empty()) return;
    try {
        if (level <= AV_LOG_ERROR && collected_error != nullptr && collected_error->empty()) {
            *collected_error = text;
        }
        // An error that matters is thrown; what FFmpeg says on the way is for whoever looks closer.
        log_message(LogLevel::kDebug, text);
    } catch (...) {
    }
}

}  // namespace

void install_ffmpeg_log() {
    static std::once_flag once;
    std::call_once(once, [] { av_log_set_callback(on_message); });
}

FfmpegErrors::FfmpegErrors() {
    install_ffmpeg_log();
    collected_error = &first_;
}

FfmpegErrors::~FfmpegErrors() {
    collected_error = nullptr;
}

std::string FfmpegErrors::describe(int error_code) const {
    if (!first_.empty()) return first_;
    char text[AV_ERROR_MAX_STRING_SIZE] = {};
    av_strerror(error_code, text, sizeof(text));
    return text;
}

}  // namespace llava_mini
