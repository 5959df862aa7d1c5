#include "scenes/generator.h"

#include <algorithm>
#include <cctype>

#include "core/error.h"
#include "scenes/paint.h"

namespace llava_mini::scenes {
namespace {

constexpr double kCopiesShare = 0.35;  // of pictures with several things have copies of one, to be counted
constexpr int kAttempts = 40;          // questions tried in vain before a sample has as many as it gives

// How often a type may be asked about one sample.
int most_of(PictureType type) {
    switch (type) {
        case PictureType::kAt:
        case PictureType::kWhere:
        case PictureType::kExist:
        case PictureType::kRelation:
        case PictureType::kCompare:
            return 2;
        default:
            return 1;
    }
}

// Random numbers of one sample for one purpose.
Random stream(uint64_t key, uint64_t purpose) {
    return Random(scatter(key) ^ scatter(purpose));
}
enum Purpose : uint64_t { kContent = 1, kQuestions = 2, kLook = 3, kBackground = 4, kNoise = 5 };

template <size_t N>
void set_weights(const std::map<std::string, double>& given, const std::array<const char*, N>& names,
                 std::array<double, N>& weights) {
    double sum = 0;
    for (size_t i = 0; i < N; ++i) {
        const auto it = given.find(names[i]);
        weights[i] = it == given.end() ? 1.0 : it->second;
        if (!(weights[i] >= 0 && weights[i] <= 1e6)) {
            throw_usage("weight of the question type '{}': expected 0 to 1e6, found {}", names[i],
                        weights[i]);
        }
        sum += weights[i];
    }
    if (sum <= 0) throw_usage("weights of question types: all of one kind are 0");
}

void check_share(const char* name, double share) {
    if (!(share >= 0 && share <= 1)) throw_usage("{}: expected 0 to 1, found {}", name, share);
}

void check_range(const char* name, int low, int high, int least, int most) {
    if (low < least || high > most || low > high) {
        throw_usage("{}: expected a range within {} to {}, found {} to {}", name, least, most, low, high);
    }
}

void check(const GeneratorOptions& options) {
    if (options.size < 32 || options.size > 1024) {
        throw_usage("size of pictures: expected 32 to 1024 pixels, found {}", options.size);
    }
    check_range("things in a picture", options.scene.min_things, options.scene.max_things, 1, 9);
    check_range("questions about a picture", options.min_turns, options.max_turns, 1, 64);
    check_range("frames of a clip", options.clip.min_frames, options.clip.max_frames, 2, 64);
    check_share("share of clips that are sequences", options.clip.sequence_share);
    check_share("share of big things", options.scene.big_share);
    check_share("share of shapes", options.scene.shape_share);
    check_share("share of signs", options.scene.sign_share);
    check_share("share of clips", options.clip_share);
    for (const auto& entry : options.weights) {
        const std::string& name = entry.first;
        const auto is = [&name](const char* known) { return name == known; };
        if (std::none_of(kPictureTypes.begin(), kPictureTypes.end(), is) &&
            std::none_of(kClipTypes.begin(), kClipTypes.end(), is)) {
            throw_usage("'{}' is no type of question: expected one of {}, {}", name,
                        fmt::join(kPictureTypes, ", "), fmt::join(kClipTypes, ", "));
        }
    }
}

// Capitals and marks apart.
bool same_words(const std::string& a, const std::string& b) {
    const auto plain = [](std::string text) {
        std::erase_if(text, [](unsigned char c) { return std::ispunct(c) != 0; });
        std::transform(text.begin(), text.end(), text.begin(),
                       [](unsigned char c) { return std::tolower(c); });
        return text;
    };
    return plain(a) == plain(b);
}

// Draws types by weight and puts questions until there are enough, or nothing more can be asked. `allowed(i)`
// says how often more type i may be asked; `ask(i)` may give nothing, or a question that was put already.
template <size_t N, typename Ask>
void fill_turns(Sample& sample, size_t wanted, std::array<double, N> weights, std::array<int, N> allowed,
                Ask ask, Random& random) {
    for (int misses = 0; sample.turns.size() < wanted && misses < kAttempts;) {
        for (size_t i = 0; i < N; ++i) {
            if (allowed[i] == 0) weights[i] = 0;
        }
        if (std::none_of(weights.begin(), weights.end(), [](double w) { return w > 0; })) break;
        const size_t type = random.weighted(weights);
        std::optional<QaTurn> turn = ask(type);
        const bool known =
            turn && std::any_of(sample.turns.begin(), sample.turns.end(), [&](const QaTurn& other) {
                return other.type == turn->type && same_words(other.question, turn->question);
            });
        if (!turn || known) {
            ++misses;
            continue;
        }
        --allowed[type];
        sample.turns.push_back(*std::move(turn));
    }
}

SceneWishes wishes_for(PictureType lead, const GeneratorOptions& options, Random& random) {
    SceneWishes wishes;
    wishes.one = lead == PictureType::kWhat;
    wishes.sign = lead == PictureType::kSign;
    wishes.shape = lead == PictureType::kColour;
    wishes.several = lead == PictureType::kRelation || lead == PictureType::kCompare;
    const bool countable = !wishes.one && lead != PictureType::kTotal && options.scene.max_things >= 2;
    if (lead == PictureType::kCount || (countable && random.chance(kCopiesShare))) {
        wishes.copies = random.integer(0, std::min(4, options.scene.max_things));
    }
    wishes.held_out = options.split == Split::kHeldOut;
    return wishes;
}

}  // namespace

Split parse_split(const std::string& name) {
    for (size_t i = 0; i < kSplits.size(); ++i) {
        if (name == kSplits[i]) return static_cast<Split>(i);
    }
    throw_usage("'{}' is no split: expected one of {}", name, fmt::join(kSplits, ", "));
}

SceneGenerator::SceneGenerator(const GeneratorOptions& options) : options_(options) {
    check(options_);
    set_weights(options_.weights, kPictureTypes, picture_weights_);
    set_weights(options_.weights, kClipTypes, clip_weights_);
    assets_ = Assets::load(options_.fonts);
}

// Different for all numbers and splits of one seed: a bijection of both.
uint64_t SceneGenerator::key_of(uint64_t number) const {
    return scatter((number << 2 | static_cast<uint64_t>(options_.split)) ^ scatter(options_.seed));
}

Sample SceneGenerator::sample(uint64_t number) const {
    return make(number, true);
}

Sample SceneGenerator::text_of(uint64_t number) const {
    return make(number, false);
}

Sample SceneGenerator::make(uint64_t number, bool paint) const {
    if (number >= options_.samples || number >> 62 != 0) {
        throw_usage("sample {}: there are {}", number, std::min(options_.samples, uint64_t{1} << 62));
    }
    const uint64_t key = key_of(number);
    Sample sample;
    sample.id = fmt::format("{}-{}-{}", kSplits[static_cast<size_t>(options_.split)], options_.seed, number);
    if (options_.clip_share > 0 && stream(key, 0).chance(options_.clip_share)) {
        make_clip(sample, key, paint);
    } else {
        make_picture(sample, key, paint);
    }
    return sample;
}

void SceneGenerator::make_picture(Sample& sample, uint64_t key, bool paint) const {
    Random content = stream(key, kContent), questions = stream(key, kQuestions);
    const size_t lead = questions.weighted(picture_weights_);
    const SceneWishes wishes = wishes_for(static_cast<PictureType>(lead), options_, content);
    const Scene scene = draw_scene(*assets_, options_.scene, wishes, content);

    std::array<int, kPictureTypes.size()> allowed{};
    for (size_t i = 0; i < allowed.size(); ++i) allowed[i] = most_of(static_cast<PictureType>(i));
    const auto ask = [&](size_t type) { return ask_about(scene, static_cast<PictureType>(type), questions); };
    if (std::optional<QaTurn> turn = ask(lead)) {
        --allowed[lead];
        sample.turns.push_back(*std::move(turn));
    }
    const int wanted = questions.integer(options_.min_turns, options_.max_turns);
    fill_turns(sample, static_cast<size_t>(wanted), picture_weights_, allowed, ask, questions);
    // Every scene can be described.
    if (sample.turns.empty())
        sample.turns.push_back(ask_about(scene, PictureType::kCaption, questions).value());
    questions.shuffle(sample.turns);
    if (!paint) return;
    for (QaTurn& turn : sample.turns) turn.hints = hints_of(scene, turn);

    Random background = stream(key, kBackground), noise = stream(key, kNoise), style = stream(key, kLook);
    const bool augment = options_.augment.value_or(options_.split == Split::kTrain);
    const Look look = augment ? draw_look(options_.size, style) : Look{};
    Canvas canvas = paint_things(*assets_, scene.things, paint_background(options_.size, background), look,
                                 sample.marks.emplace_back());
    sample.frames.push_back(develop(canvas, look, noise));
}

void SceneGenerator::make_clip(Sample& sample, uint64_t key, bool paint) const {
    Random content = stream(key, kContent), questions = stream(key, kQuestions);
    const Clip clip = draw_clip(options_.scene, options_.clip, content);
    std::array<int, kClipTypes.size()> allowed{};
    allowed.fill(1);
    allowed[static_cast<size_t>(ClipType::kSeen)] = 2;
    const auto ask = [&](size_t type) { return ask_about(clip, static_cast<ClipType>(type), questions); };
    const int wanted = questions.integer(options_.min_turns, options_.max_turns);
    fill_turns(sample, static_cast<size_t>(wanted), clip_weights_, allowed, ask, questions);
    // There is always something that was seen.
    if (sample.turns.empty()) sample.turns.push_back(ask_about(clip, ClipType::kSeen, questions).value());
    questions.shuffle(sample.turns);
    if (!paint) return;
    std::vector<Thing> seen;
    for (const Actor& actor : clip.actors) seen.push_back(actor.thing);
    for (QaTurn& turn : sample.turns) turn.hints = hints_of_names(seen, turn.question);

    Random background = stream(key, kBackground), noise = stream(key, kNoise), style = stream(key, kLook);
    const bool augment = options_.augment.value_or(options_.split == Split::kTrain);
    const Look look = augment ? draw_look(options_.size, style) : Look{};
    const Canvas empty = paint_background(options_.size, background);
    for (int frame = 0; frame < clip.frames; ++frame) {
        Canvas canvas =
            paint_things(*assets_, things_at(clip, frame), empty, look, sample.marks.emplace_back());
        sample.frames.push_back(develop(canvas, look, noise));
    }
}

}  // namespace llava_mini::scenes
