// LLaVA-Mini in C++: questions about pictures with one vision token per picture.
//
//   auto model = llava_mini::Model::load({.model = "models/tiny"});
//   llava_mini::Session session(model);
//   session.add_image(llava_mini::Model::read_picture("photo.jpg"));
//   std::cout << session.ask("What is in this picture?").text << '\n';
//
// Every function throws llava_mini::Error (error.hpp) when it fails. The library prints nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "llava_mini/error.hpp"
#include "llava_mini/video.hpp"

namespace llava_mini {

/// Types in which keys and values are kept.
enum class KvType { kF32, kF16, kQ8_0 };

/// What loading needs to know.
struct ModelOptions {
    /// A folder with language.gguf and vision.gguf, or the language model's file.
    std::filesystem::path model = {};
    /// The vision side's file; empty: vision.gguf beside the language model.
    std::filesystem::path mmproj = {};
    /// An adapter (LoRA, a GGUF as llama.cpp has it) for the language model; empty: none.
    std::filesystem::path lora = {};
    /// Layers of the language model put on a GPU (-1: all, 0: none). Unless 0, the vision side goes there
    /// whole.
    int gpu_layers = 0;
    /// CPU threads for the vision side and the default of sessions; 0: one a core.
    int threads = 0;
    /// Pre-fusion keys and values of pictures and text: f16, q8_0, or f32 (parity checks).
    KvType prefusion_kv = KvType::kF16;
    /// Bound of the cache of picture encodings, shared by all sessions; least recently used goes first.
    uint64_t image_cache_bytes = uint64_t{512} << 20;
    /// Progress of loading: done and total bytes; false stops. May be empty.
    std::function<bool(uint64_t done, uint64_t total, std::string_view label)> progress = {};
};

/// How a picture becomes views.
struct ImageOptions {
    /// "pad" or "square"; empty: as the model's config says.
    std::string aspect_ratio = {};
    /// n of high resolution: n * n blocks and the whole; 0: as the model's config says.
    int resolution_ratio = 0;
    /// Vision tokens a picture, where the model has several compression grids; 0: its default.
    int vision_tokens = 0;
    /// Turn the picture upright as its EXIF orientation says (the official code does not).
    bool obey_exif = true;
    /// Larger pictures are refused before they are decoded (default: Pillow's limit for bombs).
    uint64_t max_pixels = 178'956'970;
};

struct SessionOptions {
    /// Size of the language model's context in tokens; 0: 4096, or less if the model was trained with less
    /// (in the context of its language model, or in prompts: tokenizer_model_max_length of its checkpoint);
    /// with a video as many as it needs, up to what the model was trained with.
    int context = 0;
    /// CPU threads of the language model; 0: the model's.
    int threads = 0;
    /// Type of the language model's KV cache.
    KvType kv_type = KvType::kF16;
    /// Watch which frames of a video an answer attends to (Answer::evidence). The language model then runs
    /// without flash attention, which takes more memory with long videos; the KV cache must not be quantized.
    bool evidence = false;
    /// Of a video: read every question twice. What its rows attended to in the first reading (all layers and
    /// heads of the language model) ranks the frames, and the question is fused again with so many of the
    /// best alone, in full patch detail, and answered from that. 0: no. Frames whose detail was not kept are
    /// decoded and encoded again, so the video must be a file (of an index: unless it has all frames). The
    /// second reading replaces the question's rows and nothing else: the vision tokens of all frames stay in
    /// the KV cache, where they cost nothing and the model has learnt to read past them, while leaving out
    /// those of the other frames would move all positions and compute the rest anew for every question. With
    /// as many frames as there are, the result is that of the plain pass but for rounding. Runs without flash
    /// attention, as `evidence`. No effect on pictures; an error with official_quirks and for models without
    /// pre-fusion.
    int look_again = 0;
    /// Fuse whole conversations anew, answers included, leave token 0 unfused, double the begin-of-text, pad
    /// the views of high resolution one by one: what the released code does. Default: what training saw.
    bool official_quirks = false;
    /// Empty optional: the model's own system prompt; an empty string: none.
    std::optional<std::string> system_prompt = {};
};

struct SamplingOptions {
    int max_tokens = 512;        ///< 0: until the model ends the answer or the context is full
    float temperature = 0.0f;    ///< 0: greedy
    int top_k = 40;              ///< 0: off
    float top_p = 0.95f;         ///< 1: off
    float min_p = 0.05f;         ///< 0: off
    uint32_t seed = 0xFFFFFFFF;  ///< 0xFFFFFFFF: random
    std::string grammar = {};    ///< GBNF text; empty: none
    bool ignore_eos = false;     ///< go on after the end of the answer (measurements)
};

enum class StopReason { kEndOfAnswer, kMaxTokens, kContextFull, kStopped };

/// Seconds of each stage of one answer.
struct Timings {
    double preprocess = 0;    ///< decoding the picture's bytes and making pixel values
    double vision_tower = 0;  ///< CLIP
    double compressor = 0;
    double projector = 0;
    double prefusion_vision = 0;
    double prefusion_text = 0;
    double prefill = 0;     ///< language model over the prompt, to the first logits
    double look_again = 0;  ///< everything of the second reading (SessionOptions::look_again)
    double generation = 0;  ///< tokens after the first
    double time_to_first_token() const {
        return preprocess + vision_tower + compressor + projector + prefusion_vision + prefusion_text +
               prefill + look_again;
    }
};

struct Answer {
    std::string text;
    StopReason stop = StopReason::kEndOfAnswer;
    int prompt_tokens = 0;  ///< text and vision tokens in the context before the answer
    int cached_tokens = 0;  ///< of these, taken over from the KV cache
    int vision_tokens = 0;
    int generated_tokens = 0;
    int pictures_cached = 0;  ///< pictures whose encoding was found in the cache
    Timings timings;
    /// Of the video, if the conversation has one.
    std::optional<VideoReport> video = {};
    /// Its frames, most attended to first, with SessionOptions::evidence.
    std::vector<FrameEvidence> evidence = {};
    /// Those from which it was answered with SessionOptions::look_again, by their share in the first reading.
    std::vector<FrameEvidence> looked_again = {};
};

/// What a watcher hears.
struct WatchEvent {
    enum class Kind { kConnected, kAnswer, kDropping, kLost } kind = Kind::kAnswer;
    double seconds = 0;        ///< since watching began
    std::string message;       ///< kLost: why; what follows is a new try
    double retry_seconds = 0;  ///< kLost: after so long
    Answer answer;             ///< kAnswer
    int64_t frames = 0;        ///< in the window
    int64_t dropped = 0;       ///< so far
};

struct ChatTurn {
    std::string question;
    std::string answer;
};

/// A picture as bytes of a file (any format), not yet decoded.
struct Picture {
    std::string name;            ///< for errors
    std::vector<uint8_t> bytes;  ///< the file's content
};

/// What a model is; all sizes in bytes.
struct ModelInfo {
    std::string name;
    std::string device;
    int context_trained = 0;
    int embedding_width = 0;  ///< d
    int image_size = 0, patches = 0;
    std::vector<int> vision_tokens;  ///< choices, the default first
    std::string image_aspect_ratio;
    int resolution_ratio = 1;
    int prefusion_layers = 0;
    uint64_t vision_bytes = 0, language_bytes = 0;
};

/// A loaded model: weights, tokenizer, the cache of picture encodings. Thread-safe: sessions in several
/// threads may share one; work on the vision side is done one picture at a time, language models run side by
/// side.
class Model {
  public:
    /// Loads both files. Throws Error(kInput) if one is missing, damaged, or they do not belong together.
    static std::shared_ptr<Model> load(const ModelOptions& options);
    ~Model();
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;

    ModelInfo info() const;
    /// Reads a picture's file without decoding it. Throws Error(kInput) unless it is a regular file.
    static Picture read_picture(const std::filesystem::path& path);

    class Impl;
    /// For the parts of this library.
    Impl& impl() const { return *impl_; }

  private:
    explicit Model(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

/// Stores in `index` what depends on the frames of a video alone (docs/index-format.md), so that questions
/// cost their own tokens only. Work that was interrupted, even by kill -9, is gone on with; damaged parts are
/// made again; a video that has grown is continued. `session` gives the system prompt, and for
/// options.language_state the context. Throws Error(kInput) if the video cannot be read, or `index` belongs
/// to another video, model or settings.
IndexResult make_video_index(const std::shared_ptr<Model>& model, const std::filesystem::path& video,
                             const std::filesystem::path& index, const IndexOptions& options = {},
                             const SessionOptions& session = {});

/// A conversation about pictures or a video. Not thread-safe: one thread at a time, except stop().
class Session {
  public:
    explicit Session(std::shared_ptr<Model> model, const SessionOptions& options = {});
    ~Session();
    Session(Session&&) noexcept;
    Session& operator=(Session&&) noexcept;

    /// Adds a picture to the conversation: decodes and encodes it, or takes its encoding from the cache. Its
    /// vision tokens stand, in the order of adding, at the place of `<image>` in the first question (in
    /// front, if that has none); with several pictures the text takes the mean of its fusion with each.
    /// Throws Error(kInput) naming the picture; the conversation stays as it was.
    void add_image(const Picture& picture, const ImageOptions& options = {});

    /// Makes the conversation one about a video: opens it and plans its frames. They are looked at when the
    /// next question is asked. `source`: a file, "-" for standard input, an address (http, rtsp, udp, tcp,
    /// ...) or a camera (v4l2:/dev/video0). A conversation is about pictures or one video. Throws
    /// Error(kInput) naming the source; the conversation stays as it was.
    VideoFacts add_video(const std::string& source, const VideoOptions& options = {});

    /// The same with frames that the program makes. All of them are looked at: of the options, those that
    /// choose frames and decode them have no effect, but for `fps`, which says how far apart they are shown.
    VideoFacts add_video(const GeneratedVideo& video, const VideoOptions& options = {});

    /// Makes the conversation one about a video that make_video_index() has stored; no frame is looked at
    /// again, unless SessionOptions::look_again wants frames that are not fusion frames: these are decoded as
    /// options.hardware and max_pixels say. options.progress is told of them, and of tokens; the rest has no
    /// effect. Throws Error(kInput) if the index is damaged, not complete, or was made with another model, or
    /// the video is needed but no longer there; the conversation stays as it was.
    VideoFacts add_index(const std::filesystem::path& index, const VideoOptions& options = {});

    /// Asks and waits for the whole answer. `on_text` gets every new piece of text (whole UTF-8 characters)
    /// and returns false to stop. Keys and values of the common part of the conversation are kept from turn
    /// to turn. Throws Error(kInput) if the prompt does not fit the context, naming both numbers; the
    /// conversation then stays as it was.
    Answer ask(const std::string& question, const SamplingOptions& sampling = {},
               const std::function<bool(std::string_view)>& on_text = {});

    /// Watches a live source (as add_video) and asks the question again and again, until on_event returns
    /// false or stop() is called. Frames go into the KV cache as they come and leave it when the window has
    /// passed them, so memory stays the same however long it runs. The system prompt is fused with the first
    /// frame, the question with frames of the window. When computing is slower than the source, frames are
    /// dropped evenly. Blocks; the conversation must be empty before and is empty afterwards. Throws
    /// Error(kInput) if the window does not fit the context.
    void watch(const std::string& source, const std::string& question, const WatchOptions& options,
               const SamplingOptions& sampling, const std::function<bool(const WatchEvent&)>& on_event);

    /// Stops a running ask() or watch() from another thread or a signal handler; the answer so far is kept.
    void stop();

    /// Small pictures of these frames with time and share, as a PNG. Throws Error(kUsage) if the video's
    /// thumbnails were not kept (VideoOptions::thumbnails; an index has them).
    std::vector<uint8_t> contact_sheet(std::span<const FrameEvidence> evidence) const;

    /// Forgets the conversation and its pictures.
    void reset();
    /// Forgets questions and answers. Pictures or video stay, with what was computed of them.
    void restart();

    const std::vector<ChatTurn>& turns() const;
    int pictures() const;
    /// Tokens in the context now, and the context's size.
    int context_used() const;
    int context_size() const;

    class Impl;
    Impl& impl() const { return *impl_; }

  private:
    std::unique_ptr<Impl> impl_;
};

}  // namespace llava_mini
