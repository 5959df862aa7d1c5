#include "help_formatter.h"

#include <sstream>

namespace llava_mini::tools {
namespace {

constexpr size_t kLeftColumn = 32, kWidth = 100;

// Breaks lines between words so that none is longer than `width`.
std::string wrapped(const std::string& text, size_t width) {
    std::string result, line;
    std::istringstream lines(text);
    while (std::getline(lines, line)) {
        if (!result.empty()) result += '\n';
        std::istringstream words(line);
        std::string word;
        size_t used = 0;
        while (words >> word) {
            if (used > 0 && used + 1 + word.size() > width) {
                result += '\n';
                used = 0;
            } else if (used > 0) {
                result += ' ';
                ++used;
            }
            result += word;
            used += word.size();
        }
    }
    return result;
}

}  // namespace

HelpFormatter::HelpFormatter() {
    column_width(kLeftColumn);
}

std::string HelpFormatter::make_subcommand(const CLI::App* command) const {
    const std::string description = command->get_description();
    std::stringstream out;
    CLI::detail::format_help(out, command->get_name(),
                             wrapped(description.substr(0, description.find('\n')), kWidth - kLeftColumn),
                             kLeftColumn);
    return out.str();
}

std::string HelpFormatter::make_description(const CLI::App* app) const {
    return wrapped(app->get_description(), kWidth) + "\n";
}

std::string HelpFormatter::make_option_opts(const CLI::Option* option) const {
    // CLI11 puts what its checks want behind a colon.
    const std::string type = option->get_type_name();
    return type.empty() ? "" : " " + type.substr(0, type.find(':'));
}

std::string HelpFormatter::make_option_desc(const CLI::Option* option) const {
    std::string text = option->get_description();
    if (!option->get_default_str().empty()) text += " (default: " + option->get_default_str() + ")";
    if (!option->get_envname().empty()) text += " (or $" + option->get_envname() + ")";
    if (option->get_required() && option->nonpositional()) text += " (required)";
    return wrapped(text, kWidth - kLeftColumn);
}

}  // namespace llava_mini::tools
