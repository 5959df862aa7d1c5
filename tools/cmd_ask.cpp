// llava-mini ask: one question about pictures.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "answer_text.h"
#include "commands.h"
#include "core/error.h"
#include "core/file.h"
#include "model_flags.h"
#include "video_flags.h"

namespace llava_mini::tools {
namespace {

constexpr size_t kMaxQuestionBytes = size_t{1} << 20;

struct AskFlags {
    ModelFlags model;
    ImageFlags image;
    SamplingFlags sampling;
    VideoFlags video;
    std::vector<std::filesystem::path> images;
    std::string video_source;
    std::filesystem::path index, evidence;
    std::string question;
    bool json = false;
};

std::string read_stdin() {
    std::string text(kMaxQuestionBytes + 1, '\0');
    std::cin.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(std::cin.gcount()));
    if (text.size() > kMaxQuestionBytes) {
        throw_input("the question on stdin is longer than {} bytes", kMaxQuestionBytes);
    }
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
    return text;
}

nlohmann::ordered_json seconds(const Timings& t) {
    return {{"preprocess", t.preprocess},
            {"vision_tower", t.vision_tower},
            {"compressor", t.compressor},
            {"projector", t.projector},
            {"prefusion_vision", t.prefusion_vision},
            {"prefusion_text", t.prefusion_text},
            {"prefill", t.prefill},
            {"look_again", t.look_again},
            {"time_to_first_token", t.time_to_first_token()},
            {"generation", t.generation}};
}

void print_json(const AskFlags& flags, const std::string& question, const Model& model,
                const std::optional<VideoFacts>& facts, const Answer& answer) {
    nlohmann::ordered_json images = nlohmann::ordered_json::array();
    for (const auto& image : flags.images) images.push_back(image.string());
    nlohmann::ordered_json object = {{"model", model.info().name},
                                     {"images", images},
                                     {"question", question},
                                     {"answer", answer.text},
                                     {"stop_reason", stop_reason_name(answer.stop)},
                                     {"prompt_tokens", answer.prompt_tokens},
                                     {"cached_tokens", answer.cached_tokens},
                                     {"vision_tokens", answer.vision_tokens},
                                     {"generated_tokens", answer.generated_tokens},
                                     {"pictures_cached", answer.pictures_cached},
                                     {"seconds", seconds(answer.timings)}};
    if (facts)
        object["video"] = {{"source", flags.index.empty() ? flags.video_source : flags.index.string()},
                           {"facts", to_json(*facts)}};
    if (answer.video) object["video"]["report"] = to_json(*answer.video);
    if (!answer.looked_again.empty()) object["looked_again"] = to_json(answer.looked_again);
    if (!answer.evidence.empty()) object["evidence"] = to_json(answer.evidence);
    // File names and questions need not be UTF-8; JSON must be.
    const auto replace = nlohmann::ordered_json::error_handler_t::replace;
    std::printf("%s\n", object.dump(2, ' ', /*ensure_ascii=*/false, replace).c_str());
}

void ask(const AskFlags& flags) {
    const SamplingOptions sampling = flags.sampling.options();
    const std::string question = flags.question == "-" ? read_stdin() : flags.question;
    if (question.find_first_not_of(" \t\r\n") == std::string::npos) throw_input("the question is empty");
    std::vector<Picture> pictures;
    for (const auto& image : flags.images) pictures.push_back(Model::read_picture(image));

    const auto model = flags.model.load();
    SessionOptions session_options = flags.model.session_options();
    session_options.evidence = !flags.evidence.empty();
    if (session_options.evidence && flags.video_source.empty() && flags.index.empty()) {
        throw_usage("--evidence needs --video or --index");
    }
    if (session_options.look_again > 0 && flags.video_source.empty() && flags.index.empty()) {
        throw_usage("--look-again needs --video or --index");
    }
    Session session(model, session_options);
    for (const Picture& picture : pictures) session.add_image(picture, flags.image.image);
    const bool indexed = !flags.index.empty();
    VideoProgress progress(indexed ? flags.index.string() : flags.video_source, /*planned=*/indexed);
    std::optional<VideoFacts> facts;
    if (!flags.video_source.empty()) {
        VideoOptions video_options = with_image_flags(flags.video.video, flags.image.image);
        video_options.thumbnails = !flags.evidence.empty();
        facts = session.add_video(flags.video_source, progress.watched(video_options));
    }
    if (indexed) {
        const VideoOptions video_options = with_image_flags(flags.video.video, flags.image.image);
        facts = session.add_index(flags.index, progress.watched(video_options));
    }
    const auto print = [&](std::string_view text) {
        progress.end();
        return flags.json || print_piece(text);
    };
    Answer answer = session.ask(question, sampling, print);
    progress.end();
    constexpr size_t kMostEvidence = 12;
    answer.evidence.resize(std::min(answer.evidence.size(), kMostEvidence));
    if (flags.json) {
        print_json(flags, question, *model, facts, answer);
    } else {
        print_piece("\n");
        explain_stop(answer.stop);
    }
    if (answer.video) explain_report(*answer.video);
    explain_second_look(answer.looked_again);
    if (flags.evidence.empty()) return;
    for (const FrameEvidence& frame : answer.evidence) {
        std::fprintf(stderr, "llava-mini: evidence: frame %lld at %s, %.1f %% of the attention to frames\n",
                     static_cast<long long>(frame.frame), clock_text(frame.seconds).c_str(),
                     100 * frame.share);
    }
    const std::vector<uint8_t> sheet = session.contact_sheet(answer.evidence);
    AtomicFile file(flags.evidence);
    file.write(std::span(sheet));
    file.commit();
}

}  // namespace

void add_ask(CLI::App& app) {
    auto flags = std::make_shared<AskFlags>();
    CLI::App* command = app.add_subcommand(
        "ask",
        "Ask one question about pictures, a video, or nothing to look at\n"
        "The answer goes to stdout as it is made. With several pictures each is one group "
        "of vision tokens, in the "
        "order given, and the text takes the mean over its fusion with every picture. Of a "
        "video one frame a second is looked at, in one pass and in memory that does not grow "
        "but for a vision token a frame.");
    command->add_option("question", flags->question, "The question; - reads it from stdin")->required();
    command->add_option("--image", flags->images, "A picture; may be given several times")
        ->type_name("FILE")
        ->allow_extra_args(false);
    command->add_option("--video", flags->video_source, std::string("A video: ") + kVideoSources)
        ->type_name("SOURCE")
        ->excludes("--image");
    command->add_option("--index", flags->index, "A video's index, made by `llava-mini index`")
        ->type_name("FILE")
        ->excludes("--image")
        ->excludes("--video");
    command
        ->add_option("--evidence", flags->evidence,
                     "List the frames that the answer attended to most, and write them as a contact sheet")
        ->type_name("FILE.png");
    command->add_flag(
        "--json", flags->json,
        "Print one JSON object instead: answer, why it stopped, token counts, seconds by stage");
    flags->model.add_model_to(*command);
    flags->model.add_session_to(*command);
    flags->image.add_to(*command);
    flags->video.add_to(*command);
    add_look_again_to(*command, flags->model.session);
    flags->sampling.add_to(*command);
    command->callback([flags] { ask(*flags); });
}

}  // namespace llava_mini::tools
