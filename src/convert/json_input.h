// Checked access to JSON that others wrote: every error names the file and the field.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llava_mini {

/// `text` fit for a one-line message: control characters replaced, long text cut.
std::string printable(std::string_view text);

/// Parses JSON. Throws Error(kInput) naming `file` for malformed text, an object with the same key twice, or
/// nesting deeper than any configuration has.
nlohmann::json parse_json(std::string_view text, const std::string& file);

/// parse_json of a file of at most `max_bytes`.
nlohmann::json read_json_file(const std::filesystem::path& path, uint64_t max_bytes);

/// An object whose fields are read with checks. A field that is null counts as absent. Getters without a
/// default throw Error(kInput) when the field is absent; all throw it when the field has another type or is
/// out of range. Refers to the JSON value it was made of.
class JsonObject {
  public:
    /// `where` starts every error: "FILE" or "FILE: field". Throws Error(kInput) if `value` is no object.
    JsonObject(const nlohmann::json& value, std::string where);

    bool has(const char* key) const;
    const std::string& where() const { return where_; }
    /// The raw value; null if absent.
    const nlohmann::json* find(const char* key) const;
    /// find(), or an error when it is absent.
    const nlohmann::json& at(const char* key) const;

    int integer(const char* key, int64_t low, int64_t high) const;
    int integer_or(const char* key, int64_t low, int64_t high, int otherwise) const;
    float real(const char* key, double low, double high) const;
    float real_or(const char* key, double low, double high, float otherwise) const;
    bool boolean_or(const char* key, bool otherwise) const;
    std::string text(const char* key) const;
    std::string text_or(const char* key, const std::string& otherwise) const;
    std::optional<JsonObject> object(const char* key) const;

    /// Throws Error(kInput): "where: key: expected ..., found <value>".
    [[noreturn]] void fail(const char* key, const std::string& expected) const;

  private:
    const nlohmann::json* value_;
    std::string where_;
};

/// A short description of a value for messages: the value itself if it is simple, else its kind.
std::string describe_json(const nlohmann::json& value);

}  // namespace llava_mini
