#include "bench/system.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "core/stopwatch.h"
#include "llm/utf8_stream.h"
#include "session/model_impl.h"

namespace llava_mini::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// Begin-of-text, if the model has one, and ordinary tokens.
std::vector<int32_t> text_ids(const LanguageModel& model, int count, bool start_of_text) {
    std::vector<int32_t> ids;
    if (start_of_text && model.adds_bos()) ids.push_back(model.bos());
    for (int32_t id = model.n_vocab() / 3; ids.size() < static_cast<size_t>(count);
         id = (id + 1) % model.n_vocab()) {
        if (!model.is_end(id) && !model.token_bytes(id).empty()) ids.push_back(id);
    }
    return ids;
}

int round_up(int value, int multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

uint64_t kv_bytes(const LlamaHparams& hp, ggml_type type, int tokens) {
    return static_cast<uint64_t>(tokens) * static_cast<uint64_t>(hp.n_layer) * 2 *
           ggml_row_size(type, int64_t{hp.n_head_kv} * hp.head_dim);
}

int view_count(const VisionHparams& hp) {
    return hp.resolution_ratio == 1 ? 1 : hp.resolution_ratio * hp.resolution_ratio + 1;
}

int default_grid(const VisionHparams& hp) {
    return hp.compressor_grids.empty() ? 0 : hp.compressor_grids.front();
}

}  // namespace

System::System(const std::filesystem::path& folder, const Picture& picture, const Workload& workload,
               const EngineOptions& engine, bool with_libllama, const Progress& progress)
    : workload_(workload), folder_(folder), picture_(picture) {
    if (workload.text_tokens < 2 || workload.new_tokens < 1 || workload.generated_tokens < 1) {
        throw_usage("{} text tokens, {} new tokens, {} generated tokens: expected at least 2, 1 and 1",
                    workload.text_tokens, workload.new_tokens, workload.generated_tokens);
    }
    // Every first question is to be computed whole: no cache of pictures.
    model_ = Model::load({.model = folder,
                          .gpu_layers = engine.gpu_layers,
                          .threads = engine.threads,
                          .prefusion_kv = engine.kv_type,
                          .image_cache_bytes = 0,
                          .progress = progress});
    const Model::Impl& impl = model_->impl();
    text_ids_ = text_ids(*impl.language, workload.text_tokens, /*start_of_text=*/true);
    new_ids_ = text_ids(*impl.language, workload.new_tokens, /*start_of_text=*/false);

    const int prompt = facts().prompt_tokens;
    LanguageContextOptions options;
    options.n_ctx = round_up(prompt + workload.generated_tokens + workload.new_tokens, 256);
    options.n_batch = prompt;
    options.threads = impl.threads;
    options.kv_type = to_ggml(engine.kv_type);
    context_ = std::make_unique<LanguageContext>(impl.language, options);
    if (with_libllama) libllama_ = std::make_unique<LibllamaAlone>(impl.language, options);
}

SystemFacts System::facts() const {
    const Model::Impl& impl = model_->impl();
    const VisionHparams& vision = impl.pipeline.hparams();
    const LlamaHparams& language = impl.language->hparams();
    const QuestionShape shape{view_count(vision), default_grid(vision), workload_.text_tokens};
    SystemFacts facts;
    facts.name = vision.name;
    facts.vision_tokens = vision.vision_tokens(shape.grid_side);
    facts.prompt_tokens = facts.vision_tokens + workload_.text_tokens;
    facts.flops = first_answer_flops(vision, language, shape);
    facts.second_question_flops =
        next_question_flops(vision, language, shape, workload_.new_tokens, workload_.text_tokens,
                            facts.prompt_tokens + workload_.generated_tokens);
    facts.vision_bytes = impl.pipeline.weights().bytes();
    facts.language_bytes = impl.language->weight_bytes();
    facts.kv_f16_bytes = kv_bytes(language, GGML_TYPE_F16, facts.vision_tokens);
    facts.kv_q8_0_bytes = kv_bytes(language, GGML_TYPE_Q8_0, facts.vision_tokens);
    facts.image_cache_bytes = image_cache_bytes_;
    return facts;
}

int64_t System::vision_rows() const {
    const VisionHparams& vision = model_->impl().pipeline.hparams();
    return vision_positions(vision, {view_count(vision), default_grid(vision), workload_.text_tokens});
}

std::vector<GemmShape> System::products(Stage stage, int64_t rows) const {
    const auto of = [&](const char* file, const char* prefix) {
        return gemm_shapes(GgufFile(folder_ / file), prefix, rows);
    };
    switch (stage) {
        case Stage::kTower:
            return of("vision.gguf", "v.blk.");
        case Stage::kCompressor:
            return of("vision.gguf", "compressor.attn");
        case Stage::kProjector:
            return of("vision.gguf", "mm.");
        case Stage::kPrefusionVision:
        case Stage::kPrefusionText:
            return of("vision.gguf", "prefusion.blk.");
        case Stage::kPrefill:
            return of("language.gguf", "blk.");
        case Stage::kPreprocess:
        case Stage::kFirstToken:
            break;
    }
    return {};
}

std::shared_ptr<const ImageEncoding> System::encode(Timings& timings) {
    bool cached = false;
    return model_->impl().encode(picture_, {}, /*pad_each_view=*/false, timings, cached);
}

// Half of the text, the vision tokens, the other half.
Matrix System::input_rows(const Matrix& text, const ImageEncoding& encoding) const {
    const Matrix& tokens = encoding.vision_tokens;
    Matrix rows(text.rows + tokens.rows, text.cols);
    const auto half = text.data.begin() + text.rows / 2 * text.cols;
    auto out = std::copy(text.data.begin(), half, rows.data.begin());
    out = std::copy(tokens.data.begin(), tokens.data.end(), out);
    std::copy(half, text.data.end(), out);
    return rows;
}

void System::warm_up() {
    Timings timings;
    const auto encoding = encode(timings);
    image_cache_bytes_ = encoding->bytes();
    TextFusion fusion;
    const Matrix text = model_->impl().pipeline.fuse_text(text_ids_, {&encoding, 1}, &fusion, timings);
    context_->decode_embeddings(text.data.data(), 2, /*want_logits=*/true);
    context_->keep_prefix(0);
    if (libllama_) libllama_->prefill(facts().prompt_tokens);
}

Round System::run() {
    Pipeline& pipeline = model_->impl().pipeline;
    Round round;
    ByStage& stages = round.stages;
    Timings timings;
    TextFusion fusion;
    Sampler sampler(model_->impl().language, {});
    const auto start = Clock::now();
    const auto encoding = encode(timings);
    const Matrix text = pipeline.fuse_text(text_ids_, {&encoding, 1}, &fusion, timings);
    const Matrix rows = input_rows(text, *encoding);
    {
        const Stopwatch watch(stages[Stage::kPrefill]);
        context_->decode_embeddings(rows.data.data(), static_cast<int>(rows.rows), /*want_logits=*/true);
    }
    int32_t token = 0;
    {
        const Stopwatch watch(stages[Stage::kFirstToken]);
        token = sampler.sample(context_->logits());
    }
    round.time_to_first_token = seconds_since(start);
    stages[Stage::kPreprocess] = timings.preprocess;
    stages[Stage::kTower] = timings.vision_tower;
    stages[Stage::kCompressor] = timings.compressor;
    stages[Stage::kProjector] = timings.projector;
    stages[Stage::kPrefusionVision] = timings.prefusion_vision;
    stages[Stage::kPrefusionText] = timings.prefusion_text;

    generate(token, sampler, round);

    const auto second = Clock::now();
    const Matrix more = pipeline.fuse_text(new_ids_, {&encoding, 1}, &fusion, timings);
    context_->decode_embeddings(more.data.data(), static_cast<int>(more.rows), /*want_logits=*/true);
    sampler.sample(context_->logits());
    round.second_question = seconds_since(second);

    context_->keep_prefix(0);
    return round;
}

// Generates as Session does, in turns with libllama alone, so that both see the same state of the machine.
void System::generate(int32_t token, Sampler& sampler, Round& round) {
    constexpr int kTurn = 8;
    Utf8Stream stream;
    std::string answer;
    for (int left = workload_.generated_tokens; left > 0;) {
        const int count = std::min(left, kTurn);
        for (int i = 0; i < count; ++i) {
            const auto start = Clock::now();
            answer += stream.push(context_->model().token_bytes(token));
            context_->decode_tokens({{token}}, /*want_logits=*/true);
            token = sampler.sample(context_->logits());
            round.token_seconds.push_back(seconds_since(start));
        }
        if (libllama_) {
            const std::vector<double> alone = libllama_->generate(count);
            round.libllama_token_seconds.insert(round.libllama_token_seconds.end(), alone.begin(),
                                                alone.end());
        }
        left -= count;
    }
    if (libllama_) libllama_->rewind(facts().prompt_tokens);
}

}  // namespace llava_mini::bench
