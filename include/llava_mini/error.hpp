// The one exception type of the library.
#pragma once

#include <stdexcept>
#include <string>

namespace llava_mini {

enum class ErrorKind {
    kUsage,  ///< the caller asked for something that makes no sense; command line exit code 2
    kInput,  ///< a file, picture, model, prompt or request is not as it must be; exit code 1
    kSystem  ///< out of memory, disk full, device lost; exit code 1
};

/// Thrown by every function of the library that fails. `what()` is one line that names the file or field,
/// what was expected and what was found. Nothing is half-written when it is thrown.
class Error : public std::runtime_error {
  public:
    Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
    ErrorKind kind() const { return kind_; }

  private:
    ErrorKind kind_;
};

}  // namespace llava_mini
