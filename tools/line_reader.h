// Lines typed by a person, with editing and history (libedit), or read from a pipe.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

namespace llava_mini::tools {

/// Edits when stdin and stderr are terminals; prompts go to stderr, so that stdout has nothing but answers.
class LineReader {
  public:
    enum class Event {
        kLine,       ///< a line was read
        kInterrupt,  ///< Ctrl-C on an empty line
        kEnd         ///< Ctrl-D on an empty line, or the pipe's end
    };

    /// `history_file`: where lines are remembered from one run to the next; empty: nowhere.
    LineReader(const char* prompt, const std::filesystem::path& history_file);
    ~LineReader();
    LineReader(const LineReader&) = delete;
    LineReader& operator=(const LineReader&) = delete;

    /// Waits for the next line, which comes without its newline. Ctrl-C on a line that is not empty drops it.
    Event read(std::string& line);
    /// Whether a person is typing.
    bool interactive() const { return editor_ != nullptr; }

  private:
    struct Editor;
    std::unique_ptr<Editor> editor_;  // null: no terminal
};

}  // namespace llava_mini::tools
