#include "scenes/questions.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <utility>

#include "scenes/words.h"

namespace llava_mini::scenes {
namespace {

using Phrasings = std::span<const char* const>;

constexpr const char* kWhat[] = {"what is this?",
                                 "what is in the picture?",
                                 "what do you see?",
                                 "what can you see here?",
                                 "what is shown here?",
                                 "which thing is this?",
                                 "name the thing in the picture.",
                                 "what does the picture show?"};
constexpr const char* kAt[] = {"what is in the {}?",
                               "what is at the {}?",
                               "what do you see in the {}?",
                               "which thing is in the {}?",
                               "what is in the {} of the picture?",
                               "name the thing in the {}.",
                               "what can be seen in the {}?"};
constexpr const char* kWhere[] = {"where is the {}?",
                                  "where in the picture is the {}?",
                                  "where do you see the {}?",
                                  "where can i find the {}?",
                                  "in which place is the {}?",
                                  "what is the position of the {}?",
                                  "in which part of the picture is the {}?"};
constexpr const char* kColour[] = {"what colour is the {}?",        "what color is the {}?",
                                   "which colour is the {}?",       "which color does the {} have?",
                                   "what is the colour of the {}?", "what is the color of the {}?",
                                   "the {} has which colour?"};
constexpr const char* kColourAt[] = {"what colour is the thing in the {}?",
                                     "what color is the thing in the {}?",
                                     "which colour has the thing in the {}?"};
constexpr const char* kExist[] = {
    "is there {}?",        "is there {} in the picture?", "do you see {}?",
    "can you see {}?",     "does the picture show {}?",   "is {} in the picture?",
    "can {} be seen here?"};
constexpr const char* kCount[] = {"how many {} are there?",
                                  "how many {} do you see?",
                                  "how many {} are in the picture?",
                                  "how many {} can you see?",
                                  "count the {}.",
                                  "what is the number of {}?",
                                  "how many {} does the picture show?"};
constexpr const char* kTotal[] = {
    "how many things are there?",   "how many things do you see?", "how many things are in the picture?",
    "how many objects are there?",  "count the things.",           "how many objects do you see in all?",
    "what is the number of things?"};
constexpr const char* kRelation[] = {"what is {} the []?",         "which thing is {} the []?",
                                     "what do you see {} the []?", "what is placed {} the []?",
                                     "name the thing {} the [].",  "what can be seen {} the []?"};
// {} is "cat left of the dog".
constexpr const char* kCompare[] = {"is the {} []?",
                                    "is the {} placed []?",
                                    "do you see the {} []?",
                                    "can you see the {} []?",
                                    "does the picture show the {} []?",
                                    "the {} is [], yes or no?"};
constexpr const char* kSign[] = {
    "what does the sign say?",      "what is written on the sign?",         "read the sign.",
    "what is on the sign?",         "which word or number is on the sign?", "what text does the sign show?",
    "what can be read on the sign?"};
constexpr const char* kCaption[] = {"describe the picture.",
                                    "describe this picture.",
                                    "describe what you see.",
                                    "what are all the things and where are they?",
                                    "tell me what is in the picture.",
                                    "give a caption for the picture.",
                                    "write a description of the picture."};

constexpr const char* kNumbers[] = {"zero", "one",   "two",   "three", "four", "five",
                                    "six",  "seven", "eight", "nine",  "ten"};
constexpr const char* kSides[] = {"left of", "right of", "above", "below"};
constexpr float kWideSign = 0.36f;  // spans more than a column

std::string description(const Thing& thing) {
    const std::string noun = noun_word(thing.noun);
    return thing.colour < 0 ? noun
                            : std::string(kColours[static_cast<size_t>(thing.colour)].word) + " " + noun;
}

// Puts questions about one scene.
class Asker {
  public:
    Asker(const Scene& scene, Random& random) : scene_(scene), things_(scene.things), random_(random) {}

    std::optional<QaTurn> ask(PictureType type) {
        switch (type) {
            case PictureType::kWhat:
                // Rarely about a sign: there are more signs alone than of any other thing.
                if (things_.size() != 1 || (is_sign(things_[0].noun) && !random_.chance(0.03)))
                    return std::nullopt;
                return turn(type, phrase(kWhat, random_), noun_word(things_[0].noun));
            case PictureType::kAt:
                return ask_at();
            case PictureType::kWhere:
                return ask_where();
            case PictureType::kColour:
                return ask_colour();
            case PictureType::kExist:
                return ask_exist();
            case PictureType::kCount:
                if (scene_.counted_noun < 0) return std::nullopt;
                return turn(type, phrase(kCount, random_, noun_plural(scene_.counted_noun)),
                            number_word(count_of(scene_.counted_noun)));
            case PictureType::kTotal:
                if (!scene_.free_number) return std::nullopt;
                return turn(type, phrase(kTotal, random_), number_word(static_cast<int>(things_.size())));
            case PictureType::kRelation:
                return ask_relation();
            case PictureType::kCompare:
                return ask_compare();
            case PictureType::kSign:
                for (const Thing& thing : things_) {
                    if (is_sign(thing.noun)) return turn(type, phrase(kSign, random_), thing.text);
                }
                return std::nullopt;
            case PictureType::kCaption:
                return turn(type, phrase(kCaption, random_), caption_of(scene_));
        }
        return std::nullopt;
    }

  private:
    static QaTurn turn(PictureType type, std::string question, std::string answer) {
        return {std::move(question), std::move(answer), kPictureTypes[static_cast<size_t>(type)]};
    }

    int count_of(int noun) const {
        return static_cast<int>(
            std::count_if(things_.begin(), things_.end(), [&](const Thing& t) { return t.noun == noun; }));
    }

    // How a question can name the thing so that nothing else is meant; empty: it cannot.
    std::string name_of(const Thing& thing) {
        if (count_of(thing.noun) == 1) {
            return thing.colour >= 0 && random_.chance(0.25) ? description(thing) : noun_word(thing.noun);
        }
        const auto alike = std::count_if(things_.begin(), things_.end(), [&](const Thing& other) {
            return other.noun == thing.noun && other.colour == thing.colour;
        });
        return thing.colour >= 0 && alike == 1 ? description(thing) : "";
    }

    // One of the things that satisfy the condition, the held-out one first; null if there is none.
    template <typename Condition>
    const Thing* choose(Condition fits) {
        if (scene_.held_out && fits(things_[0])) return &things_[0];
        std::vector<const Thing*> candidates;
        for (const Thing& thing : things_) {
            if (fits(thing)) candidates.push_back(&thing);
        }
        return candidates.empty() ? nullptr : random_.pick(candidates);
    }

    std::optional<QaTurn> ask_at() {
        const bool empty = !scene_.held_out && random_.chance(0.1);
        if (empty) {
            const std::vector<int> free = free_places(things_);
            if (free.empty() || (things_.size() == 1 && things_[0].place < 0)) return std::nullopt;
            return turn(PictureType::kAt,
                        phrase(kAt, random_, kPlaces[static_cast<size_t>(random_.pick(free))]), "nothing");
        }
        const Thing* thing = choose([](const Thing& t) { return t.place >= 0; });
        if (thing == nullptr || (is_sign(thing->noun) && random_.chance(0.7))) return std::nullopt;
        return turn(PictureType::kAt, phrase(kAt, random_, kPlaces[static_cast<size_t>(thing->place)]),
                    noun_word(thing->noun));
    }

    std::optional<QaTurn> ask_where() {
        // A wide sign is in the middle column more often than not: it is not asked for.
        const Thing* thing = choose([&](const Thing& t) {
            return t.place >= 0 && !(is_sign(t.noun) && t.size > kWideSign) && !name_of(t).empty();
        });
        if (thing == nullptr) return std::nullopt;
        std::string name;
        while (name.empty()) name = name_of(*thing);
        return turn(PictureType::kWhere, phrase(kWhere, random_, name),
                    kPlaces[static_cast<size_t>(thing->place)]);
    }

    std::optional<QaTurn> ask_colour() {
        const Thing* thing = choose([](const Thing& t) { return t.colour >= 0; });
        if (thing == nullptr) return std::nullopt;
        const char* colour = kColours[static_cast<size_t>(thing->colour)].word;
        const bool unique = count_of(thing->noun) == 1;
        if (thing->place >= 0 && (!unique || random_.chance(0.2))) {
            return turn(PictureType::kColour,
                        phrase(kColourAt, random_, kPlaces[static_cast<size_t>(thing->place)]), colour);
        }
        if (!unique) return std::nullopt;
        return turn(PictureType::kColour, phrase(kColour, random_, noun_word(thing->noun)), colour);
    }

    // Yes and no are equally likely whatever the words of the question.
    std::optional<QaTurn> ask_exist() {
        const Thing* anchor = choose([](const Thing& t) { return !is_sign(t.noun); });
        if (anchor == nullptr) return std::nullopt;
        const bool yes = random_.chance(0.5), with_colour = anchor->colour >= 0 && random_.chance(0.5);
        std::string name;
        if (yes) {
            name = with_colour ? description(*anchor) : noun_word(anchor->noun);
        } else if (with_colour) {
            name = absent_coloured_shape(*anchor);
        } else {
            std::vector<int> present;
            for (const Thing& thing : things_) present.push_back(thing.noun);
            name = noun_word(similar_noun(anchor->noun, present, random_));
        }
        return turn(PictureType::kExist, phrase(kExist, random_, with_article(name)), yes ? "yes" : "no");
    }

    // The shape in another colour, or another shape in its colour.
    std::string absent_coloured_shape(const Thing& anchor) {
        while (true) {
            Thing other = anchor;
            if (random_.chance(0.5)) {
                other.colour = random_.below(kColourCount);
            } else {
                other.noun = shape_noun(random_.below(kShapeCount));
            }
            const bool there = std::any_of(things_.begin(), things_.end(), [&](const Thing& t) {
                return t.noun == other.noun && t.colour == other.colour;
            });
            if (!there) return description(other);
        }
    }

    // Column (sides 0, 1) or row (2, 3); wide signs have no column.
    static std::optional<int> coordinate(const Thing& thing, int side) {
        if (thing.place < 0 || (side < 2 && is_sign(thing.noun) && thing.size > kWideSign))
            return std::nullopt;
        return side < 2 ? thing.place % 3 : thing.place / 3;
    }

    // Whether `a` lies on that side of `b`.
    static bool lies(const Thing& a, int side, const Thing& b) {
        const int first = coordinate(a, side).value(), second = coordinate(b, side).value();
        return side % 2 == 0 ? first < second : first > second;
    }

    bool all_have_coordinate(int side) const {
        return std::all_of(things_.begin(), things_.end(),
                           [&](const Thing& t) { return coordinate(t, side); });
    }

    // Asked only if exactly one thing lies on that side.
    std::optional<QaTurn> ask_relation() {
        struct Possible {
            const Thing *asked, *reference;
            int side;
        };
        std::vector<Possible> possible;
        for (int side = 0; side < 4; ++side) {
            if (!all_have_coordinate(side)) continue;
            for (const Thing& reference : things_) {
                const Thing* found = nullptr;
                int number = 0;
                for (const Thing& thing : things_) {
                    if (&thing == &reference || !lies(thing, side, reference)) continue;
                    found = &thing;
                    ++number;
                }
                if (number == 1 && !is_sign(found->noun) && count_of(reference.noun) == 1) {
                    possible.push_back({found, &reference, side});
                }
            }
        }
        if (possible.empty()) return std::nullopt;
        const Possible& chosen = random_.pick(possible);
        return turn(PictureType::kRelation,
                    phrase(kRelation, random_, kSides[chosen.side], name_of(*chosen.reference)),
                    noun_word(chosen.asked->noun));
    }

    std::optional<QaTurn> ask_compare() {
        struct Possible {
            const Thing *first, *second;
            int side;
        };
        std::vector<Possible> right, wrong;
        for (int side = 0; side < 4; ++side) {
            for (const Thing& first : things_) {
                for (const Thing& second : things_) {
                    if (&first == &second || count_of(first.noun) != 1 || count_of(second.noun) != 1)
                        continue;
                    if (!coordinate(first, side) || !coordinate(second, side)) continue;
                    if (lies(first, side, second)) {
                        right.push_back({&first, &second, side});
                        wrong.push_back({&first, &second, side ^ 1});
                    }
                }
            }
        }
        if (right.empty()) return std::nullopt;
        const bool yes = random_.chance(0.5);
        const Possible& chosen = random_.pick(yes ? right : wrong);
        const std::string first = name_of(*chosen.first), second = name_of(*chosen.second);
        return turn(PictureType::kCompare,
                    phrase(kCompare, random_, first, std::string(kSides[chosen.side]) + " the " + second),
                    yes ? "yes" : "no");
    }

    const Scene& scene_;
    const std::vector<Thing>& things_;
    Random& random_;
};

std::vector<const Thing*> in_order_of_places(const Scene& scene) {
    std::vector<const Thing*> order;
    for (const Thing& thing : scene.things) order.push_back(&thing);
    std::stable_sort(order.begin(), order.end(),
                     [](const Thing* a, const Thing* b) { return a->place < b->place; });
    return order;
}

void replace(std::string& text, const char* mark, const std::string& with) {
    if (const size_t at = text.find(mark); at != std::string::npos) text.replace(at, 2, with);
}

}  // namespace

std::optional<QaTurn> ask_about(const Scene& scene, PictureType type, Random& random) {
    return Asker(scene, random).ask(type);
}

std::string caption_of(const Scene& scene) {
    const std::vector<const Thing*> order = in_order_of_places(scene);
    std::string caption;
    for (size_t i = 0; i < order.size(); ++i) {
        if (i > 0) caption += i + 1 == order.size() ? " and " : ", ";
        caption += with_article(description(*order[i]));
        if (is_sign(order[i]->noun)) caption += " saying " + order[i]->text;
        if (order[i]->place >= 0) {
            caption += std::string(" in the ") + kPlaces[static_cast<size_t>(order[i]->place)];
        }
    }
    return caption;
}

std::vector<Hint> hints_of_names(const std::vector<Thing>& things, const std::string& question) {
    static const std::map<std::string, std::pair<int, bool>> nouns = [] {  // number of the noun, plural
        std::map<std::string, std::pair<int, bool>> made;
        for (int noun = 0; noun < noun_count(); ++noun) {
            made[noun_plural(noun)] = {noun, true};
            made[noun_word(noun)] = {noun, false};  // one "fish" is asked for more often than several
        }
        return made;
    }();
    std::vector<Hint> hints;
    std::string word, before;
    for (const char c : question + " ") {
        if (std::isalpha(static_cast<unsigned char>(c)) != 0) {
            word += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
            continue;
        }
        const auto noun = nouns.find(word);
        Hint hint{word, {}};
        if (noun != nouns.end()) {
            const auto colour = std::find_if(kColours.begin(), kColours.end(),
                                             [&](const ColourWord& c) { return before == c.word; });
            hint.words.push_back(noun_word(noun->second.first));  // which thing it is must not be lost
            int count = 0;
            for (const Thing& thing : things) {
                if (thing.noun != noun->second.first) continue;
                if (colour != kColours.end() && thing.colour != colour - kColours.begin()) continue;
                ++count;
                if (thing.place >= 0) hint.words.push_back(kPlaces[static_cast<size_t>(thing.place)]);
                if (thing.colour >= 0) hint.words.push_back(kColours[static_cast<size_t>(thing.colour)].word);
            }
            if (count == 0) {
                hint.words.push_back("nothing");
            } else if (noun->second.second) {
                hint.words.push_back(number_word(count));
            }
        }
        if (!hint.words.empty()) hints.push_back(std::move(hint));
        if (!word.empty()) before = std::exchange(word, {});
    }
    return hints;
}

std::vector<Hint> hints_of(const Scene& scene, const QaTurn& turn) {
    std::vector<Hint> hints = hints_of_names(scene.things, turn.question);
    if (turn.question.find("things") != std::string::npos) {
        hints.push_back({"things", {number_word(static_cast<int>(scene.things.size()))}});
    }
    if (turn.type == kPictureTypes[static_cast<size_t>(PictureType::kCaption)]) {
        for (const Thing* thing : in_order_of_places(scene)) {
            Hint part{"", {noun_word(thing->noun)}};
            if (thing->colour >= 0) part.words.push_back(kColours[static_cast<size_t>(thing->colour)].word);
            if (thing->place >= 0) part.words.push_back(kPlaces[static_cast<size_t>(thing->place)]);
            hints.push_back(std::move(part));
        }
    } else if (turn.type == kPictureTypes[static_cast<size_t>(PictureType::kSign)]) {
        for (const char c : turn.answer) hints.push_back({"", {std::string(1, c)}});
    }
    return hints;
}

const char* number_word(int number) {
    return kNumbers[number];
}

std::string phrase(Phrasings phrasings, Random& random, const std::string& x, const std::string& y) {
    std::string text = random.pick(phrasings);
    replace(text, "{}", x);
    replace(text, "[]", y);
    if (random.chance(0.15)) text.pop_back();
    if (random.chance(0.2)) text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
    return text;
}

int similar_noun(int noun, std::span<const int> present, Random& random) {
    const bool same_group = random.chance(0.7) || is_shape(noun);
    // More attempts than the smallest group needs; then anything, for all of the group may be present.
    constexpr int kAttempts = 500;
    for (int attempt = 0;; ++attempt) {
        const bool shape = is_shape(noun) && attempt < kAttempts;
        const int other = shape ? shape_noun(random.below(kShapeCount)) : random.below(emoji_count());
        if (same_group && attempt < kAttempts && noun_group(other) != noun_group(noun)) continue;
        if (std::find(present.begin(), present.end(), other) == present.end()) return other;
    }
}

std::vector<std::string> all_phrasings() {
    std::vector<std::string> all;
    for (const Phrasings list :
         {Phrasings(kWhat), Phrasings(kAt), Phrasings(kWhere), Phrasings(kColour), Phrasings(kColourAt),
          Phrasings(kExist), Phrasings(kCount), Phrasings(kTotal), Phrasings(kRelation), Phrasings(kCompare),
          Phrasings(kSign), Phrasings(kCaption)}) {
        all.insert(all.end(), list.begin(), list.end());
    }
    return all;
}

}  // namespace llava_mini::scenes
