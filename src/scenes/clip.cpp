#include "scenes/clip.h"

#include <fmt/format.h>

#include <algorithm>

#include "scenes/questions.h"

namespace llava_mini::scenes {
namespace {

using Phrasings = std::span<const char* const>;

constexpr const char* kFirst[] = {"what appeared first?",      "what came first?",
                                  "what was the first thing?", "which thing was seen first?",
                                  "what did you see first?",   "what was shown at the start?"};
constexpr const char* kLast[] = {"what appeared last?",      "what came last?",
                                 "what was the last thing?", "which thing was seen last?",
                                 "what did you see last?",   "what was the last thing to appear?"};
constexpr const char* kAfter[] = {"what appeared after the {}?",  "what came after the {}?",
                                  "what was shown after the {}?", "which thing came next after the {}?",
                                  "what followed the {}?",        "what did you see right after the {}?"};
constexpr const char* kBefore[] = {"what appeared before the {}?",  "what came before the {}?",
                                   "what was shown before the {}?", "which thing came just before the {}?",
                                   "the {} came after what?",       "what did you see right before the {}?"};
constexpr const char* kDifferent[] = {"how many different things were there?",
                                      "how many different things appeared?",
                                      "how many different things did you see?",
                                      "how many different objects were shown?",
                                      "count the different things.",
                                      "what is the number of different things?"};
constexpr const char* kWhen[] = {"when did the {} appear?",
                                 "when did you first see the {}?",
                                 "in which part of the video did the {} appear?",
                                 "did the {} appear at the beginning, in the middle or at the end?",
                                 "at what time did the {} come?",
                                 "when was the {} first shown?"};
constexpr const char* kSeen[] = {"was there {}?",          "did you see {}?",
                                 "did {} appear?",         "was {} in the video?",
                                 "did the video show {}?", "was {} shown at any time?"};
constexpr const char* kDirection[] = {"which way did the {} go?",
                                      "which way did the {} move?",
                                      "where did the {} go?",
                                      "in which direction did the {} move?",
                                      "in what direction did the {} go?",
                                      "the {} moved which way?"};
constexpr const char* kMoved[] = {"what moved?",
                                  "which thing moved?",
                                  "what was moving?",
                                  "which thing was moving?",
                                  "what did move in the video?",
                                  "name the thing that moved."};
constexpr const char* kChangeEnd[] = {
    "what colour was the {} at the end?",   "what color was the {} at the end?",
    "which colour did the {} become?",      "what color did the {} turn into?",
    "what colour did the {} have at last?", "the {} changed to which colour?"};
constexpr const char* kChangeStart[] = {
    "what colour was the {} at first?",       "what color was the {} at the start?",
    "which colour did the {} have at first?", "what color did the {} have before?",
    "what was the first colour of the {}?",   "the {} changed from which colour?"};
constexpr const char* kBecame[] = {"what did the {} turn into?",   "what did the {} become?",
                                   "the {} turned into what?",     "what did the {} change into?",
                                   "what was the {} turned into?", "into what did the {} change?"};
constexpr const char* kStory[] = {"what happened?",
                                  "what happened in the video?",
                                  "describe the video.",
                                  "tell me what the video shows.",
                                  "what does the video show?",
                                  "say what happened, in order."};

constexpr const char* kDirections[] = {"left", "right", "up", "down"};
constexpr const char* kTimes[] = {"beginning", "middle", "end"};

// A thing like none of the others.
Thing new_thing(const std::vector<Thing>& others, const SceneOptions& options, Random& random) {
    std::vector<int> present(others.size());
    std::transform(others.begin(), others.end(), present.begin(), [](const Thing& t) { return t.noun; });
    return make_thing(draw_noun(options, present, random), random);
}

Actor standing(const Thing& thing, int from, int to) {
    return {thing, from, to, thing.x, thing.y};
}

// Frames cut in `parts` pieces of one frame at least: the starts, and the end. Half the time some piece
// starts in every third, so that it can be asked when.
std::vector<int> cut(int frames, int parts, Random& random) {
    std::vector<int> cuts;
    if (parts >= 3 && random.chance(0.5)) {
        const int third = (frames + 2) / 3, two_thirds = (2 * frames + 2) / 3;
        cuts = {random.integer(third, two_thirds - 1), random.integer(two_thirds, frames - 1)};
    }
    while (static_cast<int>(cuts.size()) < parts - 1) {
        const int at = random.integer(1, frames - 1);
        if (std::find(cuts.begin(), cuts.end(), at) == cuts.end()) cuts.push_back(at);
    }
    cuts.push_back(0);
    cuts.push_back(frames);
    std::sort(cuts.begin(), cuts.end());
    return cuts;
}

void draw_sequence(Clip& clip, const SceneOptions& scene, const ClipOptions& options, Random& random) {
    const int parts = random.integer(2, std::min(4, options.max_frames));
    clip.frames = random.integer(std::max(parts, options.min_frames), options.max_frames);
    const std::vector<int> cuts = cut(clip.frames, parts, random);
    const bool stay = random.chance(0.4);
    std::vector<Thing> things;
    for (size_t i = 0; i < static_cast<size_t>(parts); ++i) {
        Thing thing = new_thing(things, scene, random);
        put_at(thing, draw_place(thing.noun, stay ? things : std::vector<Thing>{}, random), random);
        things.push_back(thing);
        clip.actors.push_back(standing(thing, cuts[i], stay ? clip.frames : cuts[i + 1]));
    }
}

void draw_motion(Clip& clip, const SceneOptions& scene, Random& random) {
    clip.direction = random.below(4);
    Thing mover = new_thing({}, scene, random);
    put_at(mover, 4, random);  // for its size
    mover.place = -1;
    const bool across = clip.direction < 2, backwards = clip.direction % 2 == 0;
    const float path = random.between(0.35, 0.68), start = random.between(0.16, 0.84 - path);
    const int lane = random.below(3);
    const float side = (static_cast<float>(lane) + 0.5f) / 3 + random.between(-0.03, 0.03);
    const float from = backwards ? start + path : start, to = backwards ? start : start + path;
    mover.x = across ? from : side;
    mover.y = across ? side : from;
    clip.actors.push_back({mover, 0, clip.frames, across ? to : side, across ? side : to});
    // What stands still stands in another lane.
    std::vector<Thing> things = {mover};
    for (int still = random.below(3); still > 0; --still) {
        Thing thing = new_thing(things, scene, random);
        const int place = draw_place(thing.noun, things, random);
        if (place < 0 || (across ? place / 3 : place % 3) == lane) continue;
        put_at(thing, place, random);
        things.push_back(thing);
        clip.actors.push_back(standing(thing, 0, clip.frames));
    }
}

// A shape takes another colour, or a thing becomes another thing.
void draw_change(Clip& clip, const SceneOptions& scene, Random& random) {
    SceneOptions shapes = scene;
    if (scene.shape_share > 0 && random.chance(0.6)) shapes.shape_share = 1;
    Thing before = new_thing({}, shapes, random);
    Thing after = before;
    if (is_shape(before.noun)) {
        const int never = held_out_colour(before.noun - emoji_count());
        while (after.colour == before.colour || after.colour == never)
            after.colour = random.below(kColourCount);
    } else {
        after = new_thing({before}, scene, random);
    }
    int place = -1;
    while (place < 0 || place == held_out_place(after.noun)) place = draw_place(before.noun, {}, random);
    put_at(before, place, random);
    after.place = before.place;
    after.x = before.x;
    after.y = before.y;
    after.size = before.size;
    const int at = random.integer(1, clip.frames - 1);
    clip.actors = {standing(before, 0, at), standing(after, at, clip.frames)};
}

QaTurn turn(ClipType type, std::string question, std::string answer) {
    return {std::move(question), std::move(answer), kClipTypes[static_cast<size_t>(type)]};
}

class ClipAsker {
  public:
    ClipAsker(const Clip& clip, Random& random) : clip_(clip), actors_(clip.actors), random_(random) {}

    std::optional<QaTurn> ask(ClipType type) {
        const bool sequence = clip_.kind == Clip::Kind::kSequence;
        switch (type) {
            case ClipType::kFirst:
                if (!sequence) return std::nullopt;
                return turn(type, phrase(kFirst, random_), word(actors_.front()));
            case ClipType::kLast:
                if (!sequence) return std::nullopt;
                return turn(type, phrase(kLast, random_), word(actors_.back()));
            case ClipType::kAfter:
            case ClipType::kBefore: {
                if (!sequence) return std::nullopt;
                const auto i = static_cast<size_t>(random_.below(static_cast<int>(actors_.size()) - 1));
                const bool after = type == ClipType::kAfter;
                return ask_order(word(actors_[after ? i : i + 1]), word(actors_[after ? i + 1 : i]), after,
                                 random_);
            }
            case ClipType::kDifferent:
                if (!sequence) return std::nullopt;  // elsewhere the number says what kind it is
                return turn(type, phrase(kDifferent, random_), number_word(static_cast<int>(actors_.size())));
            case ClipType::kWhen:
                return ask_time();
            case ClipType::kSeen:
                return ask_presence();
            case ClipType::kDirection:
                if (clip_.kind != Clip::Kind::kMotion) return std::nullopt;
                return turn(type, phrase(kDirection, random_, word(actors_[0])),
                            kDirections[clip_.direction]);
            case ClipType::kMoved:
                if (clip_.kind != Clip::Kind::kMotion) return std::nullopt;
                return turn(type, phrase(kMoved, random_), word(actors_[0]));
            case ClipType::kChange:
                return ask_change();
            case ClipType::kStory:
                return turn(type, phrase(kStory, random_), story());
        }
        return std::nullopt;
    }

  private:
    static std::string called(const Thing& thing) {
        const std::string noun = noun_word(thing.noun);
        return with_article(is_shape(thing.noun)
                                ? fmt::format("{} {}", kColours[static_cast<size_t>(thing.colour)].word, noun)
                                : noun);
    }

    std::string story() const {
        if (clip_.kind == Clip::Kind::kMotion) {
            return fmt::format("{} goes {}", called(actors_[0].thing), kDirections[clip_.direction]);
        }
        if (clip_.kind == Clip::Kind::kChange) {
            return fmt::format("{} becomes {}", called(actors_[0].thing), called(actors_[1].thing));
        }
        std::string text;
        for (const Actor& actor : actors_) {
            if (!text.empty()) text += ", then ";
            text += called(actor.thing);
        }
        return text;
    }

    static const char* word(const Actor& actor) { return noun_word(actor.thing.noun); }

    // By the thirds of the clip in which things appear; only where all three times have one.
    std::optional<QaTurn> ask_time() {
        if (clip_.kind != Clip::Kind::kSequence) return std::nullopt;
        std::array<std::vector<const Actor*>, 3> by_time;
        for (const Actor& actor : actors_) {
            by_time[static_cast<size_t>(3 * actor.from / clip_.frames)].push_back(&actor);
        }
        for (const auto& list : by_time) {
            if (list.empty()) return std::nullopt;
        }
        const auto time = static_cast<size_t>(random_.below(3));
        return ask_when(word(*random_.pick(by_time[time])), static_cast<int>(time), random_);
    }

    std::optional<QaTurn> ask_presence() {
        std::vector<int> present;
        for (const Actor& actor : actors_) present.push_back(actor.thing.noun);
        int noun = random_.pick(present);
        const bool yes = random_.chance(0.5);
        if (!yes) noun = similar_noun(noun, present, random_);
        return ask_seen(noun, yes, random_);
    }

    std::optional<QaTurn> ask_change() {
        if (clip_.kind != Clip::Kind::kChange) return std::nullopt;
        const Actor &before = actors_[0], &after = actors_[1];
        if (before.thing.noun != after.thing.noun) {
            return turn(ClipType::kChange, phrase(kBecame, random_, word(before)), word(after));
        }
        const bool end = random_.chance(0.5);
        const int colour = (end ? after : before).thing.colour;
        return turn(ClipType::kChange,
                    phrase(end ? Phrasings(kChangeEnd) : Phrasings(kChangeStart), random_, word(before)),
                    kColours[static_cast<size_t>(colour)].word);
    }

    const Clip& clip_;
    const std::vector<Actor>& actors_;
    Random& random_;
};

}  // namespace

Clip draw_clip(const SceneOptions& scene, const ClipOptions& options, Random& random) {
    Clip clip;
    clip.frames = random.integer(options.min_frames, options.max_frames);
    const double kind = random.uniform();
    if (kind < options.sequence_share) {
        draw_sequence(clip, scene, options, random);
    } else if (kind < options.sequence_share + (1 - options.sequence_share) * 2 / 3) {
        clip.kind = Clip::Kind::kMotion;
        draw_motion(clip, scene, random);
    } else {
        clip.kind = Clip::Kind::kChange;
        draw_change(clip, scene, random);
    }
    return clip;
}

std::vector<Thing> things_at(const Clip& clip, int frame) {
    std::vector<Thing> things;
    for (const Actor& actor : clip.actors) {
        if (frame < actor.from || frame >= actor.to) continue;
        Thing thing = actor.thing;
        const int steps = std::max(actor.to - actor.from - 1, 1);
        const float t = static_cast<float>(frame - actor.from) / static_cast<float>(steps);
        thing.x += (actor.to_x - thing.x) * t;
        thing.y += (actor.to_y - thing.y) * t;
        things.push_back(std::move(thing));
    }
    return things;
}

std::optional<QaTurn> ask_about(const Clip& clip, ClipType type, Random& random) {
    return ClipAsker(clip, random).ask(type);
}

QaTurn ask_seen(int noun, bool answer, Random& random) {
    return turn(ClipType::kSeen, phrase(kSeen, random, with_article(noun_word(noun))), answer ? "yes" : "no");
}

QaTurn ask_when(const char* word, int time, Random& random) {
    return turn(ClipType::kWhen, phrase(kWhen, random, word), kTimes[time]);
}

QaTurn ask_order(const char* word, const char* answer, bool after, Random& random) {
    return turn(after ? ClipType::kAfter : ClipType::kBefore,
                phrase(after ? Phrasings(kAfter) : Phrasings(kBefore), random, word), answer);
}

std::vector<std::string> all_clip_phrasings() {
    std::vector<std::string> all;
    for (const Phrasings list :
         {Phrasings(kFirst), Phrasings(kLast), Phrasings(kAfter), Phrasings(kBefore), Phrasings(kDifferent),
          Phrasings(kWhen), Phrasings(kSeen), Phrasings(kDirection), Phrasings(kMoved), Phrasings(kChangeEnd),
          Phrasings(kChangeStart), Phrasings(kBecame), Phrasings(kStory)}) {
        all.insert(all.end(), list.begin(), list.end());
    }
    return all;
}

}  // namespace llava_mini::scenes
