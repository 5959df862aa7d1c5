#include "session/image_cache.h"

namespace llava_mini {

std::shared_ptr<const ImageEncoding> ImageCache::find(const Hash128& key) {
    const std::lock_guard lock(mutex_);
    const auto found = by_key_.find(key);
    if (found == by_key_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, found->second);
    return *found->second;
}

void ImageCache::insert(std::shared_ptr<const ImageEncoding> encoding) {
    const std::lock_guard lock(mutex_);
    const uint64_t size = encoding->bytes();
    if (size > max_bytes_ || by_key_.contains(encoding->key)) return;
    while (bytes_ + size > max_bytes_) {
        bytes_ -= entries_.back()->bytes();
        by_key_.erase(entries_.back()->key);
        entries_.pop_back();
    }
    bytes_ += size;
    entries_.push_front(std::move(encoding));
    by_key_.emplace(entries_.front()->key, entries_.begin());
}

uint64_t ImageCache::bytes() const {
    const std::lock_guard lock(mutex_);
    return bytes_;
}

}  // namespace llava_mini
