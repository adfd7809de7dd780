"""Where things are: boxes on the frame, the square crop the network sees, and the patch it draws.

Convention: pixel (i, j) covers [j, j+1) x [i, i+1), so x runs from 0 to W and a box of one pixel has w = h = 1.
This file is the only place where frame and crop coordinates meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, overload

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
        x2, y2 = 2 * self.cx - x0, 2 * self.cy - y0
        x3, y3 = 2 * self.cx - x1, 2 * self.cy - y1
        return np.array([[x0, y0], [x1, y1], [x2, y2], [x3, y3]])


@dataclass(frozen=True, slots=True)
class Crop:
    """The square window of the frame with corner (x, y) and `side` whole pixels, seen as size x size pixels.

    `nominal` is the corner before it was rounded to whole pixels. The released code reads at the rounded corner and
    places what it draws by the unrounded one; None (all other crops) means that both are the same.
    """

    x: int
    y: int
    side: int
    size: int
    nominal: tuple[float, float] | None = None

    @classmethod
    def around(cls, cx: float, cy: float, side: float, size: int, least: int = 16) -> Crop:
        """The crop with its centre nearest to (cx, cy): side rounded to whole pixels, and at least `least`."""
        whole = max(least, round(side))
        return cls(round(cx - whole / 2), round(cy - whole / 2), whole, size)

    @classmethod
    def released(cls, cx: float, cy: float, side: float, size: int) -> Crop:
        """The crop as the released code reads it: each rounding is its own (Python's round: half to even)."""
        whole = round(side)
        half = (whole + 1) / 2  # quirk: half a pixel more than half the side
        return cls(round(cx - half), round(cy - half), whole, size, (cx - whole / 2, cy - whole / 2))

    @property
    def scale(self) -> float:
        """Crop pixels per frame pixel."""
        return self.size / self.side

    def read(self, frame: UInt8, fill: tuple[int, int, int]) -> UInt8:
        """Pixels (size, size, 3) of the window; what lies outside the frame has the colour `fill`.

        Bilinear as `cv2.resize`, to its rounding where a large window reaches over the rim of the frame (but not for
        released crops: those are exact to the last bit). Touches only the window's pixels.
        """
        height, width = frame.shape[:2]
        left, top = max(0, -self.x), max(0, -self.y)
        right, bottom = max(0, self.x + self.side - width), max(0, self.y + self.side - height)
        window = frame[max(0, self.y) : max(0, self.y + self.side), max(0, self.x) : max(0, self.x + self.side)]
        if left or top or right or bottom:
            if window.size == 0:
                return np.full((self.size, self.size, 3), fill, np.uint8)
            if (
                self.nominal is None and self.side > 3 * self.size
            ):  # a border of megabytes would cost more than all else
                step = self.side / self.size
                axis = _Axis(step, 0.5 * step - 0.5)
                return _sample(window, axis.after(left), axis.after(top), self.size, self.size, fill)
            # numpy takes some ten times as long to fill a large border with a colour
            window = cv2.copyMakeBorder(window, top, bottom, left, right, cv2.BORDER_CONSTANT, value=fill)  # type: ignore[assignment]
        if self.side == self.size:
            return np.ascontiguousarray(window)
        return cv2.resize(window, (self.size, self.size))  # type: ignore[return-value]

    @property
    def place(self) -> Box:
        """The window itself, on the frame."""
        x, y = self.corner
        return Box.from_xywh(x, y, self.side, self.side)

    @property
    def corner(self) -> tuple[float, float]:
        """Left, top of the window by which drawings are placed: `nominal`, where there is one."""
        return self.nominal or (float(self.x), float(self.y))

    def to_crop(self, box: Box) -> Box:
        """A box on the frame, in crop pixels."""
        (x, y), s = self.corner, self.scale
        return Box((box.cx - x) * s, (box.cy - y) * s, box.w * s, box.h * s)

    def to_frame(self, box: Box) -> Box:
        """A box in crop pixels, on the frame."""
        (x, y), s = self.corner, self.scale
        return Box(box.cx / s + x, box.cy / s + y, box.w / s, box.h / s)


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """What the network drew: `values` (m, m) float32 in [0, 1] spread over the rectangle `place`.

    `place` is in pixels of whatever the patch lies on: crop pixels as it leaves an engine, frame pixels in a result.
    `alignment` says how values meet pixels: "exact" (cell centres), or "released" (the released paste, which stretches
    the map by (out - 1) / size and so pulls absolute x, y by (W - 1) / W).
    """

    values: Float32
    place: Box
    alignment: Alignment = "exact"

    def on_frame(self, crop: Crop) -> Patch:
        """The same patch, placed on the frame its crop was read from."""
        return Patch(self.values, crop.to_frame(self.place), self.alignment)

    def in_crop(self, crop: Crop) -> Patch:
        """The same patch (on the frame), placed in crop pixels: the way back of `on_frame`."""
        return Patch(self.values, crop.to_crop(self.place), self.alignment)

    def carried(self, old: Box, new: Box) -> Patch:
        """The patch when what filled the box `old` fills `new`: moved, and grown alike in both directions."""
        grow = math.sqrt(new.area / old.area)
        place = self.place
        x, y = new.cx + grow * (place.cx - old.cx), new.cy + grow * (place.cy - old.cy)
        return Patch(self.values, Box(x, y, grow * place.w, grow * place.h), self.alignment)

    def above(self, threshold: float) -> Patch | None:
        """The part of the patch outside of which no sample can exceed `threshold`; None where nothing does."""
        drawn = Box.from_mask(self.values > threshold)
        if drawn is None:
            return None
        rows, columns = self.values.shape
        x0, x1 = (
            max(0, int(drawn.x) - 1),
            min(columns, int(drawn.x + drawn.w) + 1),
        )  # a sample leans on the next cell too
        y0, y1 = max(0, int(drawn.y) - 1), min(rows, int(drawn.y + drawn.h) + 1)
        w, h = self.place.w / columns, self.place.h / rows
        place = Box.from_xywh(self.place.x + x0 * w, self.place.y + y0 * h, (x1 - x0) * w, (y1 - y0) * h)
        return Patch(self.values[y0:y1, x0:x1], place, self.alignment)

    def paste(self, width: int, height: int) -> Float32:
        """Probability (height, width) on the whole frame, bilinear; 0 outside the patch."""
        out = np.zeros((height, width), np.float32)
        x0, y0, values = self.window(width, height)
        out[y0 : y0 + values.shape[0], x0 : x0 + values.shape[1]] = values
        return out

    def window(self, width: int, height: int) -> tuple[int, int, Float32]:
        """The part of `paste` that can be non-zero: (x0, y0, values (h, w)); touches only that part."""
        across, down = self._axis(0, width), self._axis(1, height)
        x0, x1 = across.reach(self.values.shape[1], width)
        y0, y1 = down.reach(self.values.shape[0], height)
        if x1 <= x0 or y1 <= y0:
            return 0, 0, np.zeros((0, 0), np.float32)
        if self.alignment == "exact":
            return x0, y0, _drawn(self.values, across.shifted(x0), down.shifted(y0), x1 - x0, y1 - y0)
        # quirk: outside the map is -1, so the rim falls off faster than to 0
        values = _sample(self.values, across.shifted(x0), down.shifted(y0), x1 - x0, y1 - y0, outside=-1.0)
        return x0, y0, np.maximum(values, 0.0, out=values)

    def seen_by(self, crop: Crop, size: int) -> Float32:
        """The patch (on the frame) as `crop` would see it on a (size, size) grid; 0 where the patch does not reach."""
        return self.seen_in(crop.place, size)

    def seen_in(self, place: Box, size: int) -> Float32:
        """The patch as a (size, size) grid over the rectangle `place` (same pixels as the patch's own) would see it."""
        x, y, w, h = self.place.xywh
        values = self.values
        m_h, m_w = values.shape
        step_x, step_y = place.w / size, place.h / size
        fewer_w, fewer_h = max(1, round(w / step_x)), max(1, round(h / step_y))
        if m_w >= 2 * fewer_w or m_h >= 2 * fewer_h:  # bilinear sampling would step over values: average them first
            values = cv2.resize(values, (min(m_w, fewer_w), min(m_h, fewer_h)), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
            m_h, m_w = values.shape
        across = _Axis(step_x * m_w / w, (place.x + 0.5 * step_x - x) * m_w / w - 0.5)
        down = _Axis(step_y * m_h / h, (place.y + 0.5 * step_y - y) * m_h / h - 0.5)
        return _sample(values, across, down, size, size)

    def cut_to(self, box: Box) -> Patch:
        """The patch with 0 outside `box` (in the patch's own pixels); cells half inside keep their share."""
        return Patch(self.values * _coverage(box, self.place, self.values.shape), self.place, self.alignment)

    def _axis(self, axis: Literal[0, 1], length: int) -> _Axis:
        """Where in the map each pixel of a frame `length` pixels long falls, across (0) or down (1)."""
        start, extent = (self.place.x, self.place.w) if axis == 0 else (self.place.y, self.place.h)
        cells = self.values.shape[1 - axis] / extent
        if self.alignment == "exact":
            return _Axis(cells, (0.5 - start) * cells - 0.5)
        # quirk: pixel indices meet map indices (no half pixels), and absolute x is pulled by (W - 1) / W
        return _Axis(cells * length / max(1, length - 1), -start * cells)


def filled(box: Box, place: Box, size: int) -> Patch:
    """A box as the mask of itself: (size, size) over `place`, each cell holding the share of it that the box covers."""
    return Patch(_coverage(box, place, (size, size)), place)


@dataclass(frozen=True, slots=True)
class _Axis:
    """Map index of pixel j: step * j + start."""

    step: float
    start: float

    def shifted(self, pixels: int) -> _Axis:
        """The same map with pixel 0 moved to `pixels`."""
        return _Axis(self.step, self.start + self.step * pixels)

    def after(self, cells: int) -> _Axis:
        """The same map of a grid that begins `cells` later."""
        return _Axis(self.step, self.start - cells)

    def whole(self) -> tuple[int, int] | None:
        """A cell from which on `cv2.resize` draws pixel 0 as this map does, and as its which pixel; None: none is near.

        It draws pixel j at step * (j + 0.5) - 0.5, which the map of a crop of whole pixels meets at the crop's corner;
        the nearest cell will do from which on it is met to an eighth of a pixel.
        """
        last = math.floor(self.start)
        for cell in range(last, last - 16, -1):
            pixel = (self.start - cell + 0.5) / self.step - 0.5
            if abs(pixel - round(pixel)) < 1 / 8:
                return cell, round(pixel)
        return None

    def reach(self, cells: int, length: int) -> tuple[int, int]:
        """The pixels [first, last) of a frame that lie on a map of `cells` values (half a cell more at either end)."""
        first, last = (-0.5 - self.start) / self.step, (cells - 0.5 - self.start) / self.step
        return max(0, math.ceil(first)), min(length, math.floor(last) + 1)


def _drawn(values: Float32, across: _Axis, down: _Axis, columns: int, rows: int) -> Float32:
    """What `_sample` gives, to an eighth of a pixel where values are drawn large: in a fraction of the time."""
    column, row = across.whole(), down.whole()
    if column is None or row is None or max(across.step, down.step) > 0.5:
        return _sample(values, across, down, columns, rows)
    (x, left), (y, top) = column, row
    right = x + math.ceil((left + columns) * across.step) + 1
    bottom = y + math.ceil((top + rows) * down.step) + 1
    m_h, m_w = values.shape
    around = max(0, -y), max(0, bottom - m_h), max(0, -x), max(0, right - m_w)
    part = values[max(0, y) : max(0, bottom), max(0, x) : max(0, right)]
    part = cv2.copyMakeBorder(part, *around, cv2.BORDER_CONSTANT, value=0.0)  # type: ignore[assignment]
    large = cv2.resize(part, None, fx=1 / across.step, fy=1 / down.step, interpolation=cv2.INTER_LINEAR)
    return large[top : top + rows, left : left + columns]  # type: ignore[return-value]


@overload
def _sample(
    values: UInt8, across: _Axis, down: _Axis, columns: int, rows: int, outside: tuple[int, int, int]
) -> UInt8: ...
@overload
def _sample(values: Float32, across: _Axis, down: _Axis, columns: int, rows: int, outside: float = 0.0) -> Float32: ...
def _sample(
    values: UInt8 | Float32,
    across: _Axis,
    down: _Axis,
    columns: int,
    rows: int,
    outside: float | tuple[int, int, int] = 0.0,
) -> UInt8 | Float32:
    """Values (rows, columns) at the given map indices, bilinear, fading to `outside` one cell beyond the rim."""
    turn = np.array([[across.step, 0, across.start], [0, down.step, down.start]], np.float64)
    return cv2.warpAffine(  # type: ignore[return-value]
        values,
        turn,
        (columns, rows),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=outside,
    )


def _coverage(box: Box, place: Box, shape: tuple[int, ...]) -> Float32:
    """Share in [0, 1] of each cell of a (rows, columns) grid over `place` that lies in `box`."""
    rows = _overlap(box.y, box.y + box.h, place.y, place.h, shape[0])
    columns = _overlap(box.x, box.x + box.w, place.x, place.w, shape[1])
    return np.outer(rows, columns).astype(np.float32)


def _overlap(first: float, last: float, start: float, extent: float, cells: int) -> NDArray[np.float64]:
    """Share in [0, 1] of each of `cells` equal parts of [start, start + extent] that lies in [first, last]."""
    edges = np.clip((np.array([first, last]) - start) * cells / extent, 0, cells)
    index = np.arange(cells)
    share: NDArray[np.float64] = np.clip(edges[1] - index, 0, 1) - np.clip(edges[0] - index, 0, 1)
    return share


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
