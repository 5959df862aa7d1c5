#include "bench/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

namespace llava_mini::bench {
namespace {

// Pixels.
constexpr double kWidth = 960, kLeft = 170, kRight = 120, kBar = 44, kGap = 14, kPanelHead = 44,
                 kPanelFoot = 40;
constexpr double kPlot = kWidth - kLeft - kRight;
constexpr double kHead = 64, kLegendColumn = 210, kLegendRow = 24;
constexpr double kCharacter = 6.6;  // width of one at 12 pixels, roughly

// Told apart by people who confuse colours too (Okabe and Ito's palette).
constexpr std::array<const char*, kStages> kColours = {"#999999", "#0072B2", "#CC79A7", "#56B4E9",
                                                       "#009E73", "#7FCDBB", "#E69F00", "#D55E00"};

const char* colour(Stage stage) {
    return kColours[static_cast<size_t>(stage)];
}

std::string escape(std::string_view text) {
    std::string escaped;
    for (const char c : text) {
        switch (c) {
            case '&':
                escaped += "&amp;";
                break;
            case '<':
                escaped += "&lt;";
                break;
            case '>':
                escaped += "&gt;";
                break;
            case '"':
                escaped += "&quot;";
                break;
            default:
                escaped += c;
        }
    }
    return escaped;
}

// Three digits that matter, never an exponent.
std::string amount(double value) {
    const int digits = value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 3;
    return fmt::format("{:.{}f}", value, digits);
}

struct Unit {
    double divisor;
    std::string name;
};

// The unit in which `largest` has one to three digits before the point; `units` from small to large, each a
// thousand times the one before.
Unit choose_unit(double largest, std::initializer_list<Unit> units) {
    Unit chosen = *units.begin();
    for (const Unit& unit : units) {
        if (largest >= unit.divisor) chosen = unit;
    }
    return chosen;
}

// The step of an axis: 1, 2 or 5 times a power of ten, for at most eight steps.
double tick_step(double largest) {
    const double power = std::pow(10.0, std::floor(std::log10(largest / 8)));
    for (const double factor : {1.0, 2.0, 5.0}) {
        if (largest / (factor * power) <= 8) return factor * power;
    }
    return 10 * power;
}

class Svg {
  public:
    void text(double x, double y, std::string_view content, std::string_view attributes) {
        body_ +=
            fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, attributes, escape(content));
    }
    void rect(double x, double y, double width, double height, std::string_view fill,
              std::string_view title = {}) {
        body_ +=
            fmt::format("<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\" fill=\"{}\">", x,
                        y, width, height, fill);
        if (!title.empty()) body_ += fmt::format("<title>{}</title>", escape(title));
        body_ += "</rect>\n";
    }
    void line(double x1, double y1, double x2, double y2) {
        body_ += fmt::format(
            "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#dddddd\" "
            "stroke-width=\"1\"/>\n",
            x1, y1, x2, y2);
    }
    std::string finish(double height) const {
        return fmt::format(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 "
            "{0:.0f} "
            "{1:.0f}\" font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" font-size=\"12\" "
            "fill=\"#222222\">\n<rect width=\"{0:.0f}\" height=\"{1:.0f}\" fill=\"#ffffff\"/>\n{2}</svg>\n",
            kWidth, height, body_);
    }

  private:
    std::string body_;
};

struct Bar {
    std::string label;
    ByStage values;
    double total = 0;  // at least the sum of the values: what no stage accounts for is left white
};

// A heading, bars from `y` on, an axis below. Returns where the next thing may begin.
double draw_panel(Svg& svg, double y, std::string_view heading, std::initializer_list<Unit> units,
                  std::vector<Bar> bars) {
    svg.text(kLeft, y + 22, heading, "font-size=\"14\" font-weight=\"bold\"");
    y += kPanelHead;
    double largest = 0;
    for (const Bar& bar : bars) largest = std::max(largest, bar.total);
    const auto [divisor, unit] = choose_unit(largest, units);
    for (Bar& bar : bars) {
        bar.total /= divisor;
        for (double& value : bar.values.values) value /= divisor;
    }
    largest /= divisor;
    const double scale = kPlot / largest;
    const double bottom = y + static_cast<double>(bars.size()) * (kBar + kGap);
    const double step = tick_step(largest);
    for (int i = 0; i * step <= largest * 1.0001; ++i) {
        const double x = kLeft + i * step * scale;
        svg.line(x, y - 6, x, bottom);
        svg.text(x, bottom + 16, fmt::format("{:g}", i * step), "text-anchor=\"middle\" fill=\"#666666\"");
    }
    svg.text(kLeft + kPlot + 12, bottom + 16, unit, "fill=\"#666666\"");

    for (const Bar& bar : bars) {
        svg.text(kLeft - 10, y + kBar / 2 + 4, bar.label, "text-anchor=\"end\"");
        double x = kLeft;
        for (const Stage stage : kAllStages) {
            const double width = bar.values[stage] * scale;
            const std::string value = amount(bar.values[stage]);
            if (bar.values[stage] > 0) {
                svg.rect(x, y, width, kBar, colour(stage),
                         fmt::format("{}: {} {}", stage_label(stage), value, unit));
            }
            if (width > kCharacter * static_cast<double>(value.size()) + 8) {
                svg.text(x + width / 2, y + kBar / 2 + 4, value, "text-anchor=\"middle\" fill=\"#ffffff\"");
            }
            x += width;
        }
        svg.text(kLeft + bar.total * scale + 8, y + kBar / 2 + 4,
                 fmt::format("{} {}", amount(bar.total), unit), "font-weight=\"bold\"");
        y += kBar + kGap;
    }
    return bottom + kPanelFoot;
}

void draw_legend(Svg& svg, double y) {
    constexpr size_t kColumns = 4;
    for (size_t i = 0; i < kStages; ++i) {
        const double x = 60 + kLegendColumn * static_cast<double>(i % kColumns),
                     row = y + kLegendRow * static_cast<double>(i / kColumns);
        svg.rect(x, row, 14, 14, kColours[i]);
        svg.text(x + 20, row + 11, stage_label(kAllStages[i]), "");
    }
}

}  // namespace

std::string to_svg(const BenchmarkResult& result) {
    std::vector<Bar> seconds, operations;
    const auto add = [&](const SystemResult& system) {
        seconds.push_back({system.facts.name, system.seconds, system.time_to_first_token});
        operations.push_back({system.facts.name, system.facts.flops, system.facts.flops.total()});
    };
    add(result.model);
    if (result.baseline) add(*result.baseline);

    Svg svg;
    svg.text(kWidth / 2, 30, "What a first answer about a picture costs",
             "font-size=\"18\" font-weight=\"bold\" text-anchor=\"middle\"");
    svg.text(kWidth / 2, 52,
             fmt::format("{}, {} threads; JPEG of {} x {} pixels; {} text tokens; medians of {} rounds",
                         result.device, result.threads, result.picture_width, result.picture_height,
                         result.workload.text_tokens, result.repeat),
             "text-anchor=\"middle\" fill=\"#666666\"");
    double y = draw_panel(svg, kHead, "Time to the first token", {{1e-3, "ms"}, {1, "s"}}, seconds);
    y = draw_panel(svg, y, "Counted operations (a multiply-add is 2)",
                   {{1e6, "MFLOP"}, {1e9, "GFLOP"}, {1e12, "TFLOP"}}, operations);
    draw_legend(svg, y + 4);
    return svg.finish(y + 2 * kLegendRow + 20);
}

}  // namespace llava_mini::bench
