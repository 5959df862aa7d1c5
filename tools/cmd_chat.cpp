// llava-mini chat: a conversation about pictures.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "answer_text.h"
#include "commands.h"
#include "core/error.h"
#include "core/file.h"
#include "line_reader.h"
#include "model_flags.h"
#include "stop_on_interrupt.h"
#include "video_flags.h"

namespace llava_mini::tools {
namespace {

struct ChatFlags {
    ModelFlags model;
    ImageFlags image;
    SamplingFlags sampling;
    VideoFlags video;
    std::vector<std::filesystem::path> images;
    std::string video_source;
    std::filesystem::path index;
};

constexpr const char* kHelp =
    "/image FILE  add a picture to the conversation\n"
    "/video FILE  talk about a video\n"
    "/index FILE  talk about a video that `llava-mini index` has looked at\n"
    "/reset       forget the conversation, its pictures or its video\n"
    "/save FILE   write the conversation, as JSON if FILE ends in .json, else as Markdown\n"
    "/help        this text\n"
    "/quit        leave (also Ctrl-D, or Ctrl-C twice on an empty line)\n"
    "Anything else is a question. Ctrl-C stops an answer; Tab completes file names.\n";

// Where typed lines are remembered; empty if there is no home.
std::filesystem::path history_file() {
    std::filesystem::path cache;
    if (const char* own = std::getenv("LLAVA_MINI_CACHE")) {
        cache = own;
    } else if (const char* xdg = std::getenv("XDG_CACHE_HOME")) {
        cache = std::filesystem::path(xdg) / "llava-mini";
    } else if (const char* home = std::getenv("HOME")) {
        cache = std::filesystem::path(home) / ".cache" / "llava-mini";
    } else {
        return {};
    }
    std::error_code error;
    std::filesystem::create_directories(cache, error);
    return error ? std::filesystem::path() : cache / "chat_history";
}

std::string trimmed(const std::string& text) {
    const size_t begin = text.find_first_not_of(" \t\r");
    if (begin == std::string::npos) return {};
    return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

std::filesystem::path with_home(const std::string& path) {
    const char* home = std::getenv("HOME");
    if (home != nullptr && path.starts_with("~/")) return std::filesystem::path(home) / path.substr(2);
    return path;
}

class Chat {
  public:
    explicit Chat(const ChatFlags& flags)
        : flags_(flags),
          sampling_(flags.sampling.options()),
          model_(flags.model.load()),
          session_(model_, flags.model.session_options()) {
        for (const auto& image : flags.images) add_image(image);
        if (!flags.video_source.empty()) add_video(flags.video_source);
        if (!flags.index.empty()) add_index(flags.index);
    }

    void run() {
        LineReader reader("> ", history_file());
        if (reader.interactive()) {
            std::fprintf(stderr, "%s. /help lists the commands.\n", model_->info().name.c_str());
        }
        bool interrupted = false;
        std::string line;
        while (true) {
            const LineReader::Event event = reader.read(line);
            if (event == LineReader::Event::kEnd) return;
            if (event == LineReader::Event::kInterrupt) {
                if (interrupted) return;
                interrupted = true;
                std::fputs("Ctrl-C again or Ctrl-D to quit\n", stderr);
                continue;
            }
            interrupted = false;
            try {
                if (!handle(line)) return;
            } catch (const Error& e) {  // of this turn only
                std::fprintf(stderr, "llava-mini: error: %s\n", e.what());
            }
        }
    }

  private:
    // Returns false to quit.
    bool handle(const std::string& line) {
        const std::string text = trimmed(line);
        if (text.empty()) return true;
        if (line[0] != '/') {
            ask(text);
            return true;
        }
        const size_t space = text.find_first_of(" \t");
        const std::string command = text.substr(0, space);
        const std::string argument = space == std::string::npos ? "" : trimmed(text.substr(space));
        if (command == "/quit") return false;
        if (command == "/help") {
            std::fputs(kHelp, stderr);
        } else if (command == "/image") {
            if (argument.empty()) throw_usage("/image needs a file");
            add_image(with_home(argument));
            std::fprintf(stderr, "added %s\n", argument.c_str());
        } else if (command == "/video") {
            if (argument.empty()) throw_usage("/video needs a file or another source");
            add_video(with_home(argument).string());
            std::fprintf(stderr, "added %s; it is looked at with the next question\n", argument.c_str());
        } else if (command == "/index") {
            if (argument.empty()) throw_usage("/index needs a file");
            add_index(with_home(argument));
            std::fprintf(stderr, "added %s\n", argument.c_str());
        } else if (command == "/reset") {
            session_.reset();
            pictures_.clear();
            video_.clear();
            std::fputs("the conversation is forgotten\n", stderr);
        } else if (command == "/save") {
            if (argument.empty()) throw_usage("/save needs a file");
            save(with_home(argument));
            std::fprintf(stderr, "saved %s\n", argument.c_str());
        } else {
            throw_usage("unknown command {}; /help lists them (a question may start with a space)", command);
        }
        return true;
    }

    void add_image(const std::filesystem::path& file) {
        const Picture picture = Model::read_picture(file);
        const StopOnInterrupt guard(session_);
        session_.add_image(picture, flags_.image.image);
        pictures_.push_back(file.string());
    }

    void add_video(const std::string& source) {
        auto progress = std::make_unique<VideoProgress>(source);
        session_.add_video(source,
                           progress->watched(with_image_flags(flags_.video.video, flags_.image.image)));
        progress_ = std::move(progress);
        video_ = source;
    }

    void add_index(const std::filesystem::path& index) {
        auto progress = std::make_unique<VideoProgress>(index.string(), /*planned=*/true);
        session_.add_index(index,
                           progress->watched(with_image_flags(flags_.video.video, flags_.image.image)));
        progress_ = std::move(progress);
        video_ = index.string();
    }

    void ask(const std::string& question) {
        const StopOnInterrupt guard(session_);
        const auto print = [&](std::string_view text) {
            if (progress_) progress_->end();
            return print_piece(text);
        };
        const Answer answer = session_.ask(question, sampling_, print);
        if (progress_) progress_->end();
        print_piece("\n");
        if (answer.video && session_.turns().size() == 1) explain_report(*answer.video);
        explain_second_look(answer.looked_again);
        if (answer.stop == StopReason::kStopped) std::fputs("(stopped)\n", stderr);
        explain_stop(answer.stop);
    }

    void save(const std::filesystem::path& file) const {
        AtomicFile out(file);
        out.write(file.extension() == ".json" ? as_json() : as_markdown());
        out.commit();
    }

    std::string as_json() const {
        nlohmann::ordered_json turns = nlohmann::ordered_json::array();
        for (const ChatTurn& turn : session_.turns()) {
            turns.push_back({{"question", turn.question}, {"answer", turn.answer}});
        }
        nlohmann::ordered_json all = {
            {"model", model_->info().name}, {"images", pictures_}, {"turns", turns}};
        if (!video_.empty()) all["video"] = video_;
        return all.dump(2, ' ', /*ensure_ascii=*/false, nlohmann::ordered_json::error_handler_t::replace) +
               "\n";
    }

    std::string as_markdown() const {
        std::string text = fmt::format("# Conversation with {}\n", model_->info().name);
        for (const std::string& picture : pictures_) text += fmt::format("\nPicture: `{}`\n", picture);
        if (!video_.empty()) text += fmt::format("\nVideo: `{}`\n", video_);
        for (const ChatTurn& turn : session_.turns()) {
            text += fmt::format("\n**Question:** {}\n\n**Answer:** {}\n", turn.question, turn.answer);
        }
        return text;
    }

    const ChatFlags& flags_;
    const SamplingOptions sampling_;
    const std::shared_ptr<Model> model_;
    std::unique_ptr<VideoProgress> progress_;  // outlives the session, which calls it
    Session session_;
    std::vector<std::string> pictures_;  // files, in the order of adding
    std::string video_;
};

}  // namespace

void add_chat(CLI::App& app) {
    auto flags = std::make_shared<ChatFlags>();
    CLI::App* command =
        app.add_subcommand("chat",
                           "Talk about pictures or a video, question by question\nTyping /help lists what "
                           "else can be typed. With several "
                           "pictures the text takes the mean over its fusion with every one.");
    command->add_option("--image", flags->images, "A picture to start with; may be given several times")
        ->type_name("FILE")
        ->allow_extra_args(false);
    command
        ->add_option("--video", flags->video_source, std::string("A video to start with: ") + kVideoSources)
        ->type_name("SOURCE")
        ->excludes("--image");
    command->add_option("--index", flags->index, "A video's index, made by `llava-mini index`, to start with")
        ->type_name("FILE")
        ->excludes("--image")
        ->excludes("--video");
    flags->model.add_model_to(*command);
    flags->model.add_session_to(*command);
    flags->image.add_to(*command);
    flags->video.add_to(*command);
    constexpr int kFusionFrames = 64;
    flags->video.add_fusion_frames_to(*command, kFusionFrames);
    add_look_again_to(*command, flags->model.session);
    flags->sampling.add_to(*command);
    command->callback([flags] { Chat(*flags).run(); });
}

}  // namespace llava_mini::tools
