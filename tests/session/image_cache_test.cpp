#include "session/image_cache.h"

#include <gtest/gtest.h>

namespace llava_mini {
namespace {

std::shared_ptr<const ImageEncoding> encoding(uint64_t key, int64_t floats) {
    auto made = std::make_shared<ImageEncoding>();
    made->key = {key, 0};
    made->vision_tokens = Matrix(1, floats);
    return made;
}

TEST(ImageCache, KeepsTheMostRecentlyUsedWithinItsBound) {
    ImageCache cache(1200);
    for (uint64_t key = 1; key <= 3; ++key) cache.insert(encoding(key, 100));  // 400 bytes each
    EXPECT_EQ(cache.bytes(), 1200u);
    EXPECT_NE(cache.find({1, 0}), nullptr);  // now 2 is the oldest
    cache.insert(encoding(4, 100));
    EXPECT_EQ(cache.bytes(), 1200u);
    EXPECT_EQ(cache.find({2, 0}), nullptr);
    EXPECT_NE(cache.find({1, 0}), nullptr);
    EXPECT_NE(cache.find({4, 0}), nullptr);
    cache.insert(encoding(5, 250));  // pushes two out
    EXPECT_LE(cache.bytes(), 1200u);
    EXPECT_EQ(cache.find({3, 0}), nullptr);
    cache.insert(encoding(6, 1000));  // larger than the whole
    EXPECT_EQ(cache.find({6, 0}), nullptr);
    EXPECT_NE(cache.find({5, 0}), nullptr);
}

}  // namespace
}  // namespace llava_mini
