"""Where things are: boxes on the frame, the square crop the network sees, and the patch it draws.

Convention: pixel (i, j) covers [j, j+1) x [i, i+1), so x runs from 0 to W and a box of one pixel has w = h = 1.
This file is the only place where frame and crop coordinates meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from siammask.errors import InputError

Alignment = Literal["exact", "released"]
UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Box:
    """Axis-aligned box by centre and size, in pixels of the frame (floats).

    >>> Box.from_xywh(10, 20, 4, 6)
    Box(cx=12.0, cy=23.0, w=4.0, h=6.0)
    """

    cx: float
    cy: float
    w: float
    h: float

    @classmethod
    def from_xywh(cls, x: float, y: float, w: float, h: float) -> Box:
        """From the left, top corner and the size."""
        x, y, w, h = float(x), float(y), float(w), float(h)
        return cls(x + w / 2, y + h / 2, w, h)

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_] | UInt8) -> Box | None:
        """Bounding rectangle of the non-zero pixels of (H, W); None where there are none."""
        columns = np.flatnonzero(mask.any(axis=0))
        if columns.size == 0:
            return None
        rows = np.flatnonzero(mask.any(axis=1))
        x, y = int(columns[0]), int(rows[0])
        return cls.from_xywh(x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y)

    @property
    def x(self) -> float:
        return self.cx - self.w / 2

    @property
    def y(self) -> float:
        return self.cy - self.h / 2

    @property
    def xywh(self) -> tuple[float, float, float, float]:
        """Left, top, width, height."""
        return self.x, self.y, self.w, self.h

    @property
    def area(self) -> float:
        return self.w * self.h

    def iou(self, other: Box) -> float:
        """Intersection over union in [0, 1], as real rectangles; 0 where either has no area."""
        w = min(self.x + self.w, other.x + other.w) - max(self.x, other.x)
        h = min(self.y + self.h, other.y + other.h) - max(self.y, other.y)
        if w <= 0 or h <= 0:
            return 0.0
        return w * h / (self.area + other.area - w * h)


@dataclass(frozen=True, slots=True)
class RotatedBox:
    """Rectangle turned by `angle` degrees, clockwise on the screen (OpenCV's convention); pixels of the frame."""

    cx: float
    cy: float
    w: float
    h: float
    angle: float

    @property
    def corners(self) -> NDArray[np.float64]:
        """(4, 2) x, y; in turn around the box, as `cv2.boxPoints` orders them."""
        turn = math.radians(self.angle)
        a, b = math.sin(turn) * 0.5, math.cos(turn) * 0.5
        x0, y0 = self.cx - a * self.h - b * self.w, self.cy + b * self.h - a * self.w
        x1, y1 = self.cx + a * self.h - b * self.w, self.cy - b * self.h - a * self.w
        return np.array([[x0, y0], [x1, y1], [2 * self.cx - x0, 2 * self.cy - y0], [2 * self.cx - x1, 2 * self.cy - y1]])


@dataclass(frozen=True, slots=True)
class Crop:
    """The square window of the frame with corner (x, y) and `side` whole pixels, seen as size x size pixels."""

    x: int
    y: int
    side: int
    size: int

    @property
    def scale(self) -> float:
        """Crop pixels per frame pixel."""
        return self.size / self.side

    def read(self, frame: UInt8, fill: tuple[int, int, int]) -> UInt8:
        """Pixels (size, size, 3) of the window; what lies outside the frame has the colour `fill`.

        Bilinear as `cv2.resize`; touches only the window's pixels.
        """
        height, width = frame.shape[:2]
        left, top = max(0, -self.x), max(0, -self.y)
        right, bottom = max(0, self.x + self.side - width), max(0, self.y + self.side - height)
        window = frame[max(0, self.y) : max(0, self.y + self.side), max(0, self.x) : max(0, self.x + self.side)]
        if left or top or right or bottom:
            padded = np.empty((self.side, self.side, 3), np.uint8)
            padded[:] = fill
            if window.size:
                padded[top : top + window.shape[0], left : left + window.shape[1]] = window
            window = padded
        if self.side == self.size:
            return np.ascontiguousarray(window)
        return cv2.resize(window, (self.size, self.size))  # type: ignore[return-value]

    def to_crop(self, box: Box) -> Box:
        """A box on the frame, in crop pixels."""
        s = self.scale
        return Box((box.cx - self.x) * s, (box.cy - self.y) * s, box.w * s, box.h * s)

    def to_frame(self, box: Box) -> Box:
        """A box in crop pixels, on the frame."""
        s = self.scale
        return Box(box.cx / s + self.x, box.cy / s + self.y, box.w / s, box.h / s)


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """What the network drew: `values` (m, m) float32 in [0, 1] spread over the rectangle `place`.

    `place` is in the pixels of whatever the patch lies on: crop pixels as it leaves an engine, frame pixels in a result.
    `alignment` says how values meet pixels: "exact" (cell centres), or "released" (the released paste, which stretches
    the map by (out - 1) / size and so pulls absolute x, y by (W - 1) / W).
    """

    values: Float32
    place: Box
    alignment: Alignment = "exact"

    def on_frame(self, crop: Crop) -> Patch:
        """The same patch, placed on the frame its crop was read from."""
        return Patch(self.values, crop.to_frame(self.place), self.alignment)

    def paste(self, width: int, height: int) -> Float32:
        """Probability (height, width) on the whole frame, bilinear; 0 outside the patch."""
        out = np.zeros((height, width), np.float32)
        x0, y0, values = self.window(width, height)
        out[y0 : y0 + values.shape[0], x0 : x0 + values.shape[1]] = values
        return out

    def window(self, width: int, height: int) -> tuple[int, int, Float32]:
        """The part of `paste` that can be non-zero: (x0, y0, values (h, w)); touches only that part."""
        x, y, w, h = self.place.xywh
        x0, y0 = max(0, math.floor(x)), max(0, math.floor(y))
        x1, y1 = min(width, math.ceil(x + w)), min(height, math.ceil(y + h))
        if x1 <= x0 or y1 <= y0:
            return 0, 0, np.zeros((0, 0), np.float32)
        return x0, y0, self._sample(x0, y0, x1 - x0, y1 - y0, 1.0, 1.0)

    def seen_by(self, crop: Crop, size: int) -> Float32:
        """The patch (on the frame) as `crop` would see it on a (size, size) grid; 0 where the patch does not reach."""
        step = crop.side / size
        return self._sample(crop.x, crop.y, size, size, step, step)

    def _sample(self, x0: float, y0: float, columns: int, rows: int, step_x: float, step_y: float) -> Float32:
        """Values at pixel centres x0 + (j + .5) step_x, y0 + (i + .5) step_y, bilinear, 0 outside."""
        m_h, m_w = self.values.shape
        x, y, w, h = self.place.xywh
        ax, ay = step_x * m_w / w, step_y * m_h / h
        bx = (x0 + 0.5 * step_x - x) * m_w / w - 0.5
        by = (y0 + 0.5 * step_y - y) * m_h / h - 0.5
        turn = np.array([[ax, 0, bx], [0, ay, by]], np.float64)
        return cv2.warpAffine(  # type: ignore[return-value]
            self.values,
            turn,
            (columns, rows),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=0,
        )


def context_side(box: Box, context: float = 0.5) -> float:
    """Side of the square that holds the box and its context: sqrt((w + c)(h + c)), c = context (w + h).

    SiamFC, section 3.4 (context 0.5 there is a quarter of the perimeter).
    """
    c = context * (box.w + box.h)
    return math.sqrt((box.w + c) * (box.h + c))


def mean_colour(frame: UInt8) -> tuple[int, int, int]:
    """Mean colour of a frame, cut to whole numbers: what the released code fills the outside with."""
    b, g, r, _ = cv2.mean(frame)
    return int(b), int(g), int(r)


def check_frame(frame: UInt8, size: tuple[int, int] | None = None) -> None:
    """Raise InputError unless `frame` is (H, W, 3) uint8 and, where given, of `size` = (W, H)."""
    if not isinstance(frame, np.ndarray):
        raise InputError(f"Frame is a {type(frame).__name__}; expected a numpy array (H, W, 3) uint8 BGR.")
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.size == 0:
        raise InputError(f"Frame is {frame.shape} {frame.dtype}; expected (H, W, 3) uint8 BGR.")
    if size is not None and (frame.shape[1], frame.shape[0]) != size:
        raise InputError(
            f"Frame is {frame.shape[1]}x{frame.shape[0]} but tracking began on {size[0]}x{size[1]}; "
            "resize the frames, or start again on the new size."
        )


def check_box(box: Box, width: int, height: int) -> Box:
    """The box cut to the frame; raise InputError where nothing usable is left of it."""
    if not all(math.isfinite(v) for v in (box.cx, box.cy, box.w, box.h)):
        raise InputError(f"Box {box.xywh} holds a value that is not finite; give x, y, width, height in pixels.")
    if box.w <= 0 or box.h <= 0:
        raise InputError(f"Box {box.xywh} has no area; width and height must be above 0.")
    x0, y0 = max(0.0, box.x), max(0.0, box.y)
    x1, y1 = min(float(width), box.x + box.w), min(float(height), box.y + box.h)
    if x1 - x0 < 2 or y1 - y0 < 2:
        raise InputError(f"Box {box.xywh} leaves less than 2x2 pixels inside the frame of {width}x{height}.")
    return Box.from_xywh(x0, y0, x1 - x0, y1 - y0)
