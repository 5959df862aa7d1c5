#include "trainer/curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/file.h"

namespace llava_mini::trainer {
namespace {

using nlohmann::json;

constexpr double kWidth = 930, kPanel = 240, kLeft = 60, kRight = 180, kTop = 30, kGap = 60, kLabel = 16;
constexpr std::array<const char*, 12> kColours = {"#1f77b4", "#d62728", "#2ca02c", "#ff7f0e",
                                                  "#9467bd", "#8c564b", "#e377c2", "#17becf",
                                                  "#bcbd22", "#7f7f7f", "#000080", "#006400"};

struct Curve {
    std::vector<std::pair<double, double>> points;
};
using Curves = std::map<std::string, Curve>;

// As high as its list of names.
double panel_height(const Curves& curves) {
    return std::max(kPanel, kLabel * static_cast<double>(curves.size()));
}

// One plot with its axes; `top` is where it begins.
std::string panel(const std::string& title, const Curves& curves, double x_max, double y_max, double top) {
    const double height = panel_height(curves);
    const double width = kWidth - kLeft - kRight;
    const auto px = [&](double x) { return kLeft + x / x_max * width; };
    const auto py = [&](double y) { return top + height * (1 - std::min(y, y_max) / y_max); };
    std::string out =
        fmt::format("<text x='{}' y='{}' font-weight='bold'>{}</text>\n", kLeft, top - 8, title);
    for (int i = 0; i <= 4; ++i) {
        const double y = y_max * i / 4, x = x_max * i / 4;
        out += fmt::format(
            "<line x1='{}' y1='{:.1f}' x2='{}' y2='{:.1f}' stroke='#ddd'/>"
            "<text x='{}' y='{:.1f}' text-anchor='end'>{:.3g}</text>\n",
            kLeft, py(y), kLeft + width, py(y), kLeft - 6, py(y) + 4, y);
        out += fmt::format("<text x='{:.1f}' y='{}' text-anchor='middle'>{:.0f}k</text>\n", px(x),
                           top + height + 16, x / 1000);
    }
    size_t colour = 0;
    double label_y = top + 10;
    for (const auto& [name, curve] : curves) {
        const char *stroke = kColours[colour % kColours.size()],
                   *dashes = colour < kColours.size() ? "" : " stroke-dasharray='5 3'";
        ++colour;
        std::string points;
        for (const auto& [x, y] : curve.points) points += fmt::format("{:.1f},{:.1f} ", px(x), py(y));
        out += fmt::format("<polyline points='{}' fill='none' stroke='{}' stroke-width='1.5'{}/>\n", points,
                           stroke, dashes);
        if (curve.points.size() == 1) {
            out += fmt::format("<circle cx='{:.1f}' cy='{:.1f}' r='2.5' fill='{}'/>\n",
                               px(curve.points[0].first), py(curve.points[0].second), stroke);
        }
        out += fmt::format("<text x='{}' y='{:.1f}' fill='{}'>{} {:.3g}</text>\n", kLeft + width + 8, label_y,
                           stroke, name, curve.points.back().second);
        label_y += kLabel;
    }
    return out;
}

void drop_behind(double x, Curves& curves) {
    for (auto& [name, curve] : curves) {
        std::erase_if(curve.points, [x](const auto& point) { return point.first > x; });
    }
    std::erase_if(curves, [](const auto& entry) { return entry.second.points.empty(); });
}

}  // namespace

void write_curves(const std::filesystem::path& log, const std::filesystem::path& svg) {
    std::ifstream file(log);
    Curves losses, by_type, exact, marks;
    std::map<std::string, double> priors;  // the latest
    double x_max = 1, loss_max = 0.1;
    std::string line;
    while (std::getline(file, line)) {
        const json entry = json::parse(line, nullptr, /*allow_exceptions=*/false);
        if (!entry.is_object() || !entry.contains("samples") || !entry["samples"].is_number()) continue;
        const double x = entry["samples"].get<double>();
        const std::string event = entry.value("event", "");
        x_max = std::max(x_max, x);
        if (event == "resume" || event == "start") {
            // What a run did behind what it was resumed from is no part of what became of it.
            for (Curves* curves : {&losses, &by_type, &marks}) drop_behind(x, *curves);
            x_max = std::max(x, 1.0);
        } else if (event == "train") {
            for (const char* name : {"answers", "patches", "words", "mentions", "changes", "changes_kept",
                                     "earlier", "asked", "looks", "looks_next", "looks_before", "found"}) {
                if (entry.contains(name)) losses[name].points.emplace_back(x, entry[name].get<double>());
            }
        } else if (event == "validation") {
            if (entry.contains("types")) {
                for (const auto& [name, type] : entry["types"].items()) {
                    by_type[name].points.emplace_back(x, type.value("exact", 0.0));
                    priors[name] = type.value("prior", 0.0);
                }
            }
            if (entry.contains("marks")) {
                for (const auto& [name, share] : entry["marks"].items()) {
                    marks[name].points.emplace_back(x, share.get<double>());
                }
            }
        }
    }
    for (const auto& [name, curve] : by_type) {
        exact[fmt::format("{} (prior {:.2f})", name, priors[name])] = curve;
    }
    for (const auto& [name, curve] : losses) {
        for (const auto& [x, y] : curve.points) loss_max = std::max(loss_max, std::min(y, 10.0));
    }
    std::string body;
    double top = kTop;
    const auto add = [&](const char* title, const Curves& curves, double y_max) {
        body += panel(title, curves, x_max, y_max, top);
        top += panel_height(curves) + kGap;
    };
    add("training loss", losses, loss_max);
    add("validation: exact answers", exact, 1);
    add("validation: words of patches among the best four", marks, 1);
    AtomicFile out(svg);
    out.write(fmt::format(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0} {1}' width='{0}' height='{1}' "
        "font-family='sans-serif' font-size='11'>\n<rect width='100%' height='100%' fill='white'/>\n",
        kWidth, top));
    out.write(body);
    out.write("</svg>\n");
    out.commit();
}

}  // namespace llava_mini::trainer
