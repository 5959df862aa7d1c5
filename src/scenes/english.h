// Common English words beyond those of scenes, so that other questions are short in tokens too.
#pragma once

#include <string>

namespace llava_mini::scenes {

/// Some hundred words, separated by spaces.
std::string english_words();

}  // namespace llava_mini::scenes
