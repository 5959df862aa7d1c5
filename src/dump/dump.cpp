#include "dump/dump.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <span>
#include <string_view>

#include "core/error.h"
#include "core/npy.h"
#include "llm/language_context.h"
#include "llm/prompt.h"
#include "media/image_decoder.h"
#include "preprocess/clip_image_processor.h"
#include "session/model_impl.h"

namespace llava_mini {
namespace {

constexpr int kMaxFrameSide = 32768;

class StageDump {
  public:
    StageDump(const Model& model, const DumpOptions& options)
        : model_(model.impl()), options_(options), hp_(model_.pipeline.hparams()) {}

    std::vector<DumpArray> run() {
        read_ids();
        encode_frames();
        fuse_text();
        run_language_model();
        return std::move(arrays_);
    }

  private:
    void read_ids();
    std::vector<PixelValues> frame_pixels() const;
    void encode_frames();
    void add_frame_arrays();
    void fuse_text();
    void add_prefusion_arrays(const Matrix& embeddings, const std::vector<uint8_t>& visible,
                              const std::vector<Matrix>& fused);
    Matrix inputs_embeds() const;
    void run_language_model();

    PreprocessOptions preprocess_options() const {
        return {.image_aspect_ratio = options_.image_options.aspect_ratio,
                .resolution_ratio = options_.image_options.resolution_ratio,
                .pad_each_view = options_.official_quirks,
                .official_frame_size = options_.official_quirks};
    }
    bool several_frames() const { return encodings_.size() > 1; }
    bool masked(int32_t id) const { return id == kImageToken || (options_.official_quirks && id <= 0); }

    void add(std::string name, std::vector<int64_t> shape, std::vector<float> values) {
        arrays_.push_back({std::move(name), std::move(shape), std::move(values)});
    }
    void add(std::string name, const Matrix& matrix) {
        add(std::move(name), {matrix.rows, matrix.cols}, matrix.data);
    }
    void add(std::string name, std::vector<int64_t> values) {
        const auto size = static_cast<int64_t>(values.size());
        arrays_.push_back({std::move(name), {size}, std::move(values)});
    }
    // The same matrix of every frame, one behind the other: [frames, rows, cols].
    void add_frames(const char* name, const std::function<const Matrix&(const EncodingTrace&)>& of) {
        std::vector<float> values;
        for (const EncodingTrace& trace : traces_) {
            values.insert(values.end(), of(trace).data.begin(), of(trace).data.end());
        }
        const Matrix& first = of(traces_.front());
        add(name, {static_cast<int64_t>(traces_.size()), first.rows, first.cols}, std::move(values));
    }
    std::string frame_name(const char* name, size_t frame) const {
        return several_frames() ? fmt::format("{}_frame{}", name, frame) : name;
    }

    Model::Impl& model_;
    const DumpOptions& options_;
    const VisionHparams& hp_;
    std::vector<int32_t> ids_;
    std::vector<EncodingTrace> traces_;  // one a frame
    std::vector<std::shared_ptr<const ImageEncoding>> encodings_;
    Matrix fused_text_;
    std::vector<DumpArray> arrays_;
};

void StageDump::read_ids() {
    if (options_.prompt.has_value() != options_.ids.empty())
        throw_usage("dump needs either a prompt or token ids");
    if (options_.ids.empty()) {
        for (const PromptToken& token : tokenize_prompt(*model_.language, *options_.prompt))
            ids_.push_back(token.id);
    } else {
        const NpyArray array = read_npy(options_.ids);
        const bool integers = array.dtype == "<i4" || array.dtype == "<i8";
        if (!integers || array.shape.size() != 1 || array.size() == 0) {
            throw_input("{}: expected token ids, int32 or int64 [N], found {} [{}]", options_.ids.string(),
                        array.dtype, fmt::join(array.shape, ", "));
        }
        for (const int64_t id : array.as_int64()) {
            if (id != kImageToken && (id < 0 || id >= model_.language->n_vocab())) {
                throw_input("{}: {} is no token of this model (0 to {}, {} for the placeholder)",
                            options_.ids.string(), id, model_.language->n_vocab() - 1, kImageToken);
            }
            ids_.push_back(static_cast<int32_t>(id));
        }
    }
    const auto placeholders = std::count(ids_.begin(), ids_.end(), kImageToken);
    if (placeholders > 1)
        throw_input("the prompt has {} image placeholders, at most one is possible", placeholders);
    const bool has_picture = !options_.image.empty() || !options_.frames.empty();
    if (placeholders == 1 && !has_picture)
        throw_input("the prompt has an image placeholder but there is no picture");
    add("input_ids", {ids_.begin(), ids_.end()});
}

// Views of the picture, or of every video frame.
std::vector<PixelValues> StageDump::frame_pixels() const {
    std::vector<PixelValues> frames;
    if (!options_.image.empty()) {
        const Image image = load_image(options_.image, {.obey_exif = options_.image_options.obey_exif,
                                                        .max_pixels = options_.image_options.max_pixels});
        frames.push_back(preprocess_image(image, hp_, preprocess_options()));
    }
    if (!options_.frames.empty()) {
        const NpyArray array = read_npy(options_.frames);
        const std::vector<int64_t>& shape = array.shape;
        if (array.dtype != "|u1" || shape.size() != 4 || shape[0] < 1 || shape[1] < 1 || shape[2] < 1 ||
            std::max(shape[1], shape[2]) > kMaxFrameSide || shape[3] != 3) {
            throw_input("{}: expected uint8 [frames, height, width, 3], found {} [{}]",
                        options_.frames.string(), array.dtype, fmt::join(shape, ", "));
        }
        const auto bytes = static_cast<ptrdiff_t>(shape[1] * shape[2] * shape[3]);
        for (auto from = array.bytes.begin(); from != array.bytes.end(); from += bytes) {
            const Image frame{static_cast<int>(shape[2]), static_cast<int>(shape[1]), {from, from + bytes}};
            frames.push_back(preprocess_frame(frame, hp_, preprocess_options()));
        }
    }
    return frames;
}

void StageDump::encode_frames() {
    if (!options_.image.empty() && !options_.frames.empty()) {
        throw_usage("dump takes a picture or video frames, not both");
    }
    Timings unused;
    for (const PixelValues& pixels : frame_pixels()) {
        const int grid_side = model_.grid_side(options_.image_options.vision_tokens);
        encodings_.push_back(
            model_.pipeline.encode_image(pixels, grid_side, /*key=*/{}, unused, &traces_.emplace_back()));
    }
    if (!encodings_.empty()) add_frame_arrays();
}

void StageDump::add_frame_arrays() {
    std::vector<float> pixels, features, vision_tokens;
    for (size_t i = 0; i < traces_.size(); ++i) {
        const EncodingTrace& trace = traces_[i];
        pixels.insert(pixels.end(), trace.pixels.data.begin(), trace.pixels.data.end());
        const size_t before = features.size();
        for (const Matrix& view : trace.features.views) {
            features.insert(features.end(), view.data.begin(), view.data.end());
        }
        if (several_frames()) {
            add(frame_name("vision_features", i), {trace.pixels.views, hp_.patches(), hp_.n_embd},
                {features.begin() + static_cast<ptrdiff_t>(before), features.end()});
        }
        const std::vector<float>& tokens = encodings_[i]->vision_tokens.data;
        vision_tokens.insert(vision_tokens.end(), tokens.begin(), tokens.end());
    }
    const auto frames = static_cast<int64_t>(traces_.size());
    const int64_t views = frames * traces_[0].pixels.views, size = traces_[0].pixels.size;
    add("pixel_values", {views, 3, size, size}, std::move(pixels));
    add("vision_features", {views, hp_.patches(), hp_.n_embd}, std::move(features));
    if (!hp_.compressor_grids.empty()) {
        add_frames("compressor_out",
                   [](const EncodingTrace& t) -> const Matrix& { return t.compressed.tokens; });
        add_frames("compressor_attn",
                   [](const EncodingTrace& t) -> const Matrix& { return t.compressed.attention; });
        add_frames("projected_compressed",
                   [](const EncodingTrace& t) -> const Matrix& { return t.projected_compressed; });
    }
    const Matrix& first = encodings_[0]->vision_tokens;
    add("vision_tokens", {frames * first.rows, first.cols}, std::move(vision_tokens));
}

void StageDump::fuse_text() {
    std::vector<int32_t> embedded;
    std::vector<uint8_t> visible;
    for (const int32_t id : ids_) {
        embedded.push_back(std::max(id, 0));
        visible.push_back(masked(id) ? 0 : 1);
    }
    const Matrix embeddings = model_.pipeline.embed(embedded);
    Timings unused;
    std::vector<Matrix> per_picture;
    fused_text_ = model_.pipeline.fuse_masked_text(embeddings, visible, encodings_, unused, &per_picture);
    if (!per_picture.empty()) add_prefusion_arrays(embeddings, visible, per_picture);
    for (int64_t i = 0; i < fused_text_.rows; ++i) {
        if (visible[static_cast<size_t>(i)] == 0)
            std::ranges::copy(embeddings.row(i), fused_text_.row(i).begin());
    }
    if (!encodings_.empty()) add("fused_text", fused_text_);
}

void StageDump::add_prefusion_arrays(const Matrix& embeddings, const std::vector<uint8_t>& visible,
                                     const std::vector<Matrix>& fused) {
    const auto stacked = [](const Matrix& vision, const Matrix& text) {
        Matrix all = vision;
        all.rows += text.rows;
        all.data.insert(all.data.end(), text.data.begin(), text.data.end());
        return all;
    };
    for (size_t i = 0; i < traces_.size(); ++i) {
        add(frame_name("prefusion_in", i), stacked(traces_[i].prefusion_in, embeddings));
        add(frame_name("prefusion_out", i), stacked(traces_[i].prefusion_out, fused[i]));
    }
    // Only visible positions count; a masked one has position 1, as in the official code.
    const auto vision_positions = static_cast<size_t>(traces_[0].prefusion_in.rows);
    std::vector<int64_t> positions(vision_positions), seen(vision_positions, 1);
    std::iota(positions.begin(), positions.end(), 0);
    int64_t next = traces_[0].prefusion_in.rows;
    for (const uint8_t is_visible : visible) {
        positions.push_back(is_visible != 0 ? next++ : 1);
        seen.push_back(is_visible);
    }
    add("prefusion_positions", std::move(positions));
    add("prefusion_visible", std::move(seen));
}

// The fused text with the vision tokens of all frames in the placeholder's place.
Matrix StageDump::inputs_embeds() const {
    Matrix rows;
    rows.cols = fused_text_.cols;
    const auto append = [&rows](std::span<const float> values) {
        rows.data.insert(rows.data.end(), values.begin(), values.end());
    };
    for (size_t i = 0; i < ids_.size(); ++i) {
        if (ids_[i] != kImageToken) {
            append(fused_text_.row(static_cast<int64_t>(i)));
            continue;
        }
        for (const auto& encoding : encodings_) append(encoding->vision_tokens.data);
    }
    rows.rows = static_cast<int64_t>(rows.data.size()) / rows.cols;
    return rows;
}

void StageDump::run_language_model() {
    const Matrix inputs = inputs_embeds();
    if (inputs.rows == 0) throw_input("the prompt has no token");
    if (hp_.max_prompt_tokens > 0 && inputs.rows > hp_.max_prompt_tokens) {
        throw_input("the prompt has {} tokens (pictures included), the model was trained for at most {}",
                    inputs.rows, hp_.max_prompt_tokens);
    }
    add("inputs_embeds", inputs);

    LanguageContext context(model_.language,
                            {.n_ctx = static_cast<int>(inputs.rows) + std::max(options_.greedy, 0),
                             .threads = options_.threads > 0 ? options_.threads : model_.threads,
                             .kv_type = GGML_TYPE_F32,
                             .flash_attention = FlashAttention::kOff,
                             .tap = {}});
    context.decode_embeddings(inputs.data.data(), static_cast<int>(inputs.rows), /*want_logits=*/true);
    add("logits_last", {model_.language->n_vocab()}, {context.logits().begin(), context.logits().end()});

    std::vector<int64_t> greedy_ids;
    std::vector<float> greedy_logits;
    for (int i = 0; i < options_.greedy; ++i) {
        if (i > 0) context.decode_tokens({{static_cast<int32_t>(greedy_ids.back())}}, /*want_logits=*/true);
        const std::span<const float> logits = context.logits();
        greedy_ids.push_back(std::ranges::max_element(logits) - logits.begin());
        greedy_logits.insert(greedy_logits.end(), logits.begin(), logits.end());
    }
    if (options_.greedy > 0) {
        add("greedy_ids", std::move(greedy_ids));
        add("greedy_logits", {options_.greedy, model_.language->n_vocab()}, std::move(greedy_logits));
    }
}

// Every name that a dump may write, without .npy and without the frame.
constexpr std::array<std::string_view, 16> kArrayNames = {
    "input_ids",           "pixel_values",         "vision_features", "compressor_out",
    "compressor_attn",     "projected_compressed", "prefusion_in",    "prefusion_out",
    "prefusion_positions", "prefusion_visible",    "vision_tokens",   "fused_text",
    "inputs_embeds",       "logits_last",          "greedy_ids",      "greedy_logits"};

// Stages that the next dump does not have must not be taken for its own.
void remove_earlier_dump(const std::filesystem::path& folder) {
    std::error_code error;
    std::vector<std::filesystem::path> earlier;
    for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
        const std::string stem = entry.path().stem().string();
        const std::string name = stem.substr(0, stem.find("_frame"));
        if (entry.path().extension() == ".npy" && std::ranges::count(kArrayNames, name) > 0) {
            earlier.push_back(entry.path());
        }
    }
    for (const auto& file : earlier) std::filesystem::remove(file, error);
}

}  // namespace

std::vector<DumpArray> dump_stages(const Model& model, const DumpOptions& options) {
    return StageDump(model, options).run();
}

void write_dump(const std::vector<DumpArray>& arrays, const std::filesystem::path& folder) {
    remove_earlier_dump(folder);
    for (const DumpArray& array : arrays) {
        const std::filesystem::path file = folder / (array.name + ".npy");
        std::visit([&](const auto& values) { write_npy(file, array.shape, std::span(values)); },
                   array.values);
    }
}

}  // namespace llava_mini
