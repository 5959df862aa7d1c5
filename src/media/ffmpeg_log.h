// FFmpeg's messages, which it would otherwise print to stderr.
#pragma once

#include <string>

namespace llava_mini {

/// Sends FFmpeg's messages of this process to log_message from now on. Call before using FFmpeg; calling
/// again does nothing. Thread-safe.
void install_ffmpeg_log();

/// Collects the first error that FFmpeg reports on this thread while the object lives: the cause of those
/// that follow. Objects do not nest.
class FfmpegErrors {
  public:
    FfmpegErrors();
    ~FfmpegErrors();
    FfmpegErrors(const FfmpegErrors&) = delete;
    FfmpegErrors& operator=(const FfmpegErrors&) = delete;

    /// What FFmpeg said first, else the meaning of its error code. One line.
    std::string describe(int error_code) const;

  private:
    std::string first_;
};

}  // namespace llava_mini
