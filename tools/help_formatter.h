// How --help looks: short left column, wrapped descriptions.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace llava_mini::tools {

/// Shows an option's type and, behind its description, its default; not the ranges that are checked. A
/// command's description is shown whole in its own help; in the list of commands, its first line.
class HelpFormatter : public CLI::Formatter {
  public:
    HelpFormatter();
    std::string make_subcommand(const CLI::App* command) const override;
    std::string make_description(const CLI::App* app) const override;
    std::string make_option_opts(const CLI::Option* option) const override;
    std::string make_option_desc(const CLI::Option* option) const override;
};

}  // namespace llava_mini::tools
