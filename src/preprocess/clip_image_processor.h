// From a decoded picture to the normalised views that the vision tower takes.
//
// A view is resized so that its shorter side is image_size (Pillow's bicubic; the longer side becomes
// image_size * long / short, rounded down), cropped in the centre to image_size x image_size, multiplied by
// 1/255 (in double, rounded to float32), and normalised per channel: minus mean, divided by standard
// deviation, in float32. With aspect ratio "pad" a view is first put on a square of the mean colour.
#pragma once

#include <string>
#include <vector>

#include "model/hparams.h"
#include "model/stages.h"

namespace llava_mini {

struct PreprocessOptions {
    /// "pad": on a square of the mean colour; anything else: as it is, then cropped. Empty: as the model
    /// says.
    std::string image_aspect_ratio = "";
    /// n of high resolution: n * n blocks row by row, then the whole picture. 1: the whole picture alone.
    /// 0: as the model says.
    int resolution_ratio = 0;
    /// With "pad" and n > 1: true cuts first and pads every view by itself, as the official inference does;
    /// false pads first and cuts then, as the training did.
    bool pad_each_view = false;
    /// Of a video frame: true resizes it to 336 x 336 first, whatever the tower's size, as the official loader
    /// does; false to the tower's size. The same for towers of 336 pixels.
    bool official_frame_size = false;
};

/// The views as 8-bit RGB pictures of image_size x image_size, before normalisation. n * n + 1 views for n >
/// 1, else one. Throws Error(kInput) for an empty picture and for one whose side is shorter than n pixels.
/// Thread-safe.
std::vector<Image> resize_views(const Image& image, const VisionHparams& hparams,
                                const PreprocessOptions& options = {});

/// The views normalised: [views, 3, image_size, image_size]. Errors and thread-safety as resize_views.
PixelValues preprocess_image(const Image& image, const VisionHparams& hparams,
                             const PreprocessOptions& options = {});

/// A frame of a video: resized by nearest neighbour to image_size x image_size (336 x 336: official_frame_size)
/// unless it has that size, not keeping the aspect ratio, as the official loader does; never padded. The blocks of high resolution are cut
/// from the resized frame and enlarged as those of a picture. `options.image_aspect_ratio` and
/// `options.pad_each_view` have no effect. Errors and thread-safety as resize_views.
PixelValues preprocess_frame(const Image& frame, const VisionHparams& hparams,
                             const PreprocessOptions& options = {});

}  // namespace llava_mini
