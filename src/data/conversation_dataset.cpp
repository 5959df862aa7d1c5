#include "data/conversation_dataset.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "convert/json_input.h"
#include "core/error.h"
#include "core/file.h"
#include "media/frame_sampler.h"
#include "media/image_decoder.h"
#include "media/video_reader.h"

namespace llava_mini {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr size_t kMaxTurns = 4096, kMaxTextBytes = 1 << 20, kMaxFolderFiles = 1 << 20;
constexpr uint64_t kProgressBytes = 1 << 20;
constexpr const char* kPictureEndings[] = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"};

bool is_picture_name(const fs::path& path) {
    std::string ending = path.extension().string();
    std::transform(ending.begin(), ending.end(), ending.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    return std::find(std::begin(kPictureEndings), std::end(kPictureEndings), ending) !=
           std::end(kPictureEndings);
}

// Frames are often numbered without leading zeros: 2 comes before 10.
bool before(const fs::path& a, const fs::path& b) {
    const std::string x = a.filename().string(), y = b.filename().string();
    size_t i = 0, j = 0;
    const auto digit = [](char c) { return c >= '0' && c <= '9'; };
    while (i < x.size() && j < y.size()) {
        if (!digit(x[i]) || !digit(y[j])) {
            if (x[i] != y[j]) return x[i] < y[j];
            ++i, ++j;
            continue;
        }
        while (i < x.size() && x[i] == '0') ++i;
        while (j < y.size() && y[j] == '0') ++j;
        const size_t x_start = i, y_start = j;
        while (i < x.size() && digit(x[i])) ++i;
        while (j < y.size() && digit(y[j])) ++j;
        if (i - x_start != j - y_start) return i - x_start < j - y_start;
        if (const int order = x.compare(x_start, i - x_start, y, y_start, j - y_start); order != 0)
            return order < 0;
    }
    if (x.size() - i != y.size() - j) return x.size() - i < y.size() - j;
    return x < y;
}

// Takes the placeholder out, with the line break on one side of it. Returns how many there were.
int take_out(std::string& text, std::string_view placeholder) {
    int count = 0;
    for (size_t at = text.find(placeholder); at != std::string::npos; at = text.find(placeholder, at)) {
        size_t length = placeholder.size();
        if (at + length < text.size() && text[at + length] == '\n') {
            ++length;
        } else if (at > 0 && text[at - 1] == '\n') {
            --at;
            ++length;
        }
        text.erase(at, length);
        ++count;
    }
    return count;
}

bool is_blank(const std::string& text) {
    return text.find_first_not_of(" \t\r\n") == std::string::npos;
}

}  // namespace

// Checks samples one by one as they come out of the file.
class ConversationDataset::Reader {
  public:
    Reader(ConversationDataset& dataset, fs::path root, const ConversationDatasetOptions& options)
        : dataset_(dataset), root_(std::move(root)), options_(options) {}

    void read(const fs::path& path) {
        {
            const RandomAccessFile check(path);  // a regular file that can be read
            total_ = check.size();
        }
        std::ifstream stream(path, std::ios::binary);
        if (!stream) throw_input("{}: cannot be read", dataset_.file_);
        char first = ' ';
        while (stream.get(first) && std::isspace(static_cast<unsigned char>(first)) != 0) {
        }
        stream.clear();
        stream.seekg(0);
        if (first == '[') {
            read_list(stream);
        } else if (first == '{') {
            read_lines(stream);
        } else {
            throw_input("{}: expected a JSON list of samples, or one sample a line", dataset_.file_);
        }
    }

  private:
    // Every element is taken when it is complete and dropped at once: lists of a gigabyte are usual.
    void read_list(std::istream& stream) {
        const auto take = [&](int depth, json::parse_event_t event, json& parsed) {
            using Event = json::parse_event_t;
            if (depth > 64) throw_input("{}: JSON nested deeper than 64", dataset_.file_);
            const bool end = event == Event::object_end || event == Event::array_end || event == Event::value;
            if (depth != 1 || !end) return true;
            report(stream);
            add(parsed);
            return false;
        };
        try {
            const json rest = json::parse(stream, take);
        } catch (const json::exception& e) {
            throw_input("{}: not valid JSON: {}", dataset_.file_, printable(e.what()));
        }
    }

    void read_lines(std::istream& stream) {
        for (std::string line; std::getline(stream, line);) {
            if (is_blank(line)) continue;
            report(stream);
            json parsed = json::parse(line, nullptr, /*allow_exceptions=*/false);
            if (parsed.is_discarded()) {
                dataset_.skipped_.push_back({index_++, "", "not valid JSON"});
            } else {
                add(parsed);
            }
        }
    }

    void report(std::istream& stream) {
        const auto position = stream.tellg();
        const uint64_t done = position < 0 ? total_ : static_cast<uint64_t>(position);
        if (!options_.progress || done < reported_ + kProgressBytes) return;
        reported_ = done;
        if (!options_.progress(done, total_, "reading " + dataset_.file_)) {
            throw_input("interrupted while reading {}", dataset_.file_);
        }
    }

    void add(const json& value) {
        const uint64_t index = index_++;
        std::string id;
        try {
            const JsonObject object(value, "sample");
            if (const json* given = object.find("id")) {
                id = given->is_string() ? given->get<std::string>() : given->dump();
            } else {
                id = std::to_string(index);
            }
            dataset_.records_.push_back(read_record(object, index, id));
        } catch (const Error& e) {
            if (e.kind() != ErrorKind::kInput) throw;
            dataset_.skipped_.push_back({index, printable(id), e.what()});
        }
    }

    Record read_record(const JsonObject& object, uint64_t index, const std::string& id) const {
        Record record{index, id, {}, {}, read_turns(object)};
        const bool image = object.has("image"), video = object.has("video");
        if (image && video) throw_input("sample: both an image and a video");
        int placeholders = 0;
        for (QaTurn& turn : record.turns) {
            placeholders += take_out(turn.question, "<image>");
            if (video) placeholders += take_out(turn.question, "<video>");
            if (is_blank(turn.question)) throw_input("sample: conversations: an empty question");
        }
        if (placeholders > 1)
            throw_input("sample: conversations: {} placeholders, expected one", placeholders);
        if (placeholders == 1 && !image && !video)
            throw_input("sample: a placeholder <image> but no picture");
        if (image) record.pictures = {path_below_root(object.text("image"), "image")};
        if (video) {
            const fs::path path = path_below_root(object.text("video"), "video");
            std::error_code ignored;
            if (fs::is_regular_file(path, ignored)) {
                record.video = path;
            } else {
                record.pictures = frames_in(path);
            }
        }
        if (std::error_code ignored; image && !fs::is_regular_file(record.pictures[0], ignored)) {
            throw_input("sample: image: {}: no such file", record.pictures[0].string());
        }
        return record;
    }

    static std::vector<QaTurn> read_turns(const JsonObject& object) {
        const json& list = object.at("conversations");
        if (!list.is_array() || list.empty() || list.size() > kMaxTurns) {
            object.fail("conversations", fmt::format("a list of 2 to {} turns", kMaxTurns));
        }
        if (list.size() % 2 != 0) throw_input("sample: conversations: {} turns, expected pairs", list.size());
        std::vector<QaTurn> turns(list.size() / 2);
        for (size_t i = 0; i < list.size(); ++i) {
            const JsonObject turn(list[i], fmt::format("sample: conversations[{}]", i));
            const char* wanted = i % 2 == 0 ? "human" : "gpt";
            if (turn.text("from") != wanted) turn.fail("from", wanted);
            std::string value = turn.text("value");
            if (value.size() > kMaxTextBytes)
                throw_input("{}: longer than {} bytes", turn.where(), kMaxTextBytes);
            if (is_blank(value)) throw_input("{}: value: empty", turn.where());
            (i % 2 == 0 ? turns[i / 2].question : turns[i / 2].answer) = std::move(value);
        }
        if (const json* types = object.find("types")) {
            if (!types->is_array() || types->size() != turns.size()) {
                object.fail("types", fmt::format("a list of {} names, one a question", turns.size()));
            }
            for (size_t i = 0; i < turns.size(); ++i) {
                if (!(*types)[i].is_string()) object.fail("types", "a list of names");
                turns[i].type = (*types)[i].get<std::string>();
            }
        }
        return turns;
    }

    fs::path path_below_root(const std::string& text, const char* field) const {
        const fs::path path(text);
        const bool leaves =
            std::any_of(path.begin(), path.end(), [](const fs::path& part) { return part == ".."; });
        if (text.empty() || text.find('\0') != std::string::npos || path.is_absolute() || leaves) {
            throw_input("sample: {}: expected a path below the root, found '{}'", field, printable(text));
        }
        return root_ / path;
    }

    std::vector<fs::path> frames_in(const fs::path& folder) const {
        std::error_code error;
        fs::directory_iterator files(folder, error);
        if (error) throw_input("sample: video: {}: {}", folder.string(), error.message());
        std::vector<fs::path> frames;
        for (; files != fs::directory_iterator(); files.increment(error)) {
            std::error_code ignored;
            if (is_picture_name(files->path()) && files->is_regular_file(ignored))
                frames.push_back(files->path());
            if (frames.size() > kMaxFolderFiles)
                throw_input("sample: video: {}: too many files", folder.string());
        }
        if (error) throw_input("sample: video: {}: {}", folder.string(), error.message());
        if (frames.empty()) throw_input("sample: video: {}: no pictures in the folder", folder.string());
        std::sort(frames.begin(), frames.end(), before);
        const auto count = static_cast<int64_t>(frames.size());
        if (count <= options_.max_frames) return frames;
        std::vector<fs::path> chosen;
        for (const int64_t i : spread_frame_indices(count, options_.max_frames)) {
            chosen.push_back(frames[static_cast<size_t>(i)]);
        }
        return chosen;
    }

    ConversationDataset& dataset_;
    fs::path root_;
    const ConversationDatasetOptions& options_;
    uint64_t index_ = 0, total_ = 0, reported_ = 0;
};

ConversationDataset::ConversationDataset(const fs::path& file, const fs::path& root,
                                         const ConversationDatasetOptions& options)
    : file_(file.string()), options_(options) {
    if (options.max_frames < 1)
        throw_usage("frames of a clip: expected 1 or more, found {}", options.max_frames);
    Reader(*this, root, options_).read(file);
    if (records_.empty()) {
        throw_input("{}: no usable sample{}", file_,
                    skipped_.empty() ? ""
                                     : fmt::format("; the first of {} bad ones: {}", skipped_.size(),
                                                   skipped_.front().reason));
    }
}

Sample ConversationDataset::sample(uint64_t number) const {
    if (number >= records_.size()) throw_usage("sample {}: there are {}", number, records_.size());
    const Record& record = records_[number];
    Sample sample;
    sample.id = record.id;
    sample.turns = record.turns;
    try {
        sample.frames = frames_of(record);
    } catch (const Error& e) {
        throw Error(e.kind(), fmt::format("{}: sample {}: {}", file_, printable(record.id), e.what()));
    }
    return sample;
}

std::vector<Image> ConversationDataset::frames_of(const Record& record) const {
    std::vector<Image> frames;
    for (const fs::path& picture : record.pictures) {
        frames.push_back(load_image(picture, {.max_pixels = options_.max_pixels}));
    }
    if (record.video.empty()) return frames;
    // Training spreads its few frames over all of the video, not over one a second (SPEC.md, Training): the
    // reader is asked for as many a second as there are.
    const std::string name = fmt::format("file:{}", record.video.string());
    VideoReaderOptions options;
    options.source.max_pixels = options_.max_pixels;
    options.max_frames = options_.max_frames;
    options.threads = 1;  // samples are read side by side
    if (const double fps = VideoSource(name, options.source).fps(); fps > 0) options.fps = fps;
    VideoReader reader(name, options);
    while (auto frame = reader.next()) frames.push_back(std::move(frame->image));
    return frames;
}

}  // namespace llava_mini
