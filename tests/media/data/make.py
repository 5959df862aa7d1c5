"""Makes the pictures of this folder and, as .npy, the pixels that Pillow's convert("RGB") gives for them.

Run with Pillow 13.0.0 and NumPy.
"""

import pathlib
import struct
import zlib

import numpy
from PIL import Image, ImageOps

folder = pathlib.Path(__file__).parent
random = numpy.random.default_rng(20)
width, height = 21, 14  # odd: half a chroma sample, a byte of bits that is not full

y, x = numpy.mgrid[0:height, 0:width]
slopes = numpy.stack([x * 12, y * 18, (x + y) * 7], -1)
rgb = (slopes // 2 + random.integers(0, 128, (height, width, 3))).astype(numpy.uint8)
image = Image.fromarray(rgb)
alpha = Image.fromarray(random.integers(0, 256, (height, width), dtype=numpy.uint8))
rgba = image.copy()
rgba.putalpha(alpha)
grey = image.convert("L")
grey_alpha = grey.copy()
grey_alpha.putalpha(alpha)
palette = image.quantize(40)
bits = image.convert("1")


def keep(name, **expected):
    """Records what Pillow makes of a file."""
    numpy.save(folder / f"{name}.npy", numpy.asarray(Image.open(folder / name).convert("RGB")))


def save(picture, name, **options):
    picture.save(folder / name, **options)
    keep(name)


def write(content, name):
    (folder / name).write_bytes(content)
    keep(name)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(colour_type, depth, samples, extra=b"", size=(width, height)):
    """A PNG of random samples."""
    rows = b"".join(b"\0" + random.bytes((width * depth * samples + 7) // 8) for _ in range(height))
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def gif(screen, offset, transparent):
    """A GIF whose only picture covers a part of the screen."""
    save(palette.crop((0, 0, 10, 8)).quantize(16), "part.gif", interlace=0)
    content = (folder / "part.gif").read_bytes()
    end = 13 + (3 << ((content[10] & 7) + 1))
    colours, rest = content[13:end], content[end:]
    at = 0
    while rest[at] == 0x21:
        at += 2
        while rest[at]:
            at += 1 + rest[at]
        at += 1
    picture = bytearray(rest[at:])
    picture[1:5] = struct.pack("<HH", *offset)
    control = b"" if transparent is None else b"\x21\xf9\x04\x01\0\0" + bytes([transparent, 0])
    return b"GIF89a" + struct.pack("<HHBBB", *screen, content[10], 2, 0) + colours + control + bytes(picture)


# PNG: every kind of pixel.
save(image, "rgb.png")
save(rgba, "rgba.png")
save(grey, "grey.png")
save(grey_alpha, "grey_alpha.png")
save(palette, "palette_transparent.png", transparency=3)
save(image.quantize(4), "palette_2bit.png", bits=2)
save(bits, "bits.png")
save(image, "rgb_transparent.png", transparency=tuple(int(v) for v in rgb[3, 3]))
write(png(0, 2, 1), "grey_2bit.png")
write(png(0, 4, 1), "grey_4bit.png")
write(png(2, 16, 3), "rgb_16bit.png")
write(png(6, 16, 4), "rgba_16bit.png")
write(png(4, 16, 2), "grey_alpha_16bit.png")
grey16 = random.integers(0, 65536, (height, width), dtype=numpy.uint16)
grey16[:5] = random.integers(0, 300, (5, width))
save(Image.fromarray(grey16), "grey_16bit.png")
frames = [Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=numpy.uint8)) for _ in range(3)]
save(frames[0], "animation.png", save_all=True, append_images=frames[1:], default_image=True)

# JPEG: every subsampling, progressive, grey, CMYK.
for subsampling in (0, 1, 2, "4:1:1"):
    name = str(subsampling).replace(":", "")
    save(image.resize((61, 43), Image.Resampling.BICUBIC), f"subsampling_{name}.jpg", subsampling=subsampling)
save(image.resize((61, 43), Image.Resampling.BICUBIC), "progressive.jpg", progressive=True)
save(grey, "grey.jpg")
save(image.convert("CMYK"), "cmyk.jpg")

# WebP.
save(rgba, "lossless.webp", lossless=True, exact=True)
save(image, "lossy.webp", quality=80)
save(rgba, "lossy_alpha.webp", quality=80)
save(image.crop((0, 0, 1, 1)), "lossy_1x1.webp", quality=80)
save(frames[0], "animation.webp", save_all=True, append_images=frames[1:], quality=80)

# Others.
save(palette, "palette_transparent.gif", transparency=3)
save(frames[0], "animation.gif", save_all=True, append_images=frames[1:])
write(gif((16, 12), (3, 2), None), "part.gif")
write(gif((16, 12), (3, 2), 7), "part_transparent.gif")
save(image, "rgb.bmp")
save(rgba, "rgba.bmp")
save(palette, "palette.bmp")
save(bits, "bits.bmp")
row = (width * 2 + 3) // 4 * 4
header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 16, 3, row * height, 0, 0, 0, 0)
masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
pixels = random.bytes(row * height)
write(b"BM" + struct.pack("<IHHI", 66 + len(pixels), 0, 0, 66) + header + masks + pixels, "rgb_565.bmp")
save(image, "rgb.tiff")
save(rgba, "rgba_lzw.tiff", compression="tiff_lzw")
save(palette, "palette_deflate.tiff", compression="tiff_adobe_deflate")
save(Image.fromarray(grey16), "grey_16bit.tiff")
save(image, "rgb.ppm")
save(grey, "grey.pgm")
save(bits, "bits.pbm")
save(image, "rgb.qoi")
save(image, "lossless.jp2")
smooth = Image.fromarray((slopes.clip(0, 255)).astype(numpy.uint8))
save(smooth, "rgb.avif", quality=90)

# EXIF: the orientation in every container, and every orientation.
exif = Image.Exif()
exif[0x0112] = 6
for extension in ("jpg", "png", "webp", "tiff"):
    options = {"lossless": True} if extension == "webp" else {}
    image.save(folder / f"exif.{extension}", exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(folder / f"exif.{extension}"))
    numpy.save(folder / f"exif.{extension}.upright.npy", numpy.asarray(upright.convert("RGB")))
stored = Image.open(folder / "exif.jpg").convert("RGB")
for orientation in range(1, 9):
    exif[0x0112] = orientation
    turned = stored.copy()
    turned.getexif()[0x0112] = orientation
    numpy.save(folder / f"orientation_{orientation}.npy", numpy.asarray(ImageOps.exif_transpose(turned)))

# Refused.
(folder / "bomb.png").write_bytes(png(2, 8, 3, size=(20000, 20000)))
image.save(folder / "jpeg_inside.tiff", compression="jpeg")
