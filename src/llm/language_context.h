// One sequence of the language model: its KV cache and the computation of logits.
#pragma once

#include <ggml-backend.h>
#include <ggml.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "llm/language_model.h"

struct llama_context;

namespace llava_mini {

enum class FlashAttention { kAuto, kOn, kOff };

struct LanguageContextOptions {
    int n_ctx = 4096;   ///< positions of the KV cache; 0: as many as the model was trained for
    int n_batch = 512;  ///< most rows computed at once
    int threads = 0;    ///< 0: one a core
    ggml_type kv_type = GGML_TYPE_F16;
    /// kOff together with kv_type f32 and f32 weights is the parity mode. A quantized KV cache needs it, so
    /// kOff is then an error.
    FlashAttention flash_attention = FlashAttention::kAuto;
    /// Polled during computation (CPU only; between batches elsewhere); must outlive the context. Null:
    /// never.
    const std::atomic<bool>* stop = nullptr;
    /// libllama's eval callback: called with ask=true to say whether a tensor is wanted, then with ask=false
    /// when it holds its values; return false there to stop the computation. Empty: none.
    std::function<bool(ggml_tensor* tensor, bool ask)> tap = {};
};

/// A KV type by its name (f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl). Throws Error(kUsage).
ggml_type parse_kv_type(std::string_view name);

/// Positions are those of the one sequence: 0 .. n_past() - 1 are in the cache, and what is decoded goes on
/// from there. Not thread-safe.
class LanguageContext {
  public:
    /// Throws Error(kUsage) for options that make no sense and Error(kSystem) if the context cannot be made
    /// (memory, or a KV type that the model's head size does not allow).
    LanguageContext(std::shared_ptr<const LanguageModel> model, LanguageContextOptions options);
    ~LanguageContext();
    LanguageContext(const LanguageContext&) = delete;
    LanguageContext& operator=(const LanguageContext&) = delete;

    const LanguageModel& model() const { return *model_; }
    int n_ctx() const { return n_ctx_; }
    int n_past() const { return n_past_; }
    int threads() const { return options_.threads; }
    /// Bytes of KV cache a position takes, in all layers.
    uint64_t kv_bytes_per_position() const { return kv_bytes_per_position_; }

    /// Appends n rows of d values (row-major) and, if wanted, computes the logits of the last one. Returns
    /// false if the stop flag ended it; the cache is then as before. Throws Error(kInput) if the context has
    /// too few positions left (naming both numbers) and Error(kSystem) if the computation fails.
    bool decode_embeddings(const float* rows, int n, bool want_logits);
    /// The same for tokens by their plain embeddings. Throws Error(kInput) for an id that is no token.
    bool decode_tokens(std::span<const int32_t> ids, bool want_logits);
    /// Logits of the last row [n_vocab] of the last decode that wanted them; valid until the next decode.
    std::span<const float> logits() const { return logits_; }

    /// Forgets everything from position n on. n greater than n_past() does nothing; n < 0 is Error(kUsage).
    void keep_prefix(int n);
    /// Takes positions [begin, begin + count) out of the cache; those behind them move up. Throws
    /// Error(kUsage) for positions that are not in it, Error(kSystem) if the model's cache cannot be moved.
    void remove(int begin, int count);
    void set_threads(int threads);

    /// The KV cache of all positions as libllama stores it; restore() takes it back in a context of the same
    /// model and KV type. restore() returns false, with nothing in the cache, if the bytes do not fit.
    std::vector<uint8_t> state() const;
    bool restore(std::span<const uint8_t> state);

  private:
    struct Free {
        void operator()(llama_context* context) const;
    };
    bool decode(const int32_t* ids, const float* rows, int n, bool want_logits);

    std::shared_ptr<const LanguageModel> model_;
    LanguageContextOptions options_;
    std::unique_ptr<llama_context, Free> context_;
    int n_ctx_ = 0, n_past_ = 0;
    uint64_t kv_bytes_per_position_ = 0;
    std::span<const float> logits_;
};

}  // namespace llava_mini
