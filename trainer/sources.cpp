#include "trainer/sources.h"

#include <set>

#include "convert/json_input.h"
#include "core/error.h"
#include "data/conversation_dataset.h"
#include "scenes/generator.h"
#include "scenes/long_clip.h"

namespace llava_mini::trainer {
namespace {

void expect_options(const DataSpec& spec, const std::set<std::string>& known) {
    for (const auto& [key, value] : spec.options.items()) {
        if (!known.contains(key)) {
            throw_input("data source {}: unknown option '{}', expected one of {}", spec.source,
                        printable(key), fmt::join(known, ", "));
        }
    }
}

std::shared_ptr<const SampleSource> make_official(const DataSpec& spec) {
    constexpr int kOfficialFrames = 8, kMostFrames = 4096;
    expect_options(spec, {"file", "root", "max_frames"});
    const nlohmann::json options = spec.options;
    const JsonObject object(options, "data source official");
    const std::filesystem::path file = object.text("file");
    ConversationDatasetOptions out;
    out.max_frames = object.integer_or("max_frames", 1, kMostFrames, kOfficialFrames);
    return std::make_shared<ConversationDataset>(
        file, object.has("root") ? std::filesystem::path(object.text("root")) : file.parent_path(), out);
}

scenes::GeneratorOptions scenes_options(const JsonObject& object) {
    scenes::GeneratorOptions out;
    const auto integer = [&](const char* key, int& value) {
        value = object.integer_or(key, 0, INT32_MAX, value);
    };
    const auto share = [&](const char* key, double& value) {
        value = object.real_or(key, 0, 1, static_cast<float>(value));
    };
    out.split = scenes::parse_split(object.text_or("split", "train"));
    out.seed = static_cast<uint64_t>(object.integer_or("seed", 0, INT32_MAX, 1));
    integer("size", out.size);
    integer("min_things", out.scene.min_things);
    integer("max_things", out.scene.max_things);
    share("big_share", out.scene.big_share);
    share("shape_share", out.scene.shape_share);
    share("sign_share", out.scene.sign_share);
    share("clip_share", out.clip_share);
    integer("min_frames", out.clip.min_frames);
    integer("max_frames", out.clip.max_frames);
    share("sequence_share", out.clip.sequence_share);
    integer("min_turns", out.min_turns);
    integer("max_turns", out.max_turns);
    if (object.has("augment")) out.augment = object.boolean_or("augment", true);
    if (object.has("samples")) out.samples = static_cast<uint64_t>(object.integer("samples", 1, INT32_MAX));
    if (const auto weights = object.object("weights")) {
        for (const auto& [type, weight] : object.find("weights")->items()) {
            out.weights[type] = weights->real(type.c_str(), 0, 1e6);
        }
    }
    return out;
}

std::shared_ptr<const SampleSource> make_scenes(const DataSpec& spec) {
    expect_options(spec, {"split", "seed", "size", "min_things", "max_things", "big_share", "shape_share",
                          "sign_share", "clip_share", "min_frames", "max_frames", "sequence_share",
                          "min_turns", "max_turns", "augment", "weights", "samples"});
    const nlohmann::json options = spec.options;
    return std::make_shared<scenes::SceneGenerator>(scenes_options({options, "data source scenes"}));
}

std::shared_ptr<const SampleSource> make_long_scenes(const DataSpec& spec) {
    expect_options(spec, {"split", "seed", "size", "shape_share", "min_frames", "max_frames", "needle_frames",
                          "looks", "augment", "samples"});
    const nlohmann::json options = spec.options;
    const JsonObject object(options, "data source long_scenes");
    const scenes::GeneratorOptions out = scenes_options(object);
    return std::make_shared<scenes::LongClips>(out, out.clip.min_frames, out.clip.max_frames,
                                               object.integer_or("needle_frames", 1, 1 << 20, 1),
                                               object.integer_or("looks", 1, 64, 3));
}

}  // namespace

std::shared_ptr<const SampleSource> make_source(const DataSpec& spec) {
    if (spec.source == "scenes") return make_scenes(spec);
    if (spec.source == "official") return make_official(spec);
    if (spec.source == "long_scenes") return make_long_scenes(spec);
    throw_input("data source '{}' is not known (there are: scenes, long_scenes, official)", spec.source);
}

}  // namespace llava_mini::trainer
