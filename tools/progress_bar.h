// Progress of long work on stderr: a bar with the time left on a terminal, a line at every tenth elsewhere.
#pragma once

#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <optional>
#include <string>

#include "core/progress.h"

namespace llava_mini::tools {

/// Estimates the time left from what was done since the first report: work that goes on where it was begins
/// with a part that cost nothing now.
class TimeLeft {
  public:
    /// Seconds left at time `now` (seconds on any clock), nothing as long as there is too little to tell.
    std::optional<double> update(uint64_t done, uint64_t total, double now);

  private:
    std::optional<uint64_t> first_done_;
    double first_time_ = 0;
};

/// While it lives, Ctrl-C (or SIGTERM, or the terminal's end) asks the work to stop, which then cleans up and
/// throws; a second one ends the program at once. One at a time.
class ProgressBar {
  public:
    ProgressBar();
    /// Ends the bar's line and restores what the signals did before.
    ~ProgressBar();
    ProgressBar(const ProgressBar&) = delete;
    ProgressBar& operator=(const ProgressBar&) = delete;

    /// To be handed to the library; must not outlive the bar.
    Progress callback();

  private:
    bool update(uint64_t done, uint64_t total, std::string_view label);
    void draw(uint64_t done, uint64_t total, std::string_view label);

    using Clock = std::chrono::steady_clock;
    bool terminal_;
    Clock::time_point start_, drawn_;
    TimeLeft time_left_;
    int tenth_ = -1;  // last one reported when there is no terminal
    bool open_line_ = false;
    static constexpr std::array<int, 3> kStopSignals = {SIGINT, SIGTERM, SIGHUP};
    std::array<struct sigaction, kStopSignals.size()> previous_{};
};

}  // namespace llava_mini::tools
