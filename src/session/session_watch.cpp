// Conversations about a live source: a window of its frames in the KV cache, one question again and again.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <random>
#include <thread>

#include "core/error.h"
#include "core/stopwatch.h"
#include "session/session_impl.h"
#include "video/frame_encoder.h"

namespace llava_mini {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// A prompt in three parts: head, placeholder, question.
struct LivePrompt {
    std::vector<int32_t> head, question;
};

LivePrompt split_prompt(const std::vector<PromptToken>& prompt) {
    LivePrompt parts;
    bool behind = false;
    for (const PromptToken& token : prompt) {
        if (token.kind == SegmentKind::kImage) {
            behind = true;
        } else {
            (behind ? parts.question : parts.head).push_back(token.id);
        }
    }
    return parts;
}

// The frames of the window. The KV cache holds the head and behind it their vision tokens, oldest first.
class Window {
  public:
    Window(Pipeline& pipeline, LanguageContext& context, const LivePrompt& prompt, int64_t frames,
           int64_t fusion)
        : pipeline_(pipeline),
          context_(context),
          prompt_(prompt),
          capacity_(frames),
          fusion_distance_(std::max<int64_t>(1, frames / std::max<int64_t>(fusion, 1))) {}

    int64_t frames() const { return frames_; }

    void add(const EncodedFrame& frame, Timings& timings) {
        const std::span<const std::shared_ptr<const ImageEncoding>> alone(&frame.encoding, 1);
        TextFusion state;
        const bool fuses = count_ % fusion_distance_ == 0;
        if (count_ == 0 || fuses) {
            const Matrix head = pipeline_.fuse_text(prompt_.head, alone, &state, timings);
            if (count_ == 0) decode(head.data);
        }
        if (frames_ == capacity_) {
            context_.remove(static_cast<int>(prompt_.head.size()), static_cast<int>(tokens_per_frame_));
            --frames_;
            while (!fusion_.empty() && fusion_.front().number <= count_ - capacity_) fusion_.pop_front();
        }
        tokens_per_frame_ = frame.encoding->vision_tokens.rows;
        decode(frame.encoding->vision_tokens.data);
        if (fuses) fusion_.push_back({count_, frame.encoding, std::move(state)});
        ++frames_;
        ++count_;
    }

    /// Puts the question behind the frames. Returns false if it was stopped.
    bool ask(Timings& timings) {
        std::vector<std::shared_ptr<const ImageEncoding>> frames;
        TextFusion earlier;
        for (const FusionFrame& frame : fusion_) {
            frames.push_back(frame.encoding);
            for (const auto& kv : frame.state.kv) earlier.kv.push_back(kv);
            earlier.rows = frame.state.rows;
        }
        const Matrix rows = pipeline_.fuse_text(prompt_.question, frames, nullptr, timings, &earlier);
        const Stopwatch watch(timings.prefill);
        return context_.decode_embeddings(rows.data.data(), static_cast<int>(rows.rows),
                                          /*want_logits=*/true);
    }

  private:
    struct FusionFrame {
        int64_t number;
        std::shared_ptr<const ImageEncoding> encoding;
        TextFusion state;  // of the head
    };

    void decode(const std::vector<float>& rows) {
        const auto count = static_cast<int>(rows.size() / static_cast<size_t>(context_.model().n_embd()));
        context_.decode_embeddings(rows.data(), count, /*want_logits=*/false);
    }

    Pipeline& pipeline_;
    LanguageContext& context_;
    const LivePrompt& prompt_;
    const int64_t capacity_, fusion_distance_;
    int64_t frames_ = 0, count_ = 0, tokens_per_frame_ = 1;
    std::deque<FusionFrame> fusion_;
};

}  // namespace

void Session::Impl::watch(const std::string& source, const std::string& question,
                          const WatchOptions& watch_options, const SamplingOptions& sampling,
                          const std::function<bool(const WatchEvent&)>& on_event) {
    if (has_vision() || !turns.empty())
        throw_usage("watching needs a conversation in which nothing was said");
    if (!(watch_options.every_seconds > 0) || !(watch_options.window_seconds > 0) ||
        !(watch_options.video.fps > 0) || watch_options.fusion_frames < 1) {
        throw_usage(
            "watching: every {} seconds, a window of {} seconds, {} frames a second, {} fusion frames",
            watch_options.every_seconds, watch_options.window_seconds, watch_options.video.fps,
            watch_options.fusion_frames);
    }
    stop = false;
    std::vector<Turn> conversation = conversation_;
    conversation.push_back({{"user", fmt::format("{}\n{}", kImagePlaceholder, question)}});
    const LivePrompt prompt =
        split_prompt(tokenize_conversation(context->model(), model->impl().chat_template, conversation, {}));
    const int side = model->impl().grid_side(watch_options.video.vision_tokens);
    const auto frames =
        std::max<int64_t>(1, std::llround(watch_options.window_seconds * watch_options.video.fps));
    make_room(frames * pipeline().hparams().vision_tokens(side) +
                  static_cast<int64_t>(prompt.head.size() + prompt.question.size()),
              sampling);
    forget_computed();
    Window window(pipeline(), *context, prompt, frames, watch_options.fusion_frames);

    const auto start = Clock::now();
    auto last_answer = start;
    int64_t dropped_before = 0;  // by earlier connections
    double retry = 1;
    const auto event_of = [&](WatchEvent::Kind kind) {
        WatchEvent event;
        event.kind = kind;
        event.seconds = seconds_since(start);
        event.frames = window.frames();
        event.dropped = dropped_before;
        return event;
    };
    const auto answer = [&](int64_t dropped) {
        WatchEvent event = event_of(WatchEvent::Kind::kAnswer);
        event.dropped = dropped;
        const int before = context->n_past();
        const uint32_t seed = sampling.seed == 0xFFFFFFFF ? std::random_device{}() : sampling.seed;
        Sampler sampler(model->impl().language, {.temperature = sampling.temperature,
                                                 .top_k = sampling.top_k,
                                                 .top_p = sampling.top_p,
                                                 .min_p = sampling.min_p,
                                                 .seed = seed,
                                                 .grammar = sampling.grammar});
        if (window.ask(event.answer.timings)) {
            event.answer.prompt_tokens = context->n_past();
            event.answer.cached_tokens = before;
            event.answer.vision_tokens = before - static_cast<int>(prompt.head.size());
            generate(sampling, sampler, {}, event.answer);
        }
        context->keep_prefix(before);
        in_cache_.clear();
        event.seconds = seconds_since(start);
        return stop.load() || on_event(event);
    };

    bool go_on = true;
    while (go_on && !stop.load()) {
        std::string reason = "the source has ended";
        std::unique_ptr<FrameEncoder> encoder;
        try {
            encoder = std::make_unique<FrameEncoder>(pipeline(), source, watch_options.video, side, 0, &stop,
                                                     /*live=*/true);
            go_on = on_event(event_of(WatchEvent::Kind::kConnected));
            int64_t dropped = 0;
            Timings timings;
            while (go_on && !stop.load()) {
                const auto batch = encoder->next(timings, 1);
                if (batch.empty()) break;
                retry = 1;  // the source is alive
                window.add(batch[0], timings);
                const int64_t dropped_now = encoder->report().dropped;
                if (dropped_now > 0 && dropped == 0) {
                    WatchEvent event = event_of(WatchEvent::Kind::kDropping);
                    event.dropped += dropped_now;
                    go_on = on_event(event);
                }
                dropped = dropped_now;
                if (go_on && seconds_since(last_answer) >= watch_options.every_seconds) {
                    last_answer = Clock::now();
                    go_on = answer(dropped_before + dropped);
                }
            }
            dropped_before += dropped;
        } catch (const Error& error) {
            if (stop.load()) break;
            if (error.kind() != ErrorKind::kInput) throw;
            reason = error.what();
        }
        encoder.reset();
        if (!go_on || stop.load()) break;
        WatchEvent lost = event_of(WatchEvent::Kind::kLost);
        lost.message = reason;
        lost.retry_seconds = std::min(retry, watch_options.most_retry_seconds);
        go_on = on_event(lost);
        const auto until = Clock::now() + std::chrono::duration<double>(lost.retry_seconds);
        while (go_on && !stop.load() && Clock::now() < until) {
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        }
        retry = std::min(2 * retry, watch_options.most_retry_seconds);
    }
    forget_computed();
}

void Session::watch(const std::string& source, const std::string& question, const WatchOptions& options,
                    const SamplingOptions& sampling, const std::function<bool(const WatchEvent&)>& on_event) {
    impl_->watch(source, question, options, sampling, on_event);
}

}  // namespace llava_mini
