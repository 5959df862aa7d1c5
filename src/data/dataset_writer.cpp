#include "data/dataset_writer.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "media/picture_writer.h"

namespace llava_mini {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

// A folder that becomes another at the end.
class PartialFolder {
  public:
    explicit PartialFolder(fs::path final_path) : final_(std::move(final_path)), partial_(final_) {
        partial_ += ".partial";
        std::error_code error;
        if (fs::exists(final_, error) && !fs::is_empty(final_, error)) {
            throw_usage("{}: is there already", final_.string());
        }
        fs::remove_all(partial_, error);  // of a run that was killed
        fs::create_directories(partial_, error);
        if (error) throw_system("{}: cannot make the folder: {}", partial_.string(), error.message());
    }
    ~PartialFolder() {
        std::error_code ignored;
        fs::remove_all(partial_, ignored);
    }
    PartialFolder(const PartialFolder&) = delete;
    PartialFolder& operator=(const PartialFolder&) = delete;

    const fs::path& path() const { return partial_; }
    void commit() {
        std::error_code error;
        fs::rename(partial_, final_, error);
        if (error)
            throw_system("{}: cannot rename {} to it: {}", final_.string(), partial_.string(),
                         error.message());
    }

  private:
    fs::path final_, partial_;
};

// Straight to its name: the folder as a whole is renamed, and waiting for the disk at every picture is slow.
void write_picture(const Image& image, const fs::path& path) {
    std::error_code error;
    fs::create_directories(path.parent_path(), error);
    const std::vector<uint8_t> bytes = encode_png(image);
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    file.close();
    if (!file) throw_system("{}: cannot be written", path.string());
}

ordered_json describe(const Sample& sample) {
    ordered_json object = {{"id", sample.id}};
    const bool clip = sample.frames.size() > 1;
    if (clip) {
        object["video"] = "videos/" + sample.id;
    } else if (!sample.frames.empty()) {
        object["image"] = "images/" + sample.id + ".png";
    }
    ordered_json conversation = ordered_json::array(), types = ordered_json::array();
    for (size_t i = 0; i < sample.turns.size(); ++i) {
        const QaTurn& turn = sample.turns[i];
        const bool placeholder = i == 0 && !sample.frames.empty();
        conversation.push_back(
            {{"from", "human"}, {"value", (placeholder ? "<image>\n" : "") + turn.question}});
        conversation.push_back({{"from", "gpt"}, {"value", turn.answer}});
        types.push_back(turn.type);
    }
    object["conversations"] = std::move(conversation);
    object["types"] = std::move(types);
    return object;
}

}  // namespace

void write_dataset(const SampleSource& source, uint64_t first, uint64_t count, const fs::path& folder,
                   const Progress& progress) {
    PartialFolder partial(folder);
    AtomicFile list(partial.path() / "samples.json");
    list.write("[\n");
    for (uint64_t i = 0; i < count; ++i) {
        if (progress && !progress(i, count, "writing samples")) {
            throw_input("interrupted while writing {}", folder.string());
        }
        const Sample sample = source.sample(first + i);
        if (sample.frames.size() == 1) {
            write_picture(sample.frames[0], partial.path() / "images" / (sample.id + ".png"));
        }
        for (size_t f = 0; sample.frames.size() > 1 && f < sample.frames.size(); ++f) {
            write_picture(sample.frames[f],
                          partial.path() / "videos" / sample.id / fmt::format("{:04}.png", f));
        }
        list.write(describe(sample).dump() + (i + 1 < count ? ",\n" : "\n"));
    }
    list.write("]\n");
    list.commit();
    partial.commit();
    if (progress) progress(count, count, "writing samples");
}

}  // namespace llava_mini
