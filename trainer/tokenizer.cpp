#include "trainer/tokenizer.h"

#include <unistd.h>

#include <atomic>

#include "convert/gguf_writer.h"
#include "convert/language_metadata.h"
#include "convert/vocabulary.h"
#include "core/error.h"
#include "model/tensor_names.h"

namespace llava_mini::trainer {
namespace {

// The smallest model libllama takes.
LlamaHparams stub_shape(int n_vocab) {
    LlamaHparams hp;
    hp.n_layer = 1;
    hp.n_embd = hp.n_ff = hp.head_dim = 32;
    hp.n_head = hp.n_head_kv = 1;
    hp.n_vocab = n_vocab;
    hp.n_ctx_train = 32;
    hp.tied_embeddings = true;
    return hp;
}

void write_stub(const std::filesystem::path& path, const Vocabulary& vocabulary, int n_vocab) {
    GgufWriter writer(path);
    const LlamaHparams shape = stub_shape(n_vocab);
    write_language_metadata(writer.metadata(), shape, "tokenizer");
    write_vocabulary(writer.metadata(), vocabulary);
    const std::vector<TensorSpec> specs = language_tensors(shape);
    for (const TensorSpec& spec : specs) writer.add_tensor(spec.gguf, GGML_TYPE_F32, spec.shape);
    writer.begin();
    const std::vector<uint8_t> zeros(writer.tensor_bytes());
    size_t done = 0;
    for (const TensorSpec& spec : specs) {
        size_t bytes = sizeof(float);
        for (const int64_t n : spec.shape) bytes *= static_cast<size_t>(n);
        writer.write(std::span(zeros).subspan(done, bytes));
        done += bytes;
    }
    writer.commit();
}

}  // namespace

Tokenizer::Tokenizer(const std::filesystem::path& folder, int n_vocab, std::optional<int> bos_id,
                     const std::vector<int>& eos_ids) {
    const Vocabulary vocabulary = read_vocabulary(folder, n_vocab, bos_id, eos_ids);
    static std::atomic<int> made = 0;
    const auto file = std::filesystem::temp_directory_path() /
                      fmt::format("llava-mini-tokenizer-{}-{}.gguf", getpid(), made++);
    write_stub(file, vocabulary, n_vocab);
    try {
        model_ =
            std::make_unique<LanguageModel>(file, LanguageModelOptions{.n_gpu_layers = 0, .use_mmap = false});
    } catch (...) {
        std::filesystem::remove(file);
        throw;
    }
    std::filesystem::remove(file);
    template_ = std::make_unique<ChatTemplate>(*model_);
    adds_space_ = vocabulary.model == "llama" && vocabulary.add_space_prefix.value_or(true);
    system_prompt_ = vocabulary.system_prompt.value_or(vocabulary.model == "llama" ? kVicunaSystemPrompt
                                                                                   : kLlama3SystemPrompt);
}

std::vector<PromptToken> Tokenizer::conversation(std::span<const QaTurn> turns, bool picture) const {
    std::vector<Turn> messages;
    if (!system_prompt_.empty()) messages.push_back({{"system", system_prompt_}});
    for (const QaTurn& turn : turns) {
        const bool with_picture = picture && &turn == &turns.front();
        const std::string place = with_picture ? std::string(kImagePlaceholder) + "\n" : "";
        messages.push_back({{"user", place + turn.question}});
        messages.push_back({{"assistant", turn.answer}});
    }
    std::vector<PromptToken> tokens = tokenize_conversation(*model_, *template_, messages);
    // The template opens another turn behind the last answer.
    while (!tokens.empty() && tokens.back().kind != SegmentKind::kPlain) tokens.pop_back();
    return tokens;
}

std::vector<int32_t> Tokenizer::word_ids(const std::string& word) const {
    std::vector<int32_t> ids = model_->tokenize(adds_space_ ? word : " " + word, /*parse_special=*/false);
    std::vector<int32_t> letters;
    for (const int32_t id : ids) {
        if (model_->token_bytes(id).find_first_not_of(' ') != std::string::npos) letters.push_back(id);
    }
    return letters.empty() ? ids : letters;
}

}  // namespace llava_mini::trainer
