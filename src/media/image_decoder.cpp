#include "media/image_decoder.h"

#include <new>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "media/exif.h"
#include "media/ffmpeg_decoder.h"
#include "media/jpeg_decoder.h"

namespace llava_mini {

Image decode_image(std::span<const uint8_t> bytes, const DecodeOptions& options) {
    if (bytes.empty()) throw_input("{}: the picture is empty (0 bytes)", options.name);
    if (bytes.size() > options.max_bytes) {
        throw_input("{}: the picture has {} bytes, at most {} are accepted", options.name, bytes.size(),
                    options.max_bytes);
    }
    try {
        DecodedPicture picture =
            is_jpeg(bytes) ? decode_jpeg(bytes, options) : decode_with_ffmpeg(bytes, options);
        // To TIFF the orientation belongs as any other tag does: Pillow obeys it when it decodes.
        if (options.obey_exif || is_tiff(bytes)) apply_orientation(picture.image, picture.orientation);
        return std::move(picture.image);
    } catch (const std::bad_alloc&) {
        throw_system("{}: out of memory while decoding the picture", options.name);
    }
}

Image load_image(const std::filesystem::path& path, const DecodeOptions& options) {
    DecodeOptions named = options;
    named.name = path.string();
    return decode_image(read_file(path, options.max_bytes), named);
}

}  // namespace llava_mini
