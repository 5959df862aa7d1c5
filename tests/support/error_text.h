// What an Error says, for tests of messages.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "llava_mini/error.hpp"

namespace llava_mini::test {

/// The message of the Error that `action` throws; fails the test if it throws none, or one of several lines.
template <typename Action>
std::string error_text(Action action) {
    try {
        action();
    } catch (const Error& e) {
        const std::string text = e.what();
        EXPECT_EQ(text.find('\n'), std::string::npos) << "more than one line: " << text;
        return text;
    }
    ADD_FAILURE() << "no Error was thrown";
    return "";
}

}  // namespace llava_mini::test
