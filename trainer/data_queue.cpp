#include "trainer/data_queue.h"

namespace llava_mini::trainer {

DataQueue::DataQueue(Make make, uint64_t first, uint64_t end, int threads, size_t ahead)
    : make_(std::move(make)), next_made_(first), next_taken_(first), end_(end), ahead_(ahead) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

DataQueue::~DataQueue() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void DataQueue::work() {
    while (true) {
        uint64_t number = 0;
        {
            std::unique_lock lock(mutex_);
            changed_.wait(lock,
                          [&] { return stop_ || next_made_ >= end_ || next_made_ < next_taken_ + ahead_; });
            if (stop_ || next_made_ >= end_) return;
            number = next_made_++;
        }
        std::variant<Batch, std::exception_ptr> result;
        try {
            result = make_(number);
        } catch (...) {
            result = std::current_exception();
        }
        {
            const std::lock_guard lock(mutex_);
            ready_.emplace(number, std::move(result));
        }
        changed_.notify_all();
    }
}

Batch DataQueue::next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ready_.contains(next_taken_); });
    auto node = ready_.extract(next_taken_++);
    lock.unlock();
    changed_.notify_all();
    if (auto* error = std::get_if<std::exception_ptr>(&node.mapped())) std::rethrow_exception(*error);
    return std::move(std::get<Batch>(node.mapped()));
}

}  // namespace llava_mini::trainer
