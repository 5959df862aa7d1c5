#include "scenes/words.h"

#include <string_view>

#include "scenes/random.h"

namespace llava_mini::scenes {
namespace {

constexpr EmojiWord kEmoji[] = {
    {U'🐶', "dog", Group::kAnimal},
    {U'🐱', "cat", Group::kAnimal},
    {U'🐭', "mouse", Group::kAnimal, "mice"},
    {U'🐰', "rabbit", Group::kAnimal},
    {U'🦊', "fox", Group::kAnimal, "foxes"},
    {U'🐻', "bear", Group::kAnimal},
    {U'🐼', "panda", Group::kAnimal},
    {U'🦁', "lion", Group::kAnimal},
    {U'🐮', "cow", Group::kAnimal},
    {U'🐷', "pig", Group::kAnimal},
    {U'🐸', "frog", Group::kAnimal},
    {U'🐵', "monkey", Group::kAnimal},
    {U'🐔', "chicken", Group::kAnimal},
    {U'🐧', "penguin", Group::kAnimal},
    {U'🦉', "owl", Group::kAnimal},
    {U'🐝', "bee", Group::kAnimal},
    {U'🐌', "snail", Group::kAnimal},
    {U'🦋', "butterfly", Group::kAnimal, "butterflies"},
    {U'🐢', "turtle", Group::kAnimal},
    {U'🐍', "snake", Group::kAnimal},
    {U'🐙', "octopus", Group::kAnimal, "octopuses"},
    {U'🦀', "crab", Group::kAnimal},
    {U'🐳', "whale", Group::kAnimal},
    {U'🐘', "elephant", Group::kAnimal},
    {U'🐟', "fish", Group::kAnimal, "fish"},
    {U'🕷', "spider", Group::kAnimal},
    {U'🍎', "apple", Group::kFood},
    {U'🍌', "banana", Group::kFood},
    {U'🍋', "lemon", Group::kFood},
    {U'🍉', "watermelon", Group::kFood},
    {U'🍓', "strawberry", Group::kFood, "strawberries"},
    {U'🍒', "cherry", Group::kFood, "cherries"},
    {U'🍐', "pear", Group::kFood},
    {U'🍍', "pineapple", Group::kFood},
    {U'🥕', "carrot", Group::kFood},
    {U'🍄', "mushroom", Group::kFood},
    {U'🥦', "broccoli", Group::kFood},
    {U'🧀', "cheese", Group::kFood},
    {U'🥚', "egg", Group::kFood},
    {U'🍕', "pizza", Group::kFood},
    {U'🍔', "burger", Group::kFood},
    {U'🍩', "donut", Group::kFood},
    {U'🍪', "cookie", Group::kFood},
    {U'🎂', "cake", Group::kFood},
    {U'🥑', "avocado", Group::kFood},
    {U'🍇', "grape", Group::kFood},
    {U'🚗', "car", Group::kVehicle},
    {U'🚌', "bus", Group::kVehicle, "buses"},
    {U'🚲', "bicycle", Group::kVehicle},
    {U'🚂', "train", Group::kVehicle},
    {U'✈', "airplane", Group::kVehicle},
    {U'🚀', "rocket", Group::kVehicle},
    {U'🚁', "helicopter", Group::kVehicle},
    {U'⛵', "sailboat", Group::kVehicle},
    {U'🚜', "tractor", Group::kVehicle},
    {U'🚚', "truck", Group::kVehicle},
    {U'🔨', "hammer", Group::kObject},
    {U'🔑', "key", Group::kObject},
    {U'💡', "bulb", Group::kObject},
    {U'🕯', "candle", Group::kObject},
    {U'🪑', "chair", Group::kObject},
    {U'🚪', "door", Group::kObject},
    {U'⏰', "clock", Group::kObject},
    {U'☎', "telephone", Group::kObject},
    {U'📷', "camera", Group::kObject},
    {U'💻', "laptop", Group::kObject},
    {U'📖', "book", Group::kObject},
    {U'✏', "pencil", Group::kObject},
    {U'🎁', "gift", Group::kObject},
    {U'🎈', "balloon", Group::kObject},
    {U'☂', "umbrella", Group::kObject},
    {U'👑', "crown", Group::kObject},
    {U'🎩', "hat", Group::kObject},
    {U'👟', "shoe", Group::kObject},
    {U'👕', "shirt", Group::kObject},
    {U'🔔', "bell", Group::kObject},
    {U'🎸', "guitar", Group::kObject},
    {U'⚽', "football", Group::kSport},
    {U'🏀', "basketball", Group::kSport},
    {U'🏆', "trophy", Group::kSport, "trophies"},
    {U'🎯', "target", Group::kSport},
    {U'🪁', "kite", Group::kSport},
    {U'🛹', "skateboard", Group::kSport},
    {U'🎲', "dice", Group::kSport, "dice"},
    {U'🌵', "cactus", Group::kPlant, "cactuses"},
    {U'🌹', "rose", Group::kPlant},
    {U'🌻', "sunflower", Group::kPlant},
    {U'🌲', "tree", Group::kPlant},
    {U'🌴', "palm", Group::kPlant},
    {U'🍀', "clover", Group::kPlant},
    {U'🍁', "leaf", Group::kPlant, "leaves"},
    {U'☀', "sun", Group::kOutdoors},
    {U'🌙', "moon", Group::kOutdoors},
    {U'☁', "cloud", Group::kOutdoors},
    {U'🌈', "rainbow", Group::kOutdoors},
    {U'❄', "snowflake", Group::kOutdoors},
    {U'⛄', "snowman", Group::kOutdoors, "snowmen"},
    {U'🔥', "fire", Group::kOutdoors},
    {U'🏠', "house", Group::kOutdoors},
    {U'🤖', "robot", Group::kOutdoors},
    {U'👻', "ghost", Group::kOutdoors},
    {U'💀', "skull", Group::kOutdoors},
};

constexpr const char* kSignWords[] = {
    "STOP", "OPEN", "EXIT", "CAFE", "SALE", "TAXI", "BANK", "FIRE", "HELP", "SLOW", "BUS",  "ZOO",  "GO",
    "NO",   "YES",  "IN",   "OUT",  "UP",   "DOWN", "LEFT", "PARK", "SHOP", "FOOD", "MILK", "TEA",  "BAR",
    "PUB",  "SPA",  "GYM",  "ICE",  "HOT",  "COLD", "FREE", "NEW",  "OLD",  "BIG",  "WET",  "DRY",  "PUSH",
    "PULL", "WAIT", "WALK", "ROAD", "EAST", "WEST", "DOG",  "CAT",  "FISH", "BOOK", "GAME", "MAP",  "MEN",
    "LIFT", "TOLL", "NEXT", "HOME", "TOWN", "CITY", "FARM", "LAKE", "SEA",  "BEAR", "BIKE", "BOAT", "CAR",
    "KEEP", "OFF",  "ON",   "OK",   "WIFI", "TREE", "STAR", "MOON", "SUN",  "RAIN", "SNOW", "WIND", "BLUE",
    "RED",  "PINK", "GOLD", "ONE",  "TWO",  "SIX",  "TEN",  "FOUR", "FIVE", "NINE", "ZERO", "MAIN", "HIGH",
    "LOW",  "FAST", "SAFE", "RISK", "QUIZ", "JAZZ", "ROCK", "LOVE", "HOPE", "LUCK", "PLAY", "READ", "SING",
    "CAKE", "BEER", "WINE", "SOUP", "RICE", "EGGS", "FIG"};

}  // namespace

std::span<const EmojiWord> emoji_words() {
    return kEmoji;
}

int emoji_count() {
    return static_cast<int>(std::size(kEmoji));
}

int noun_count() {
    return sign_noun() + 1;
}

const char* noun_word(int noun) {
    if (is_sign(noun)) return "sign";
    if (is_shape(noun)) return kShapes[static_cast<size_t>(noun - emoji_count())];
    return kEmoji[noun].word;
}

std::string noun_plural(int noun) {
    if (noun < emoji_count() && kEmoji[noun].plural != nullptr) return kEmoji[noun].plural;
    const std::string word = noun_word(noun);
    return word == "cross" ? "crosses" : word + "s";
}

Group noun_group(int noun) {
    if (is_sign(noun)) return Group::kSign;
    return is_shape(noun) ? Group::kShape : kEmoji[noun].group;
}

std::string with_article(const std::string& phrase) {
    const bool vowel = std::string_view("aeio").find(phrase.front()) != std::string_view::npos ||
                       phrase.starts_with("umbrella");
    return (vowel ? "an " : "a ") + phrase;
}

int held_out_place(int noun) {
    if (is_sign(noun)) return -1;
    uint64_t hash = 0;
    for (const char* c = noun_word(noun); *c != '\0'; ++c) hash = scatter(hash ^ static_cast<uint8_t>(*c));
    return static_cast<int>(hash % kPlaceCount);
}

int held_out_colour(int shape) {
    return (5 * shape + 2) % kColourCount;
}

std::span<const char* const> sign_words() {
    return kSignWords;
}

}  // namespace llava_mini::scenes
