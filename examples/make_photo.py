#!/usr/bin/env python3
"""Draws examples/photo.jpg: a harbour at dusk in the size of a photograph (4000 x 3000, 12 megapixels).

Everything in it is computed here, so that the project owns its example. Needs Pillow and NumPy:
    python3 examples/make_photo.py examples/photo.jpg
"""

import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT, HORIZON = 4000, 3000, 1500


def smooth_noise(rng, cells_y, cells_x, height, width):
    """Noise of the given coarseness, 0 to 1."""
    coarse = Image.fromarray((rng.random((cells_y, cells_x)) * 255).astype(np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32) / 255


def background(rng):
    y = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]
    sky_top, sky_low = np.array([38, 62, 120], np.float32), np.array([250, 176, 110], np.float32)
    sea_far, sea_near = np.array([196, 140, 110], np.float32), np.array([16, 38, 66], np.float32)
    horizon = HORIZON / HEIGHT
    sky = sky_top + (sky_low - sky_top) * np.clip(y / horizon, 0, 1) ** 1.5
    sea = sea_far + (sea_near - sea_far) * np.clip((y - horizon) / (1 - horizon), 0, 1) ** 0.6
    picture = np.where(y < horizon, sky, sea) * np.ones((1, WIDTH, 1), np.float32)
    # Clouds, flat as they are near the horizon; ripples, finer far away.
    clouds = smooth_noise(rng, 14, 6, HORIZON, WIDTH) * 0.6 + smooth_noise(rng, 40, 18, HORIZON, WIDTH) * 0.4
    weight = np.clip((clouds - 0.5) * 4, 0, 1)[:, :, None] * 0.55
    picture[:HORIZON] = picture[:HORIZON] * (1 - weight) + np.array([255, 214, 190], np.float32) * weight
    ripples = smooth_noise(rng, 150, 12, HEIGHT - HORIZON, WIDTH) - 0.5
    picture[HORIZON:] += ripples[:, :, None] * 46
    # The sun and its path on the water.
    yy, xx = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    glow = np.exp(-(((xx - 2900) / 520) ** 2 + ((yy - 1330) / 420) ** 2))
    picture += glow[:, :, None] * np.array([90, 70, 30], np.float32)
    path = np.exp(-(((xx - 2900) / (90 + (yy - HORIZON) * 0.16)) ** 2)) * (yy > HORIZON)
    sparkle = np.zeros((HEIGHT, WIDTH), np.float32)
    sparkle[HORIZON:] = np.clip(smooth_noise(rng, 220, 60, HEIGHT - HORIZON, WIDTH) * 2.2 - 0.9, 0, 1)
    picture += (path * sparkle)[:, :, None] * np.array([150, 110, 60], np.float32)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def hills(draw, rng, base, colour, height):
    x = np.arange(0, WIDTH + 40, 40)
    ridge = np.cumsum(rng.normal(0, 9, len(x)))
    ridge = height + ridge - ridge.mean()
    draw.polygon([(0, base), *[(int(a), int(base - abs(b))) for a, b in zip(x, ridge)], (WIDTH, base)], fill=colour)


def boat(draw, x, y, size, hull, sail):
    draw.polygon([(x - size, y), (x + size, y), (x + 0.7 * size, y + 0.38 * size), (x - 0.7 * size, y + 0.38 * size)],
                 fill=hull)
    draw.rectangle([x - 0.95 * size, y, x + 0.95 * size, y + 0.06 * size], fill=(240, 232, 214))
    draw.rectangle([x - 0.03 * size, y - 1.9 * size, x + 0.03 * size, y], fill=(70, 48, 34))
    draw.polygon([(x + 0.06 * size, y - 1.85 * size), (x + 0.06 * size, y - 0.15 * size), (x + size, y - 0.15 * size)],
                 fill=sail)
    draw.polygon([(x - 0.06 * size, y - 1.6 * size), (x - 0.06 * size, y - 0.15 * size), (x - 0.7 * size, y - 0.15 * size)],
                 fill=tuple(min(255, c + 18) for c in sail))


def house(draw, x, y, width, height, wall, roof):
    draw.rectangle([x, y - height, x + width, y], fill=wall)
    draw.polygon([(x - 0.1 * width, y - height), (x + width / 2, y - 1.5 * height), (x + 1.1 * width, y - height)],
                 fill=roof)
    for column in (0.15, 0.6):
        left = x + column * width
        draw.rectangle([left, y - 0.75 * height, left + 0.25 * width, y - 0.4 * height], fill=(255, 226, 140))


def main():
    rng = np.random.default_rng(7)
    picture = background(rng)
    draw = ImageDraw.Draw(picture)
    draw.ellipse([2800, 1230, 3000, 1430], fill=(255, 240, 200))
    hills(draw, rng, HORIZON, (104, 92, 118), 210)
    hills(draw, rng, HORIZON + 8, (66, 66, 88), 110)
    for x, wall, roof in ((250, (214, 86, 70), (92, 40, 40)), (520, (236, 222, 190), (120, 60, 48)),
                          (800, (96, 132, 168), (60, 52, 66))):
        house(draw, x, 1560, 210, 190, wall, roof)
    draw.polygon([(0, 1555), (1150, 1555), (1280, 1640), (0, 1700)], fill=(70, 62, 60))  # quay
    boat(draw, 1750, 1850, 150, (160, 46, 44), (240, 226, 206))
    boat(draw, 2350, 1680, 80, (40, 84, 120), (250, 236, 220))
    boat(draw, 1150, 2200, 260, (36, 96, 92), (232, 150, 80))
    # A wooden pier in front.
    for i in range(22):
        near, far = 2600 + i * 60, 2100 + i * 16
        shade = 92 + (i * 37) % 34
        draw.polygon([(near, HEIGHT), (near + 57, HEIGHT), (far + 15, 1990), (far, 1990)],
                     fill=(shade, int(shade * 0.74), int(shade * 0.5)))
    for x, y, size in ((2080, 1990, 14), (2480, 2010, 16), (2140, 2350, 26), (3060, 2400, 30)):
        draw.rectangle([x, y - 9 * size, x + 2 * size, y + 4 * size], fill=(58, 42, 32))
    picture = picture.filter(ImageFilter.GaussianBlur(1.4))
    grain = rng.normal(0, 1.6, (HEIGHT // 2, WIDTH // 2)).astype(np.float32)
    grain = np.repeat(np.repeat(grain, 2, 0), 2, 1)[:, :, None]
    picture = Image.fromarray(np.clip(np.asarray(picture, dtype=np.float32) + grain, 0, 255).astype(np.uint8))
    picture.save(sys.argv[1], quality=68, optimize=True, progressive=False)


if __name__ == "__main__":
    main()
