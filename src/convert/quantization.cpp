#include "convert/quantization.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <thread>

#include "core/error.h"

namespace llava_mini {
namespace {

struct FileType {
    const char* name;
    llama_ftype file_type;
    ggml_type base;
};

// The usual types of llama.cpp. Those that are of no use without an importance matrix (IQ1, IQ2_XXS, IQ2_XS)
// are left out.
constexpr FileType kFileTypes[] = {
    {"F32", LLAMA_FTYPE_ALL_F32, GGML_TYPE_F32},
    {"F16", LLAMA_FTYPE_MOSTLY_F16, GGML_TYPE_F16},
    {"BF16", LLAMA_FTYPE_MOSTLY_BF16, GGML_TYPE_BF16},
    {"Q8_0", LLAMA_FTYPE_MOSTLY_Q8_0, GGML_TYPE_Q8_0},
    {"Q6_K", LLAMA_FTYPE_MOSTLY_Q6_K, GGML_TYPE_Q6_K},
    {"Q5_0", LLAMA_FTYPE_MOSTLY_Q5_0, GGML_TYPE_Q5_0},
    {"Q5_1", LLAMA_FTYPE_MOSTLY_Q5_1, GGML_TYPE_Q5_1},
    {"Q5_K_S", LLAMA_FTYPE_MOSTLY_Q5_K_S, GGML_TYPE_Q5_K},
    {"Q5_K_M", LLAMA_FTYPE_MOSTLY_Q5_K_M, GGML_TYPE_Q5_K},
    {"Q4_0", LLAMA_FTYPE_MOSTLY_Q4_0, GGML_TYPE_Q4_0},
    {"Q4_1", LLAMA_FTYPE_MOSTLY_Q4_1, GGML_TYPE_Q4_1},
    {"Q4_K_S", LLAMA_FTYPE_MOSTLY_Q4_K_S, GGML_TYPE_Q4_K},
    {"Q4_K_M", LLAMA_FTYPE_MOSTLY_Q4_K_M, GGML_TYPE_Q4_K},
    {"IQ4_NL", LLAMA_FTYPE_MOSTLY_IQ4_NL, GGML_TYPE_IQ4_NL},
    {"IQ4_XS", LLAMA_FTYPE_MOSTLY_IQ4_XS, GGML_TYPE_IQ4_XS},
    {"Q3_K_S", LLAMA_FTYPE_MOSTLY_Q3_K_S, GGML_TYPE_Q3_K},
    {"Q3_K_M", LLAMA_FTYPE_MOSTLY_Q3_K_M, GGML_TYPE_Q3_K},
    {"Q3_K_L", LLAMA_FTYPE_MOSTLY_Q3_K_L, GGML_TYPE_Q3_K},
    {"IQ3_S", LLAMA_FTYPE_MOSTLY_IQ3_S, GGML_TYPE_IQ3_S},
    {"IQ3_M", LLAMA_FTYPE_MOSTLY_IQ3_M, GGML_TYPE_IQ3_S},
    {"Q2_K", LLAMA_FTYPE_MOSTLY_Q2_K, GGML_TYPE_Q2_K},
    // K types without a mixture's letter mean the middle mixture, as everywhere in llama.cpp.
    {"Q5_K", LLAMA_FTYPE_MOSTLY_Q5_K_M, GGML_TYPE_Q5_K},
    {"Q4_K", LLAMA_FTYPE_MOSTLY_Q4_K_M, GGML_TYPE_Q4_K},
    {"Q3_K", LLAMA_FTYPE_MOSTLY_Q3_K_M, GGML_TYPE_Q3_K},
};

std::string upper(std::string_view name) {
    std::string text(name);
    for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return text;
}

std::string tensor_type_name(ggml_type type) {
    return upper(ggml_type_name(type));
}

double bits_per_weight(ggml_type type) {
    return 8.0 * static_cast<double>(ggml_type_size(type)) / static_cast<double>(ggml_blck_size(type));
}

// Calls work(first row, number of rows) for slices of the rows, each on a thread of its own.
void on_threads(int64_t rows, int threads, const std::function<void(int64_t, int64_t)>& work) {
    const int64_t slices = std::clamp<int64_t>(threads, 1, std::max<int64_t>(1, rows));
    std::vector<std::jthread> pool;
    for (int64_t i = 1; i < slices; ++i) {
        const int64_t begin = rows * i / slices, end = rows * (i + 1) / slices;
        pool.emplace_back([&work, begin, end] { work(begin, end - begin); });
    }
    work(0, rows / slices);
}

}  // namespace

ggml_type parse_tensor_type(std::string_view name) {
    const std::string wanted = upper(name);
    std::vector<std::string> names;
    for (const FileType& type : kFileTypes) {
        const std::string type_name = tensor_type_name(type.base);
        if (wanted == type_name) return type.base;
        if (std::find(names.begin(), names.end(), type_name) == names.end()) names.push_back(type_name);
    }
    const bool is_mixture = std::any_of(std::begin(kFileTypes), std::end(kFileTypes),
                                        [&](const FileType& type) { return wanted == type.name; });
    throw_usage("the type {} is {}; expected one of {}{}", name,
                is_mixture ? "a mixture of types" : "unknown", fmt::join(names, ", "),
                is_mixture ? " (for mixtures convert to f16 or bf16, then run llava-mini quantize)" : "");
}

llama_ftype parse_file_type(std::string_view name) {
    const std::string wanted = upper(name);
    std::vector<std::string> names;
    for (const FileType& type : kFileTypes) {
        if (wanted == type.name) return type.file_type;
        names.emplace_back(type.name);
    }
    throw_usage("the type {} is unknown; expected one of {}", name, fmt::join(names, ", "));
}

ggml_type base_type(llama_ftype file_type) {
    for (const FileType& type : kFileTypes) {
        if (type.file_type == file_type) return type.base;
    }
    throw_usage("the file type {} is unknown", static_cast<int>(file_type));
}

llama_ftype file_type_of(ggml_type tensor_type) {
    for (const FileType& type : kFileTypes) {
        if (type.base == tensor_type) return type.file_type;
    }
    throw_usage("the tensor type {} is no type of a whole file", ggml_type_name(tensor_type));
}

ggml_type storage_type(const TensorSpec& spec, ggml_type wanted, bool tied_embeddings) {
    const bool is_float = wanted == GGML_TYPE_F32 || wanted == GGML_TYPE_F16 || wanted == GGML_TYPE_BF16;
    if (spec.keep == Keep::kFull) return GGML_TYPE_F32;
    if (is_float) return wanted;
    if (spec.keep == Keep::kHalf) return GGML_TYPE_F16;

    const bool makes_logits = spec.gguf == (tied_embeddings ? "token_embd.weight" : "output.weight");
    ggml_type least = wanted;
    if (spec.keep == Keep::kAtLeastQ5) least = GGML_TYPE_Q5_K;
    if (spec.keep == Keep::kAtLeastQ6 || makes_logits) least = GGML_TYPE_Q6_K;
    ggml_type type = bits_per_weight(wanted) < bits_per_weight(least) ? least : wanted;
    const int64_t columns = spec.shape.back();
    if (columns % ggml_blck_size(type) != 0) type = GGML_TYPE_Q8_0;
    if (columns % ggml_blck_size(type) != 0) type = GGML_TYPE_F16;
    return type;
}

void quantize_rows(ggml_type type, std::span<const float> values, int64_t rows, int64_t columns,
                   std::span<uint8_t> out, int threads) {
    const size_t row_bytes = ggml_row_size(type, columns);
    if (values.size() != static_cast<size_t>(rows * columns) ||
        out.size() != static_cast<size_t>(rows) * row_bytes || columns % ggml_blck_size(type) != 0) {
        throw_usage("quantize_rows: {} floats to {} bytes of {} rows of {} {}", values.size(), out.size(),
                    rows, columns, ggml_type_name(type));
    }
    on_threads(rows, threads, [&](int64_t begin, int64_t count) {
        ggml_quantize_chunk(type, values.data() + begin * columns,
                            out.data() + static_cast<size_t>(begin) * row_bytes, 0, count, columns, nullptr);
    });
}

void dequantize_rows(ggml_type type, std::span<const uint8_t> bytes, int64_t rows, int64_t columns,
                     std::span<float> out, int threads) {
    const size_t row_bytes = ggml_row_size(type, columns);
    const ggml_to_float_t to_float = ggml_get_type_traits(type)->to_float;
    if (out.size() != static_cast<size_t>(rows * columns) ||
        bytes.size() != static_cast<size_t>(rows) * row_bytes || columns % ggml_blck_size(type) != 0 ||
        (type != GGML_TYPE_F32 && to_float == nullptr)) {
        throw_usage("dequantize_rows: {} bytes of {} rows of {} {} to {} floats", bytes.size(), rows, columns,
                    ggml_type_name(type), out.size());
    }
    on_threads(rows, threads, [&](int64_t begin, int64_t count) {
        const uint8_t* from = bytes.data() + static_cast<size_t>(begin) * row_bytes;
        float* to = out.data() + begin * columns;
        if (type == GGML_TYPE_F32) {
            std::copy_n(from, static_cast<size_t>(count) * row_bytes, reinterpret_cast<uint8_t*>(to));
        } else {
            to_float(from, to, count * columns);
        }
    });
}

}  // namespace llava_mini
