// Short ways to throw llava_mini::Error with a formatted message.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "llava_mini/error.hpp"

namespace llava_mini {

/// Control characters replaced: files name tensors, keys and tokens as they like, and what is echoed of them
/// must neither break the line nor drive a terminal.
inline std::string one_line(std::string message) {
    const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7F; };
    std::replace_if(message.begin(), message.end(), is_control, '?');
    return message;
}

/// Throws an Error of kind kInput: untrusted data is not as it must be.
template <typename... Args>
[[noreturn]] void throw_input(fmt::format_string<Args...> format, Args&&... args) {
    throw Error(ErrorKind::kInput, one_line(fmt::format(format, std::forward<Args>(args)...)));
}

/// Throws an Error of kind kUsage: the caller combined arguments that make no sense.
template <typename... Args>
[[noreturn]] void throw_usage(fmt::format_string<Args...> format, Args&&... args) {
    throw Error(ErrorKind::kUsage, one_line(fmt::format(format, std::forward<Args>(args)...)));
}

/// Throws an Error of kind kSystem: the machine could not do it (memory, disk, device).
template <typename... Args>
[[noreturn]] void throw_system(fmt::format_string<Args...> format, Args&&... args) {
    throw Error(ErrorKind::kSystem, one_line(fmt::format(format, std::forward<Args>(args)...)));
}

}  // namespace llava_mini
