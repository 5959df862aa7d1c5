// The spine: the path of the data from a picture and a question to the language model's input.
//   encode_image: Image -> PixelValues -> PatchFeatures -> CompressedFeatures -> VisionTokens + K/V (ImageEncoding)
//   fuse_text:    token ids + ImageEncodings -> fused rows
// The language model's input is the fused rows with the vision tokens put in at the placeholder.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/backend.h"
#include "llava_mini/llava_mini.hpp"
#include "llm/token_embeddings.h"
#include "model/stages.h"
#include "model/vision_weights.h"
#include "prefusion/modality_prefusion.h"
#include "vision/clip_vision_encoder.h"
#include "vision/compressor.h"
#include "vision/projector.h"

namespace llava_mini {

ggml_type to_ggml(KvType type);

/// Everything that was computed on the way to an ImageEncoding, for dumps and tests.
struct EncodingTrace {
    PixelValues pixels;
    PatchFeatures features;
    CompressedFeatures compressed;
    Matrix projected_compressed;  // [C*C, d]
    Matrix prefusion_in;          // [vision positions, d]
    Matrix prefusion_out;         // [vision positions, d], of the whole last layer
};

/// The text of one prompt while it is fused with a set of pictures: what is fused already can be continued.
/// For every picture the K/V of the text positions after it.
struct TextFusion {
    std::vector<std::shared_ptr<const PrefusionKv>> kv;  // one a picture; empty before the first run
    int64_t rows = 0;  // fused positions they hold (may hold more: a prefix is used)
};

/// The mean over pictures' fusions of one text, one picture at a time; summed in double.
class FusionMean {
  public:
    void add(const Matrix& fused);
    int64_t count() const { return count_; }
    std::span<const double> sum() const { return sum_; }
    /// Of a single picture its own rows, to the bit.
    Matrix mean() const;

  private:
    int64_t rows_ = 0, cols_ = 0, count_ = 0;
    std::vector<double> sum_;
};

/// The vision side of a model. Thread-safe: every public function takes the lock for as long as it computes.
class Pipeline {
  public:
    Pipeline(const std::filesystem::path& vision_file, const TokenEmbeddings& embeddings,
             const ModelOptions& options);

    const VisionHparams& hparams() const { return weights_->hparams(); }
    const VisionWeights& weights() const { return *weights_; }
    Backends& backends() { return backends_; }

    /// Encodes the views of one picture or video frame. `grid_side`: C, one of the model's (0: its default).
    /// `timings` gets the stages' seconds added; `trace`, if not null, everything (and the last layer is not
    /// trimmed).
    std::shared_ptr<const ImageEncoding> encode_image(const PixelValues& pixels, int grid_side,
                                                      const Hash128& key, Timings& timings,
                                                      EncodingTrace* trace = nullptr);

    /// The same for several pictures or frames, each with the same number of views: one pass of the tower
    /// over all views, everything else one by one. Their keys are zero: frames are not cached.
    std::vector<std::shared_ptr<const ImageEncoding>> encode_frames(std::span<const PixelValues> frames,
                                                                    int grid_side, Timings& timings);

    /// Fuses a run of text with every picture and returns the mean, [N, d] (summed in double, for any number
    /// of pictures). Positions go on where the earlier text of `state` ended; `state` is extended if not
    /// null. To go on without extending anything, `state` is null and `earlier` what is gone on from. Without
    /// pictures, without pre-fusion layers: the plain embeddings.
    Matrix fuse_text(std::span<const int32_t> ids,
                     std::span<const std::shared_ptr<const ImageEncoding>> pictures, TextFusion* state,
                     Timings& timings, const TextFusion* earlier = nullptr);

    /// The same for a whole prompt in which some positions are masked (placeholder, official quirks): these
    /// keep position 1 and are hidden from every key. `per_picture`, if not null, gets every picture's fused
    /// rows.
    Matrix fuse_masked_text(const Matrix& embeddings, std::span<const uint8_t> visible,
                            std::span<const std::shared_ptr<const ImageEncoding>> pictures, Timings& timings,
                            std::vector<Matrix>* per_picture = nullptr);

    ggml_type prefusion_kv_type() const { return kv_type_; }

    Matrix embed(std::span<const int32_t> ids) const { return embeddings_.rows(ids); }

  private:
    std::shared_ptr<const ImageEncoding> encode_features(PatchFeatures features, int grid_side,
                                                         const Hash128& key, Timings& timings,
                                                         EncodingTrace* trace);
    Matrix mean_fusion(const TextRows& text, std::span<const std::shared_ptr<const ImageEncoding>> pictures,
                       TextFusion* state, const TextFusion* earlier, std::vector<Matrix>* per_picture);

    const TokenEmbeddings& embeddings_;
    const ggml_type kv_type_;
    std::mutex mutex_;
    Backends backends_;
    std::unique_ptr<VisionWeights> weights_;
    std::unique_ptr<ClipVisionEncoder> tower_;
    std::unique_ptr<Compressor> compressor_;
    std::unique_ptr<Projector> projector_;
    std::unique_ptr<ModalityPrefusion> prefusion_;
};

}  // namespace llava_mini
