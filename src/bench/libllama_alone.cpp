#include "bench/libllama_alone.h"

#include <llama.h>

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "core/log.h"

namespace llava_mini::bench {

void LibllamaAlone::Free::operator()(llama_context* context) const {
    llama_free(context);
}
void LibllamaAlone::Free::operator()(llama_sampler* sampler) const {
    llama_sampler_free(sampler);
}

LibllamaAlone::LibllamaAlone(std::shared_ptr<const LanguageModel> model,
                             const LanguageContextOptions& options)
    : model_(std::move(model)) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>(options.n_ctx);
    params.n_seq_max = 1;
    params.n_threads = options.threads;
    params.n_threads_batch = options.threads;
    params.type_k = options.kv_type;
    params.type_v = options.kv_type;
    if (ggml_is_quantized(options.kv_type)) params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    const EngineLogCapture reason;
    context_.reset(llama_init_from_model(model_->handle(), params));
    if (!context_) {
        throw_system("a context of {} positions cannot be made ({})", options.n_ctx, reason.first_error());
    }
    sampler_.reset(llama_sampler_init_greedy());
}

LibllamaAlone::~LibllamaAlone() = default;

void LibllamaAlone::prefill(int positions) {
    std::vector<llama_token> ids(static_cast<size_t>(positions), token_);
    const auto most = static_cast<int>(llama_n_batch(context_.get()));
    const EngineLogCapture reason;
    for (int done = 0; done < positions; done += most) {
        const int count = std::min(most, positions - done);
        if (llama_decode(context_.get(), llama_batch_get_one(ids.data() + done, count)) != 0) {
            throw_system("libllama failed to compute {} tokens ({})", count, reason.first_error());
        }
    }
    token_ = llama_sampler_sample(sampler_.get(), context_.get(), -1);
}

std::vector<double> LibllamaAlone::generate(int count) {
    const EngineLogCapture reason;
    std::vector<double> seconds;
    for (int i = 0; i < count; ++i) {
        const auto start = std::chrono::steady_clock::now();
        if (llama_decode(context_.get(), llama_batch_get_one(&token_, 1)) != 0) {
            throw_system("libllama failed to compute a token ({})", reason.first_error());
        }
        token_ = llama_sampler_sample(sampler_.get(), context_.get(), -1);
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return seconds;
}

void LibllamaAlone::rewind(int positions) {
    llama_memory_seq_rm(llama_get_memory(context_.get()), 0, positions, -1);
}

}  // namespace llava_mini::bench
