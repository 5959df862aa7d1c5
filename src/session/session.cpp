#include <algorithm>
#include <atomic>
#include <random>

#include "core/error.h"
#include "core/stopwatch.h"
#include "llm/language_context.h"
#include "llm/prompt.h"
#include "llm/sampler.h"
#include "llm/utf8_stream.h"
#include "session/model_impl.h"
#include "video/video_pass.h"

namespace llava_mini {
namespace {

constexpr int kDefaultContext = 4096;
constexpr const char* kSpaces = " \t\r\n";

// The longest context that training made sense of; 0: unknown.
int trained_limit(Model::Impl& model) {
    int limit = 0;
    for (const int trained :
         {model.language->hparams().n_ctx_train, model.pipeline.hparams().max_prompt_tokens}) {
        if (trained > 0) limit = limit == 0 ? trained : std::min(limit, trained);
    }
    return limit;
}

LanguageContextOptions context_options(Model::Impl& model, const SessionOptions& options,
                                       const std::atomic<bool>& stop) {
    LanguageContextOptions context;
    context.n_ctx = options.context;
    if (context.n_ctx == 0) {
        const int limit = trained_limit(model);
        context.n_ctx = limit > 0 ? std::min(limit, kDefaultContext) : kDefaultContext;
    }
    context.threads = options.threads > 0 ? options.threads : model.threads;
    context.kv_type = to_ggml(options.kv_type);
    // f32 keys and values are asked for to compare with a reference: no kernel that computes otherwise, then.
    if (options.kv_type == KvType::kF32) context.flash_attention = FlashAttention::kOff;
    context.stop = &stop;
    return context;
}

}  // namespace

class Session::Impl {
  public:
    Impl(std::shared_ptr<Model> owner, const SessionOptions& session_options)
        : model(std::move(owner)),
          options(session_options),
          context(std::make_unique<LanguageContext>(model->impl().language,
                                                    context_options(model->impl(), options, stop))) {
        reset();
    }

    VideoFacts add_video(const std::string& source, const VideoOptions& video_options);
    void add_image(const Picture& picture, const ImageOptions& image_options);
    Answer ask(const std::string& question, const SamplingOptions& sampling,
               const std::function<bool(std::string_view)>& on_text);
    void reset();

    const std::shared_ptr<Model> model;
    const SessionOptions options;
    std::atomic<bool> stop = false;
    std::unique_ptr<LanguageContext> context;

    std::vector<ChatTurn> turns;
    std::vector<std::shared_ptr<const ImageEncoding>> pictures;

  private:
    Pipeline& pipeline() { return model->impl().pipeline; }
    int vision_tokens() const;
    std::vector<Turn> with_question(const std::string& question) const;
    Matrix fused_rows(const std::vector<PromptToken>& prompt, size_t kept, Timings& timings);
    bool decode_prompt(const std::vector<PromptToken>& prompt, size_t kept, const Matrix& fused);
    void forget_computed();
    const std::vector<std::shared_ptr<const ImageEncoding>>& fused_with() const {
        return video_ ? video_->fusion_frames : pictures;
    }
    bool has_vision() const { return !pictures.empty() || source_ != nullptr || video_; }
    void look_at_video(const std::vector<PromptToken>& prompt, const SamplingOptions& sampling,
                       Answer& answer);
    void make_room(int64_t rows, const SamplingOptions& sampling);
    size_t fused_before(const std::vector<PromptToken>& prompt, size_t count) const;
    int rows_of(const std::vector<PromptToken>& prompt, size_t count) const;
    void check_length(int prompt_rows) const;
    void prefill(const std::vector<PromptToken>& prompt, Answer& answer);
    std::vector<int32_t> generate(const SamplingOptions& sampling, Sampler& sampler,
                                  const std::function<bool(std::string_view)>& on_text, Answer& answer);

    std::vector<Turn> conversation_;     // system prompt, questions, answers
    std::vector<PromptToken> in_cache_;  // the tokens whose rows the KV cache holds, in order
    TextFusion fusion_;                  // of the fused ones among them
    Timings picture_timings_;            // of pictures added since the last answer
    int pictures_cached_ = 0;

    // A video: where it is read, as long as its frames were not looked at; what was seen of it.
    struct Source {
        std::string name;
        VideoOptions options;
        std::unique_ptr<FrameEncoder> encoder;  // null: to be opened (again)
    };
    std::unique_ptr<Source> source_;
    std::optional<SeenVideo> video_;
};

void Session::Impl::reset() {
    turns.clear();
    pictures.clear();
    source_.reset();
    video_.reset();
    conversation_.clear();
    const std::string system = options.system_prompt.value_or(pipeline().hparams().system_prompt);
    if (!system.empty()) conversation_.push_back({{"system", system}});
    forget_computed();
    picture_timings_ = {};
    pictures_cached_ = 0;
}

void Session::Impl::forget_computed() {
    context->keep_prefix(0);
    in_cache_.clear();
    fusion_ = {};
    if (video_) fusion_ = video_->fusion;
}

void Session::Impl::add_image(const Picture& picture, const ImageOptions& image_options) {
    if (has_vision() && pictures.empty()) throw_usage("a conversation is about pictures or one video");
    bool cached = false;
    auto encoding = model->impl().encode(picture, image_options, /*pad_each_view=*/options.official_quirks,
                                         picture_timings_, cached);
    pictures_cached_ += cached ? 1 : 0;
    pictures.push_back(std::move(encoding));
    forget_computed();  // the mean over the pictures is another one now, and so is every fused row
}

VideoFacts Session::Impl::add_video(const std::string& source, const VideoOptions& video_options) {
    if (has_vision()) throw_usage("a conversation is about pictures or one video");
    if (video_options.fusion_frames < 0) throw_usage("{} fusion frames", video_options.fusion_frames);
    stop = false;
    auto opened = std::make_unique<Source>(Source{source, video_options, nullptr});
    opened->encoder = std::make_unique<FrameEncoder>(
        pipeline(), source, video_options, model->impl().grid_side(video_options.vision_tokens), 0, &stop);
    source_ = std::move(opened);
    forget_computed();
    return source_->encoder->facts();
}

// The frames, with the fused text of this prompt. Sets video_.
void Session::Impl::look_at_video(const std::vector<PromptToken>& prompt, const SamplingOptions& sampling,
                                  Answer& answer) {
    const VideoOptions& video_options = source_->options;
    const int side = model->impl().grid_side(video_options.vision_tokens);
    if (!source_->encoder) {
        source_->encoder =
            std::make_unique<FrameEncoder>(pipeline(), source_->name, video_options, side, 0, &stop);
    }
    // Refused before the work, not after it.
    const int64_t expected = source_->encoder->facts().chosen * pipeline().hparams().vision_tokens(side);
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
    constexpr int kStep = 256;
    const int64_t wanted = rows + (sampling.max_tokens > 0 ? sampling.max_tokens : kDefaultContext / 8);
    const int limit = options.context > 0 ? options.context : trained_limit(model->impl());
    if (limit > 0 && rows >= limit) {
        throw_input(
            "the prompt has {} tokens (frames included), {} has room for {}: look at fewer frames, or give "
            "it a "
            "larger context",
            rows, options.context > 0 ? "the context" : "the longest context the model was trained with",
            limit);
    }
    if (wanted <= context->n_ctx() || options.context > 0 || context->n_ctx() == limit) return;
    LanguageContextOptions larger = context_options(model->impl(), options, stop);
    const int64_t rounded = (wanted + kStep - 1) / kStep * kStep;
    larger.n_ctx = static_cast<int>(limit > 0 ? std::min<int64_t>(rounded, limit) : rounded);
    context.reset();  // never two at once
    context = std::make_unique<LanguageContext>(model->impl().language, larger);
    in_cache_.clear();
}

int Session::Impl::vision_tokens() const {
    int64_t count = video_ ? video_->tokens.rows() : 0;
    for (const auto& picture : pictures) count += picture->vision_tokens.rows;
    return static_cast<int>(count);
}

// The conversation with one more question, and the placeholder in front of the first question if none has it.
std::vector<Turn> Session::Impl::with_question(const std::string& question) const {
    std::vector<Turn> all = conversation_;
    all.push_back({{"user", question}});
    const auto is_question = [](const Turn& turn) { return turn.message.role == "user"; };
    const auto has_placeholder = [](const Turn& turn) {
        return turn.message.role == "user" &&
               turn.message.content.find(kImagePlaceholder) != std::string::npos;
    };
    const bool placed = std::any_of(all.begin(), all.end(), has_placeholder);
    if (placed && !has_vision()) {
        throw_input("the question has the placeholder {} but no picture was given", kImagePlaceholder);
    }
    if (!placed && has_vision()) {
        Turn& first = *std::find_if(all.begin(), all.end(), is_question);
        first.message.content = fmt::format("{}\n{}", kImagePlaceholder, first.message.content);
    }
    return all;
}

size_t Session::Impl::fused_before(const std::vector<PromptToken>& prompt, size_t count) const {
    return static_cast<size_t>(
        std::count_if(prompt.begin(), prompt.begin() + static_cast<ptrdiff_t>(count),
                      [](const PromptToken& token) { return token.kind == SegmentKind::kFused; }));
}

// The fused text of prompt[kept..]; in the official way of the whole prompt, masked tokens included.
Matrix Session::Impl::fused_rows(const std::vector<PromptToken>& prompt, size_t kept, Timings& timings) {
    if (options.official_quirks) {  // the whole prompt is fused at once, token 0 and the placeholder masked
        std::vector<int32_t> ids;
        std::vector<uint8_t> visible;
        for (const PromptToken& token : prompt) {
            ids.push_back(std::max(token.id, 0));
            visible.push_back(token.id > 0 ? 1 : 0);
        }
        const Matrix embeddings = pipeline().embed(ids);
        Matrix fused =
            video_ ? video_->fused_rows : pipeline().fuse_masked_text(embeddings, visible, pictures, timings);
        for (int64_t i = 0; i < fused.rows; ++i) {
            if (visible[static_cast<size_t>(i)] == 0) {
                std::copy(embeddings.row(i).begin(), embeddings.row(i).end(), fused.row(i).begin());
            }
        }
        return fused;
    }
    std::vector<int32_t> ids;
    for (const PromptToken& token : prompt) {
        if (token.kind == SegmentKind::kFused) ids.push_back(token.id);
    }
    // What a video's pass or index has fused already is taken from there.
    const size_t begin = fused_before(prompt, kept);
    size_t known = 0;
    if (video_) {
        const std::vector<int32_t>& done = video_->fused_ids;
        while (known < done.size() && known < ids.size() && done[known] == ids[known]) ++known;
    }
    Matrix rows;
    rows.cols = context->model().n_embd();
    for (size_t i = begin; i < known; ++i) {
        const auto row = video_->fused_rows.row(static_cast<int64_t>(i));
        rows.data.insert(rows.data.end(), row.begin(), row.end());
    }
    const size_t first_new = std::max(begin, known);
    if (first_new < ids.size()) {
        fusion_.rows = static_cast<int64_t>(first_new);
        const Matrix fresh =
            pipeline().fuse_text(std::span(ids).subspan(first_new), fused_with(), &fusion_, timings);
        rows.data.insert(rows.data.end(), fresh.data.begin(), fresh.data.end());
    }
    rows.rows = static_cast<int64_t>(rows.data.size()) / rows.cols;
    return rows;
}

// Puts prompt[kept..] into the language model: fused text, plain embeddings, vision tokens, some hundred rows
// at a time. Returns false if it was stopped.
bool Session::Impl::decode_prompt(const std::vector<PromptToken>& prompt, size_t kept, const Matrix& fused) {
    constexpr int64_t kChunk = 512;
    const int64_t d = context->model().n_embd(), before = context->n_past(),
                  total = rows_of(prompt, prompt.size()) - before;
    std::vector<float> rows;
    int64_t done = 0;
    bool stopped = false;
    const auto flush = [&](bool last) {
        const auto count = static_cast<int64_t>(rows.size()) / d;
        if (stopped || count == 0 || (!last && count < kChunk)) return;
        stopped = !context->decode_embeddings(rows.data(), static_cast<int>(count), /*want_logits=*/last);
        rows.clear();
        done += count;
        if (source_ != nullptr && source_->options.progress && total > kChunk) {
            stopped = stopped || !source_->options.progress(static_cast<uint64_t>(done),
                                                            static_cast<uint64_t>(total), "tokens");
        }
    };
    const auto append = [&rows](std::span<const float> values) {
        rows.insert(rows.end(), values.begin(), values.end());
    };
    int64_t next_fused = 0;
    for (size_t i = kept; i < prompt.size() && !stopped; ++i) {
        switch (prompt[i].kind) {
            case SegmentKind::kImage:
                for (const auto& picture : pictures) append(picture->vision_tokens.data);
                for (int64_t at = 0; video_ && at < video_->tokens.rows() && !stopped;) {
                    const int64_t end = std::min(video_->tokens.rows(), at + kChunk);
                    video_->tokens.append_to(rows, at, end);
                    at = end;
                    flush(false);
                }
                break;
            case SegmentKind::kPlain:
                append(pipeline().embed({{prompt[i].id}}).data);
                break;
            case SegmentKind::kFused:
                append(fused.row(options.official_quirks ? static_cast<int64_t>(i) : next_fused++));
                break;
        }
    }
    flush(true);
    if (stopped) context->keep_prefix(static_cast<int>(before));
    return !stopped;
}

// Rows in the context of the first `count` tokens of a prompt: a placeholder stands for all vision tokens.
int Session::Impl::rows_of(const std::vector<PromptToken>& prompt, size_t count) const {
    int rows = 0;
    for (size_t i = 0; i < count; ++i) rows += prompt[i].kind == SegmentKind::kImage ? vision_tokens() : 1;
    return rows;
}

void Session::Impl::check_length(int prompt_rows) const {
    if (prompt_rows >= context->n_ctx()) {
        throw_input("the prompt has {} tokens (pictures included), the context has room for {}", prompt_rows,
                    context->n_ctx());
    }
}

// Brings the KV cache to the end of the prompt, keeping the longest common prefix of what it holds.
void Session::Impl::prefill(const std::vector<PromptToken>& prompt, Answer& answer) {
    size_t kept = 0;
    if (!options.official_quirks) {
        while (kept < in_cache_.size() && kept + 1 < prompt.size() && in_cache_[kept] == prompt[kept]) ++kept;
    }
    answer.cached_tokens = rows_of(prompt, kept);
    // What follows may fail half-way (memory, a stop); only what is surely computed counts as such.
    in_cache_.resize(kept);
    context->keep_prefix(answer.cached_tokens);
    const Matrix fused = fused_rows(prompt, kept, answer.timings);
    const Stopwatch watch(answer.timings.prefill);
    if (decode_prompt(prompt, kept, fused)) in_cache_ = prompt;
}

// Samples until the model ends the answer or something else does. Returns the tokens, an end token included.
std::vector<int32_t> Session::Impl::generate(const SamplingOptions& sampling, Sampler& sampler,
                                             const std::function<bool(std::string_view)>& on_text,
                                             Answer& answer) {
    const Stopwatch watch(answer.timings.generation);
    Utf8Stream stream;
    std::vector<int32_t> ids;
    // As the official code does, without the spaces around the answer (SentencePiece starts with one).
    const auto emit = [&](std::string text) {
        if (answer.text.empty()) text.erase(0, std::min(text.find_first_not_of(kSpaces), text.size()));
        answer.text += text;
        return text.empty() || !on_text || on_text(text);
    };
    while (true) {
        if (stop.load()) {
            answer.stop = StopReason::kStopped;
            break;
        }
        const int32_t id = sampler.sample(context->logits());
        ids.push_back(id);
        if (context->model().is_end(id) && !sampling.ignore_eos) {
            answer.stop = StopReason::kEndOfAnswer;
            break;
        }
        ++answer.generated_tokens;
        if (!emit(stream.push(context->model().token_bytes(id)))) {
            answer.stop = StopReason::kStopped;
            break;
        }
        if (sampling.max_tokens > 0 && answer.generated_tokens >= sampling.max_tokens) {
            answer.stop = StopReason::kMaxTokens;
            break;
        }
        if (context->n_past() >= context->n_ctx()) {
            answer.stop = StopReason::kContextFull;
            break;
        }
        if (!context->decode_tokens({{id}}, /*want_logits=*/true)) {
            answer.stop = StopReason::kStopped;
            break;
        }
        in_cache_.push_back({id, SegmentKind::kPlain});
    }
    emit(stream.finish());
    answer.text.erase(answer.text.find_last_not_of(kSpaces) + 1);
    return ids;
}

Answer Session::Impl::ask(const std::string& question, const SamplingOptions& sampling,
                          const std::function<bool(std::string_view)>& on_text) {
    if (question.find_first_not_of(kSpaces) == std::string::npos) throw_input("the question is empty");
    stop = false;
    Answer answer;
    answer.timings = picture_timings_;
    answer.pictures_cached = pictures_cached_;
    const uint32_t seed = sampling.seed == 0xFFFFFFFF ? std::random_device{}() : sampling.seed;
    Sampler sampler(model->impl().language, {.temperature = sampling.temperature,
                                             .top_k = sampling.top_k,
                                             .top_p = sampling.top_p,
                                             .min_p = sampling.min_p,
                                             .seed = seed,
                                             .grammar = sampling.grammar});
    const std::vector<Turn> conversation = with_question(question);
    const std::vector<PromptToken> prompt = tokenize_conversation(
        context->model(), model->impl().chat_template, conversation,
        {.official_quirks = options.official_quirks, .double_bos = options.official_quirks});
    // Read again if nothing that stayed can be fused with this question.
    if (source_ != nullptr && (!video_ || video_->fusion_frames.empty())) {
        look_at_video(prompt, sampling, answer);
    }
    if (video_) answer.video = video_->report;
    answer.prompt_tokens = rows_of(prompt, prompt.size());
    answer.vision_tokens = vision_tokens();
    if (video_) make_room(answer.prompt_tokens, sampling);
    check_length(answer.prompt_tokens);
    std::vector<int32_t> ids;
    try {
        prefill(prompt, answer);
        if (in_cache_.size() == prompt.size()) {
            ids = generate(sampling, sampler, on_text, answer);
        } else {
            answer.stop = StopReason::kStopped;
        }
    } catch (...) {
        forget_computed();
        throw;
    }

    conversation_.push_back({{"user", question}});
    conversation_.push_back({{"assistant", answer.text}, ids});
    turns.push_back({question, answer.text});
    picture_timings_ = {};
    pictures_cached_ = 0;
    return answer;
}

Session::Session(std::shared_ptr<Model> model, const SessionOptions& options)
    : impl_(std::make_unique<Impl>(std::move(model), options)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

void Session::add_image(const Picture& picture, const ImageOptions& options) {
    impl_->add_image(picture, options);
}

Answer Session::ask(const std::string& question, const SamplingOptions& sampling,
                    const std::function<bool(std::string_view)>& on_text) {
    return impl_->ask(question, sampling, on_text);
}

VideoFacts Session::add_video(const std::string& source, const VideoOptions& options) {
    return impl_->add_video(source, options);
}

void Session::stop() {
    impl_->stop = true;
}
void Session::reset() {
    impl_->reset();
}
const std::vector<ChatTurn>& Session::turns() const {
    return impl_->turns;
}
int Session::pictures() const {
    return static_cast<int>(impl_->pictures.size());
}
int Session::context_used() const {
    return impl_->context->n_past();
}
int Session::context_size() const {
    return impl_->context->n_ctx();
}

}  // namespace llava_mini
