// What a Session is made of.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "llm/language_context.h"
#include "llm/position_attention.h"
#include "llm/prompt.h"
#include "llm/sampler.h"
#include "session/model_impl.h"
#include "video/video_pass.h"

namespace llava_mini {

class Session::Impl {
  public:
    Impl(std::shared_ptr<Model> owner, const SessionOptions& session_options)
        : model(std::move(owner)),
          options(session_options),
          context(std::make_unique<LanguageContext>(model->impl().language, context_options())) {
        reset();
    }

    /// A video by its name, or one whose frames the program makes.
    using VideoOrigin = std::variant<std::string, GeneratedVideo>;
    VideoFacts add_video(const VideoOrigin& origin, const VideoOptions& video_options);
    VideoFacts add_index(const std::filesystem::path& index, const VideoOptions& video_options,
                         bool allow_unfinished);
    std::vector<int32_t> fused_head() const;
    std::vector<uint8_t> state_of_frames();
    void add_image(const Picture& picture, const ImageOptions& image_options);
    void watch(const std::string& source, const std::string& question, const WatchOptions& watch_options,
               const SamplingOptions& sampling, const std::function<bool(const WatchEvent&)>& on_event);
    Answer ask(const std::string& question, const SamplingOptions& sampling,
               const std::function<bool(std::string_view)>& on_text);
    std::vector<uint8_t> contact_sheet(std::span<const FrameEvidence> evidence) const;
    void reset();
    void restart();

    const std::shared_ptr<Model> model;
    const SessionOptions options;
    std::atomic<bool> stop = false;
    PositionAttention attention;  // before the context, which calls it
    std::unique_ptr<LanguageContext> context;

    std::vector<ChatTurn> turns;
    std::vector<std::shared_ptr<const ImageEncoding>> pictures;

  private:
    LanguageContextOptions context_options();
    std::vector<FrameEvidence> evidence_of(const std::vector<PromptToken>& prompt) const;
    int trained_limit() const;
    Pipeline& pipeline() const { return model->impl().pipeline; }
    int vision_tokens() const;
    std::vector<Turn> with_question(const std::string& question) const;
    Matrix fused_rows(const std::vector<PromptToken>& prompt, size_t kept, Timings& timings);
    bool decode_prompt(const std::vector<PromptToken>& prompt, size_t begin, size_t end, const Matrix& fused);
    bool look_again(const std::vector<PromptToken>& prompt, size_t question, Answer& answer);
    void forget_computed();
    const std::vector<std::shared_ptr<const ImageEncoding>>& fused_with() const {
        return video_ ? video_->fusion_frames : pictures;
    }
    bool has_vision() const { return !pictures.empty() || source_ != nullptr || video_; }
    void look_at_video(const std::vector<PromptToken>& prompt, const SamplingOptions& sampling,
                       Answer& answer);
    void make_room(int64_t rows, const SamplingOptions& sampling);
    void restore_state(const std::vector<PromptToken>& prompt);
    size_t fused_before(const std::vector<PromptToken>& prompt, size_t count) const;
    int rows_of(const std::vector<PromptToken>& prompt, size_t count) const;
    void check_length(int prompt_rows) const;
    void prefill(const std::vector<PromptToken>& prompt, Answer& answer);
    std::vector<int32_t> generate(const SamplingOptions& sampling, Sampler& sampler,
                                  const std::function<bool(std::string_view)>& on_text, Answer& answer);

    std::vector<Turn> conversation_;     // system prompt, questions, answers
    std::vector<PromptToken> in_cache_;  // the tokens whose rows the KV cache holds, in order
    TextFusion fusion_;                  // of the fused ones among them
    Timings picture_timings_;            // of pictures added since the last answer
    int pictures_cached_ = 0;

    // A video: where its frames come from; what was seen of it.
    struct Source {
        VideoOrigin origin;
        VideoOptions options;
        int grid_side = 0;
        std::unique_ptr<FrameEncoder> encoder = {};  // null: to be opened (again)
    };
    /// All its frames, or those of these numbers, which video_ has seen.
    std::unique_ptr<FrameEncoder> open_frames(const Source& source, const std::vector<int64_t>& numbers = {});
    std::unique_ptr<Source> source_;
    std::optional<SeenVideo> video_;
};

}  // namespace llava_mini
