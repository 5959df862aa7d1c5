#include "llm/language_context.h"

#include <llama.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/log.h"

namespace llava_mini {
namespace {

bool stop_callback(void* user_data) {
    return static_cast<const std::atomic<bool>*>(user_data)->load(std::memory_order_relaxed);
}

bool tap_callback(ggml_tensor* tensor, bool ask, void* user_data) {
    return static_cast<const LanguageContextOptions*>(user_data)->tap(tensor, ask);
}

llama_flash_attn_type flash_attention_type(FlashAttention choice) {
    switch (choice) {
        case FlashAttention::kOn:
            return LLAMA_FLASH_ATTN_TYPE_ENABLED;
        case FlashAttention::kOff:
            return LLAMA_FLASH_ATTN_TYPE_DISABLED;
        default:
            return LLAMA_FLASH_ATTN_TYPE_AUTO;
    }
}

constexpr ggml_type kKvTypes[] = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16,
                                  GGML_TYPE_Q8_0, GGML_TYPE_Q5_1, GGML_TYPE_Q5_0,
                                  GGML_TYPE_Q4_1, GGML_TYPE_Q4_0, GGML_TYPE_IQ4_NL};

int one_a_core() {
    return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace

ggml_type parse_kv_type(std::string_view name) {
    std::string known;
    for (const ggml_type type : kKvTypes) {
        if (name == ggml_type_name(type)) return type;
        known += fmt::format("{}{}", known.empty() ? "" : ", ", ggml_type_name(type));
    }
    throw_usage("unknown KV cache type '{}', expected one of {}", name, known);
}

void LanguageContext::Free::operator()(llama_context* context) const {
    llama_free(context);
}

LanguageContext::LanguageContext(std::shared_ptr<const LanguageModel> model, LanguageContextOptions options)
    : model_(std::move(model)), options_(std::move(options)) {
    const LlamaHparams& hp = model_->hparams();
    if (options_.n_ctx < 0 || options_.n_batch < 1 || options_.threads < 0) {
        throw_usage("context of {} positions, batches of {} rows, {} threads: expected at least 0, 1 and 0",
                    options_.n_ctx, options_.n_batch, options_.threads);
    }
    if (std::find(std::begin(kKvTypes), std::end(kKvTypes), options_.kv_type) == std::end(kKvTypes)) {
        throw_usage("the KV cache cannot have type {}", ggml_type_name(options_.kv_type));
    }
    if (ggml_is_quantized(options_.kv_type) && options_.flash_attention == FlashAttention::kOff) {
        throw_usage("a KV cache of type {} needs flash attention", ggml_type_name(options_.kv_type));
    }
    n_ctx_ = options_.n_ctx > 0 ? options_.n_ctx : hp.n_ctx_train;
    options_.n_batch = std::min(options_.n_batch, n_ctx_);
    if (options_.threads == 0) options_.threads = one_a_core();

    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>(n_ctx_);
    params.n_batch = static_cast<uint32_t>(options_.n_batch);
    params.n_ubatch = params.n_batch;
    params.n_seq_max = 1;
    params.n_outputs_max =
        1;  // logits of one row: with a large vocabulary those of a whole batch take much memory
    params.n_threads = options_.threads;
    params.n_threads_batch = options_.threads;
    params.type_k = options_.kv_type;
    params.type_v = options_.kv_type;
    params.flash_attn_type = flash_attention_type(
        ggml_is_quantized(options_.kv_type) ? FlashAttention::kOn : options_.flash_attention);
    if (options_.stop != nullptr) {
        params.abort_callback = stop_callback;
        params.abort_callback_data = const_cast<std::atomic<bool>*>(options_.stop);
    }
    if (options_.tap) {
        params.cb_eval = tap_callback;
        params.cb_eval_user_data = &options_;
    }
    const EngineLogCapture reason;
    context_.reset(llama_init_from_model(model_->handle(), params));
    if (!context_) {
        throw_system("a context of {} positions with a KV cache of type {} cannot be made ({})", n_ctx_,
                     ggml_type_name(options_.kv_type), reason.first_error());
    }
    if (llama_adapter_lora* adapter = model_->adapter()) {
        float scale = 1.0f;
        llama_set_adapters_lora(context_.get(), &adapter, 1, &scale);
    }
    const int64_t kv_width = int64_t{hp.n_head_kv} * hp.head_dim;
    kv_bytes_per_position_ =
        static_cast<uint64_t>(hp.n_layer) * 2 * ggml_row_size(options_.kv_type, kv_width);
}

LanguageContext::~LanguageContext() = default;

bool LanguageContext::decode_embeddings(const float* rows, int n, bool want_logits) {
    return decode(nullptr, rows, n, want_logits);
}

bool LanguageContext::decode_tokens(std::span<const int32_t> ids, bool want_logits) {
    for (const int32_t id : ids) {
        if (!model_->is_token(id)) {
            throw_input("token id {} is not in the vocabulary of {} tokens", id, model_->n_vocab());
        }
    }
    if (ids.size() > static_cast<size_t>(n_ctx_)) {
        throw_input("the prompt needs {} positions, but the context has {}", ids.size(), n_ctx_);
    }
    return decode(ids.data(), nullptr, static_cast<int>(ids.size()), want_logits);
}

bool LanguageContext::decode(const int32_t* ids, const float* rows, int n, bool want_logits) {
    if (n < 0) throw_usage("{} rows to decode", n);
    if (n > n_ctx_ - n_past_) {
        throw_input("the prompt needs {} positions, but the context has {}", int64_t{n_past_} + n, n_ctx_);
    }
    logits_ = {};
    const int before = n_past_;
    for (int done = 0; done < n;) {
        const int count = std::min(n - done, options_.n_batch);
        const bool is_last = done + count == n;
        std::vector<int32_t> positions(static_cast<size_t>(count));
        for (int i = 0; i < count; ++i) positions[static_cast<size_t>(i)] = n_past_ + i;
        std::vector<int8_t> wanted(static_cast<size_t>(count), 0);
        wanted.back() = is_last && want_logits;

        llama_batch batch{};
        batch.n_tokens = count;
        // libllama only reads both.
        batch.token = ids == nullptr ? nullptr : const_cast<int32_t*>(ids + done);
        batch.embd = rows == nullptr ? nullptr : const_cast<float*>(rows + int64_t{done} * model_->n_embd());
        batch.pos = positions.data();
        batch.logits = wanted.data();
        const bool stop = options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed);
        const EngineLogCapture reason;
        constexpr int kAborted = 2;
        const int status = stop ? kAborted : llama_decode(context_.get(), batch);
        if (status != 0) {
            // Batches before this one are in the cache, and perhaps a part of this one.
            llama_memory_seq_rm(llama_get_memory(context_.get()), 0, before, -1);
            n_past_ = before;
            if (status == kAborted) return false;
            throw_system("the language model failed to compute {} rows ({})", count, reason.first_error());
        }
        n_past_ += count;
        done += count;
    }
    if (n > 0 && want_logits) {
        const float* values = llama_get_logits_ith(context_.get(), -1);
        if (values == nullptr) throw_system("the language model gave no logits");
        logits_ = {values, static_cast<size_t>(model_->n_vocab())};
    }
    return true;
}

void LanguageContext::keep_prefix(int n) {
    if (n < 0) throw_usage("a prefix of {} positions cannot be kept", n);
    if (n >= n_past_) return;
    llama_memory_seq_rm(llama_get_memory(context_.get()), 0, n, -1);
    n_past_ = n;
}

void LanguageContext::remove(int begin, int count) {
    if (begin < 0 || count < 0 || begin + count > n_past_) {
        throw_usage("positions {} to {} are not in the cache of {}", begin, begin + count, n_past_);
    }
    if (count == 0) return;
    llama_memory_t memory = llama_get_memory(context_.get());
    if (!llama_memory_can_shift(memory)) throw_system("the KV cache of this model cannot be moved");
    llama_memory_seq_rm(memory, 0, begin, begin + count);
    llama_memory_seq_add(memory, 0, begin + count, -1, -count);
    n_past_ -= count;
}

std::vector<uint8_t> LanguageContext::state() const {
    std::vector<uint8_t> bytes(llama_state_seq_get_size(context_.get(), 0));
    bytes.resize(llama_state_seq_get_data(context_.get(), bytes.data(), bytes.size(), 0));
    if (bytes.empty()) throw_system("the language model's state cannot be stored");
    return bytes;
}

bool LanguageContext::restore(std::span<const uint8_t> state) {
    keep_prefix(0);
    const EngineLogCapture reason;
    const size_t read = llama_state_seq_set_data(context_.get(), state.data(), state.size(), 0);
    llama_memory_t memory = llama_get_memory(context_.get());
    const llama_pos last = llama_memory_seq_pos_max(memory, 0);
    const bool fits =
        read == state.size() && last >= 0 && last < n_ctx_ && llama_memory_seq_pos_min(memory, 0) == 0;
    if (!fits) llama_memory_clear(memory, /*data=*/true);
    n_past_ = fits ? last + 1 : 0;
    return fits;
}

void LanguageContext::set_threads(int threads) {
    options_.threads = threads > 0 ? threads : one_a_core();
    llama_set_n_threads(context_.get(), options_.threads, options_.threads);
}

}  // namespace llava_mini
