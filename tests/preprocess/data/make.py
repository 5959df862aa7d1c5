"""Makes the files of this folder: pictures resized by Pillow (run with Pillow 13.0.0 and NumPy)."""

import pathlib

import numpy
from PIL import Image

# in width, in height, out width, out height
SIZES = [
    (40, 30, 17, 12),  # smaller
    (13, 9, 31, 26),  # larger
    (40, 30, 40, 11),  # one pass
    (40, 30, 15, 30),
    (3, 2, 20, 20),  # windows cut at both ends
    (1, 1, 5, 4),
    (700, 3, 6, 6),  # long windows
    (90, 20, 10, 40),  # narrower and higher
    (16, 60, 11, 37),  # vertical pass first
    (16, 60, 24, 37),
    (16, 60, 5, 38),  # just not
    (5000, 1, 1, 1),
]


def noise(width, height):
    """The same numbers as noise() in pillow_resample_test.cpp."""
    i = numpy.arange(3 * width * height, dtype=numpy.uint32)
    i = (i ^ (i >> 7)) * numpy.uint32(2654435761)
    return (i >> 24).astype(numpy.uint8).reshape(height, width, 3)


folder = pathlib.Path(__file__).parent
for width, height, out_width, out_height in SIZES:
    image = Image.fromarray(noise(width, height))
    result = image.resize((out_width, out_height), Image.Resampling.BICUBIC)
    numpy.save(folder / f"resize_{width}x{height}_to_{out_width}x{out_height}.npy", numpy.asarray(result))
