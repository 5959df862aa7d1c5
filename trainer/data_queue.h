// Batches made ahead on threads of their own, handed over in order.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <variant>
#include <vector>

#include "trainer/batch.h"

namespace llava_mini::trainer {

/// Calls `make` for first, first + 1, ... below `end` on some threads, at most `ahead` before the one that is
/// waited for: what comes out, and in which order, does not depend on the threads.
class DataQueue {
  public:
    using Make = std::function<Batch(uint64_t number)>;
    DataQueue(Make make, uint64_t first, uint64_t end, int threads, size_t ahead);
    ~DataQueue();
    DataQueue(const DataQueue&) = delete;
    DataQueue& operator=(const DataQueue&) = delete;

    /// The next batch; waits for it. Throws what making it threw.
    Batch next();

  private:
    void work();

    Make make_;
    uint64_t next_made_, next_taken_;
    const uint64_t end_;
    const size_t ahead_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<uint64_t, std::variant<Batch, std::exception_ptr>> ready_;
    bool stop_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace llava_mini::trainer
