#include "llm/language_model.h"

#include <llama.h>

#include <algorithm>
#include <mutex>

#include "core/backend.h"
#include "core/error.h"
#include "core/log.h"
#include "llm/language_gguf.h"
#include "llm/utf8_stream.h"

namespace llava_mini {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 28;  // keeps every count well inside int32

void start_engine() {
    static std::once_flag once;
    std::call_once(once, [] {
        llama_backend_init();
        // Only a build of ggml with backends as plugins starts without any.
        if (ggml_backend_reg_count() == 0) ggml_backend_load_all();
    });
}

struct ProgressState {
    const Progress& report;
    bool stopped = false;
};

bool report_progress(float fraction, void* user_data) {
    auto& state = *static_cast<ProgressState*>(user_data);
    const auto thousandths = static_cast<uint64_t>(std::clamp(fraction, 0.0f, 1.0f) * 1000.0f);
    state.stopped = !state.report(thousandths, 1000, "loading the language model");
    return !state.stopped;
}

// Repacking is one switch for a whole model.
bool most_weights_repack(const GgufFile& gguf) {
    uint64_t repacked = 0, plain = 0;
    for (const GgufTensor& tensor : gguf.tensors()) {
        if (ggml_is_quantized(tensor.type)) (repacking_pays(tensor.type) ? repacked : plain) += tensor.bytes;
    }
    return repacked >= plain;
}

// libllama takes what it is given for an adapter's factors: types and dimensions are looked at first.
void check_adapter(const std::filesystem::path& file) {
    const GgufFile gguf(file);
    const auto text = [&](const char* key) {
        return gguf.has(key) ? gguf.get_string(key) : std::string("nothing");
    };
    if (text("general.type") != "adapter" || text("adapter.type") != "lora") {
        throw_input("{}: expected an adapter (general.type \"adapter\", adapter.type \"lora\"), found {}, {}",
                    file.string(), text("general.type"), text("adapter.type"));
    }
    if (text("general.architecture") != "llama") {
        throw_input("{}: general.architecture: expected \"llama\", found \"{}\"", file.string(),
                    text("general.architecture"));
    }
    gguf.get_f32("adapter.lora.alpha");
    for (const GgufTensor& tensor : gguf.tensors()) {
        // Prompts enter as embeddings of our own, which an adapter of the table would not reach.
        if (tensor.name.starts_with("token_embd.")) {
            throw_input("{}: {}: adapters of the token embeddings are not supported", file.string(),
                        tensor.name);
        }
        const bool is_float = tensor.type == GGML_TYPE_F32 || tensor.type == GGML_TYPE_F16 ||
                              tensor.type == GGML_TYPE_BF16 || tensor.type == GGML_TYPE_Q8_0;
        if (!is_float || tensor.shape[2] != 1 || tensor.shape[3] != 1) {
            throw_input("{}: {}: expected a matrix of f32, f16, bf16 or q8_0, found {} [{}, {}, {}, {}]",
                        file.string(), tensor.name, ggml_type_name(tensor.type), tensor.shape[0],
                        tensor.shape[1], tensor.shape[2], tensor.shape[3]);
        }
    }
}

}  // namespace

void LanguageModel::Free::operator()(llama_model* model) const {
    llama_model_free(model);
}

LanguageModel::LanguageModel(const std::filesystem::path& file, const LanguageModelOptions& options,
                             const Progress& progress)
    : file_(file) {
    const GgufFile gguf(file);
    hparams_ = read_language_hparams(gguf);
    start_engine();
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = options.n_gpu_layers;
    if (!options.use_mmap) params.load_mode = LLAMA_LOAD_MODE_NONE;
    ggml_backend_dev_t no_devices[] = {nullptr};
    if (options.n_gpu_layers == 0) params.devices = no_devices;  // not even for large products
    params.use_extra_bufts = most_weights_repack(gguf);
    ProgressState state{progress};
    if (progress) {
        params.progress_callback = report_progress;
        params.progress_callback_user_data = &state;
    }
    const EngineLogCapture reason;
    model_.reset(llama_model_load_from_file(file.c_str(), params));
    if (state.stopped) throw_input("{}: interrupted while loading", file.string());
    if (!model_)
        throw_input("{}: the language model cannot be loaded ({})", file.string(), reason.first_error());
    vocab_ = llama_model_get_vocab(model_.get());
    if (!options.lora.empty()) {
        check_adapter(options.lora);
        const EngineLogCapture adapter_reason;
        adapter_ = llama_adapter_lora_init(model_.get(), options.lora.c_str());
        if (adapter_ == nullptr) {
            throw_input("{}: the adapter does not fit {} ({})", options.lora.string(), file.string(),
                        adapter_reason.first_error());
        }
    }

    constexpr int kControl = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN;
    for (int32_t id = 0; id < n_vocab(); ++id) {
        if ((llama_vocab_get_attr(vocab_, id) & kControl) != 0)
            control_tokens_.push_back({token_text(id), id});
    }
    std::stable_sort(
        control_tokens_.begin(), control_tokens_.end(),
        [](const ControlToken& a, const ControlToken& b) { return a.text.size() > b.text.size(); });
}

LanguageModel::~LanguageModel() = default;

std::string LanguageModel::chat_template() const {
    const char* text = llama_model_chat_template(model_.get(), nullptr);
    return text == nullptr ? "" : text;
}

uint64_t LanguageModel::weight_bytes() const {
    return llama_model_size(model_.get());
}

std::string LanguageModel::type_name() const {
    return llama_ftype_name(llama_model_ftype(model_.get()));
}

int32_t LanguageModel::bos() const {
    return llama_vocab_bos(vocab_);
}

int32_t LanguageModel::eos() const {
    return llama_vocab_eos(vocab_);
}

bool LanguageModel::adds_bos() const {
    return llama_vocab_get_add_bos(vocab_) && bos() >= 0;
}

bool LanguageModel::is_end(int32_t id) const {
    return is_token(id) && llama_vocab_is_eog(vocab_, id);
}

std::string LanguageModel::token_text(int32_t id) const {
    return is_token(id) ? llama_vocab_get_text(vocab_, id) : "";
}

std::vector<int32_t> LanguageModel::tokenize(std::string_view text, bool parse_special) const {
    if (text.size() > kMaxTextBytes) {
        throw_input("a text of {} bytes is too long to tokenize, at most {} are accepted", text.size(),
                    kMaxTextBytes);
    }
    // One token a byte is the most there can be, and SentencePiece puts a space in front of every piece.
    std::vector<int32_t> ids(text.size() + 8);
    const auto run = [&] {
        return llama_tokenize(vocab_, text.data(), static_cast<int32_t>(text.size()), ids.data(),
                              static_cast<int32_t>(ids.size()), /*add_special=*/false, parse_special);
    };
    int32_t count = 0;
    try {
        count = run();
        if (count < 0) {
            ids.resize(static_cast<size_t>(-int64_t{count}));
            count = run();
        }
    } catch (const std::exception& error) {
        throw_input("{}: the vocabulary cannot express the text ({})", file_.string(), error.what());
    }
    ids.resize(static_cast<size_t>(std::max(count, 0)));
    return ids;
}

std::string LanguageModel::token_bytes(int32_t id, bool with_control) const {
    if (!is_token(id)) throw_input("token id {} is not in the vocabulary of {} tokens", id, n_vocab());
    std::string bytes(64, '\0');
    const auto run = [&] {
        return llama_token_to_piece(vocab_, id, bytes.data(), static_cast<int32_t>(bytes.size()),
                                    /*lstrip=*/0, with_control);
    };
    int32_t length = run();
    if (length < 0) {
        bytes.resize(static_cast<size_t>(-length));
        length = run();
    }
    bytes.resize(static_cast<size_t>(std::max(length, 0)));
    return bytes;
}

std::string LanguageModel::detokenize(std::span<const int32_t> ids) const {
    Utf8Stream stream;
    std::string text;
    for (const int32_t id : ids) text += stream.push(token_bytes(id));
    return text + stream.finish();
}

}  // namespace llava_mini
