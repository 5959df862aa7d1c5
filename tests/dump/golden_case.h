// The cases of tests/golden/manifest.json as inputs of dump_stages.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "dump/dump.h"

namespace llava_mini::test {

struct GoldenCase {
    std::string name;
    std::string prompt;        // as recorded
    bool doubled_bos = false;  // the released command line put a second begin-of-text in front of it
    DumpOptions options;       // picture or frames, token ids, official quirks
};

/// All twelve, as recorded.
const std::vector<GoldenCase>& golden_cases();
const GoldenCase& golden_case(const std::string& name);

/// The arrays of dump_stages by name.
std::map<std::string, DumpArray> dump_by_name(const Model& model, const DumpOptions& options);

/// An array of floats; a failed test and nothing if there is none of that name.
std::vector<float> floats(const std::map<std::string, DumpArray>& arrays, const std::string& name);
std::vector<int64_t> integers(const std::map<std::string, DumpArray>& arrays, const std::string& name);

}  // namespace llava_mini::test
