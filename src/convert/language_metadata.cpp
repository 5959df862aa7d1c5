#include "convert/language_metadata.h"

namespace llava_mini {

void write_language_metadata(gguf_context* gguf, const LlamaHparams& hp, const std::string& name) {
    const auto set = [&](const char* key, int value) {
        gguf_set_val_u32(gguf, key, static_cast<uint32_t>(value));
    };
    gguf_set_val_str(gguf, "general.architecture", "llama");
    gguf_set_val_str(gguf, "general.type", "model");
    gguf_set_val_str(gguf, "general.name", name.c_str());
    set("llama.vocab_size", hp.n_vocab);
    set("llama.context_length", hp.n_ctx_train);
    set("llama.embedding_length", hp.n_embd);
    set("llama.block_count", hp.n_layer);
    set("llama.feed_forward_length", hp.n_ff);
    set("llama.attention.head_count", hp.n_head);
    set("llama.attention.head_count_kv", hp.n_head_kv);
    set("llama.attention.key_length", hp.head_dim);
    set("llama.attention.value_length", hp.head_dim);
    gguf_set_val_f32(gguf, "llama.attention.layer_norm_rms_epsilon", hp.rms_eps);
    set("llama.rope.dimension_count", hp.head_dim);
    gguf_set_val_f32(gguf, "llama.rope.freq_base", hp.rope_theta);
    if (hp.rope_linear_factor != 1.0f) {
        gguf_set_val_str(gguf, "llama.rope.scaling.type", "linear");
        gguf_set_val_f32(gguf, "llama.rope.scaling.factor", hp.rope_linear_factor);
    }
}

}  // namespace llava_mini
