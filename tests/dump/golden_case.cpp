#include "dump/golden_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "support/test_data.h"

namespace llava_mini::test {

const std::vector<GoldenCase>& golden_cases() {
    static const std::vector<GoldenCase> cases = [] {
        std::vector<GoldenCase> read;
        std::ifstream file(golden_path("manifest.json"));
        const nlohmann::json manifest = nlohmann::json::parse(file);
        for (const auto& recorded : manifest.at("cases")) {
            GoldenCase& c = read.emplace_back();
            c.name = recorded.at("name");
            c.prompt = recorded.at("prompt_text");
            c.doubled_bos = recorded.at("prompt_style") == "prompt_official";
            c.options.ids = golden_path("cases/" + c.name + "/input_ids.npy");
            c.options.official_quirks = true;
            c.options.image_options.obey_exif = false;
            const nlohmann::json& picture = recorded.at("picture");
            if (picture.is_null()) continue;
            c.options.image_options.resolution_ratio = picture.at("resolution_ratio");
            if (picture.contains("video")) {
                c.options.frames = golden_path("video/raw_frames.npy");
            } else {
                c.options.image = golden_path(picture.at("file"));
                c.options.image_options.aspect_ratio = picture.at("image_aspect_ratio");
            }
        }
        return read;
    }();
    return cases;
}

const GoldenCase& golden_case(const std::string& name) {
    const auto found = std::ranges::find(golden_cases(), name, &GoldenCase::name);
    if (found == golden_cases().end()) throw std::out_of_range("no recorded case " + name);
    return *found;
}

std::map<std::string, DumpArray> dump_by_name(const Model& model, const DumpOptions& options) {
    std::map<std::string, DumpArray> arrays;
    for (DumpArray& array : dump_stages(model, options)) {
        const std::string name = array.name;
        const bool is_new = arrays.emplace(name, std::move(array)).second;
        EXPECT_TRUE(is_new) << name << " twice";
    }
    return arrays;
}

std::vector<float> floats(const std::map<std::string, DumpArray>& arrays, const std::string& name) {
    const auto found = arrays.find(name);
    if (found == arrays.end() || !std::holds_alternative<std::vector<float>>(found->second.values)) {
        ADD_FAILURE() << "no array of floats " << name;
        return {};
    }
    return std::get<std::vector<float>>(found->second.values);
}

std::vector<int64_t> integers(const std::map<std::string, DumpArray>& arrays, const std::string& name) {
    const auto found = arrays.find(name);
    if (found == arrays.end() || !std::holds_alternative<std::vector<int64_t>>(found->second.values)) {
        ADD_FAILURE() << "no array of integers " << name;
        return {};
    }
    return std::get<std::vector<int64_t>>(found->second.values);
}

}  // namespace llava_mini::test
