// A video opened for reading packets: a file, standard input, an address, or a camera.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "media/exif.h"
#include "media/ffmpeg_handles.h"

namespace llava_mini {

struct VideoSourceOptions {
    /// Frames of more pixels are refused before they are decoded.
    uint64_t max_pixels = 178'956'970;
    /// An address that gives nothing for so long is lost.
    double timeout_seconds = 30;
    /// Polled while waiting for data; true ends the wait with an error. Null: never.
    const std::atomic<bool>* stop = nullptr;
};

/// `name` is
///   - a file's path (also file:PATH);
///   - "-" or "pipe:": standard input;
///   - an address: http, https, rtsp, rtsps, rtp, udp, tcp, rtmp, rtmps, srt;
///   - DEVICE:NAME with a video input of libavdevice, e.g. v4l2:/dev/video0.
/// An existing file wins over the other meanings.
///
/// What is read is not trusted. A file (or standard input) is the only thing that is opened: playlists and
/// other formats that refer to further files or addresses are refused, so that a file cannot make the program
/// read another one. From an address further addresses may be opened (playlists of HLS, streams of RTSP), but
/// never files. Not thread-safe.
class VideoSource {
  public:
    /// Opens, probes and chooses the video stream. Throws Error(kInput) naming the source when it cannot be
    /// read, is of no known kind, or has no video (a cover picture of an audio file is none).
    VideoSource(const std::string& name, const VideoSourceOptions& options);
    ~VideoSource();
    VideoSource(const VideoSource&) = delete;
    VideoSource& operator=(const VideoSource&) = delete;

    const std::string& name() const { return name_; }
    AVFormatContext* format() const { return format_.get(); }
    const AVStream& stream() const { return *format_->streams[stream_]; }
    /// Whether it is a file that can be read more than once.
    bool is_file() const { return seekable_; }
    /// Frames a second on average; 0: unknown.
    double fps() const;
    /// How frames want to be turned (the display matrix).
    Orientation orientation() const;
    /// Container and codec, for people: "mov,mp4,m4a,3gp,3g2,mj2" and "h264".
    std::string container() const { return format_->iformat->name; }
    std::string codec() const { return avcodec_get_name(stream().codecpar->codec_id); }

    /// Reads the next packet of the video stream. False at the end; `cut_off` is then whether reading failed
    /// before it. Throws Error(kInput) when the stop flag or the time-out ended the wait.
    bool read(AVPacket& packet, bool& cut_off);

  private:
    struct Input;  // of bytes: a descriptor
    void open();
    int check(int result, const char* what) const;
    static int interrupted(void* opaque);

    const std::string name_;
    const VideoSourceOptions options_;
    std::chrono::steady_clock::time_point deadline_;
    std::unique_ptr<Input> input_;
    AvioPtr io_;
    FormatPtr format_;
    int stream_ = -1;
    bool seekable_ = false, timed_out_ = false, refused_ = false;
};

}  // namespace llava_mini
