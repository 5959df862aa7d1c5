#include "trainer/checkpoint.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "convert/json_input.h"
#include "core/error.h"
#include "core/file.h"
#include "trainer/initialise.h"

namespace llava_mini::trainer {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMomentsFile = "optimizer.safetensors";
constexpr const char* kAdaptersFile = "lora.safetensors";
constexpr const char* kStateFile = "state.json";

// Names of checkpoints are numbers of samples, so that they sort by age.
std::vector<fs::path> checkpoints(const fs::path& run) {
    std::vector<fs::path> folders;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(run / "checkpoints", ignored)) {
        const std::string name = entry.path().filename().string();
        if (name.size() == 10 && std::all_of(name.begin(), name.end(), ::isdigit))
            folders.push_back(entry.path());
    }
    std::sort(folders.begin(), folders.end());
    return folders;
}

std::span<const uint8_t> bytes_of(const std::vector<float>& values) {
    return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)};
}

void save_moments(const fs::path& path, const Parameters& parameters, AdamW& optimizer) {
    std::vector<SafetensorsWriter::Tensor> tensors;
    const auto& moments = optimizer.moments();
    for (size_t i = 0; i < moments.size(); ++i) {
        if (moments[i].first.empty()) continue;
        const Leaf& leaf = parameters.leaves()[i];
        tensors.push_back({"first." + leaf.key, GGML_TYPE_F32, leaf.shape});
        tensors.push_back({"second." + leaf.key, GGML_TYPE_F32, leaf.shape});
    }
    if (tensors.empty()) tensors.push_back({"none", GGML_TYPE_F32, {1}});
    SafetensorsWriter writer(path, tensors);
    for (const auto& m : moments) {
        writer.write(bytes_of(m.first));
        writer.write(bytes_of(m.second));
    }
    if (tensors.front().name == "none") writer.write(std::vector<uint8_t>(sizeof(float)));
    writer.commit();
}

void load_moments(const fs::path& path, const Parameters& parameters, AdamW& optimizer) {
    const SafetensorsReader reader(path);
    auto& moments = optimizer.moments();
    for (size_t i = 0; i < moments.size(); ++i) {
        const Leaf& leaf = parameters.leaves()[i];
        moments[i] = {};
        for (const auto& [prefix, values] :
             {std::pair{"first.", &moments[i].first}, {"second.", &moments[i].second}}) {
            const SafetensorsTensor* tensor = reader.find(prefix + leaf.key);
            if (tensor == nullptr) continue;
            if (tensor->shape != leaf.shape || tensor->type() != GGML_TYPE_F32) {
                throw_input("{}: {}{}: expected F32 [{}], found {} [{}]", path.string(), prefix, leaf.key,
                            fmt::join(leaf.shape, ", "), tensor->dtype, fmt::join(tensor->shape, ", "));
            }
            values->resize(static_cast<size_t>(tensor->elements()));
            read_as_float(reader, *tensor, *values);
        }
        if (moments[i].first.empty() != moments[i].second.empty()) {
            throw_input("{}: {}: one of two moments is missing", path.string(), leaf.key);
        }
    }
}

}  // namespace

void save_model(const Parameters& parameters, const fs::path& base, const fs::path& folder,
                Parameters::Adapters adapters) {
    write_text_file(folder / "config.json", read_text_file(base / "config.json", 1 << 24));
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(base / "vision_tower", ignored)) {
        write_text_file(folder / "vision_tower" / entry.path().filename(),
                        read_text_file(entry.path(), 1 << 24));
    }
    copy_tokenizer(base, folder);
    parameters.save(folder / "model.safetensors", adapters);
}

void save_checkpoint(const fs::path& run, const fs::path& base, const Parameters& parameters,
                     AdamW& optimizer, const RunState& state, int keep) {
    const fs::path folder = run / "checkpoints" / fmt::format("{:010}", state.samples);
    const fs::path aside = folder.string() + ".partial";
    std::error_code ignored;
    fs::remove_all(aside, ignored);
    try {
        save_model(parameters, base, aside, Parameters::Adapters::kLeftOut);
        if (parameters.has_adapters()) parameters.save_adapters(aside / kAdaptersFile);
        save_moments(aside / kMomentsFile, parameters, optimizer);
        const nlohmann::ordered_json text = {{"phase", state.phase},
                                             {"step", state.step},
                                             {"samples", state.samples},
                                             {"seconds", state.seconds},
                                             {"optimizer_steps", optimizer.steps()},
                                             {"recipe_hash", state.recipe_hash}};
        write_text_file(aside / kStateFile, text.dump(2) + "\n");
        fs::remove_all(folder, ignored);
        std::error_code failure;
        fs::rename(aside, folder, failure);
        if (failure) throw_system("{}: cannot be renamed: {}", aside.string(), failure.message());
    } catch (...) {
        fs::remove_all(aside, ignored);
        throw;
    }
    std::vector<fs::path> all = checkpoints(run);
    for (size_t i = 0; i + static_cast<size_t>(keep) < all.size(); ++i) fs::remove_all(all[i], ignored);
}

std::optional<fs::path> newest_checkpoint(const fs::path& run) {
    const std::vector<fs::path> all = checkpoints(run);
    return all.empty() ? std::nullopt : std::optional(all.back());
}

RunState load_checkpoint(const fs::path& folder, Parameters& parameters, AdamW& optimizer) {
    const nlohmann::json root = read_json_file(folder / kStateFile, 1 << 20);
    const JsonObject object(root, (folder / kStateFile).string());
    const auto number = [&](const char* key) {
        const auto& value = object.at(key);
        if (!value.is_number_unsigned()) object.fail(key, "a number");
        return value.get<uint64_t>();
    };
    RunState state;
    state.phase = number("phase");
    state.step = number("step");
    state.samples = number("samples");
    state.seconds = object.real("seconds", 0, 1e12);
    state.recipe_hash = object.text("recipe_hash");
    optimizer.set_steps(static_cast<int64_t>(number("optimizer_steps")));
    parameters.load(SafetensorsReader(folder / "model.safetensors"), nullptr);
    if (parameters.has_adapters()) parameters.load_adapters(SafetensorsReader(folder / kAdaptersFile));
    load_moments(folder / kMomentsFile, parameters, optimizer);
    return state;
}

}  // namespace llava_mini::trainer
