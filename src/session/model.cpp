#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/file.h"
#include "core/stopwatch.h"
#include "media/image_decoder.h"
#include "preprocess/clip_image_processor.h"
#include "session/model_impl.h"

namespace llava_mini {
namespace {

constexpr uint64_t kMaxPictureBytes = uint64_t{1} << 30;

// Everything that shapes an encoding, besides the model itself, in one key.
Hash128 encoding_key(const Picture& picture, const ImageOptions& options, int grid_side, bool pad_each_view) {
    const std::string settings = fmt::format("{}/{}/{}/{}/{}", options.aspect_ratio, options.resolution_ratio,
                                             grid_side, options.obey_exif, pad_each_view);
    const Hash128 seed = hash_bytes({reinterpret_cast<const uint8_t*>(settings.data()), settings.size()});
    return hash_bytes(picture.bytes, seed.low);
}

}  // namespace

std::pair<std::filesystem::path, std::filesystem::path> model_files(const ModelOptions& options) {
    std::filesystem::path language = options.model, vision = options.mmproj;
    if (std::filesystem::is_directory(language)) language /= "language.gguf";
    if (vision.empty()) vision = language.parent_path() / "vision.gguf";
    for (const auto& file : {language, vision}) {
        if (!std::filesystem::exists(file)) {
            throw_input(
                "{}: no such file; a model is a folder with language.gguf and vision.gguf (make one with "
                "`llava-mini convert`)",
                file.string());
        }
    }
    return {language, vision};
}

Model::Impl::Impl(const ModelOptions& options)
    : files(model_files(options)),
      lora(options.lora),
      language(std::make_shared<LanguageModel>(
          files.first, LanguageModelOptions{.n_gpu_layers = options.gpu_layers, .lora = options.lora},
          options.progress)),
      embeddings(files.first),
      chat_template(*language),
      pipeline(files.second, embeddings, options),
      image_cache(options.image_cache_bytes),
      threads(pipeline.backends().threads()),
      parity(options.prefusion_kv == KvType::kF32) {}

Hash128 Model::Impl::fingerprint() const {
    constexpr uint64_t kPlaces = 64, kPart = 64 << 10;
    Hash128 hash;
    for (const auto& path : {files.first, files.second, lora}) {
        if (path.empty()) continue;
        const RandomAccessFile file(path);
        std::vector<uint8_t> part(std::min(kPart, file.size()));
        const std::string size = std::to_string(file.size());
        hash = hash_bytes({reinterpret_cast<const uint8_t*>(size.data()), size.size()}, hash.low);
        for (uint64_t i = 0; i < kPlaces; ++i) {
            file.read((file.size() - part.size()) * i / (kPlaces - 1), part);
            hash = hash_bytes(part, hash.low);
        }
    }
    return hash;
}

int Model::Impl::grid_side(int vision_tokens) const {
    const VisionHparams& hp = pipeline.hparams();
    if (vision_tokens == 0) return hp.compressor_grids.empty() ? 0 : hp.compressor_grids.front();
    std::vector<int> offered;
    for (const int side : hp.compressor_grids) {
        if (side * side == vision_tokens) return side;
        offered.push_back(side * side);
    }
    if (offered.empty()) offered.push_back(hp.patches());
    if (hp.compressor_grids.empty() && vision_tokens == hp.patches()) return 0;
    throw_usage("{} vision tokens a picture: the model offers {}", vision_tokens, fmt::join(offered, ", "));
}

std::shared_ptr<const ImageEncoding> Model::Impl::encode(const Picture& picture, const ImageOptions& options,
                                                         bool pad_each_view, Timings& timings, bool& cached) {
    const int side = grid_side(options.vision_tokens);
    const Hash128 key = encoding_key(picture, options, side, pad_each_view);
    auto encoding = image_cache.find(key);
    cached = encoding != nullptr;
    if (cached) return encoding;

    PixelValues pixels;
    {
        const Stopwatch watch(timings.preprocess);
        const Image image = decode_image(picture.bytes, {.obey_exif = options.obey_exif,
                                                         .max_pixels = options.max_pixels,
                                                         .max_bytes = kMaxPictureBytes,
                                                         .name = picture.name});
        pixels = preprocess_image(image, pipeline.hparams(),
                                  {.image_aspect_ratio = options.aspect_ratio,
                                   .resolution_ratio = options.resolution_ratio,
                                   .pad_each_view = pad_each_view});
    }
    encoding = pipeline.encode_image(pixels, side, key, timings);
    image_cache.insert(encoding);
    return encoding;
}

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

std::shared_ptr<Model> Model::load(const ModelOptions& options) {
    return std::shared_ptr<Model>(new Model(std::make_unique<Impl>(options)));
}

ModelInfo Model::info() const {
    const VisionHparams& hp = impl_->pipeline.hparams();
    ModelInfo info;
    info.name = hp.name;
    info.device = impl_->pipeline.backends().device_name();
    info.context_trained = impl_->language->hparams().n_ctx_train;
    info.embedding_width = impl_->language->n_embd();
    info.image_size = hp.image_size;
    info.patches = hp.patches();
    for (const int side : hp.compressor_grids) info.vision_tokens.push_back(side * side);
    if (info.vision_tokens.empty()) info.vision_tokens.push_back(hp.patches());
    info.image_aspect_ratio = hp.image_aspect_ratio;
    info.resolution_ratio = hp.resolution_ratio;
    info.prefusion_layers = hp.prefusion.n_layer;
    info.vision_bytes = impl_->pipeline.weights().bytes();
    info.language_bytes = impl_->language->weight_bytes();
    return info;
}

Picture Model::read_picture(const std::filesystem::path& path) {
    return {path.string(), read_file(path, kMaxPictureBytes)};
}

}  // namespace llava_mini
