#include "trainer/examples.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "core/error.h"
#include "core/hash.h"
#include "preprocess/clip_image_processor.h"
#include "trainer/random.h"

namespace llava_mini::trainer {
namespace {

// Least share of a patch that a mark must cover to be its target.
constexpr float kLeastOverlap = 0.2f;

constexpr std::array<const char*, 4> kMarkNames = {"name", "colour", "letter", "place"};

// From pixels of a frame to pixels of the view the tower sees: x * scale + shift, as preprocess_image does.
struct ViewMap {
    float scale_x, scale_y, shift_x, shift_y;
};

ViewMap view_map(const Image& frame, const VisionHparams& vision, bool video) {
    const auto size = static_cast<float>(vision.image_size), w = static_cast<float>(frame.width),
               h = static_cast<float>(frame.height);
    if (video) return {size / w, size / h, 0, 0};
    const bool pad = vision.image_aspect_ratio == "pad";
    const float scale = size / (pad ? std::max(w, h) : std::min(w, h));
    return {scale, scale, (size - w * scale) / 2, (size - h * scale) / 2};
}

// One to three gaps before frames of a clip, their sum up to `span` positions, even by its logarithm.
std::vector<int64_t> draw_gaps(size_t frames, int64_t span, uint64_t key) {
    constexpr uint64_t kMostGaps = 3;
    if (span <= static_cast<int64_t>(frames)) return {};
    std::vector<int64_t> gaps(frames);
    const double sum =
        std::pow(static_cast<double>(span) - static_cast<double>(frames), unit(key_of(key, 1, 0)));
    const uint64_t number = 1 + key_of(key, 2, 0) % kMostGaps;
    for (uint64_t i = 0; i < number; ++i) {
        gaps[key_of(key, 3, i) % frames] += static_cast<int64_t>(sum / static_cast<double>(number));
    }
    return gaps;
}

// A thing by its marks: colour is that of the mark with the same box.
struct Seen {
    std::string name, colour;
    float x, y;  // centre, in pixels
};

std::vector<Seen> things_seen(const std::vector<Mark>& marks) {
    std::vector<Seen> things;
    for (const Mark& mark : marks) {
        if (mark.kind != Mark::Kind::kName) continue;
        const auto colour = std::find_if(marks.begin(), marks.end(), [&](const Mark& other) {
            return other.kind == Mark::Kind::kColour && other.x0 == mark.x0 && other.y0 == mark.y0 &&
                   other.x1 == mark.x1 && other.y1 == mark.y1;
        });
        things.push_back({mark.word, colour == marks.end() ? "" : colour->word, (mark.x0 + mark.x1) / 2,
                          (mark.y0 + mark.y1) / 2});
    }
    return things;
}

// Whether a thing's middle lies in the place.
bool holds_a_thing(const Mark& place, const std::vector<Mark>& marks) {
    return std::any_of(marks.begin(), marks.end(), [&](const Mark& thing) {
        const float x = (thing.x0 + thing.x1) / 2, y = (thing.y0 + thing.y1) / 2;
        return thing.kind == Mark::Kind::kName && x >= place.x0 && x < place.x1 && y >= place.y0 &&
               y < place.y1;
    });
}

// Of a shift in pixels between two frames, nullptr for one that noise may have made.
const char* direction_of(float x, float y) {
    constexpr float kLeast = 1.5f;
    if (std::max(std::abs(x), std::abs(y)) < kLeast) return nullptr;
    if (std::abs(x) > std::abs(y)) return x < 0 ? "left" : "right";
    return y < 0 ? "up" : "down";
}

// The first of every frame that differs from all before it. `shown`: which of these is each frame; left empty
// if no frame is there twice.
std::vector<size_t> different_frames(const std::vector<Image>& frames, std::vector<int>& shown) {
    std::vector<size_t> different;
    std::multimap<uint64_t, int> by_hash;
    for (size_t i = 0; i < frames.size(); ++i) {
        const uint64_t hash = hash_bytes(frames[i].rgb).low;
        const auto [first, last] = by_hash.equal_range(hash);
        const auto same = std::find_if(first, last, [&](const auto& entry) {
            const Image& other = frames[different[static_cast<size_t>(entry.second)]];
            return other.width == frames[i].width && other.rgb == frames[i].rgb;
        });
        shown.push_back(same == last ? static_cast<int>(different.size()) : same->second);
        if (same != last) continue;
        by_hash.emplace(hash, static_cast<int>(different.size()));
        different.push_back(i);
    }
    if (different.size() == frames.size()) shown.clear();
    return different;
}

}  // namespace

int QuestionTypes::index(const std::string& name) {
    const std::lock_guard lock(mutex_);
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found != names_.end()) return static_cast<int>(found - names_.begin());
    names_.push_back(name);
    return static_cast<int>(names_.size()) - 1;
}

std::vector<std::string> QuestionTypes::names() const {
    const std::lock_guard lock(mutex_);
    return names_;
}

Example ExampleMaker::make(const Sample& sample, const ExampleOptions& options, uint64_t key) const {
    Example example;
    example.id = sample.id;
    const bool video = sample.frames.size() > 1, picture = !sample.frames.empty();
    const std::vector<size_t> different = different_frames(sample.frames, example.shown);
    try {
        for (const size_t index : different) {
            const Image& frame = sample.frames[index];
            // Training pads first and cuts then (SPEC.md, Preprocessing).
            example.frames.push_back(video ? preprocess_frame(frame, vision_)
                                           : preprocess_image(frame, vision_, {.pad_each_view = false}));
        }
        if (video) example.gaps = draw_gaps(sample.frames.size(), options.position_span, key_of(key, 3, 0));
        if (options.questions) {
            const bool dialogue = unit(key_of(key, 1, 0)) < options.dialogue_share;
            const size_t step = dialogue ? sample.turns.size() : 1;
            for (size_t i = 0; i < sample.turns.size(); i += step) {
                const std::span<const QaTurn> turns(sample.turns.data() + i, step);
                Conversation conversation;
                conversation.tokens = tokenizer_.conversation(turns, picture);
                for (const QaTurn& turn : turns) conversation.answer_types.push_back(types_.index(turn.type));
                conversation.unfused = picture && unit(key_of(key, 2, i)) < options.unfused_share;
                if (options.mentions && !conversation.unfused)
                    add_mentions(turns, options.registers, conversation);
                if (options.names && turns.size() == 1) add_names(turns[0], conversation);
                example.conversations.push_back(std::move(conversation));
            }
        }
    } catch (const Error& e) {
        throw_input("sample {}: {}", sample.id, e.what());
    }
    if (options.changes && video && !sample.marks.empty()) add_changes(sample, options, example);
    if (options.targets && !sample.marks.empty()) {
        for (const size_t i : different) {
            add_targets(sample.frames[i], sample.marks[i], video, options, example);
        }
    }
    return example;
}

// A thing that was not there is new by its name and colour, one that takes another colour by both, one that
// moves by its direction. The weights of a frame's targets sum to 1.
void ExampleMaker::add_changes(const Sample& sample, const ExampleOptions& options, Example& example) const {
    const std::string& background = options.background;
    std::vector<Seen> before;
    std::vector<Change> last;  // what was new, the last time that anything was
    const auto targets_of = [&](const std::vector<std::string>& words) {
        std::vector<Change> targets;
        for (const std::string& word : words) {
            const std::vector<int32_t> ids = tokenizer_.word_ids(word);
            for (const int32_t id : ids) {
                targets.push_back({id, 1.0f / static_cast<float>(words.size() * ids.size())});
            }
        }
        return targets;
    };
    if (!background.empty()) last = targets_of({background});
    for (const std::vector<Mark>& marks : sample.marks) {
        const std::vector<Seen> now = things_seen(marks);
        std::vector<std::string> words;
        for (const Seen& thing : now) {
            const auto same = std::find_if(before.begin(), before.end(),
                                           [&](const Seen& other) { return other.name == thing.name; });
            if (same == before.end() || same->colour != thing.colour) {
                words.push_back(thing.name);
                if (!thing.colour.empty()) words.push_back(thing.colour);
            } else if (const char* direction = direction_of(thing.x - same->x, thing.y - same->y)) {
                words.emplace_back(direction);
            }
        }
        before = now;
        example.earlier.push_back(last);
        if (options.looks) example.news.push_back(!words.empty());
        if (!words.empty()) last = targets_of(words);
        if (words.empty() && !background.empty()) words.push_back(background);
        example.changes.push_back(targets_of(words));
    }
}

// The weights of a token's targets sum to 1.
void ExampleMaker::add_mentions(std::span<const QaTurn> turns, int registers,
                                Conversation& conversation) const {
    const auto ids_of = [&](const std::vector<std::string>& words) {
        std::vector<int32_t> all;
        for (const std::string& word : words) {
            const std::vector<int32_t> ids = tokenizer_.word_ids(word);
            all.insert(all.end(), ids.begin(), ids.end());
        }
        return all;
    };
    std::map<int32_t, std::vector<int32_t>> named;
    std::vector<std::vector<int32_t>> parts(static_cast<size_t>(registers));
    size_t part = 0;
    for (const QaTurn& turn : turns) {
        for (const Hint& hint : turn.hints) {
            const std::vector<int32_t> words = ids_of(hint.words);
            if (!hint.name.empty()) {
                if (const auto name = name_token(hint)) named[*name] = words;
            } else if (registers > 0 && turns.size() == 1) {
                std::vector<int32_t>& to = parts[part++ % parts.size()];
                to.insert(to.end(), words.begin(), words.end());
            }
        }
    }
    const auto is_plain = [](const PromptToken& token) { return token.kind == SegmentKind::kPlain; };
    const auto end =
        static_cast<size_t>(std::find_if(conversation.tokens.begin(), conversation.tokens.end(), is_plain) -
                            conversation.tokens.begin());
    const size_t first = end - std::min(end, parts.size());
    for (size_t i = 0; i < conversation.tokens.size(); ++i) {
        const PromptToken& token = conversation.tokens[i];
        if (token.kind != SegmentKind::kFused) continue;
        const auto found = named.find(token.id);
        const std::vector<int32_t>* words = found == named.end() ? nullptr : &found->second;
        if (part > 0 && i >= first && i < end) words = &parts[i - first];
        if (words == nullptr) continue;
        // A name that is to be kept has half the weight: else what it stands for drowns in its places.
        const bool kept = words->size() > 1 && words->front() == token.id;
        if (kept) conversation.mentions.push_back({i, token.id, 0.5f});
        const std::span<const int32_t> others(words->begin() + (kept ? 1 : 0), words->end());
        const float weight = (kept ? 0.5f : 1.0f) / static_cast<float>(others.size());
        for (const int32_t word : others) conversation.mentions.push_back({i, word, weight});
    }
}

// The token of a name that is one.
std::optional<int32_t> ExampleMaker::name_token(const Hint& hint) const {
    if (hint.name.empty()) return std::nullopt;
    const std::vector<int32_t> ids = tokenizer_.word_ids(hint.name);
    return ids.size() == 1 ? std::optional(ids[0]) : std::nullopt;
}

void ExampleMaker::add_names(const QaTurn& turn, Conversation& conversation) const {
    conversation.answer_words = tokenizer_.word_ids(turn.answer);
    for (const Hint& hint : turn.hints) {
        const auto name = name_token(hint);
        for (size_t i = 0; name && i < conversation.tokens.size(); ++i) {
            const PromptToken& token = conversation.tokens[i];
            if (token.kind == SegmentKind::kFused && token.id == *name) conversation.names.push_back(i);
        }
    }
}

// Of each kind a patch gets the mark that covers most of it; among equals the later, which lies on top.
void ExampleMaker::add_targets(const Image& frame, const std::vector<Mark>& marks, bool video,
                               const ExampleOptions& options, Example& example) const {
    const ViewMap map = view_map(frame, vision_, video);
    const int side = vision_.patches_per_side();
    const auto patch = static_cast<float>(vision_.patch_size);
    std::set<int32_t> words;
    std::vector<std::vector<int32_t>> tokens;  // of each mark
    for (const Mark& mark : marks) {
        tokens.push_back(tokenizer_.word_ids(mark.word));
        // All places are marked, for the patches; what is seen is those that have something.
        if (mark.kind != Mark::Kind::kPlace || holds_a_thing(mark, marks)) {
            words.insert(tokens.back().begin(), tokens.back().end());
        }
    }
    const std::vector<int32_t> background =
        options.background.empty() ? std::vector<int32_t>{} : tokenizer_.word_ids(options.background);
    std::vector<PatchTarget> targets;
    for (int y = 0; y < side; ++y) {
        for (int x = 0; x < side; ++x) {
            const int64_t index = int64_t{y} * side + x;
            const auto left = static_cast<float>(x) * patch, top = static_cast<float>(y) * patch;
            std::array<float, 4> best{};
            std::array<ptrdiff_t, 4> chosen = {-1, -1, -1, -1};
            for (size_t i = 0; i < marks.size(); ++i) {
                const Mark& m = marks[i];
                const float w = std::min(m.x1 * map.scale_x + map.shift_x, left + patch) -
                                std::max(m.x0 * map.scale_x + map.shift_x, left);
                const float h = std::min(m.y1 * map.scale_y + map.shift_y, top + patch) -
                                std::max(m.y0 * map.scale_y + map.shift_y, top);
                const float share = std::max(w, 0.0f) * std::max(h, 0.0f) / (patch * patch);
                const auto kind = static_cast<size_t>(m.kind);
                if (share >= kLeastOverlap && share >= best[kind]) {
                    best[kind] = share;
                    chosen[kind] = static_cast<ptrdiff_t>(i);
                }
            }
            bool any = false;
            for (size_t kind = 0; kind < chosen.size(); ++kind) {
                if (chosen[kind] < 0) continue;
                any = true;
                const auto& ids = tokens[static_cast<size_t>(chosen[kind])];
                const auto found = options.mark_weights.find(kMarkNames[kind]);
                const double weight = found == options.mark_weights.end() ? 0.0 : found->second;
                if (weight <= 0) continue;
                for (const int32_t id : ids) {
                    targets.push_back({index, id,
                                       static_cast<float>(weight / static_cast<double>(ids.size())),
                                       static_cast<int>(kind)});
                }
            }
            if (!any && options.background_weight > 0) {
                for (const int32_t id : background) {
                    targets.push_back({index, id,
                                       static_cast<float>(options.background_weight /
                                                          static_cast<double>(background.size()))});
                }
            }
        }
    }
    example.patch_targets.push_back(std::move(targets));
    example.words.emplace_back(words.begin(), words.end());
}

}  // namespace llava_mini::trainer
