// Ctrl-C for what a session does.
#pragma once

#include <atomic>
#include <csignal>

#include "llava_mini/llava_mini.hpp"

namespace llava_mini::tools {

/// While it lives, Ctrl-C (and SIGTERM) stops the session's answer or watching instead of the program.
class StopOnInterrupt {
  public:
    explicit StopOnInterrupt(Session& session) {
        session_ = &session;
        struct sigaction action {};
        action.sa_handler = [](int) {
            // Session::stop() sets an atomic flag, which a signal handler may do.
            if (Session* running = session_) running->stop();
        };
        action.sa_flags = SA_RESTART;
        sigaction(SIGINT, &action, &before_);
        sigaction(SIGTERM, &action, &before_terminate_);
    }
    ~StopOnInterrupt() {
        sigaction(SIGINT, &before_, nullptr);
        sigaction(SIGTERM, &before_terminate_, nullptr);
        session_ = nullptr;
    }
    StopOnInterrupt(const StopOnInterrupt&) = delete;
    StopOnInterrupt& operator=(const StopOnInterrupt&) = delete;

  private:
    static inline std::atomic<Session*> session_ = nullptr;
    static_assert(std::atomic<Session*>::is_always_lock_free);
    struct sigaction before_ {
    }, before_terminate_{};
};

}  // namespace llava_mini::tools
