#include "media/jpeg_decoder.h"

// jpeglib.h needs size_t and FILE to be declared before it.
#include <cstddef>
#include <cstdio>
// clang-format off
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include <algorithm>
#include <csetjmp>

#include "core/error.h"
#include "core/log.h"

namespace llava_mini {
namespace {

constexpr int kMaxScans = 500;  // of a progressive JPEG; more only makes decoding slow

// libjpeg reports a fatal error by a function that must not return. It jumps back to decode(), whose objects
// with destructors all live outside the region that is jumped out of.
struct ErrorManager {
    jpeg_error_mgr base{};
    std::jmp_buf recovery{};
    char message[JMSG_LENGTH_MAX] = {};
};

ErrorManager& manager_of(j_common_ptr info) {
    return *reinterpret_cast<ErrorManager*>(info->err);
}

[[noreturn]] void fail(j_common_ptr info) {
    ErrorManager& errors = manager_of(info);
    errors.base.format_message(info, errors.message);
    std::longjmp(errors.recovery, 1);
}

void on_message(j_common_ptr info, int level) {
    if (level >= 0) return;  // tracing
    ErrorManager& errors = manager_of(info);
    // The end of the data came before the end of the picture: libjpeg would fill the rest with grey.
    if (errors.base.msg_code == JWRN_JPEG_EOF) fail(info);
    if (errors.base.num_warnings++ == 0) errors.base.format_message(info, errors.message);
}

void on_progress(j_common_ptr info) {
    if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMaxScans) return;
    ErrorManager& errors = manager_of(info);
    *fmt::format_to_n(errors.message, JMSG_LENGTH_MAX - 1, "more than {} scans", kMaxScans).out = '\0';
    std::longjmp(errors.recovery, 1);
}

uint8_t muldiv255(int a, int b) {
    const int t = a * b + 128;
    return static_cast<uint8_t>(((t >> 8) + t) >> 8);
}

// `cmyk` is as stored: inverted, so that its K is the nk of the formula.
void cmyk_to_rgb(const uint8_t* cmyk, int width, uint8_t* rgb) {
    for (int x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
        const int nk = cmyk[3];
        for (int c = 0; c < 3; ++c) {
            rgb[c] = static_cast<uint8_t>(std::clamp(nk - muldiv255(255 - cmyk[c], nk), 0, 255));
        }
    }
}

class JpegDecoder {
  public:
    JpegDecoder(std::span<const uint8_t> bytes, const DecodeOptions& options)
        : bytes_(bytes), options_(options) {
        jpeg_.err = jpeg_std_error(&errors_.base);
        errors_.base.error_exit = fail;
        errors_.base.emit_message = on_message;
        progress_.progress_monitor = on_progress;
    }
    ~JpegDecoder() { jpeg_destroy_decompress(&jpeg_); }
    JpegDecoder(const JpegDecoder&) = delete;
    JpegDecoder& operator=(const JpegDecoder&) = delete;

    DecodedPicture decode() {
        guarded(&JpegDecoder::read_header);
        const uint64_t pixels = uint64_t{jpeg_.image_width} * jpeg_.image_height;
        if (pixels > options_.max_pixels) {
            throw_input("{}: the picture has {} x {} pixels, at most {} pixels are accepted", options_.name,
                        jpeg_.image_width, jpeg_.image_height, options_.max_pixels);
        }
        const int components = jpeg_.num_components;
        if (components != 1 && components != 3 && components != 4) {
            throw_input("{}: cannot decode the JPEG: expected 1, 3 or 4 components, found {}", options_.name,
                        components);
        }
        for (const jpeg_marker_struct* m = jpeg_.marker_list; m != nullptr; m = m->next) {
            const std::span<const uint8_t> data(m->data, m->data_length);
            if (is_exif(data)) {
                picture_.orientation = orientation_of_exif(data);
                break;
            }
        }
        picture_.image.width = static_cast<int>(jpeg_.image_width);
        picture_.image.height = static_cast<int>(jpeg_.image_height);
        picture_.image.rgb.resize(3 * pixels);
        if (components == 4) cmyk_row_.resize(size_t{4} * jpeg_.image_width);
        guarded(&JpegDecoder::read_pixels);
        if (errors_.base.num_warnings > 0) {
            log_message(LogLevel::kWarning, fmt::format("{}: {}", options_.name, errors_.message));
        }
        return std::move(picture_);
    }

  private:
    static bool is_exif(std::span<const uint8_t> marker) {
        constexpr uint8_t kPrefix[] = {'E', 'x', 'i', 'f', 0, 0};
        return marker.size() > std::size(kPrefix) &&
               std::equal(std::begin(kPrefix), std::end(kPrefix), marker.begin());
    }

    // Runs a step; turns libjpeg's error into ours. A step must hold no object with a destructor.
    void guarded(void (JpegDecoder::*step)()) {
        if (setjmp(errors_.recovery) != 0) {
            throw_input("{}: cannot decode the JPEG: {}", options_.name, errors_.message);
        }
        (this->*step)();
    }

    void read_header() {
        jpeg_create_decompress(&jpeg_);
        jpeg_.progress = &progress_;
        jpeg_save_markers(&jpeg_, JPEG_APP0 + 1, 0xFFFF);
        jpeg_mem_src(&jpeg_, bytes_.data(), static_cast<unsigned long>(bytes_.size()));
        jpeg_read_header(&jpeg_, TRUE);
    }

    void read_pixels() {
        jpeg_.out_color_space = jpeg_.num_components == 4 ? JCS_CMYK : JCS_RGB;
        jpeg_.dct_method = JDCT_ISLOW;
        jpeg_.do_fancy_upsampling = TRUE;
        jpeg_start_decompress(&jpeg_);
        const size_t row_bytes = size_t{3} * jpeg_.output_width;
        while (jpeg_.output_scanline < jpeg_.output_height) {
            uint8_t* row = picture_.image.rgb.data() + jpeg_.output_scanline * row_bytes;
            uint8_t* target = cmyk_row_.empty() ? row : cmyk_row_.data();
            jpeg_read_scanlines(&jpeg_, &target, 1);
            if (!cmyk_row_.empty()) cmyk_to_rgb(target, picture_.image.width, row);
        }
        jpeg_finish_decompress(&jpeg_);
    }

    std::span<const uint8_t> bytes_;
    const DecodeOptions& options_;
    jpeg_decompress_struct jpeg_{};
    jpeg_progress_mgr progress_{};
    ErrorManager errors_;
    DecodedPicture picture_;
    std::vector<uint8_t> cmyk_row_;
};

}  // namespace

bool is_jpeg(std::span<const uint8_t> bytes) {
    return bytes.size() >= 3 && bytes[0] == 0xFF && bytes[1] == 0xD8 && bytes[2] == 0xFF;
}

DecodedPicture decode_jpeg(std::span<const uint8_t> bytes, const DecodeOptions& options) {
    return JpegDecoder(bytes, options).decode();
}

}  // namespace llava_mini
