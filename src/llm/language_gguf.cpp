#include "llm/language_gguf.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "core/error.h"
#include "model/tensor_names.h"

namespace llava_mini {
namespace {

constexpr uint32_t kMaxLayers = 512;  // what libllama is built for
constexpr uint32_t kMaxWidth = 1u << 20;
constexpr uint32_t kMaxVocabulary = 1u << 24;
constexpr uint32_t kMaxContext = 1u << 30;

// Settings that change what libllama computes are believed only if they are known here.
constexpr std::string_view kPrefix = "llama.";
constexpr std::string_view kKnownKeys[] = {
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
};

int dimension(const GgufFile& file, const char* key, uint32_t max) {
    const uint32_t value = file.get_u32(key);
    if (value < 1 || value > max) {
        throw_input("{}: '{}' is {}, expected 1 to {}", file.name(), key, value, max);
    }
    return static_cast<int>(value);
}

float number(const GgufFile& file, const char* key, float min, float max) {
    const float value = file.get_f32(key);
    if (!(value >= min && value <= max)) {
        throw_input("{}: '{}' is {}, expected {} to {}", file.name(), key, value, min, max);
    }
    return value;
}

// Number of entries of an array of one of the given types.
size_t array_length(const GgufFile& file, const char* key, std::initializer_list<gguf_type> types) {
    const int64_t id = gguf_find_key(file.metadata(), key);
    if (id < 0) throw_input("{}: the metadata key '{}' is missing", file.name(), key);
    if (gguf_get_kv_type(file.metadata(), id) != GGUF_TYPE_ARRAY ||
        std::find(types.begin(), types.end(), gguf_get_arr_type(file.metadata(), id)) == types.end()) {
        throw_input("{}: the metadata key '{}' is not an array of {}", file.name(), key,
                    gguf_type_name(*types.begin()));
    }
    return gguf_get_arr_n(file.metadata(), id);
}

void check_settings(const GgufFile& file) {
    for (int64_t i = 0; i < gguf_get_n_kv(file.metadata()); ++i) {
        std::string_view key = gguf_get_key(file.metadata(), i);
        if (!key.starts_with(kPrefix)) continue;
        key.remove_prefix(kPrefix.size());
        if (std::find(std::begin(kKnownKeys), std::end(kKnownKeys), key) == std::end(kKnownKeys)) {
            throw_input("{}: the metadata key '{}{}' belongs to no model this program can run", file.name(),
                        kPrefix, key);
        }
    }
    const char* scaling_key = "llama.rope.scaling.type";
    if (file.has(scaling_key)) {
        const std::string scaling = file.get_string(scaling_key);
        if (scaling != "none" && scaling != "linear") {
            throw_input("{}: '{}' is '{}', expected 'none' or 'linear'", file.name(), scaling_key, scaling);
        }
    }
    const char* template_key = "tokenizer.chat_template";
    if (file.has(template_key)) file.get_string(template_key);
}

// Number of tokens.
int check_vocabulary(const GgufFile& file) {
    const std::string kind = file.get_string("tokenizer.ggml.model");
    if (kind != "gpt2" && kind != "llama") {
        throw_input("{}: the tokenizer is '{}', expected 'gpt2' (byte-level BPE) or 'llama' (SentencePiece)",
                    file.name(), kind);
    }
    const char* tokens_key = "tokenizer.ggml.tokens";
    const size_t count = array_length(file, tokens_key, {GGUF_TYPE_STRING});
    if (count < 1 || count > kMaxVocabulary) {
        throw_input("{}: the vocabulary has {} tokens", file.name(), count);
    }
    for (const char* key : {"tokenizer.ggml.token_type", "tokenizer.ggml.scores"}) {
        if (!file.has(key)) continue;
        const size_t n = array_length(file, key, {GGUF_TYPE_INT32, GGUF_TYPE_FLOAT32});
        if (n != count) throw_input("{}: '{}' has {} entries for {} tokens", file.name(), key, n, count);
    }
    const int64_t tokens = gguf_find_key(file.metadata(), tokens_key);
    std::unordered_map<std::string_view, size_t> seen;
    seen.reserve(count);
    for (size_t i = 0; i < count; ++i) {
        const std::string_view text = gguf_get_arr_str(file.metadata(), tokens, i);
        const auto [other, is_new] = seen.emplace(text, i);
        if (!is_new) {
            throw_input("{}: tokens {} and {} of the vocabulary are the same text '{}'", file.name(),
                        other->second, i, text);
        }
    }
    return static_cast<int>(count);
}

bool usable_in_products(ggml_type type) {
    return type == GGML_TYPE_F32 || ggml_get_type_traits(type)->to_float != nullptr;
}

// A shape in ggml's order, four entries, as people write it: rows first.
std::string shape_text(const int64_t* shape) {
    int rank = 4;
    while (rank > 1 && shape[rank - 1] == 1) --rank;
    std::string text;
    for (int i = rank; i-- > 0;) text += fmt::format("{}{}", text.empty() ? "" : ", ", shape[i]);
    return "[" + text + "]";
}

// All that is wrong with the tensors, or nothing.
std::string tensor_problems(const GgufFile& file, const LlamaHparams& hp) {
    std::string problems;
    const auto complain = [&](std::string text) { problems += (problems.empty() ? "" : "; ") + text; };
    for (const TensorSpec& spec : language_tensors(hp)) {
        const GgufTensor* tensor = file.find(spec.gguf);
        if (tensor == nullptr) {
            complain(spec.gguf + " is missing");
            continue;
        }
        int64_t expected[4] = {1, 1, 1, 1};
        std::copy(spec.shape.rbegin(), spec.shape.rend(), expected);
        if (!std::equal(expected, expected + 4, tensor->shape)) {
            complain(fmt::format("{} has shape {}, expected {}", spec.gguf, shape_text(tensor->shape),
                                 shape_text(expected)));
        }
    }
    for (const GgufTensor& tensor : file.tensors()) {
        const bool is_vector = tensor.shape[1] == 1 && tensor.shape[2] == 1 && tensor.shape[3] == 1;
        if (is_vector ? tensor.type != GGML_TYPE_F32 : !usable_in_products(tensor.type)) {
            complain(fmt::format("{} has type {}", tensor.name, ggml_type_name(tensor.type)));
        }
    }
    return problems;
}

}  // namespace

LlamaHparams read_language_hparams(const GgufFile& file) {
    const std::string architecture = file.get_string("general.architecture");
    if (architecture != "llama") {
        throw_input("{}: the architecture is '{}', expected 'llama' (a language model's GGUF){}", file.name(),
                    architecture,
                    architecture == kVisionArchitecture ? "; this is the vision side's file" : "");
    }
    if (file.has("split.count")) {
        throw_input("{}: one part of a split GGUF; join the parts with llama-gguf-split --merge",
                    file.name());
    }
    check_settings(file);

    LlamaHparams hp;
    hp.n_layer = dimension(file, "llama.block_count", kMaxLayers);
    hp.n_embd = dimension(file, "llama.embedding_length", kMaxWidth);
    hp.n_ff = dimension(file, "llama.feed_forward_length", kMaxWidth);
    hp.n_head = dimension(file, "llama.attention.head_count", kMaxWidth);
    hp.n_ctx_train = dimension(file, "llama.context_length", kMaxContext);
    hp.rms_eps = number(file, "llama.attention.layer_norm_rms_epsilon", 0.0f, 1.0f);
    const auto optional_dimension = [&](const char* key, int otherwise) {
        return file.has(key) ? dimension(file, key, kMaxWidth) : otherwise;
    };
    hp.n_head_kv = optional_dimension("llama.attention.head_count_kv", hp.n_head);
    hp.head_dim = optional_dimension("llama.attention.key_length", hp.n_embd / hp.n_head);
    const int value_dim = optional_dimension("llama.attention.value_length", hp.n_embd / hp.n_head);
    const int rope_dim = optional_dimension("llama.rope.dimension_count", hp.head_dim);
    if (hp.head_dim < 2 || hp.head_dim % 2 != 0 || value_dim != hp.head_dim || rope_dim != hp.head_dim) {
        throw_input("{}: heads of {} for keys, {} for values and {} for rotation, expected one even number",
                    file.name(), hp.head_dim, value_dim, rope_dim);
    }
    if (hp.n_head % hp.n_head_kv != 0) {
        throw_input("{}: {} attention heads cannot share {} key-value heads", file.name(), hp.n_head,
                    hp.n_head_kv);
    }
    const auto optional_number = [&](const char* key, float otherwise) {
        return file.has(key) ? number(file, key, 1e-6f, 1e12f) : otherwise;
    };
    hp.rope_theta = optional_number("llama.rope.freq_base", hp.rope_theta);
    hp.rope_linear_factor =
        optional_number("llama.rope.scaling.factor", optional_number("llama.rope.scale_linear", 1.0f));
    optional_number("llama.rope.scaling.attn_factor", 1.0f);
    hp.n_vocab = check_vocabulary(file);
    hp.tied_embeddings = file.find("output.weight") == nullptr;

    if (const std::string problems = tensor_problems(file, hp); !problems.empty()) {
        throw_input("{}: {}", file.name(), problems);
    }
    return hp;
}

}  // namespace llava_mini
