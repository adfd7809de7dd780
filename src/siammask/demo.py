"""Two clips that come with the package: a real one to look at, and a drawn one whose true masks are known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from siammask.geometry import Box, Float32, UInt8
from siammask.media import Frame, Source, open_source

BUNNY = Path(__file__).with_name("assets") / "bunny.mp4"  # (c) Blender Foundation, CC BY 3.0; see CREDITS.md beside it
BUNNY_BOX = Box.from_xywh(145, 88, 150, 205)

DRAWN_SIZE = (640, 360)
DRAWN_LENGTH = 75
DRAWN_FPS = 25.0


def bunny() -> Source:
    """90 frames of 640x360: the rabbit of "Big Buck Bunny" leaves its burrow and stretches."""
    return open_source(BUNNY)


def drawn() -> Source:
    """75 frames of 640x360: a patterned shape moves, turns and changes its size in front of a moving ground."""

    def read(start: int) -> Iterator[Frame]:
        for index in range(start, DRAWN_LENGTH):
            yield Frame(index, index / DRAWN_FPS, draw_frame(index)[0])

    return Source("drawn clip", DRAWN_SIZE, DRAWN_FPS, DRAWN_LENGTH, read)


def draw_frame(index: int) -> tuple[UInt8, NDArray[np.bool_]]:
    """Frame (H, W, 3) BGR of the drawn clip and the true mask (H, W) of its object; the same on every call."""
    width, height = DRAWN_SIZE
    t = index / DRAWN_LENGTH
    ground = _place(_ground(), -60 - 50 * math.sin(2 * math.pi * t), -60 + 30 * t, 1.0, 0.0)
    cx = width * (0.5 + 0.3 * math.cos(2 * math.pi * t + 2.6))
    cy = height * (0.5 + 0.22 * math.sin(4 * math.pi * t))
    size = 1.0 + 0.35 * math.sin(2 * math.pi * t)
    turn = 1.5 * math.sin(2 * math.pi * t + 1)
    colour, cover = _thing()
    half = cover.shape[0] / 2
    c, s = size * math.cos(turn), size * math.sin(turn)
    x, y = cx - c * half + s * half, cy - s * half - c * half
    alpha = _place(cover, x, y, size, turn)[..., None]
    picture = ground * (1 - alpha) + _place(colour, x, y, size, turn) * alpha
    noise = np.random.default_rng(index).normal(0, 2, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8), alpha[..., 0] > 0.5


def drawn_box() -> Box:
    """True box of the object on frame 0 of the drawn clip."""
    box = Box.from_mask(draw_frame(0)[1])
    if box is None:
        raise RuntimeError("The drawn clip shows no object on its first frame.")
    return box


def _place(picture: Float32, x: float, y: float, scale: float, turn: float) -> Float32:
    """A picture on a black frame: scaled, turned about its corner by `turn` radians, its corner moved to x, y."""
    c, s = scale * math.cos(turn), scale * math.sin(turn)
    return cv2.warpAffine(picture, np.array([[c, -s, x], [s, c, y]]), DRAWN_SIZE, flags=cv2.INTER_LINEAR)  # type: ignore[return-value]


@cache
def _ground() -> Float32:
    """Greens and browns, mottled at several sizes; larger than the frame."""
    mottle = _mottle(3, 520, 820, (3, 9, 31, 81))
    return np.asarray(np.array([60, 105, 95], np.float32) + mottle * np.array([30, 42, 48], np.float32), np.float32)


@cache
def _thing() -> tuple[Float32, Float32]:
    """Colour (160, 160, 3) and cover (160, 160) in [0, 1] of the object: three lobes, striped."""
    size, fine = 160, 8
    angle = np.linspace(0, 2 * math.pi, 400, endpoint=False)
    radius = 52 * (1 + 0.26 * np.cos(3 * angle) + 0.10 * np.cos(5 * angle + 1))
    outline = size / 2 + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    large = np.zeros((size * fine, size * fine), np.uint8)
    cv2.fillPoly(large, [np.round(outline * fine).astype(np.int32)], 255)
    cover = np.asarray(cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA) / 255, np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    stripes = np.tanh(4 * np.sin(0.16 * x + 0.09 * y))[..., None]
    colour = np.array([190, 135, 70], np.float32) + stripes * np.array([30, 50, 45], np.float32)
    return np.asarray(colour + 14 * _mottle(5, size, size, (3, 7)), np.float32), cover


def _mottle(seed: int, height: int, width: int, sizes: tuple[int, ...]) -> Float32:
    """Noise (height, width, 1) of unit deviation: the sum of noises blurred to several sizes in pixels."""
    generator = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    for size in sizes:
        layer = cv2.GaussianBlur(generator.normal(0, 1, (height, width)).astype(np.float32), (0, 0), size / 2)
        total += layer / layer.std()
    return np.asarray(total / total.std(), np.float32)[..., None]
