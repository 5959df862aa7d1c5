#include "eval/scorer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

namespace llava_mini::eval {
namespace {

constexpr double kZ = 1.959963984540054;  // 97.5 % of a normal distribution lie below
constexpr std::string_view kSpaces = " \t\r\n";

std::string normal_form(std::string_view text) {
    text.remove_prefix(std::min(text.find_first_not_of(kSpaces), text.size()));
    text = text.substr(0, text.find_last_not_of(kSpaces) + 1);
    if (text.ends_with('.')) text.remove_suffix(1);
    std::string lower(text);
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    return lower;
}

Estimate mean_of(const std::vector<double>& values) {
    return wilson(std::accumulate(values.begin(), values.end(), 0.0), values.size());
}

struct Counts {
    uint64_t questions = 0, hits = 0;
    std::map<std::string, uint64_t> answers;
};

TypeScore type_score(const std::string& type, const Counts& counts) {
    TypeScore score{.type = type,
                    .questions = counts.questions,
                    .exact = wilson(static_cast<double>(counts.hits), counts.questions)};
    uint64_t most = 0;
    for (const auto& [answer, number] : counts.answers) {
        if (number <= most) continue;
        most = number;
        score.common_answer = answer;
    }
    score.prior = static_cast<double>(most) / static_cast<double>(counts.questions);
    return score;
}

std::string shortened(const std::string& text) {
    constexpr size_t kMost = 24;
    return text.size() <= kMost ? text : text.substr(0, kMost) + "...";
}

nlohmann::ordered_json json_of(const Estimate& estimate) {
    return {{"value", estimate.value}, {"low", estimate.low}, {"high", estimate.high}};
}

}  // namespace

Estimate wilson(double hits, uint64_t total) {
    if (total == 0) return {};
    const auto n = static_cast<double>(total);
    const double p = hits / n, z2 = kZ * kZ;
    const double middle = (p + z2 / (2 * n)) / (1 + z2 / n);
    const double half = kZ / (1 + z2 / n) * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n));
    return {p, std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

bool same_answer(std::string_view a, std::string_view b) {
    return normal_form(a) == normal_form(b);
}

std::vector<std::string> things_named(std::string_view caption) {
    std::string text = normal_form(caption);
    for (size_t at = text.find(" and "); at != std::string::npos; at = text.find(" and ", at))
        text.replace(at, 5, ", ");
    std::vector<std::string> things;
    for (size_t start = 0; start < text.size();) {
        const size_t end = std::min(text.find(',', start), text.size());
        std::string part = normal_form(std::string_view(text).substr(start, end - start));
        start = end + 1;
        for (const char* behind : {" in the ", " saying "}) part = part.substr(0, part.find(behind));
        for (const std::string_view article : {"a ", "an ", "the "}) {
            if (part.starts_with(article)) {
                part.erase(0, article.size());
                break;
            }
        }
        if (!part.empty()) things.push_back(part);
    }
    return things;
}

double caption_f1(std::string_view text, std::string_view answer) {
    std::vector<std::string> named = things_named(text), wanted = things_named(answer), right;
    std::sort(named.begin(), named.end());
    std::sort(wanted.begin(), wanted.end());
    std::set_intersection(named.begin(), named.end(), wanted.begin(), wanted.end(),
                          std::back_inserter(right));
    const size_t sum = named.size() + wanted.size();
    return sum == 0 ? 1.0 : 2.0 * static_cast<double>(right.size()) / static_cast<double>(sum);
}

Scores score(const std::vector<Prediction>& predictions) {
    std::map<std::string, Counts> types;
    std::map<int, std::vector<double>> captions;
    std::vector<double> all_captions;
    Counts all;
    for (const Prediction& prediction : predictions) {
        const uint64_t hit = same_answer(prediction.text, prediction.answer) ? 1 : 0;
        for (Counts* counts : {&types[prediction.type], &all}) {
            ++counts->questions;
            counts->hits += hit;
            ++counts->answers[normal_form(prediction.answer)];
        }
        if (prediction.type == "caption") {
            const double f1 = caption_f1(prediction.text, prediction.answer);
            captions[static_cast<int>(things_named(prediction.answer).size())].push_back(f1);
            all_captions.push_back(f1);
        }
    }
    Scores scores;
    for (const auto& [type, counts] : types)
        scores.types.push_back(type_score(type.empty() ? "(none)" : type, counts));
    if (all.questions > 0) scores.types.push_back(type_score("all", all));
    for (const auto& [things, values] : captions)
        scores.captions.push_back({things, values.size(), mean_of(values)});
    if (!all_captions.empty()) scores.captions.push_back({0, all_captions.size(), mean_of(all_captions)});
    return scores;
}

std::string to_table(const Scores& scores) {
    std::string table = fmt::format("{:<10} {:>9}  {:>6}  {:^15}  {:>6}  {}\n", "type", "questions", "exact",
                                    "95 % interval", "prior", "commonest answer");
    for (const TypeScore& s : scores.types) {
        table += fmt::format("{:<10} {:>9}  {:>6.3f}  {:.3f} to {:.3f}  {:>6.3f}  {}\n", s.type, s.questions,
                             s.exact.value, s.exact.low, s.exact.high, s.prior, shortened(s.common_answer));
    }
    if (scores.captions.empty()) return table;
    table += fmt::format("\n{:<10} {:>9}  {:>6}  {:^15}\n", "caption of", "captions", "F1", "95 % interval");
    for (const CaptionScore& s : scores.captions) {
        table +=
            fmt::format("{:<10} {:>9}  {:>6.3f}  {:.3f} to {:.3f}\n",
                        s.things == 0 ? "all" : fmt::format("{} thing{}", s.things, s.things == 1 ? "" : "s"),
                        s.captions, s.f1.value, s.f1.low, s.f1.high);
    }
    return table;
}

std::string to_json(const Scores& scores) {
    nlohmann::ordered_json types = nlohmann::ordered_json::array(), captions = types;
    for (const TypeScore& s : scores.types) {
        types.push_back({{"type", s.type},
                         {"questions", s.questions},
                         {"exact", json_of(s.exact)},
                         {"prior", s.prior},
                         {"commonest_answer", s.common_answer}});
    }
    for (const CaptionScore& s : scores.captions) {
        captions.push_back(
            {{"things", s.things == 0 ? nlohmann::ordered_json("all") : nlohmann::ordered_json(s.things)},
             {"captions", s.captions},
             {"f1", json_of(s.f1)}});
    }
    const nlohmann::ordered_json object = {{"types", types}, {"captions", captions}};
    return object.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace llava_mini::eval
