#include <algorithm>
#include <atomic>
#include <random>

#include "core/error.h"
#include "core/log.h"
#include "core/stopwatch.h"
#include "llm/utf8_stream.h"
#include "session/session_impl.h"

namespace llava_mini {
namespace {

constexpr int kDefaultContext = 4096;
constexpr const char* kSpaces = " \t\r\n";

// The last question's first token: behind the vision tokens, and behind the last answer.
size_t begin_of_question(const std::vector<PromptToken>& prompt) {
    const auto other = std::find_if(prompt.rbegin(), prompt.rend(), [](const PromptToken& token) {
        return token.kind != SegmentKind::kFused;
    });
    return static_cast<size_t>(prompt.rend() - other);
}

}  // namespace

// The longest context that training made sense of; 0: unknown.
int Session::Impl::trained_limit() const {
    int limit = 0;
    for (const int trained : {model->impl().language->hparams().n_ctx_train,
                              model->impl().pipeline.hparams().max_prompt_tokens}) {
        if (trained > 0) limit = limit == 0 ? trained : std::min(limit, trained);
    }
    return limit;
}

LanguageContextOptions Session::Impl::context_options() {
    if (options.look_again < 0) throw_usage("looking again at {} frames", options.look_again);
    if (options.look_again > 0 && options.official_quirks) {
        throw_usage("official quirks fuse every prompt whole, so frames cannot be looked at again");
    }
    if (options.look_again > 0 && pipeline().hparams().prefusion.n_layer == 0) {
        throw_usage("this model has no pre-fusion, so it cannot look at frames again");
    }
    LanguageContextOptions context;
    context.n_ctx = options.context;
    const int limit = trained_limit();
    if (context.n_ctx == 0) {
        context.n_ctx = limit > 0 ? std::min(limit, kDefaultContext) : kDefaultContext;
    } else if (limit > 0 && context.n_ctx > limit) {
        log_message(LogLevel::kWarning,
                    fmt::format("a context of {} tokens: the model was trained with {} at most, and answers "
                                "beyond them are guesses",
                                context.n_ctx, limit));
    }
    context.threads = options.threads > 0 ? options.threads : model->impl().threads;
    context.kv_type = to_ggml(options.kv_type);
    // f32 keys and values are asked for to compare with a reference: no kernel that computes otherwise, then.
    if (options.kv_type == KvType::kF32) context.flash_attention = FlashAttention::kOff;
    context.stop = &stop;
    if (options.evidence || options.look_again > 0) {
        context.flash_attention = FlashAttention::kOff;
        context.tap = [this](ggml_tensor* tensor, bool ask) { return attention(tensor, ask); };
    }
    return context;
}

void Session::Impl::reset() {
    pictures.clear();
    source_.reset();
    video_.reset();
    restart();
    forget_computed();
    picture_timings_ = {};
    pictures_cached_ = 0;
}

// What is in the KV cache stays: the next prompt keeps what it has in common with it.
void Session::Impl::restart() {
    turns.clear();
    conversation_.clear();
    const std::string system = options.system_prompt.value_or(pipeline().hparams().system_prompt);
    if (!system.empty()) conversation_.push_back({{"system", system}});
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
        // K/V of the text with every picture are kept for the next turn, as long as they are not too many;
        // else the text is fused again from what the video keeps.
        constexpr uint64_t kMostKept = uint64_t{1} << 30;
        const LlamaHparams& hp = pipeline().hparams().prefusion;
        const uint64_t kept_bytes = fused_with().size() * ids.size() * 4 * static_cast<uint64_t>(hp.n_layer) *
                                    static_cast<uint64_t>(hp.head_dim) * static_cast<uint64_t>(hp.n_head_kv);
        const bool keep = !video_ || kept_bytes <= kMostKept;
        TextFusion again;
        if (!keep) again = video_->fusion;
        const size_t from = keep ? first_new : std::min(known, static_cast<size_t>(again.rows));
        TextFusion& state = keep ? fusion_ : again;
        state.rows = static_cast<int64_t>(from);
        const Matrix fresh = pipeline().fuse_text(std::span(ids).subspan(from), fused_with(),
                                                  keep ? &state : nullptr, timings, &state);
        const auto skipped = static_cast<ptrdiff_t>(first_new - from) * fresh.cols;
        rows.data.insert(rows.data.end(), fresh.data.begin() + skipped, fresh.data.end());
    }
    rows.rows = static_cast<int64_t>(rows.data.size()) / rows.cols;
    return rows;
}

// Puts prompt[begin, end) into the language model: fused text, plain embeddings, vision tokens, some hundred
// rows at a time. `fused` ends with the row of the prompt's last fused token. Returns false if it was stopped.
bool Session::Impl::decode_prompt(const std::vector<PromptToken>& prompt, size_t begin, size_t end,
                                  const Matrix& fused) {
    constexpr int64_t kChunk = 512;
    const bool whole = end == prompt.size();
    const int64_t d = context->model().n_embd(), before = context->n_past(),
                  total = rows_of(prompt, end) - before;
    std::vector<float> rows;
    int64_t done = 0;
    bool stopped = false;
    const auto flush = [&](bool last) {
        const auto count = static_cast<int64_t>(rows.size()) / d;
        if (stopped || count == 0 || (!last && count < kChunk)) return;
        const bool chooses = last && whole;  // its last row chooses the answer's first token
        attention.on = attention.every_row || (options.evidence && chooses);
        stopped = !context->decode_embeddings(rows.data(), static_cast<int>(count), /*want_logits=*/chooses);
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
    int64_t next_fused =
        fused.rows - static_cast<int64_t>(fused_before(prompt, prompt.size()) - fused_before(prompt, begin));
    for (size_t i = begin; i < end && !stopped; ++i) {
        switch (prompt[i].kind) {
            case SegmentKind::kImage:
                for (const auto& picture : pictures) append(picture->vision_tokens.data);
                for (int64_t at = 0; video_ && at < video_->tokens.rows() && !stopped;) {
                    const int64_t next = std::min(video_->tokens.rows(), at + kChunk);
                    video_->tokens.append_to(rows, at, next);
                    at = next;
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
    const bool twice = options.look_again > 0 && video_;
    const size_t question = twice ? begin_of_question(prompt) : kept;
    kept = std::min(kept, question);
    answer.cached_tokens = rows_of(prompt, kept);
    // What follows may fail half-way (memory, a stop); only what is surely computed counts as such.
    in_cache_.resize(kept);
    context->keep_prefix(answer.cached_tokens);
    const Matrix fused = fused_rows(prompt, kept, answer.timings);
    {
        const Stopwatch watch(answer.timings.prefill);
        if (!decode_prompt(prompt, kept, question, fused)) return;
        attention.every_row = twice;
        const bool done = decode_prompt(prompt, question, prompt.size(), fused);
        attention.every_row = false;
        if (!done) return;
    }
    if (!twice || look_again(prompt, question, answer)) in_cache_ = prompt;
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
    restore_state(prompt);
    std::vector<int32_t> ids;
    try {
        attention.clear();
        attention.every_row = false;  // of a reading that failed
        prefill(prompt, answer);
        if (in_cache_.size() == prompt.size()) {
            ids = generate(sampling, sampler, on_text, answer);
        } else {
            answer.stop = StopReason::kStopped;
        }
        attention.on = false;
        if (options.evidence && video_) answer.evidence = evidence_of(prompt);
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

std::vector<uint8_t> Session::contact_sheet(std::span<const FrameEvidence> evidence) const {
    return impl_->contact_sheet(evidence);
}

void Session::stop() {
    impl_->stop = true;
}
void Session::reset() {
    impl_->reset();
}
void Session::restart() {
    impl_->restart();
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
