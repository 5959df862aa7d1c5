#include "media/image_encoder.h"

// jpeglib.h needs size_t and FILE to be declared before it.
#include <cstddef>
#include <cstdio>
// clang-format off
#include <jpeglib.h>
// clang-format on
#include <png.h>

#include <csetjmp>
#include <cstdlib>

#include "core/error.h"

namespace llava_mini {
namespace {

// libjpeg reports a fatal error by a function that must not return: it jumps back to encode().
struct ErrorManager {
    jpeg_error_mgr base{};
    std::jmp_buf recovery{};
    char message[JMSG_LENGTH_MAX] = {};
};

[[noreturn]] void fail(j_common_ptr info) {
    auto& errors = *reinterpret_cast<ErrorManager*>(info->err);
    errors.base.format_message(info, errors.message);
    std::longjmp(errors.recovery, 1);
}

class JpegEncoder {
  public:
    JpegEncoder() {
        jpeg_.err = jpeg_std_error(&errors_.base);
        errors_.base.error_exit = fail;
    }
    ~JpegEncoder() {
        jpeg_destroy_compress(&jpeg_);
        std::free(data_);  // libjpeg's memory destination is made by malloc
    }
    JpegEncoder(const JpegEncoder&) = delete;
    JpegEncoder& operator=(const JpegEncoder&) = delete;

    std::vector<uint8_t> encode(const Image& image, int quality) {
        // Nothing with a destructor lives between here and the calls that may jump back.
        if (setjmp(errors_.recovery) != 0) throw_system("making a JPEG: {}", errors_.message);
        jpeg_create_compress(&jpeg_);
        jpeg_mem_dest(&jpeg_, &data_, &size_);
        jpeg_.image_width = static_cast<JDIMENSION>(image.width);
        jpeg_.image_height = static_cast<JDIMENSION>(image.height);
        jpeg_.input_components = 3;
        jpeg_.in_color_space = JCS_RGB;
        jpeg_set_defaults(&jpeg_);
        jpeg_set_quality(&jpeg_, quality, TRUE);
        jpeg_start_compress(&jpeg_, TRUE);
        while (jpeg_.next_scanline < jpeg_.image_height) {
            // libjpeg wants pointers to what it will not change.
            auto* row = const_cast<uint8_t*>(image.rgb.data()) +
                        static_cast<size_t>(jpeg_.next_scanline) * 3 * static_cast<size_t>(image.width);
            jpeg_write_scanlines(&jpeg_, &row, 1);
        }
        jpeg_finish_compress(&jpeg_);
        return {data_, data_ + size_};
    }

  private:
    ErrorManager errors_;
    jpeg_compress_struct jpeg_{};
    unsigned char* data_ = nullptr;
    unsigned long size_ = 0;
};

}  // namespace

std::vector<uint8_t> encode_jpeg(const Image& image, int quality) {
    return JpegEncoder().encode(image, quality);
}

std::vector<uint8_t> encode_png(const Image& image) {
    png_image png{};
    png.version = PNG_IMAGE_VERSION;
    png.width = static_cast<png_uint_32>(image.width);
    png.height = static_cast<png_uint_32>(image.height);
    png.format = PNG_FORMAT_RGB;
    std::vector<uint8_t> bytes(PNG_IMAGE_PNG_SIZE_MAX(png));
    png_alloc_size_t size = bytes.size();
    if (png_image_write_to_memory(&png, bytes.data(), &size, 0, image.rgb.data(), 0, nullptr) == 0) {
        throw_system("making a PNG: {}", png.message);
    }
    bytes.resize(size);
    return bytes;
}

}  // namespace llava_mini
