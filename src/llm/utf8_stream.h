// Text that arrives in pieces of tokens, released in whole characters.
#pragma once

#include <string>
#include <string_view>

namespace llava_mini {

/// Byte-level tokens may end inside a character. The stream keeps the bytes of an unfinished UTF-8 sequence
/// back until the rest arrives, and puts U+FFFD in place of bytes that can never become a character (one for
/// each maximal ill-formed part, as the Unicode standard recommends and Python's decoder does), so that what
/// it releases is always valid UTF-8. Not thread-safe.
class Utf8Stream {
  public:
    /// Takes more bytes; returns all characters that are complete by now.
    std::string push(std::string_view bytes);
    /// The text is at its end: returns U+FFFD if an unfinished sequence is left, else nothing.
    std::string finish();

  private:
    std::string pending_;
};

}  // namespace llava_mini
