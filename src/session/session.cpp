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

namespace llava_mini {
namespace {

constexpr int kDefaultContext = 4096;
constexpr const char* kSpaces = " \t\r\n";

LanguageContextOptions context_options(Model::Impl& model, const SessionOptions& options,
                                       const std::atomic<bool>& stop) {
    LanguageContextOptions context;
    context.n_ctx = options.context;
    if (context.n_ctx == 0) {  // no longer than training made sense of
        context.n_ctx = kDefaultContext;
        for (const int limit :
             {model.language->hparams().n_ctx_train, model.pipeline.hparams().max_prompt_tokens}) {
            if (limit > 0) context.n_ctx = std::min(context.n_ctx, limit);
        }
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
          context(model->impl().language, context_options(model->impl(), options, stop)) {
        reset();
    }

    void add_image(const Picture& picture, const ImageOptions& image_options);
    Answer ask(const std::string& question, const SamplingOptions& sampling,
               const std::function<bool(std::string_view)>& on_text);
    void reset();

    const std::shared_ptr<Model> model;
    const SessionOptions options;
    std::atomic<bool> stop = false;
    LanguageContext context;

    std::vector<ChatTurn> turns;
    std::vector<std::shared_ptr<const ImageEncoding>> pictures;

  private:
    Pipeline& pipeline() { return model->impl().pipeline; }
    int vision_tokens() const;
    std::vector<Turn> with_question(const std::string& question) const;
    Matrix prompt_rows(const std::vector<PromptToken>& prompt, size_t kept, Timings& timings);
    void forget_computed();
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
};

void Session::Impl::reset() {
    turns.clear();
    pictures.clear();
    conversation_.clear();
    const std::string system = options.system_prompt.value_or(pipeline().hparams().system_prompt);
    if (!system.empty()) conversation_.push_back({{"system", system}});
    forget_computed();
    picture_timings_ = {};
    pictures_cached_ = 0;
}

void Session::Impl::forget_computed() {
    context.keep_prefix(0);
    in_cache_.clear();
    fusion_ = {};
}

void Session::Impl::add_image(const Picture& picture, const ImageOptions& image_options) {
    bool cached = false;
    auto encoding = model->impl().encode(picture, image_options, /*pad_each_view=*/options.official_quirks,
                                         picture_timings_, cached);
    pictures_cached_ += cached ? 1 : 0;
    pictures.push_back(std::move(encoding));
    forget_computed();  // the mean over the pictures is another one now, and so is every fused row
}

int Session::Impl::vision_tokens() const {
    int64_t count = 0;
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
    if (placed && pictures.empty()) {
        throw_input("the question has the placeholder {} but no picture was given", kImagePlaceholder);
    }
    if (!placed && !pictures.empty()) {
        Turn& first = *std::find_if(all.begin(), all.end(), is_question);
        first.message.content = fmt::format("{}\n{}", kImagePlaceholder, first.message.content);
    }
    return all;
}

// The language model's input rows for prompt[kept..]: fused text, plain embeddings, vision tokens.
Matrix Session::Impl::prompt_rows(const std::vector<PromptToken>& prompt, size_t kept, Timings& timings) {
    // In the official way the whole prompt is fused at once, token 0 and the placeholder masked.
    Matrix fused;
    std::vector<int32_t> fused_ids;
    if (options.official_quirks) {
        std::vector<int32_t> ids;
        std::vector<uint8_t> visible;
        for (const PromptToken& token : prompt) {
            ids.push_back(std::max(token.id, 0));
            visible.push_back(token.id > 0 ? 1 : 0);
        }
        const Matrix embeddings = pipeline().embed(ids);
        fused = pipeline().fuse_masked_text(embeddings, visible, pictures, timings);
        for (int64_t i = 0; i < fused.rows; ++i) {
            if (visible[static_cast<size_t>(i)] == 0) {
                std::copy(embeddings.row(i).begin(), embeddings.row(i).end(), fused.row(i).begin());
            }
        }
    } else {
        const auto is_fused = [](const PromptToken& token) { return token.kind == SegmentKind::kFused; };
        fusion_.rows = std::count_if(prompt.begin(), prompt.begin() + static_cast<ptrdiff_t>(kept), is_fused);
        for (size_t i = kept; i < prompt.size(); ++i) {
            if (is_fused(prompt[i])) fused_ids.push_back(prompt[i].id);
        }
        fused = pipeline().fuse_text(fused_ids, pictures, &fusion_, timings);
    }

    Matrix rows;
    rows.cols = context.model().n_embd();
    const auto append = [&rows](std::span<const float> values) {
        rows.data.insert(rows.data.end(), values.begin(), values.end());
    };
    int64_t next_fused = 0;
    for (size_t i = kept; i < prompt.size(); ++i) {
        switch (prompt[i].kind) {
            case SegmentKind::kImage:
                for (const auto& picture : pictures) append(picture->vision_tokens.data);
                break;
            case SegmentKind::kPlain:
                append(pipeline().embed({{prompt[i].id}}).data);
                break;
            case SegmentKind::kFused:
                append(fused.row(options.official_quirks ? static_cast<int64_t>(i) : next_fused++));
                break;
        }
    }
    rows.rows = static_cast<int64_t>(rows.data.size()) / rows.cols;
    return rows;
}

// Rows in the context of the first `count` tokens of a prompt: a placeholder stands for all vision tokens.
int Session::Impl::rows_of(const std::vector<PromptToken>& prompt, size_t count) const {
    int rows = 0;
    for (size_t i = 0; i < count; ++i) rows += prompt[i].kind == SegmentKind::kImage ? vision_tokens() : 1;
    return rows;
}

void Session::Impl::check_length(int prompt_rows) const {
    if (prompt_rows >= context.n_ctx()) {
        throw_input("the prompt has {} tokens (pictures included), the context has room for {}", prompt_rows,
                    context.n_ctx());
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
    context.keep_prefix(answer.cached_tokens);
    const Matrix rows = prompt_rows(prompt, kept, answer.timings);
    const Stopwatch watch(answer.timings.prefill);
    if (context.decode_embeddings(rows.data.data(), static_cast<int>(rows.rows), /*want_logits=*/true)) {
        in_cache_ = prompt;
    }
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
        const int32_t id = sampler.sample(context.logits());
        ids.push_back(id);
        if (context.model().is_end(id) && !sampling.ignore_eos) {
            answer.stop = StopReason::kEndOfAnswer;
            break;
        }
        ++answer.generated_tokens;
        if (!emit(stream.push(context.model().token_bytes(id)))) {
            answer.stop = StopReason::kStopped;
            break;
        }
        if (sampling.max_tokens > 0 && answer.generated_tokens >= sampling.max_tokens) {
            answer.stop = StopReason::kMaxTokens;
            break;
        }
        if (context.n_past() >= context.n_ctx()) {
            answer.stop = StopReason::kContextFull;
            break;
        }
        if (!context.decode_tokens({{id}}, /*want_logits=*/true)) {
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
        context.model(), model->impl().chat_template, conversation,
        {.official_quirks = options.official_quirks, .double_bos = options.official_quirks});
    answer.prompt_tokens = rows_of(prompt, prompt.size());
    answer.vision_tokens = vision_tokens();
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
    return impl_->context.n_past();
}
int Session::context_size() const {
    return impl_->context.n_ctx();
}

}  // namespace llava_mini
