"""Painting what the tracker says on a frame; and the colours that objects have in pictures and masks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from siammask.geometry import Box, RotatedBox, UInt8

_SHIFT = 4  # OpenCV draws at 1/16 pixel


def palette() -> UInt8:
    """(256, 3) RGB: the colour of each object id in DAVIS and PASCAL VOC; 0 is black.

    Bits 0, 1, 2 of the id become the top bits of red, green, blue; bits 3, 4, 5 the next ones; and so on.
    """
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= (((ids >> bit) & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours


def colour_of(object_id: int) -> tuple[int, int, int]:
    """BGR that an object is painted in: its palette colour at full brightness.

    >>> colour_of(1)
    (0, 0, 255)
    """
    red, green, blue = (int(v) for v in palette()[object_id % 256])
    top = max(red, green, blue, 1)
    return blue * 255 // top, green * 255 // top, red * 255 // top


def paint(
    pixels: UInt8,
    mask: NDArray[np.bool_],
    *,
    box: Box | None = None,
    rotated: RotatedBox | None = None,
    label: str = "",
    object_id: int = 1,
    opacity: float = 0.45,
) -> UInt8:
    """A new frame (H, W, 3) BGR with the mask (H, W) tinted and outlined, its boxes and a label drawn over it.

    Paint several objects by painting each on the result of the last.
    """
    out = pixels.copy()
    colour = colour_of(object_id)
    thin = max(1, round(min(pixels.shape[:2]) / 400))
    _tint(out, mask, colour, opacity, 2 * thin)
    if box is not None:
        x, y, w, h = box.xywh
        _outline(out, np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]]), (255, 255, 255), thin)
    if rotated is not None:
        _outline(out, rotated.corners, (0, 0, 0), thin + 2)
        _outline(out, rotated.corners, _towards_white(colour, 0.35), thin + 1)
    if label:
        _tag(out, label, box, colour, thin)
    return out


def _tint(out: UInt8, mask: NDArray[np.bool_], colour: tuple[int, int, int], opacity: float, thick: int) -> None:
    around = Box.from_mask(mask)
    if around is None:
        return
    x, y, w, h = (int(v) for v in around.xywh)
    part, inside = out[y : y + h, x : x + w], np.asarray(mask[y : y + h, x : x + w], bool).astype(np.uint8)
    flat = np.empty_like(part)
    cv2.rectangle(flat, (0, 0), (w, h), colour, cv2.FILLED)  # numpy takes far longer
    cv2.copyTo(cv2.addWeighted(part, 1 - opacity, flat, opacity, 0), inside, part)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_TC89_L1, offset=(x, y))
    cv2.drawContours(out, contours, -1, _towards_white(colour, 0.35), thick, cv2.LINE_AA)


def _outline(out: UInt8, corners: NDArray[np.float64], colour: tuple[int, int, int], thick: int) -> None:
    """Closed line through corners (N, 2) given with the edges of pixels at whole numbers."""
    points = np.round((corners - 0.5) * (1 << _SHIFT)).astype(np.int32)
    cv2.polylines(out, [points], True, colour, thick, cv2.LINE_AA, _SHIFT)


def _tag(out: UInt8, label: str, box: Box | None, colour: tuple[int, int, int], thin: int) -> None:
    """The label on a plate above the box (inside the frame), or in the upper left corner."""
    scale = 0.45 * max(1.0, min(out.shape[:2]) / 400)
    (width, height), below = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, scale, thin)
    wide, high = width + 8, height + below + 6
    x, y = (0.0, 0.0) if box is None else (box.x, box.y - high - 1)
    left = int(min(max(0, x), max(0, out.shape[1] - wide)))
    top = int(min(max(0, y), max(0, out.shape[0] - high)))
    cv2.rectangle(out, (left, top), (left + wide, top + high), colour, cv2.FILLED)
    dark = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] < 140
    ink = (255, 255, 255) if dark else (0, 0, 0)
    cv2.putText(out, label, (left + 4, top + height + 3), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thin, cv2.LINE_AA)


def _towards_white(colour: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    b, g, r = (round(v + (255 - v) * share) for v in colour)
    return b, g, r
