#include "convert/quantize.h"

#include <algorithm>

#include "convert/gguf_writer.h"
#include "convert/progress_reporter.h"
#include "convert/quantization.h"
#include "core/error.h"
#include "core/log.h"
#include "model/gguf_file.h"
#include "model/vision_weights.h"

namespace llava_mini {
namespace {

constexpr int64_t kChunkElements = 4 << 20;
constexpr size_t kMaxBufferBytes = size_t{256} << 20;

void stream_tensor(const GgufFile& file, const GgufTensor& tensor, ggml_type type, GgufWriter& writer,
                   int threads, ProgressReporter& reporter, std::string_view label) {
    const int64_t columns = tensor.shape[0], rows = tensor.shape[1] * tensor.shape[2] * tensor.shape[3];
    const int64_t chunk = std::max<int64_t>(1, kChunkElements / columns);
    const size_t source_row = ggml_row_size(tensor.type, columns), target_row = ggml_row_size(type, columns);
    std::vector<uint8_t> source, target;
    std::vector<float> values;
    for (int64_t row = 0; row < rows; row += chunk) {
        const int64_t n = std::min(chunk, rows - row);
        source.resize(static_cast<size_t>(n) * source_row);
        file.read(tensor, static_cast<uint64_t>(row) * source_row, source);
        if (type == tensor.type) {
            writer.write(source);
        } else {
            values.resize(static_cast<size_t>(n * columns));
            target.resize(static_cast<size_t>(n) * target_row);
            dequantize_rows(tensor.type, source, n, columns, values, threads);
            quantize_rows(type, values, n, columns, target, threads);
            writer.write(target);
        }
        reporter.add(source.size(), label);
    }
}

}  // namespace

void quantize_vision(const QuantizeOptions& options) {
    const GgufFile file(options.in);
    const VisionHparams hparams = read_vision_hparams(file.metadata(), file.name());
    const std::vector<TensorSpec> specs = checked_vision_tensors(file, hparams);

    GgufWriter writer(options.out);
    gguf_set_kv(writer.metadata(), file.metadata());
    gguf_remove_key(writer.metadata(), GGUF_KEY_GENERAL_ALIGNMENT);  // the writer's own is the default one
    gguf_set_val_u32(writer.metadata(), "general.file_type", static_cast<uint32_t>(options.type));
    gguf_set_val_u32(writer.metadata(), "general.quantization_version", GGML_QNT_VERSION);
    std::vector<ggml_type> types;
    uint64_t total = 0;
    for (const TensorSpec& spec : specs) {
        const GgufTensor& tensor = *file.find(spec.gguf);
        const ggml_type type = storage_type(spec, base_type(options.type), /*tied_embeddings=*/false);
        if (ggml_is_quantized(tensor.type) && type != tensor.type && !options.allow_requantize) {
            throw_input(
                "{}: tensor '{}' is already quantized ({}); start from an f16, bf16 or f32 file, or allow it "
                "(--allow-requantize)",
                file.name(), tensor.name, ggml_type_name(tensor.type));
        }
        types.push_back(type);
        writer.add_tensor(spec.gguf, type, spec.shape);
        total += tensor.bytes;
    }
    writer.begin();
    ProgressReporter reporter(options.progress, total);
    const std::string label = options.out.filename().string();
    for (size_t i = 0; i < specs.size(); ++i) {
        stream_tensor(file, *file.find(specs[i].gguf), types[i], writer, options.threads, reporter, label);
    }
    writer.commit();
}

void quantize_language(const QuantizeOptions& options) {
    AtomicFile out(options.out);
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.nthread = options.threads;
    params.ftype = options.type;
    params.allow_requantize = options.allow_requantize;
    params.max_buf_size = kMaxBufferBytes;

    // What will be written, but for the tensors that the mixture keeps higher.
    uint64_t expected = 0;
    {
        const GgufFile file(options.in);
        for (const GgufTensor& tensor : file.tensors()) {
            const auto elements = static_cast<double>(tensor.shape[0] * tensor.shape[1]);
            const ggml_type type = base_type(options.type);
            expected += static_cast<uint64_t>(elements * static_cast<double>(ggml_type_size(type)) /
                                              static_cast<double>(ggml_blck_size(type)));
        }
    }
    // libllama says something before and after each tensor; between these it cannot be stopped.
    const std::string label = options.out.filename().string();
    bool stopped = false;
    const EngineLogCapture reason([&] {
        if (!options.progress || stopped) return;
        std::error_code ignored;
        const uint64_t written = std::filesystem::file_size(out.path_aside(), ignored);
        if (!options.progress(std::min(written, expected), expected, label)) {
            stopped = true;
            throw std::runtime_error("interrupted");
        }
    });
    const uint32_t failed = llama_model_quantize(options.in.c_str(), out.path_aside().c_str(), &params);
    if (stopped) throw_input("interrupted while writing {}", label);
    if (failed != 0) {
        std::error_code ignored;
        const std::filesystem::space_info space =
            std::filesystem::space(out.path_aside().parent_path(), ignored);
        const std::string why = reason.first_error();
        const bool requantizing = why.find("requantizing") != std::string::npos;
        throw_input("{}: cannot be quantized to {}: {}{}{}", options.in.string(), options.out.string(), why,
                    requantizing ? " (--allow-requantize enables it)" : "",
                    !ignored && space.available < (1 << 20) ? "; the disk is full" : "");
    }
    out.commit();
    if (options.progress) options.progress(expected, expected, label);
}

}  // namespace llava_mini
