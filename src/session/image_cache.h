// Picture encodings by content, bounded in bytes, least recently used out first.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "model/stages.h"

namespace llava_mini {

/// Thread-safe.
class ImageCache {
  public:
    explicit ImageCache(uint64_t max_bytes) : max_bytes_(max_bytes) {}

    /// Null if it is not there; else it counts as used just now.
    std::shared_ptr<const ImageEncoding> find(const Hash128& key);
    /// Keeps an encoding by its key, pushing older ones out; one larger than the whole cache is not kept.
    void insert(std::shared_ptr<const ImageEncoding> encoding);
    /// Bytes held now, never more than the bound.
    uint64_t bytes() const;

  private:
    using Entries = std::list<std::shared_ptr<const ImageEncoding>>;  // most recently used first
    const uint64_t max_bytes_;
    mutable std::mutex mutex_;
    uint64_t bytes_ = 0;
    Entries entries_;
    std::unordered_map<Hash128, Entries::iterator> by_key_;
};

}  // namespace llava_mini
