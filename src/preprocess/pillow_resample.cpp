#include "preprocess/pillow_resample.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "core/error.h"

namespace llava_mini {
namespace {

constexpr int kWeightBits = 22;  // fixed point
constexpr int kLowBits = 11;     // a weight is high * 2^11 + low, so that both halves fit 16 bits
constexpr int kBlock = 8;        // taps are padded with zero weights to a multiple of this
constexpr double kSupport = 2.0;

// Keys' cubic convolution kernel, a = -0.5.
double bicubic(double x) {
    constexpr double a = -0.5;
    x = std::fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    return 0.0;
}

uint8_t round_to_byte(int64_t sum) {
    const int64_t value = (sum + (int64_t{1} << (kWeightBits - 1))) >> kWeightBits;
    return static_cast<uint8_t>(std::clamp<int64_t>(value, 0, 255));
}

// The weights of consecutive output positions along one axis.
class Weights {
  public:
    // Output positions [first, first + count) when `in` pixels become `out`.
    Weights(int64_t in, int64_t out, int64_t first, int count) : ranges_(count) {
        const double scale = static_cast<double>(in) / static_cast<double>(out);
        const double stretch = std::max(scale, 1.0);
        const double support = kSupport * stretch;
        const double inverse = 1.0 / stretch;
        taps_ = static_cast<int>(std::ceil(support)) * 2 + 1;
        taps_ = (taps_ + kBlock - 1) / kBlock * kBlock;
        weights_.resize(static_cast<size_t>(count) * taps_);
        std::vector<double> exact(taps_);
        for (int i = 0; i < count; ++i) {
            const double centre = (static_cast<double>(first + i) + 0.5) * scale;
            const int64_t begin = std::max<int64_t>(static_cast<int64_t>(centre - support + 0.5), 0);
            const int64_t end = std::min<int64_t>(static_cast<int64_t>(centre + support + 0.5), in);
            const int n = static_cast<int>(end - begin);
            double total = 0;
            for (int k = 0; k < n; ++k) {
                exact[k] = bicubic((static_cast<double>(k + begin) - centre + 0.5) * inverse);
                total += exact[k];
            }
            int32_t* fixed = weights_.data() + static_cast<size_t>(i) * taps_;
            for (int k = 0; k < n; ++k) {
                const double weight = total != 0.0 ? exact[k] / total : exact[k];
                const double scaled = weight * (1 << kWeightBits);
                fixed[k] = static_cast<int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
            }
            ranges_[i] = {begin, end};
        }
    }

    int count() const { return static_cast<int>(ranges_.size()); }
    int taps() const { return taps_; }  // per position, zero weights included
    int64_t begin(int i) const { return ranges_[i].begin; }
    int64_t end(int i) const { return ranges_[i].end; }
    const int32_t* at(int i) const { return weights_.data() + static_cast<size_t>(i) * taps_; }

  private:
    struct Range {
        int64_t begin, end;
    };
    int taps_ = 0;
    std::vector<Range> ranges_;
    std::vector<int32_t> weights_;
};

// A range of columns.
struct Columns {
    int64_t begin = 0, end = 0;
};

// Those of `wanted` in which the view shows its picture; elsewhere it shows the canvas.
Columns picture_columns(const CanvasView& view, Columns wanted) {
    const int64_t begin = std::clamp(view.picture.x - view.area.x, wanted.begin, wanted.end);
    return {begin, std::clamp(view.picture.right() - view.area.x, begin, wanted.end)};
}

bool is_canvas_row(const CanvasView& view, int64_t y) {
    return view.area.y + y < view.picture.y || view.area.y + y >= view.picture.bottom();
}

void fill(const CanvasView& view, Columns columns, uint8_t* rgb) {
    for (int64_t x = columns.begin; x < columns.end; ++x) rgb = std::copy_n(view.colour.data(), 3, rgb);
}

// Writes row y of the view, in columns where it can show its picture, as RGB.
void read_row(const CanvasView& view, int64_t y, Columns columns, uint8_t* rgb) {
    if (is_canvas_row(view, y)) return fill(view, columns, rgb);
    const int64_t first = (view.area.y + y) * view.image->width + view.area.x + columns.begin;
    const uint8_t* pixels = view.image->rgb.data() + 3 * first;
    std::copy_n(pixels, 3 * (columns.end - columns.begin), rgb);
}

// The horizontal pass of one row. The three channels are laid side by side as 16-bit numbers and weights are
// split in two halves, so that the inner loop becomes 16-bit multiply-adds, eight taps an instruction even on
// the oldest 64-bit processors. The sums are exact integers: splitting changes nothing.
class HorizontalPass {
  public:
    HorizontalPass(int64_t in, int64_t out, int64_t first, int count)
        : weights_(in, out, first, count),
          high_(static_cast<size_t>(count) * weights_.taps()),
          low_(high_.size()) {
        for (int i = 0; i < count; ++i) {
            const size_t row = static_cast<size_t>(i) * weights_.taps();
            for (int k = 0; k < weights_.taps(); ++k) {
                const int32_t weight = weights_.at(i)[k];
                high_[row + k] = static_cast<int16_t>(weight >> kLowBits);
                low_[row + k] = static_cast<int16_t>(weight & ((1 << kLowBits) - 1));
            }
        }
        begin_ = weights_.begin(0);
        end_ = weights_.end(count - 1);
        planes_.resize(3 * plane_size());
    }

    // Source columns that are needed.
    Columns columns() const { return {begin_, end_}; }

    // `source` holds the needed columns; `out` gets one pixel an output position. Only source columns in
    // `changed` differ from those of the call before, and `out` holds what that call wrote.
    void run(const uint8_t* source, Columns changed, uint8_t* out) {
        const size_t size = plane_size();
        int16_t *red = planes_.data(), *green = red + size, *blue = green + size;
        for (int64_t x = changed.begin - begin_; x < changed.end - begin_; ++x) {
            red[x] = source[3 * x];
            green[x] = source[3 * x + 1];
            blue[x] = source[3 * x + 2];
        }
        for (int i = 0; i < weights_.count(); ++i, out += 3) {
            if (weights_.end(i) <= changed.begin || weights_.begin(i) >= changed.end) continue;
            const int64_t offset = weights_.begin(i) - begin_;
            // Taps in use, up to a multiple of the block: what lies behind them has weight zero.
            const int used =
                (static_cast<int>(weights_.end(i) - weights_.begin(i)) + kBlock - 1) / kBlock * kBlock;
            int64_t sums[3] = {0, 0, 0};
            for (int k = 0; k < used; k += kChunk) {
                const size_t row = static_cast<size_t>(i) * weights_.taps() + k;
                add_products(red + offset + k, green + offset + k, blue + offset + k, &high_[row], &low_[row],
                             std::min(kChunk, used - k), sums);
            }
            for (int c = 0; c < 3; ++c) out[c] = round_to_byte(sums[c]);
        }
    }

  private:
    static constexpr int kChunk = 4096;  // taps whose sum of 255 * 2^11 each fits 32 bits

    size_t plane_size() const { return static_cast<size_t>(end_ - begin_ + weights_.taps()); }

    static void add_products(const int16_t* red, const int16_t* green, const int16_t* blue,
                             const int16_t* high, const int16_t* low, int n, int64_t* sums) {
        int32_t red_high = 0, red_low = 0, green_high = 0, green_low = 0, blue_high = 0, blue_low = 0;
        for (int k = 0; k < n; ++k) {
            red_high += red[k] * high[k];
            red_low += red[k] * low[k];
            green_high += green[k] * high[k];
            green_low += green[k] * low[k];
            blue_high += blue[k] * high[k];
            blue_low += blue[k] * low[k];
        }
        sums[0] += int64_t{red_high} * (1 << kLowBits) + red_low;
        sums[1] += int64_t{green_high} * (1 << kLowBits) + green_low;
        sums[2] += int64_t{blue_high} * (1 << kLowBits) + blue_low;
    }

    Weights weights_;
    std::vector<int16_t> high_, low_;
    int64_t begin_ = 0, end_ = 0;
    std::vector<int16_t> planes_;  // [3, plane_size()], zero behind the last column
};

// The vertical pass, fed row by row: every row is added to the output rows whose windows cover it, so that no
// intermediate picture is kept.
class VerticalPass {
  public:
    VerticalPass(int64_t in, int64_t out, int64_t first, int count) : weights_(in, out, first, count) {}

    // Source rows that are needed.
    int64_t begin() const { return weights_.begin(0); }
    int64_t end() const { return weights_.end(weights_.count() - 1); }

    void start(size_t row_bytes) {
        row_bytes_ = row_bytes;
        sums_.assign(weights_.count() * row_bytes, 0);
    }

    // Rows come in order, from begin() to end() - 1.
    void add(int64_t y, std::span<const uint8_t> row) {
        while (first_open_ < weights_.count() && weights_.end(first_open_) <= y) ++first_open_;
        for (int i = first_open_; i < weights_.count() && weights_.begin(i) <= y; ++i) {
            // The sum of |weight * pixel| stays below 2^31 (the kernel's absolute integral is 1.3).
            const int32_t weight = weights_.at(i)[y - weights_.begin(i)];
            int32_t* sums = sums_.data() + i * row_bytes_;
            for (size_t x = 0; x < row_bytes_; ++x) sums[x] += weight * row[x];
        }
    }

    void finish_row(int i, std::span<uint8_t> row) const {
        std::transform(sums_.begin() + i * row_bytes_, sums_.begin() + (i + 1) * row_bytes_, row.begin(),
                       round_to_byte);
    }

  private:
    Weights weights_;
    size_t row_bytes_ = 0;
    int first_open_ = 0;  // output rows before this one are complete
    std::vector<int32_t> sums_;
};

// Pillow 13's choice of order.
bool vertical_pass_first(int64_t width, int64_t height, int64_t out_width, int64_t out_height) {
    return out_height < height && height - out_height > 2 * (width - out_width);
}

}  // namespace

void resize_bicubic(const CanvasView& source, int64_t out_width, int64_t out_height,
                    const ResizeWindow& window, std::span<uint8_t> rgb) {
    const int64_t width = source.area.width, height = source.area.height;
    if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide) {
        throw_input("a picture of {} x {} pixels cannot be resized: sides of 1 to {} are accepted", width,
                    height, kMaxSide);
    }
    std::optional<HorizontalPass> horizontal;
    if (out_width != width) horizontal.emplace(width, out_width, window.x, window.width);
    std::optional<VerticalPass> vertical;
    if (out_height != height) vertical.emplace(height, out_height, window.y, window.height);

    // What the window needs of the source.
    const int64_t first_row = vertical ? vertical->begin() : window.y;
    const int64_t last_row = vertical ? vertical->end() : window.y + window.height;
    const Columns columns = horizontal ? horizontal->columns() : Columns{window.x, window.x + window.width};
    // Left and right of the picture, all rows are alike: only these columns are read again.
    const Columns picture = picture_columns(source, columns);
    std::vector<uint8_t> source_row(static_cast<size_t>(3 * (columns.end - columns.begin)));
    fill(source, columns, source_row.data());
    uint8_t* const picture_part = source_row.data() + 3 * (picture.begin - columns.begin);
    const size_t out_bytes = size_t{3} * window.width;

    if (horizontal && vertical && vertical_pass_first(width, height, out_width, out_height)) {
        vertical->start(source_row.size());
        for (int64_t y = first_row; y < last_row; ++y) {
            read_row(source, y, picture, picture_part);
            vertical->add(y, source_row);
        }
        for (int i = 0; i < window.height; ++i) {
            vertical->finish_row(i, source_row);
            horizontal->run(source_row.data(), columns, rgb.data() + i * out_bytes);
        }
        return;
    }

    std::vector<uint8_t> row(out_bytes);
    if (horizontal) horizontal->run(source_row.data(), columns, row.data());
    if (vertical) vertical->start(out_bytes);
    bool showed_canvas = true;  // above and below the picture all rows are alike too
    for (int64_t y = first_row; y < last_row; ++y) {
        const bool shows_canvas = is_canvas_row(source, y);
        if (!shows_canvas || !showed_canvas) {
            read_row(source, y, picture, picture_part);
            if (horizontal) horizontal->run(source_row.data(), picture, row.data());
        }
        showed_canvas = shows_canvas;
        const std::vector<uint8_t>& result = horizontal ? row : source_row;
        if (vertical) {
            vertical->add(y, result);
        } else {
            std::copy(result.begin(), result.end(),
                      rgb.data() + static_cast<size_t>(y - first_row) * out_bytes);
        }
    }
    for (int i = 0; vertical && i < window.height; ++i) {
        vertical->finish_row(i, rgb.subspan(i * out_bytes, out_bytes));
    }
}

Image resize_bicubic(const Image& image, int width, int height) {
    if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide) {
        throw_usage("cannot resize to {} x {} pixels: sides of 1 to {} are accepted", width, height,
                    kMaxSide);
    }
    Image result{width, height, std::vector<uint8_t>(3 * static_cast<size_t>(width) * height)};
    resize_bicubic(CanvasView::whole(image), width, height, {0, 0, width, height}, result.rgb);
    return result;
}

}  // namespace llava_mini
