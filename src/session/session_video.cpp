// Conversations about videos: looked at in one pass, or taken from an index.
#include <algorithm>

#include "core/error.h"
#include "core/log.h"
#include "core/stopwatch.h"
#include "media/contact_sheet.h"
#include "media/image_decoder.h"
#include "media/picture_writer.h"
#include "session/session_impl.h"
#include "video/index_builder.h"
#include "video/look_again.h"

namespace llava_mini {

std::unique_ptr<FrameEncoder> Session::Impl::open_frames(const Source& source,
                                                         const std::vector<int64_t>& numbers) {
    std::unique_ptr<FrameSource> frames;
    if (const auto* generated = std::get_if<GeneratedVideo>(&source.origin)) {
        frames = std::make_unique<GeneratedFrames>(*generated, source.options.fps, &stop, numbers);
    } else {
        VideoReaderOptions reader = reader_options(source.options, &stop);
        for (const int64_t number : numbers) {
            reader.start = reader.end = 0;
            reader.at.push_back(video_->seconds[static_cast<size_t>(number)]);
        }
        frames = std::make_unique<VideoReader>(std::get<std::string>(source.origin), reader);
    }
    return std::make_unique<FrameEncoder>(pipeline(), std::move(frames), source.options, source.grid_side);
}

VideoFacts Session::Impl::add_video(const VideoOrigin& origin, const VideoOptions& video_options) {
    if (has_vision()) throw_usage("a conversation is about pictures or one video");
    if (video_options.fusion_frames < 0) throw_usage("{} fusion frames", video_options.fusion_frames);
    stop = false;
    auto opened = std::make_unique<Source>(
        Source{origin, video_options, model->impl().grid_side(video_options.vision_tokens)});
    opened->encoder = open_frames(*opened);
    if (options.look_again > 0 && opened->encoder->facts().frames == 0) {
        throw_usage("{}: frames are looked at again by reading them again, which only files allow",
                    std::get<std::string>(origin));
    }
    source_ = std::move(opened);
    forget_computed();
    return source_->encoder->facts();
}

VideoFacts Session::Impl::add_index(const std::filesystem::path& index, const VideoOptions& video_options,
                                    bool allow_unfinished) {
    if (has_vision()) throw_usage("a conversation is about pictures or one video");
    if (options.official_quirks)
        throw_usage("official quirks fuse every prompt whole, which an index cannot");
    SeenVideo loaded = load_index(pipeline(), pipeline().backends(), index, model->impl().fingerprint(),
                                  options.kv_type == KvType::kF32, allow_unfinished);
    auto source = std::make_unique<Source>(Source{std::string(), video_options});
    if (options.look_again > 0 && loaded.fusion_frames.size() < loaded.seconds.size()) {
        // Said now, not when a question happens to need a frame that is not there.
        const IndexedVideo found = find_indexed_video(*loaded.index, video_options);
        *source = {found.file, found.options, found.grid_side};
    }
    source_ = std::move(source);
    video_ = std::move(loaded);
    forget_computed();
    return video_->facts;
}

// The fused tokens before the first question's placeholder: they are the same for all questions.
std::vector<int32_t> Session::Impl::fused_head() const {
    std::vector<Turn> turns = conversation_;
    turns.push_back({{"user", fmt::format("{}\n?", kImagePlaceholder)}});
    std::vector<int32_t> head;
    for (const PromptToken& token :
         tokenize_conversation(context->model(), model->impl().chat_template, turns)) {
        if (token.kind == SegmentKind::kImage) break;
        head.push_back(token.id);
    }
    return head;
}

// Computes head and vision tokens of the video and returns the language model's state behind them.
std::vector<uint8_t> Session::Impl::state_of_frames() {
    std::vector<PromptToken> prompt;
    for (const int32_t id : video_->fused_ids) prompt.push_back({id, SegmentKind::kFused});
    prompt.push_back({kImageToken, SegmentKind::kImage});
    make_room(rows_of(prompt, prompt.size()), {});
    if (!decode_prompt(prompt, 0, prompt.size(), video_->fused_rows)) throw_input("interrupted");
    return context->state();
}

// Takes over the state that an index has stored, if the prompt begins with what it is of.
void Session::Impl::restore_state(const std::vector<PromptToken>& prompt) {
    if (!in_cache_.empty() || !video_ || video_->language_state.empty()) return;
    const size_t head = video_->fused_ids.size();
    if (prompt.size() <= head + 1 || prompt[head].kind != SegmentKind::kImage) return;
    for (size_t i = 0; i < head; ++i) {
        if (prompt[i].id != video_->fused_ids[i]) return;
    }
    const int rows = rows_of(prompt, head + 1);
    if (context->restore(video_->language_state) && context->n_past() == rows) {
        in_cache_.assign(prompt.begin(), prompt.begin() + static_cast<ptrdiff_t>(head) + 1);
    } else {
        context->keep_prefix(0);
        log_message(LogLevel::kWarning,
                    "the index's language state does not fit this context: computed anew");
    }
}

// The frames, with the fused text of this prompt. Sets video_.
void Session::Impl::look_at_video(const std::vector<PromptToken>& prompt, const SamplingOptions& sampling,
                                  Answer& answer) {
    const VideoOptions& video_options = source_->options;
    if (!source_->encoder) source_->encoder = open_frames(*source_);
    // Refused before the work, not after it.
    const int64_t expected =
        source_->encoder->facts().chosen * pipeline().hparams().vision_tokens(source_->grid_side);
    make_room(static_cast<int64_t>(prompt.size()) + expected, sampling);

    PassText text;
    for (const PromptToken& token : prompt) {
        if (options.official_quirks) {
            text.ids.push_back(std::max(token.id, 0));
            text.visible.push_back(token.id > 0 ? 1 : 0);
        } else if (token.kind == SegmentKind::kFused) {
            text.ids.push_back(token.id);
        }
    }
    const bool f32 = options.kv_type == KvType::kF32;
    const std::unique_ptr<FrameEncoder> encoder = std::move(source_->encoder);  // used up, whatever happens
    video_ = run_video_pass(pipeline(), *encoder, video_options, text, f32, context->kv_bytes_per_position(),
                            answer.timings);
    make_room(rows_of(prompt, prompt.size()), sampling);
    in_cache_.clear();
    fusion_ = video_->fusion;
}

// Makes the context large enough for a prompt of a video and its answer, if it may be.
void Session::Impl::make_room(int64_t rows, const SamplingOptions& sampling) {
    constexpr int kStep = 256, kRoomForAnswer = 512;
    const int64_t wanted = rows + (sampling.max_tokens > 0 ? sampling.max_tokens : kRoomForAnswer);
    const int limit = options.context > 0 ? options.context : trained_limit();
    if (limit > 0 && rows >= limit) {
        throw_input(
            "the prompt has {} tokens (frames included), {} has room for {}: look at fewer frames, or give "
            "it a "
            "larger context",
            rows, options.context > 0 ? "the context" : "the longest context the model was trained with",
            limit);
    }
    if (wanted <= context->n_ctx() || options.context > 0 || context->n_ctx() == limit) return;
    LanguageContextOptions larger = context_options();
    const int64_t rounded = (wanted + kStep - 1) / kStep * kStep;
    larger.n_ctx = static_cast<int>(limit > 0 ? std::min<int64_t>(rounded, limit) : rounded);
    context.reset();  // never two at once
    context = std::make_unique<LanguageContext>(model->impl().language, larger);
    in_cache_.clear();
}

// Attention by frame, most first.
std::vector<FrameEvidence> Session::Impl::evidence_of(const std::vector<PromptToken>& prompt) const {
    const auto image = std::find_if(prompt.begin(), prompt.end(), [](const PromptToken& token) {
        return token.kind == SegmentKind::kImage;
    });
    const std::span<const double> weights = attention.weights();
    const auto first = static_cast<size_t>(image - prompt.begin());  // one row a token before it
    const auto group = static_cast<size_t>(video_->tokens_per_frame);
    std::vector<FrameEvidence> evidence;
    double total = 0;
    for (size_t i = 0; i < video_->seconds.size() && first + (i + 1) * group <= weights.size(); ++i) {
        FrameEvidence& frame = evidence.emplace_back();
        frame.frame = static_cast<int64_t>(i);
        frame.seconds = video_->seconds[i];
        for (size_t j = 0; j < group; ++j) frame.share += weights[first + i * group + j];
        total += frame.share;
    }
    for (FrameEvidence& frame : evidence) frame.share /= total > 0 ? total : 1;
    std::stable_sort(evidence.begin(), evidence.end(),
                     [](const FrameEvidence& a, const FrameEvidence& b) { return a.share > b.share; });
    return evidence;
}

// The question, prompt[question..], is in the KV cache, and `attention` has what its rows attended to. Reads
// it again, fused with the best frames alone. Returns false if it was stopped.
bool Session::Impl::look_again(const std::vector<PromptToken>& prompt, size_t question, Answer& answer) {
    const Stopwatch watch(answer.timings.look_again);
    answer.looked_again = evidence_of(prompt);
    if (answer.looked_again.empty()) throw_system("the language model shows no attention to frames");
    const auto best = std::min(answer.looked_again.size(), static_cast<size_t>(options.look_again));
    answer.looked_again.resize(best);
    attention.clear();
    std::vector<int64_t> frames;
    for (const FrameEvidence& frame : answer.looked_again) frames.push_back(frame.frame);
    std::sort(frames.begin(), frames.end());

    std::vector<int32_t> ids;
    for (const PromptToken& token : prompt) {
        if (token.kind == SegmentKind::kFused) ids.push_back(token.id);
    }
    Timings parts;  // they are counted as a whole
    const Matrix fused = fuse_with_frames(
        pipeline(), *video_, ids, static_cast<int64_t>(fused_before(prompt, question)), frames,
        [this](const std::vector<int64_t>& numbers) { return open_frames(*source_, numbers); },
        source_->options.progress, parts);
    context->keep_prefix(rows_of(prompt, question));
    return decode_prompt(prompt, question, prompt.size(), fused);
}

std::vector<uint8_t> Session::Impl::contact_sheet(std::span<const FrameEvidence> evidence) const {
    if (!video_ || video_->thumbnails.size() != video_->seconds.size() || evidence.empty()) {
        throw_usage("there are no pictures of frames for a contact sheet");
    }
    std::vector<SheetPicture> pictures;
    for (const FrameEvidence& frame : evidence) {
        const auto seconds = static_cast<int64_t>(frame.seconds);
        const std::string label = fmt::format("{}:{:02}:{:02} {:.1f}%", seconds / 3600, seconds / 60 % 60,
                                              seconds % 60, 100 * frame.share);
        constexpr uint64_t kMostPixels = 1 << 20;  // of a thumbnail
        pictures.push_back({decode_image(video_->thumbnails.at(static_cast<size_t>(frame.frame)),
                                         {.max_pixels = kMostPixels, .name = "thumbnail"}),
                            label});
    }
    return encode_png(llava_mini::contact_sheet(pictures));
}

IndexResult make_video_index(const std::shared_ptr<Model>& model, const std::filesystem::path& video,
                             const std::filesystem::path& index, const IndexOptions& options,
                             const SessionOptions& session_options) {
    if (options.fusion_frames < 0 || options.segment_frames < 1) {
        throw_usage("{} fusion frames, {} frames in a record: expected at least 0 and 1",
                    options.fusion_frames, options.segment_frames);
    }
    Session session(model, session_options);
    Model::Impl& impl = model->impl();
    IndexMeta meta;
    meta.model = impl.pipeline.hparams().name;
    meta.model_hash = impl.fingerprint();
    meta.kv_type = impl.pipeline.prefusion_kv_type();
    meta.fusion_frames = options.fusion_frames;
    meta.segment_frames = options.segment_frames;
    meta.head_ids = session.impl().fused_head();
    IndexResult result = build_index(impl.pipeline, video, index, meta, options.video,
                                     impl.grid_side(options.video.vision_tokens), &session.impl().stop);
    const VideoIndexFile file(index);
    const IndexRecord* end = file.last(IndexRecordKind::kEnd);
    const IndexRecord* stored = file.last(IndexRecordKind::kLanguageState);
    const bool needs_state = options.language_state && (stored == nullptr || stored->frames != result.frames);
    if (end != nullptr && end->frames == result.frames && result.made == 0 && !needs_state) return result;
    std::vector<uint8_t> state;
    if (needs_state) {
        session.impl().add_index(index, {}, /*allow_unfinished=*/true);
        state = session.impl().state_of_frames();
    }
    finish_index(index, result.frames, state);
    result.bytes = std::filesystem::file_size(index);
    return result;
}

VideoFacts Session::add_index(const std::filesystem::path& index, const VideoOptions& options) {
    return impl_->add_index(index, options, /*allow_unfinished=*/false);
}

VideoFacts Session::add_video(const std::string& source, const VideoOptions& options) {
    return impl_->add_video(source, options);
}

VideoFacts Session::add_video(const GeneratedVideo& video, const VideoOptions& options) {
    return impl_->add_video(video, options);
}

}  // namespace llava_mini
