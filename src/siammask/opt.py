"""Opt: the rotated box that costs least by the rule with which the boxes of VOT2016 were made.

Vojir and Matas, "Pixel-wise object segmentations for the VOT 2016 dataset" (2017). The search has no random part: at
some angles the best box on a coarse grid is found (there it is a rectangle of largest sum, found by running sums); the
best of those then climb, each side and the angle by what lies under the sides, and the cheapest is taken.
"""

from __future__ import annotations

import functools
import math
from dataclasses import astuple, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from siammask.geometry import Float32, RotatedBox

Mask = NDArray[np.bool_]
Float = NDArray[np.float64]
Index = NDArray[np.intp]

ALPHA = 2.7  # VOT2016: what a pixel of the object left out costs, in pixels of background taken in

COARSE = 32  # cells along the mask's longer side, where all angles are tried
PARTS = 3  # of a coarse cell's side, that turned grids are read from
ANGLES = 16  # of them, over a quarter turn; upright is among them
BAND = 2  # rows of the coarse grid; the densest of them are one place to begin at
FINE = 112  # squared: cells, at most, that the boxes are compared on
STARTS = 6  # boxes that climb
ROUNDS = (24,) * 5 + (64,) * 4 + (128,) * 4  # points looked at under each side in each round
GROW, SHRINK = 1.2, 0.5  # a step in the same direction as the last one, and a step back


def cost(box: RotatedBox, mask: Mask, alpha: float = ALPHA) -> float:
    """What Opt minimises: alpha times the object's area outside the box + the area inside that is not the object.

    In pixels². A pixel counts by the share of it that lies in the box; what is beyond the mask (H, W) is background.
    """
    inside = box_area_on(box, mask)
    return alpha * (float(np.count_nonzero(mask)) - inside) + box.w * box.h - inside


def box_mask_iou(box: RotatedBox, mask: Mask) -> float:
    """Intersection over union in [0, 1] of a rotated box and a mask (H, W); 0 where neither has an area."""
    inside = box_area_on(box, mask)
    union = float(np.count_nonzero(mask)) + box.w * box.h - inside
    return inside / union if union > 0 else 0.0


def box_area_on(box: RotatedBox, mask: Mask) -> float:
    """Area of the mask (H, W) inside the box, in pixels²."""
    return float(_covered(np.array([astuple(box)]), _Sums.of(mask))[0])


def cheapest_box(mask: Mask, alpha: float = ALPHA) -> RotatedBox:
    """The rotated box of least `cost` for a mask (H, W) that touches all four sides of its array; angle in degrees.

    Found on a grid and by climbing, so nearly the least: see tests/test_opt.py for how nearly.
    """
    cell = math.ceil(math.sqrt(mask.size) / FINE)
    shares = _shares(mask, cell)
    if not shares.any():  # dots so far apart that no cell has a share to speak of
        shares += 1
    boxes, coarse = _coarse_boxes(shares, alpha)
    boxes[:, :4] *= cell
    reach = np.array([coarse * cell / 2] * 4 + [math.radians(0.4 * 90 / ANGLES)], np.float32)
    boxes = _climb(boxes, _Scene.of(mask, alpha), reach)
    boxes = np.concatenate((boxes, _upright(boxes, mask.shape)))
    boxes[:, 4] *= 180 / math.pi
    small = boxes / (cell, cell, cell, cell, 1)
    gains = (1 + alpha) * _covered(small, _Sums.of(shares)) - small[:, 2] * small[:, 3]
    best = int(gains.argmax()) if gains.max() > 0 else -1  # of dots so far apart that no box is worth it: around all
    cx, cy, w, h, angle = boxes[best].tolist()
    return RotatedBox(cx, cy, w, h, angle)


def _upright(boxes: Float, size: tuple[int, ...]) -> Float:
    """Upright boxes with sides between pixels, where the cost has kinks: beside the least turned one, around all."""
    x, y, w, h, _ = boxes[np.abs(boxes[:, 4]).argmin()].tolist()
    (left, right), (top, bottom) = _whole(x, w, size[1]), _whole(y, h, size[0])
    beside = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top, 0.0
    return np.array((beside, (size[1] / 2, size[0] / 2, size[1], size[0], 0.0)))


def _whole(middle: float, length: float, end: int) -> tuple[int, int]:
    """The ends of a stretch at whole numbers in [0, end], at least one apart."""
    low = min(max(round(middle - length / 2), 0), end - 1)
    return low, min(max(round(middle + length / 2), low + 1), end)


def _shares(mask: Mask, cell: int) -> Float32:
    """What share in [0, 1] of each of its cells, `cell` pixels a side, a mask covers."""
    if cell == 1:
        return mask.astype(np.float32)
    rows, columns = (-(-length // cell) for length in mask.shape)
    whole = np.zeros((rows * cell, columns * cell), np.uint8)
    np.multiply(mask, np.uint8(255), out=whole[: mask.shape[0], : mask.shape[1]])
    return cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA) * np.float32(1 / 255)


# Climbing


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """A mask with so much ground around it that no climbing box looks beyond."""

    pixels: Mask  # (H, W), flat; 1 on the object
    columns: int
    margin: int
    alpha: float

    @classmethod
    def of(cls, mask: Mask, alpha: float) -> _Scene:
        (height, width), m = mask.shape, max(mask.shape) // 2 + 2
        pixels = np.zeros((height + 2 * m, width + 2 * m), np.bool_)
        pixels[m : m + height, m : m + width] = mask
        return cls(pixels.ravel(), width + 2 * m, m, alpha)


def _climb(boxes: Float, scene: _Scene, reach: Float32) -> Float:
    """Boxes (B, 5) cx, cy, w, h in pixels and radians after some rounds.

    `reach` (5,) is the first step of each side and the angle. A side moves out while more than 1 / (1 + alpha) of it
    lies on the object, else in; the box turns, about the middle it came with, to where its ends find more of the
    object. Only the sign of a slope says which way: steps grow while it stays and shrink when it turns (Rprop), because
    the cost has kinks: at a straight edge of the mask the slope jumps. The first rounds look at few points.

    The time goes into the number of calls, not into what they do: hence the views and the products.
    """
    now = (boxes @ _TO_HALVES).astype(np.float32)  # from the middle to each side, and the angle
    step, before = np.zeros_like(now) + reach, np.zeros_like(now)
    frame, seen = np.empty((2, len(boxes), 5), np.float32), np.empty((len(boxes), 6), np.float32)
    frame[:, :, 4] = boxes[:, :2].T + scene.margin
    sides, angle, ways_out, ends = now[:, :4], now[:, 4:], frame[:, :, :4], seen[:, 4:]
    columns, worth = np.int32(scene.columns), np.float32(1 / (1 + scene.alpha))
    squares = (boxes[:, 2:4] ** 2).astype(np.float32)  # of the sides as they came: near enough to weigh their ends
    for count in ROUNDS:
        points, forms = _side_points(count)
        np.multiply(sides, np.cos(angle - _QUARTERS), out=ways_out)
        x, y = (frame @ points).astype(np.int32)
        y *= columns
        y += x
        np.matmul(scene.pixels.take(y, mode="clip") - worth, forms, out=seen)
        ends *= squares
        way = seen @ _TO_WAY
        step *= _PACE.take(before * way < 0)
        before = way
        now += np.copysign(step, way)
    off = (sides * np.cos(angle - _QUARTERS)) @ _TO_MIDDLE
    return np.concatenate((boxes[:, :2] + off.T, np.maximum(now @ _TO_SIDES, 0.1), angle), 1)


# Of a box as it climbs (its right, left, lower and upper side, and its angle): what each does.
_TO_HALVES = np.array([[0] * 5, [0] * 5, [0.5, 0.5, 0, 0, 0], [0, 0, 0.5, 0.5, 0], [0, 0, 0, 0, 1]])
_TO_SIDES = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 0]], np.float32)
_TO_MIDDLE = np.array([0.5, -0.5, 0.5, -0.5])
_TO_WAY = np.vstack((np.eye(5), [[0, 0, 0, 0, 1]])).astype(np.float32)  # both pairs of sides turn the box
_PACE = np.array([GROW, SHRINK], np.float32)
# so that a cosine is the side's x, and y
_QUARTERS = np.array([[0, 0, -1, -1], [1, 1, 0, 0]], np.float32)[:, None] * np.float32(math.pi / 2)


@functools.cache
def _side_points(count: int) -> tuple[Float32, Float32]:
    """Points under the sides (right, left, lower, upper), and what is made of the cells there.

    (5, 4 count): what to multiply the ways to the sides and 1 by; (4 count, 6): the mean of each side, and how much
    more of the object the ends of the lower and upper side (times w²) and of the right and left side (times h²) find
    one way round.
    """
    t = (np.arange(count) + 0.5) / count
    one, none = np.ones(count), np.zeros(count)
    points = [[one, none, t, t], [none, -one, t - 1, t - 1], [t, t, one, none], [t - 1, t - 1, none, -one], [one] * 4]
    forms = np.zeros((4, count, 6), np.float32)
    forms[range(4), :, range(4)] = 1 / count
    forms[range(4), :, [5, 5, 4, 4]] = np.outer((-1, 1, 1, -1), t - 0.5) / count
    return np.array(points, np.float32).reshape(5, -1), forms.reshape(-1, 6)


# The coarse grid


def _coarse_boxes(shares: Float32, alpha: float) -> tuple[Float, float]:
    """The best boxes (STARTS, 5) of a mask on a coarser grid: cx, cy, w, h in cells of `shares`, and radians.

    Also how many of those cells a coarse one measures.
    """
    places, angles, turns, n, first, lines = _turned_grids()
    cell = max(shares.shape) / COARSE
    rows, columns = (max(1, round(length / cell)) for length in shares.shape)
    share = cv2.resize(shares, (columns, rows), interpolation=cv2.INTER_AREA)
    square = np.full((COARSE + 2, COARSE + 2), -1, np.float32)
    square[1 : rows + 1, 1 : columns + 1] += share * np.float32(1 + alpha)
    m = cv2.moments(share)
    ox, oy = m["m10"] / m["m00"] - (COARSE - 1) / 2, m["m01"] / m["m00"] - (COARSE - 1) / 2
    weights = cv2.resize(square, None, fx=PARTS, fy=PARTS, interpolation=cv2.INTER_LINEAR).take(places)
    sums = cv2.integral(weights, sdepth=cv2.CV_32F)  # of all the turned grids, one below the other
    # two places to begin at for each angle: rows about the middle of mass, and the densest band
    middle = (oy, -ox, n / 2) @ turns[:3]
    half = np.sqrt(np.maximum((m["mu02"], m["mu11"], m["mu20"]) @ turns[3:] * (3 / m["m00"]), 0.25))
    rims = sums.take(lines[:ANGLES] + n)
    band = np.argmax(rims[:, BAND:] - rims[:, :-BAND], axis=1)
    top = np.concatenate((np.maximum(middle - half, 0).astype(np.intp), band))
    bottom = np.concatenate((np.minimum(middle + half + 1, n).astype(np.intp), band + BAND))
    left, right, _ = _best_runs(sums.take(first + bottom, axis=0) - sums.take(first + top, axis=0))
    top, bottom, gain = _best_runs(sums.take(lines + right[:, None]) - sums.take(lines + left[:, None]))
    better = np.argmax(gain.reshape(2, -1), axis=0) * ANGLES + np.arange(ANGLES)
    best = better[np.argsort(-gain[better])[:STARTS]]
    left, right, top, bottom = np.array((left, right, top, bottom))[:, best]
    (cos, sin), angle = turns[:2, best % ANGLES], angles[best % ANGLES]
    u, v = (left + right - n) / 2, (top + bottom - n) / 2
    x, y = u * cos - v * sin + COARSE / 2, u * sin + v * cos + COARSE / 2
    boxes = np.array((x, y, right - left, bottom - top, angle)).T
    return boxes * (cell, cell, cell, cell, 1), cell


@functools.cache
def _turned_grids() -> tuple[Index, Float, Float, int, Index, Index]:
    """Where (ANGLES n, n) turned grids of n x n cells lie on the parts of the coarse cells and of a rim around them.

    With that the angles a in radians; cos a, sin a, 1, cos² a, -2 sin a cos a, sin² a (6, ANGLES); n; and, twice over,
    the rows of their integral that the grids begin at (2 ANGLES,), and where each row begins in it (2 ANGLES, n + 1).
    """
    angles = np.linspace(-math.pi / 4, math.pi / 4, ANGLES, endpoint=False)
    n = math.ceil(COARSE * math.sqrt(2)) + 1
    at = np.arange(n) - (n - 1) / 2
    cos, sin = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    whole = (COARSE + 2) * PARTS
    x, y = (
        np.clip(np.floor(v * PARTS + whole / 2), 0, whole - 1).astype(np.intp).reshape(-1, n)
        for v in (cos * at - sin * at[:, None], sin * at + cos * at[:, None])
    )
    c, s = cos.ravel(), sin.ravel()
    turns = np.array((c, s, np.ones(ANGLES), c * c, -2 * s * c, s * s))
    first = np.tile(np.arange(ANGLES) * n, 2)
    return y * whole + x, angles, turns, n, first, (first[:, None] + np.arange(n + 1)) * (n + 1)


def _best_runs(sums: Float32) -> tuple[Index, Index, Float32]:
    """Of each line (A, n), given by its sums (A, n + 1) up to each cell: the run [first, end) of largest sum, and that.

    >>> [part.tolist() for part in _best_runs(np.array([[0.0, -1, 2, 4, 3]]))]
    [[1], [3], [5.0]]
    """
    low = np.minimum.accumulate(sums, axis=1)
    held = sums - low
    end = held.argmax(axis=1)
    each = end + np.arange(0, sums.size, sums.shape[1])
    first = (sums == low.take(each)[:, None]).argmax(axis=1)
    return first, end, held.take(each)


# Areas


def _covered(boxes: Float, sums: _Sums) -> Float:
    """Sum (B,) of a picture under each of the boxes (B, 5): every pixel by the share of it that the box covers.

    Between two cuts, at rows of pixels and corners of the box, both ends of the box's chord run along straight lines;
    so the mean of the sums up to an end is a difference of the sums' own sums.
    """
    rows = len(sums.once)
    cx, cy, w, h, angle = boxes.T[:, :, None]
    turn = np.cos(np.radians(angle) - _QUARTER)
    cos, sin = np.where(np.abs(turn) < 1e-9, 1e-9, turn)
    corners = cy + w * sin * _ENDS[0] + h * cos * _ENDS[1]
    y = np.empty((len(boxes), rows + 5))
    np.minimum(np.maximum(corners, 0), rows, out=y[:, :4])
    y[:, 4:] = np.arange(rows + 1)
    y.sort(axis=1)
    # a line meets the strip between the left and right side, and the one between the upper and lower side
    down = y - cy
    first, second = cx - down * (sin / cos), cx + down * (cos / sin)
    a, b = np.abs(w / cos) / 2, np.abs(h / sin) / 2
    left, right = ends = np.empty((2, *y.shape))
    np.maximum(first - a, second - b, out=left)
    np.minimum(first + a, second + b, out=right)
    crossed = left[:, 1:] + left[:, :-1] < right[:, 1:] + right[:, :-1]
    row = np.minimum(((y[:, 1:] + y[:, :-1]) / 2).astype(np.intp), rows - 1)
    until_left, until_right = sums.mean_until(row, ends)
    found: Float = ((until_right - until_left) * (y[:, 1:] - y[:, :-1]) * crossed).sum(axis=1)
    return found


_QUARTER = np.array([0.0, math.pi / 2])[:, None, None]
_ENDS = np.array([[-0.5, -0.5, 0.5, 0.5], [-0.5, 0.5, -0.5, 0.5]])  # of a box's sides, at its corners


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Running sums of the rows of a picture (H, W), with a pixel of nothing at either end."""

    values: Float  # (H, W + 2)
    once: Float  # (H, W + 2): sum of the row up to where each pixel begins
    twice: Float  # (H, W + 2): integral of that, likewise

    @classmethod
    def of(cls, picture: Mask | Float32) -> _Sums:
        height, width = picture.shape
        values = np.zeros((height, width + 2))
        values[:, 1:-1] = picture
        once = _run(values)
        return cls(values, once, _run(once + values / 2))

    def mean_until(self, row: Index, x: Float) -> Float:
        """Mean (..., N) of the sums of `row` up to a place that runs evenly from each `x` (..., N + 1) to the next."""
        columns = self.values.shape[1]
        length = x[..., 1:] - x[..., :-1]
        length[np.abs(length) < 1e-6] = 1e-6
        at = np.empty((2, *length.shape))
        np.add(x[..., :-1], 1, out=at[1])
        np.add(at[1], length, out=at[0])
        pixel = np.maximum(np.minimum(at, columns - 1), 0).astype(np.intp)
        at -= pixel
        pixel += row * columns
        upto = self.twice.take(pixel) + at * (self.once.take(pixel) + at / 2 * self.values.take(pixel))
        out: Float = (upto[0] - upto[1]) / length
        return out


def _run(values: Float) -> Float:
    """Sum of each row (H, W) up to where each of its values begins."""
    sums = cv2.integral(values, sdepth=cv2.CV_64F)  # in a third of the time of a cumsum
    return np.subtract(sums[1:, :-1], sums[:-1, :-1])
