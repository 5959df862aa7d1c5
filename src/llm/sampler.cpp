#include "llm/sampler.h"

#include <llama.h>

#include <cmath>

#include "core/error.h"
#include "core/log.h"
#include "llm/grammar_check.h"

namespace llava_mini {
namespace {

// Logits divided by less would overflow, and the likeliest token is chosen anyway.
constexpr float kGreedyBelow = 1e-4f;

}  // namespace

void Sampler::Free::operator()(llama_sampler* sampler) const {
    llama_sampler_free(sampler);
}

Sampler::Sampler(std::shared_ptr<const LanguageModel> model, const SamplerOptions& options)
    : model_(std::move(model)) {
    const auto in_range = [](const char* name, float value, float low, float high) {
        if (!(value >= low && value <= high)) {
            throw_usage("{} is {}, expected {} to {}", name, value, low, high);
        }
    };
    in_range("temperature", options.temperature, 0.0f, 100.0f);
    in_range("top-p", options.top_p, 0.0f, 1.0f);
    in_range("min-p", options.min_p, 0.0f, 1.0f);
    if (options.top_k < 0) throw_usage("top-k is {}, expected 0 (all) or more", options.top_k);

    if (!options.grammar.empty()) {
        check_grammar(options.grammar, *model_);
        const EngineLogCapture reason;
        grammar_.reset(llama_sampler_init_grammar(model_->vocab(), options.grammar.c_str(), "root"));
        if (!grammar_) throw_input("grammar: {}", reason.first_error());
    }
    chain_.reset(llama_sampler_chain_init(llama_sampler_chain_default_params()));
    const auto add = [this](llama_sampler* sampler) { llama_sampler_chain_add(chain_.get(), sampler); };
    if (options.temperature < kGreedyBelow) {
        add(llama_sampler_init_greedy());
        return;
    }
    constexpr size_t kKeepAtLeast = 1;
    if (options.top_k > 0) add(llama_sampler_init_top_k(options.top_k));
    if (options.top_p < 1.0f) add(llama_sampler_init_top_p(options.top_p, kKeepAtLeast));
    if (options.min_p > 0.0f) add(llama_sampler_init_min_p(options.min_p, kKeepAtLeast));
    add(llama_sampler_init_temp(options.temperature));
    // libllama takes the largest number for "draw a seed", but here a seed is always what it says.
    add(llama_sampler_init_dist(options.seed == LLAMA_DEFAULT_SEED ? options.seed - 1 : options.seed));
}

Sampler::~Sampler() = default;
Sampler::Sampler(Sampler&&) noexcept = default;
Sampler& Sampler::operator=(Sampler&&) noexcept = default;

int32_t Sampler::sample(std::span<const float> logits) {
    if (logits.size() != static_cast<size_t>(model_->n_vocab())) {
        throw_usage("{} logits to sample from, the vocabulary has {} tokens", logits.size(),
                    model_->n_vocab());
    }
    // Asking the grammar about every token of a large vocabulary is slow, and mostly the choice made without
    // it obeys it.
    int32_t id = choose(logits, /*with_grammar=*/false);
    if (grammar_ && !grammar_allows(id)) id = choose(logits, /*with_grammar=*/true);
    if (grammar_) llama_sampler_accept(grammar_.get(), id);
    return id;
}

int32_t Sampler::choose(std::span<const float> logits, bool with_grammar) {
    candidates_.clear();
    candidates_.reserve(logits.size());
    for (size_t i = 0; i < logits.size(); ++i) {
        // What is no number must not reach a sampler's comparisons.
        if (std::isfinite(logits[i])) candidates_.push_back({static_cast<int32_t>(i), logits[i], 0.0f});
    }
    llama_token_data_array array{candidates_.data(), candidates_.size(), -1, false};
    if (with_grammar) {
        llama_sampler_apply(grammar_.get(), &array);
        std::erase_if(candidates_, [](const llama_token_data& c) { return std::isinf(c.logit); });
        array = {candidates_.data(), candidates_.size(), -1, false};
        if (candidates_.empty()) throw_input("grammar: it allows no token of the vocabulary here");
    }
    if (candidates_.empty()) throw_input("the language model gave no finite logits");
    llama_sampler_apply(chain_.get(), &array);
    if (array.selected < 0 || array.selected >= static_cast<int64_t>(array.size)) {
        throw_input("the sampler chose no token");
    }
    return array.data[array.selected].id;
}

bool Sampler::grammar_allows(int32_t id) {
    llama_token_data candidate{id, 0.0f, 0.0f};
    llama_token_data_array array{&candidate, 1, -1, false};
    llama_sampler_apply(grammar_.get(), &array);
    return std::isfinite(candidate.logit);
}

}  // namespace llava_mini
