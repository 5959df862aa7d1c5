// Checks a GBNF grammar before libllama's parser sees it.
#pragma once

#include <string_view>

#include "llm/language_model.h"

namespace llava_mini {

/// libllama's parser writes its complaints to stderr, and some grammars make it loop or recurse without
/// bound. So whatever it would refuse (its grammars/README.md describes the language) is found here first,
/// and the size of what the grammar expands to is bounded. Throws Error(kInput) naming line, column and what
/// was expected. Left recursion is left to libllama, which reports it properly.
void check_grammar(std::string_view grammar, const LanguageModel& model);

}  // namespace llava_mini
