#include "progress_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace llava_mini::tools {
namespace {

constexpr int kWidth = 30;
constexpr std::chrono::milliseconds kRedraw{100};

volatile std::sig_atomic_t interrupted = 0;

void on_interrupt(int) {
    interrupted = 1;
}

std::string duration(double seconds) {
    const auto whole = static_cast<int64_t>(seconds + 0.5);
    return whole < 3600 ? fmt::format("{}:{:02}", whole / 60, whole % 60)
                        : fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

}  // namespace

std::optional<double> TimeLeft::update(uint64_t done, uint64_t total, double now) {
    if (!first_done_) {
        first_done_ = done;
        first_time_ = now;
    }
    if (done < *first_done_ || total <= *first_done_ || done > total) return std::nullopt;
    const auto now_done = static_cast<double>(done - *first_done_),
               all = static_cast<double>(total - *first_done_);
    if (now_done < 0.01 * all) return std::nullopt;
    return (now - first_time_) / now_done * (all - now_done);
}

ProgressBar::ProgressBar()
    : terminal_(isatty(STDERR_FILENO) != 0), start_(Clock::now()), drawn_(start_ - kRedraw) {
    interrupted = 0;
    struct sigaction action {};
    action.sa_handler = on_interrupt;
    action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
    for (size_t i = 0; i < kStopSignals.size(); ++i) sigaction(kStopSignals[i], &action, &previous_[i]);
}

ProgressBar::~ProgressBar() {
    if (open_line_) std::fputc('\n', stderr);
    for (size_t i = 0; i < kStopSignals.size(); ++i) sigaction(kStopSignals[i], &previous_[i], nullptr);
}

Progress ProgressBar::callback() {
    return
        [this](uint64_t done, uint64_t total, std::string_view label) { return update(done, total, label); };
}

bool ProgressBar::update(uint64_t done, uint64_t total, std::string_view label) {
    const auto now = Clock::now();
    if (terminal_) {
        if (now - drawn_ >= kRedraw || done == total) {
            drawn_ = now;
            draw(done, total, label);
        }
    } else if (const int tenth = total == 0 ? 10
                                            : static_cast<int>(10.0 * static_cast<double>(done) /
                                                               static_cast<double>(total));
               tenth > tenth_) {
        tenth_ = tenth;
        fmt::print(stderr, "{}: {} %\n", label, tenth * 10);
    }
    return interrupted == 0;
}

void ProgressBar::draw(uint64_t done, uint64_t total, std::string_view label) {
    const double share =
        total == 0 ? 1.0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    const int filled = static_cast<int>(share * kWidth);
    const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
    const auto seconds = time_left_.update(done, total, elapsed);
    const std::string left = seconds ? duration(*seconds) + " left" : "";
    fmt::print(stderr, "\r[{}{}] {:3.0f} % {} {}\x1b[K", std::string(static_cast<size_t>(filled), '#'),
               std::string(static_cast<size_t>(kWidth - filled), '.'), share * 100, label,
               done == total ? duration(elapsed) : left);
    std::fflush(stderr);
    open_line_ = true;
}

}  // namespace llava_mini::tools
