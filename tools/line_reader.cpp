#include "line_reader.h"

#include <histedit.h>
#include <unistd.h>

#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>

namespace llava_mini::tools {
namespace {

constexpr int kHistoryLines = 1000;

// Typed text is UTF-8 even where no locale is set, as in a bare container.
void use_utf8() {
    std::setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) std::setlocale(LC_CTYPE, "C.UTF-8");
}

}  // namespace

struct LineReader::Editor {
    struct FreeEditLine {
        void operator()(EditLine* p) const { el_end(p); }
    };
    struct FreeHistory {
        void operator()(History* p) const { history_end(p); }
    };

    const char* prompt = "";
    std::string history_file;
    enum class Interrupt { kNone, kEmptyLine, kDroppedLine } interrupt = Interrupt::kNone;
    std::unique_ptr<History, FreeHistory> history{history_init()};
    std::unique_ptr<EditLine, FreeEditLine> line{el_init("llava-mini", stdin, stderr, stderr)};

    static Editor& of(EditLine* line) {
        void* self = nullptr;
        el_get(line, EL_CLIENTDATA, &self);
        return *static_cast<Editor*>(self);
    }
    static char* show_prompt(EditLine* line) { return const_cast<char*>(of(line).prompt); }
    static unsigned char on_interrupt(EditLine* line, int) {
        const LineInfo* typed = el_line(line);
        of(line).interrupt =
            typed->buffer == typed->lastchar ? Interrupt::kEmptyLine : Interrupt::kDroppedLine;
        return CC_EOF;
    }
    static unsigned char on_suspend(EditLine* line, int) {
        el_set(line, EL_PREP_TERM, 0);
        raise(SIGTSTP);  // returns when the shell lets the program go on
        el_set(line, EL_PREP_TERM, 1);
        return CC_REDISPLAY;
    }
};

LineReader::LineReader(const char* prompt, const std::filesystem::path& history_file) {
    if (isatty(STDIN_FILENO) == 0 || isatty(STDERR_FILENO) == 0) return;
    use_utf8();
    auto editor = std::make_unique<Editor>();
    if (!editor->line || !editor->history) return;
    editor->prompt = prompt;
    editor->history_file = history_file.string();
    EditLine* line = editor->line.get();
    el_set(line, EL_CLIENTDATA, editor.get());
    el_set(line, EL_PROMPT, &Editor::show_prompt);
    el_set(line, EL_EDITOR, "emacs");
    el_source(line, nullptr);  // the user's ~/.editrc

    HistEvent event;
    history(editor->history.get(), &event, H_SETSIZE, kHistoryLines);
    history(editor->history.get(), &event, H_SETUNIQUE, 1);
    if (!editor->history_file.empty())
        history(editor->history.get(), &event, H_LOAD, editor->history_file.c_str());
    el_set(line, EL_HIST, history, editor->history.get());

    // Ctrl-C and Ctrl-Z as keys: libedit would notice the signal of the first only at the second.
    el_set(line, EL_SETTY, "-d", "-isig", nullptr);
    el_set(line, EL_ADDFN, "interrupt", "Drop the line", &Editor::on_interrupt);
    el_set(line, EL_BIND, "^C", "interrupt", nullptr);
    el_set(line, EL_ADDFN, "suspend", "Suspend the program", &Editor::on_suspend);
    el_set(line, EL_BIND, "^Z", "suspend", nullptr);
    el_set(line, EL_ADDFN, "complete-file", "Complete a file's name", _el_fn_complete);
    el_set(line, EL_BIND, "^I", "complete-file", nullptr);
    el_set(line, EL_BIND, "^R", "em-inc-search-prev", nullptr);
    editor_ = std::move(editor);
}

LineReader::~LineReader() = default;

LineReader::Event LineReader::read(std::string& line) {
    line.clear();
    if (editor_ == nullptr) return std::getline(std::cin, line) ? Event::kLine : Event::kEnd;

    int count = 0;
    const char* text = nullptr;
    do {
        editor_->interrupt = Editor::Interrupt::kNone;
        text = el_gets(editor_->line.get(), &count);
        if (editor_->interrupt != Editor::Interrupt::kNone) std::fputs("^C\n", stderr);
    } while (editor_->interrupt == Editor::Interrupt::kDroppedLine);
    if (editor_->interrupt == Editor::Interrupt::kEmptyLine) return Event::kInterrupt;
    if (text == nullptr || count <= 0) {
        std::fputs("\n", stderr);
        return Event::kEnd;
    }
    line = text;
    while (!line.empty() && line.back() == '\n') line.pop_back();
    if (!line.empty()) {
        HistEvent event;
        history(editor_->history.get(), &event, H_ENTER, line.c_str());
        if (!editor_->history_file.empty()) {
            history(editor_->history.get(), &event, H_SAVE, editor_->history_file.c_str());
        }
    }
    return Event::kLine;
}

}  // namespace llava_mini::tools
