#include "eval/runner.h"

#include <algorithm>
#include <atomic>
#include <fstream>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "core/error.h"
#include "core/file.h"
#include "core/hash.h"
#include "media/picture_writer.h"

namespace llava_mini::eval {
namespace {

// Who answers, for FILE.partial: the model, and whatever else answers depend on where it is not as usual.
std::string asker(const RunOptions& options) {
    std::string text = options.model_id;
    if (!options.settings.empty()) text += ", " + options.settings;
    // Long texts by a hash: messages show names, not them.
    const auto hash = [](const std::string& long_text) {
        return hash_bytes({reinterpret_cast<const uint8_t*>(long_text.data()), long_text.size()})
            .hex()
            .substr(0, 8);
    };
    const auto add = [&](const auto& value, const auto& usual, const char* what) {
        if (value != usual) text += fmt::format(", {} {}", what, value);
    };
    const ImageOptions image;
    add(options.image.aspect_ratio, image.aspect_ratio, "aspect ratio");
    add(options.image.resolution_ratio, image.resolution_ratio, "resolution ratio");
    add(options.image.vision_tokens, image.vision_tokens, "vision tokens");
    add(options.fusion_frames, 0, "fusion frames");
    const SessionOptions session;
    add(static_cast<int>(options.session.kv_type), static_cast<int>(session.kv_type), "KV type");
    add(options.session.look_again, session.look_again, "look again");
    add(options.session.official_quirks, session.official_quirks, "official quirks");
    if (options.session.system_prompt) text += ", system prompt " + hash(*options.session.system_prompt);
    const SamplingOptions sampling = RunOptions{}.sampling;
    add(options.sampling.max_tokens, sampling.max_tokens, "tokens at most");
    if (!options.sampling.grammar.empty()) text += ", grammar " + hash(options.sampling.grammar);
    if (options.sampling.temperature > 0) {
        add(options.sampling.temperature, 0.0f, "temperature");
        add(options.sampling.top_k, sampling.top_k, "top k");
        add(options.sampling.top_p, sampling.top_p, "top p");
        add(options.sampling.min_p, sampling.min_p, "min p");
        add(options.sampling.seed, sampling.seed, "seed");
    }
    return text;
}

// What several threads share: which sample comes next, what was answered, what went wrong first.
class Run {
  public:
    Run(const std::shared_ptr<Model>& model, const Items& items, const RunOptions& options)
        : model_(model), items_(items), options_(options), asker_(asker(options)), partial_(options.out) {
        if (options_.out.empty()) return;
        partial_ += ".partial";
        take_up();
        log_.open(partial_, std::ios::binary | std::ios::app);
        if (!log_) throw_system("{}: cannot be written", partial_.string());
    }

    std::vector<Prediction> all() {
        answers_.resize(options_.samples);
        std::vector<std::thread> threads;
        threads.reserve(static_cast<size_t>(options_.jobs));
        for (int i = 0; i < options_.jobs; ++i) threads.emplace_back([this] { work(); });
        for (std::thread& thread : threads) thread.join();
        if (failure_) std::rethrow_exception(failure_);
        std::vector<Prediction> predictions;
        for (std::vector<Prediction>& answers : answers_) {
            std::move(answers.begin(), answers.end(), std::back_inserter(predictions));
        }
        if (!options_.out.empty()) finish(predictions);
        return predictions;
    }

  private:
    // Answers of an earlier run that did not end.
    void take_up() {
        std::error_code error;
        if (!std::filesystem::exists(partial_, error)) return;
        std::vector<Prediction> known = read_predictions(partial_, asker_);
        AtomicFile whole(partial_);  // without a line that was cut off
        for (Prediction& prediction : known) {
            whole.write(to_line(prediction, asker_));
            known_[prediction.question_id] = std::move(prediction);
        }
        whole.commit();
    }

    void finish(const std::vector<Prediction>& predictions) {
        AtomicFile file(options_.out);
        for (const Prediction& prediction : predictions) file.write(to_line(prediction, options_.model_id));
        file.commit();
        log_.close();
        std::error_code ignored;
        std::filesystem::remove(partial_, ignored);
    }

    void work() {
        try {
            std::unique_ptr<Session> session;
            while (!stop_) {
                const uint64_t i = next_++;
                if (i >= options_.samples) break;
                const Item item = items_(options_.first + i);
                const std::vector<std::string> known = known_answers(item);
                bool shown = false;  // the item, to the session
                for (size_t turn = 0; turn < item.turns.size() && !stop_; ++turn) {
                    Prediction prediction{fmt::format("{}/{}", item.id, turn),
                                          item.turns[turn].question,
                                          {},
                                          item.turns[turn].answer,
                                          item.turns[turn].type};
                    if (turn < known.size()) {
                        prediction.text = known[turn];
                    } else {
                        if (!session) session = std::make_unique<Session>(model_, options_.session);
                        if (!shown) show(*session, item);
                        shown = true;
                        session->restart();
                        prediction.text = session->ask(prediction.prompt, options_.sampling).text;
                    }
                    keep(i, std::move(prediction), turn < known.size(), item.turns.size());
                }
            }
        } catch (...) {
            const std::lock_guard lock(mutex_);
            if (!failure_) failure_ = std::current_exception();
            stop_ = true;
        }
    }

    // What is answered of an item already: its first turns, as they are asked in order. Only the same question has
    // the same answer; and where the first one is fused in another way than the others, all are asked anew or none.
    std::vector<std::string> known_answers(const Item& item) const {
        std::vector<std::string> answers;
        for (size_t turn = 0; turn < item.turns.size(); ++turn) {
            const auto it = known_.find(fmt::format("{}/{}", item.id, turn));
            if (it == known_.end() || it->second.prompt != item.turns[turn].question ||
                it->second.answer != item.turns[turn].answer) {
                break;
            }
            answers.push_back(it->second.text);
        }
        const bool apart = item.frames > 1 && options_.fusion_frames > 0;
        if (apart && answers.size() < item.turns.size()) answers.clear();
        return answers;
    }

    void show(Session& session, const Item& item) {
        session.reset();
        if (item.frames == 1) session.add_image({item.id, encode_png(item.frame(0))}, options_.image);
        if (item.frames <= 1) return;
        VideoOptions video{.resolution_ratio = options_.image.resolution_ratio,
                           .vision_tokens = options_.image.vision_tokens};
        // All frames of a clip stay if their K/V, at most this large, fit; else every question reads it again.
        constexpr int64_t kMostKept = int64_t{1} << 30, kTextPositions = 128;
        const ModelInfo info = model_->info();
        const int64_t frame_bytes = int64_t{2} * 4 * info.prefusion_layers * info.embedding_width *
                                    (info.patches + info.vision_tokens.front() + kTextPositions);
        if (options_.fusion_frames > 0) {
            video.fusion_frames = static_cast<int>(std::min<int64_t>(options_.fusion_frames, item.frames));
        } else if (item.frames * frame_bytes <= kMostKept / options_.jobs) {
            video.fusion_frames = static_cast<int>(item.frames);
        }
        video.progress = [this](uint64_t, uint64_t, std::string_view) { return !stop_; };
        session.add_video({item.id, item.frames, item.frame}, video);
    }

    void keep(uint64_t sample, Prediction prediction, bool known, size_t turns) {
        const std::lock_guard lock(mutex_);
        if (log_.is_open() && !known) {
            log_ << to_line(prediction, asker_) << std::flush;
            if (!log_) throw_system("{}: cannot be written", partial_.string());
        }
        answers_[sample].push_back(std::move(prediction));
        ++questions_;
        if (answers_[sample].size() < turns) return;
        ++done_;
        if (options_.progress && !options_.progress(done_, options_.samples, "samples")) {
            throw_input("interrupted after {} questions", questions_);
        }
    }

    const std::shared_ptr<Model>& model_;
    const Items& items_;
    const RunOptions& options_;
    const std::string asker_;
    std::filesystem::path partial_;
    std::ofstream log_;
    std::unordered_map<std::string, Prediction> known_;
    std::atomic<uint64_t> next_ = 0;
    std::atomic<bool> stop_ = false;
    std::mutex mutex_;  // of what follows
    std::vector<std::vector<Prediction>> answers_;
    uint64_t questions_ = 0, done_ = 0;
    std::exception_ptr failure_;
};

}  // namespace

std::vector<Prediction> run(const std::shared_ptr<Model>& model, const Items& items,
                            const RunOptions& options) {
    if (options.jobs < 1 || options.jobs > 1024)
        throw_usage("jobs: expected 1 to 1024, found {}", options.jobs);
    return Run(model, items, options).all();
}

std::vector<Prediction> run(const std::shared_ptr<Model>& model, const SampleSource& source,
                            const RunOptions& options) {
    if (options.samples == 0 || options.first >= source.size() ||
        options.samples > source.size() - options.first) {
        throw_usage("samples {} to {}: there are {}", options.first, options.first + options.samples,
                    source.size());
    }
    const Items items = [&source](uint64_t number) {
        auto sample = std::make_shared<const Sample>(source.sample(number));
        return Item{sample->id, sample->turns, static_cast<int64_t>(sample->frames.size()),
                    [sample](int64_t frame) { return sample->frames[static_cast<size_t>(frame)]; }};
    };
    return run(model, items, options);
}

}  // namespace llava_mini::eval
