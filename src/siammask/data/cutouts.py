"""Cut-outs: PNG and WebP pictures of one object each, whose alpha says what the object is."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from siammask.data.clips import Clip, Found, Picture, flat, pictures, whole
from siammask.errors import InputError, MediaError
from siammask.geometry import Box, Float32, UInt8
from siammask.regions import Mask

ENDINGS = frozenset({".png", ".webp"})
MOST_PIXELS = 50_000_000  # of a picture, before it is decoded
LONGEST = 512  # pixels of an object's longer side; larger ones are shrunk
LEAST = 16  # pixels of its shorter side
MARGIN = 8  # pixels of ground around an object, so that it is seen to be whole
NEUTRAL = 128  # grey of the ground, away from the object
THUMBNAIL = 16


def read(folder: Path) -> Found:
    """Every PNG and WebP below `folder`; the category is the name of the folder that it lies in, below the first."""
    for file in pictures(folder, deep=True):
        if file.suffix.lower() in ENDINGS:
            inner = file.relative_to(folder)
            yield Clip(flat(inner), (Picture(file, cutout=inner.parent.name or "object"),), False)


def load(file: Path) -> tuple[UInt8, Mask]:
    """A cut-out as pixels (H, W, 3) BGR and mask (H, W), cropped to the object with a margin.

    The object is where alpha is above one half. Its colours run out over its rim into neutral grey, so that no ground
    of the original shows at its edge when it is pasted. Raises MediaError for a file that is damaged, InputError for a
    picture that is too large, has no alpha, or is empty, opaque, or tiny.
    """
    data = whole(file)
    width, height = size_of(data)
    if width * height > MOST_PIXELS:
        raise InputError(f"It is {width}x{height}; expected at most {MOST_PIXELS / 1e6:g} million pixels.")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise MediaError(f"Picture {file} cannot be read; it is damaged or not a picture.")
    if pixels.ndim < 3 or pixels.shape[2] != 4:
        raise InputError("It has no alpha.")
    if pixels.dtype == np.uint16:
        pixels = (pixels // 257).astype(np.uint8)
    mask = pixels[..., 3] > 127
    box = Box.from_mask(mask)
    if box is None:
        raise InputError("It is empty: nowhere is its alpha above one half.")
    if mask.all():
        raise InputError("It is opaque: nowhere is its alpha below one half.")
    x, y, w, h = (int(v) for v in box.xywh)
    if min(w, h) < LEAST:
        raise InputError(f"Its object is only {w}x{h}; expected at least {LEAST} pixels a side.")
    inside = mask[y : y + h, x : x + w].astype(np.float32)
    # what lies outside has no colour that counts
    layers = np.dstack([pixels[y : y + h, x : x + w, :3] * inside[..., None], inside])
    if max(w, h) > LONGEST:
        size = (max(1, round(w * LONGEST / max(w, h))), max(1, round(h * LONGEST / max(w, h))))
        layers = np.asarray(cv2.resize(layers, size, interpolation=cv2.INTER_AREA), np.float32)
    layers = np.pad(layers, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)))
    return _on_neutral(layers[..., :3], layers[..., 3:]), layers[..., 3] > 0.5


def thumbnail(pixels: UInt8, mask: Mask) -> UInt8:
    """What a cut-out looks like, (1024,): its box as 16x16 of blue, green, red and mask, to be compared with others."""
    box = Box.from_mask(mask)
    assert box is not None
    x, y, w, h = (int(v) for v in box.xywh)
    shown = np.where(mask[..., None], pixels, np.uint8(NEUTRAL))
    layers = np.dstack([shown, np.where(mask, np.uint8(255), np.uint8(0))])[y : y + h, x : x + w]
    return np.asarray(cv2.resize(layers, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA), np.uint8).ravel()


def difference(one: UInt8, other: UInt8) -> float:
    """Mean difference of two thumbnails, 0 to 1."""
    return float(cv2.norm(one, other, cv2.NORM_L1)) / (255 * len(one))


def size_of(data: bytes) -> tuple[int, int]:
    """(W, H) that the head of a PNG or WebP states; (0, 0) where it states none."""
    if data[:4] == b"\x89PNG" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return 0, 0


def _on_neutral(colour: Float32, share: Float32) -> UInt8:
    """Colours times their share (H, W, 3), and that share (H, W, 1), as pixels; outside its colours fade to grey."""
    near, weight = (np.asarray(cv2.GaussianBlur(v, (0, 0), MARGIN / 3), np.float32) for v in (colour, share))
    ground = (near + 0.002 * NEUTRAL) / (weight[..., None] + 0.002)
    return np.asarray((colour + (1 - share) * ground).round().clip(0, 255), np.uint8)
