#include "convert/json_input.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/error.h"
#include "core/file.h"

namespace llava_mini {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 64;
constexpr size_t kMaxPrintable = 200;

}  // namespace

std::string printable(std::string_view text) {
    std::string line;
    for (const char c : text.substr(0, kMaxPrintable)) line += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
    if (text.size() > kMaxPrintable) line += "...";
    return line;
}

std::string describe_json(const json& value) {
    if (value.is_object()) return "an object";
    if (value.is_array()) return fmt::format("an array of {}", value.size());
    return printable(value.dump(-1, ' ', false, json::error_handler_t::replace));
}

json parse_json(std::string_view text, const std::string& file) {
    // Keys of the objects that are open; arrays hold an empty set.
    std::vector<std::unordered_set<std::string>> open;
    const auto check = [&](int, json::parse_event_t event, json& parsed) {
        switch (event) {
            case json::parse_event_t::object_start:
            case json::parse_event_t::array_start:
                if (open.size() == kMaxDepth) throw_input("{}: JSON nested deeper than {}", file, kMaxDepth);
                open.emplace_back();
                break;
            case json::parse_event_t::object_end:
            case json::parse_event_t::array_end:
                open.pop_back();
                break;
            case json::parse_event_t::key:
                if (const auto& key = parsed.get_ref<const std::string&>(); !open.back().insert(key).second) {
                    throw_input("{}: the key \"{}\" stands twice in one object", file, printable(key));
                }
                break;
            case json::parse_event_t::value:
                break;
        }
        return true;
    };
    try {
        return json::parse(text.begin(), text.end(), check);
    } catch (const json::exception& e) {
        throw_input("{}: not valid JSON: {}", file, printable(e.what()));
    }
}

json read_json_file(const std::filesystem::path& path, uint64_t max_bytes) {
    return parse_json(read_text_file(path, max_bytes), path.string());
}

JsonObject::JsonObject(const json& value, std::string where) : value_(&value), where_(std::move(where)) {
    if (!value.is_object()) throw_input("{}: expected an object, found {}", where_, describe_json(value));
}

const json* JsonObject::find(const char* key) const {
    const auto it = value_->find(key);
    return it == value_->end() || it->is_null() ? nullptr : &*it;
}

const json& JsonObject::at(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) throw_input("{}: the field {} is missing", where_, key);
    return *value;
}

bool JsonObject::has(const char* key) const {
    return find(key) != nullptr;
}

void JsonObject::fail(const char* key, const std::string& expected) const {
    const json* value = find(key);
    throw_input("{}: {}: expected {}, found {}", where_, key, expected,
                value == nullptr ? "nothing" : describe_json(*value));
}

int JsonObject::integer(const char* key, int64_t low, int64_t high) const {
    const json& value = at(key);
    const auto reject = [&] { fail(key, fmt::format("an integer from {} to {}", low, high)); };
    if (!value.is_number_integer()) reject();
    if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) reject();
    const auto number = value.get<int64_t>();
    if (number < low || number > high) reject();
    return static_cast<int>(number);
}

int JsonObject::integer_or(const char* key, int64_t low, int64_t high, int otherwise) const {
    return has(key) ? integer(key, low, high) : otherwise;
}

float JsonObject::real(const char* key, double low, double high) const {
    const json& value = at(key);
    if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high)) {
        fail(key, fmt::format("a number from {} to {}", low, high));
    }
    return static_cast<float>(value.get<double>());
}

float JsonObject::real_or(const char* key, double low, double high, float otherwise) const {
    return has(key) ? real(key, low, high) : otherwise;
}

bool JsonObject::boolean_or(const char* key, bool otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) fail(key, "true or false");
    return value->get<bool>();
}

std::string JsonObject::text(const char* key) const {
    if (!at(key).is_string()) fail(key, "a string");
    return at(key).get<std::string>();
}

std::string JsonObject::text_or(const char* key, const std::string& otherwise) const {
    return has(key) ? text(key) : otherwise;
}

std::optional<JsonObject> JsonObject::object(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    return JsonObject(*value, where_ + ": " + key);
}

}  // namespace llava_mini
