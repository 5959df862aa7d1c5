// Clips: things that appear, move, change and leave, and questions about what happened.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "data/sample.h"
#include "scenes/scene.h"

namespace llava_mini::scenes {

enum class ClipType : uint8_t {
    kFirst,      // what appeared first?                 -> cat
    kLast,       // what appeared last?                  -> cat
    kAfter,      // what appeared after the cat?         -> dog
    kBefore,     // what appeared before the cat?        -> dog
    kDifferent,  // how many different things were there? -> two
    kWhen,       // when did the cat appear?             -> beginning, middle, end
    kSeen,       // was there a cat?                     -> yes, no
    kDirection,  // which way did the cat go?            -> left, right, up, down
    kMoved,      // what moved?                          -> cat
    kChange,     // what colour was the star at the end? -> red
    kStory       // what happened?                       -> a cat, then a dog, then a bus
};
inline constexpr std::array<const char*, 11> kClipTypes = {
    "first", "last", "after", "before", "different", "when", "seen", "direction", "moved", "change", "story"};

struct ClipOptions {
    int min_frames = 2, max_frames = 16;
    /// Of the clips show things that come one after the other; of the rest two thirds one that moves, one third one
    /// that becomes another.
    double sequence_share = 0.55;
};

/// A thing in a clip: seen in frames `from` up to `to` (exclusive), moving evenly from (x, y) of the thing at
/// `from` to (to_x, to_y) at the last.
struct Actor {
    Thing thing;
    int from = 0, to = 0;
    float to_x = 0, to_y = 0;
};

/// What a clip shows. Its kind decides which questions make sense.
struct Clip {
    enum class Kind : uint8_t { kSequence, kMotion, kChange } kind = Kind::kSequence;
    int frames = 0;
    std::vector<Actor> actors;  // in the order of appearance; kMotion: the one that moves comes first
    int direction = 0;          // kMotion: index into left, right, up, down
};

Clip draw_clip(const SceneOptions& scene, const ClipOptions& options, Random& random);

/// The things of a frame, at their places in it.
std::vector<Thing> things_at(const Clip& clip, int frame);

/// A question of the type about the clip; nothing if it does not fit the clip.
std::optional<QaTurn> ask_about(const Clip& clip, ClipType type, Random& random);

/// Single questions: was there one of these (`answer`: whether there was), when (0 to 2: beginning, middle,
/// end) did the thing appear, what appeared right after it or before it.
QaTurn ask_seen(int noun, bool answer, Random& random);
QaTurn ask_when(const char* word, int time, Random& random);
QaTurn ask_order(const char* word, const char* answer, bool after, Random& random);

/// All phrasings, for the vocabulary.
std::vector<std::string> all_clip_phrasings();

}  // namespace llava_mini::scenes
