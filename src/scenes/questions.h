// Questions about a picture and their answers.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/sample.h"
#include "scenes/scene.h"

namespace llava_mini::scenes {

/// Types of questions; their names are those of QaTurn::type.
enum class PictureType : uint8_t {
    kWhat,      // what is this? (one thing)                     -> cat
    kAt,        // what is in the top left?                      -> cat, nothing
    kWhere,     // where is the cat?                             -> top left
    kColour,    // what colour is the star?                      -> red
    kExist,     // is there a cat?                               -> yes, no
    kCount,     // how many cats are there?                      -> zero to four
    kTotal,     // how many things are there?                    -> one to nine
    kRelation,  // what is left of the cat?                      -> dog
    kCompare,   // is the cat left of the dog?                   -> yes, no
    kSign,      // what does the sign say?                       -> STOP
    kCaption    // describe the picture                          -> a cat in the top left and ...
};
inline constexpr std::array<const char*, 11> kPictureTypes = {
    "what", "at", "where", "colour", "exist", "count", "total", "relation", "compare", "sign", "caption"};

/// A question of the type about the scene; nothing if the scene does not allow one whose answer is certain.
/// In a held-out scene it is about the held-out thing where that is possible.
std::optional<QaTurn> ask_about(const Scene& scene, PictureType type, Random& random);

/// The caption: things in the order of places, e.g. "a cat in the top left and a red circle in the center".
std::string caption_of(const Scene& scene);

/// hints_of_names() of the question, and how many "things" there are; of a caption its things one by one, of a
/// sign its characters.
std::vector<Hint> hints_of(const Scene& scene, const QaTurn& turn);
/// Of every noun in the question: the noun, then place and colour of each of `things` that it names, their number
/// after a plural, or "nothing".
std::vector<Hint> hints_of_names(const std::vector<Thing>& things, const std::string& question);

/// zero, one, ... ten.
const char* number_word(int number);

/// One of `phrasings`, in it {} replaced by `x` and [] by `y`; now and then with a capital or without the
/// question mark, as people write.
std::string phrase(std::span<const char* const> phrasings, Random& random, const std::string& x = {},
                   const std::string& y = {});

/// A noun that is not in the scene and easily confused with `noun`: mostly one of its group. `present` are
/// the nouns that must not come out.
int similar_noun(int noun, std::span<const int> present, Random& random);

/// All phrasings, for the vocabulary.
std::vector<std::string> all_phrasings();

}  // namespace llava_mini::scenes
