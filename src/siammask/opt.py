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
ANGLES = 16  # of them, over a quarter turn; upright is among them
BAND = 2  # rows of the coarse grid; the densest of them are one place to begin at
FINE = 144  # cells along the mask's longer side, at most, that the boxes are compared on
STARTS = 4  # boxes that climb
ROUNDS = 14
POINTS = 96  # looked at under each side
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
    cell = -(-max(mask.shape) // FINE)
    shares = _shares(mask, cell)
    if not shares.any():  # dots so far apart that no cell has a share to speak of
        shares += 1
    boxes, coarse = _coarse_boxes(shares, alpha)
    boxes[:, :4] *= cell
    reach = np.array([coarse * cell / 2] * 4 + [math.radians(0.4 * 90 / ANGLES)])
    boxes = _climb(boxes, _Scene.of(mask, alpha), reach)
    boxes = np.vstack((boxes, _upright(boxes, mask.shape)))
    boxes[:, 4] = np.degrees(boxes[:, 4])
    small = boxes / [cell, cell, cell, cell, 1]
    gains = (1 + alpha) * _covered(small, _Sums.of(shares)) - small[:, 2] * small[:, 3]
    best = int(np.argmax(gains)) if gains.max() > 0 else -1  # of dots so far apart that no box is worth it: around all
    cx, cy, w, h, angle = boxes[best].tolist()
    return RotatedBox(cx, cy, w, h, angle)


def _upright(boxes: Float, size: tuple[int, ...]) -> Float:
    """Upright boxes with sides between pixels, where the cost has kinks: beside the least turned one, around all."""
    x, y, w, h, _ = boxes[np.argmin(np.abs(boxes[:, 4]))]
    whole = np.array(size[::-1], np.float64)
    low = np.minimum(np.maximum(np.rint((x - w / 2, y - h / 2)), 0), whole - 1)
    high = np.minimum(np.maximum(np.rint((x + w / 2, y + h / 2)), low + 1), whole)
    return np.array([(*(low + high) / 2, *(high - low), 0.0), (*whole / 2, *whole, 0.0)])


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


def _climb(boxes: Float, scene: _Scene, reach: Float) -> Float:
    """Boxes (B, 5) cx, cy, w, h in pixels and radians after some rounds.

    `reach` (5,) is the first step of each side and the angle. A side moves out while more than 1 / (1 + alpha) of it
    lies on the object, else in; the box turns, about the middle it came with, to where its ends find more of the
    object. Only the sign of a slope says which way: steps grow while it stays and shrink when it turns (Rprop), because
    the cost has kinks: at a straight edge of the mask the slope jumps.
    """
    points, forms = _side_points()
    weigh, area = (1 + scene.alpha) * _TO_WAY, np.array([1, 1, 1, 1, 0])
    now = np.concatenate((boxes[:, [2, 2, 3, 3]] / 2, boxes[:, 4:]), 1)  # from the middle to each side, and the angle
    step, before = np.tile(reach, (len(boxes), 1)), np.zeros((len(boxes), 5))
    frame = np.empty((2, len(boxes), 5), np.float32)
    frame[:, :, 4] = boxes[:, :2].T + scene.margin
    for _ in range(ROUNDS):
        np.multiply(now[:, :4], np.cos(now[:, 4:] - _QUARTERS), out=frame[:, :, :4], casting="same_kind")
        x, y = (frame @ points).astype(np.int32)
        seen = scene.pixels.take(y * scene.columns + x, mode="clip").astype(np.float32) @ forms
        sides = now @ _TO_SIDES
        seen[:, 4:] *= sides * sides
        way = seen @ weigh - area
        step *= np.where(way * before < 0, SHRINK, GROW)
        before = way
        now += np.copysign(step, way)
        np.maximum(now, _LEAST, out=now)
    off = (now[:, :4] * np.cos(now[:, 4:] - _QUARTERS)) @ _TO_MIDDLE
    return np.concatenate((boxes[:, :2] + off.T, now @ _TO_SIDES, now[:, 4:]), 1)


# Of a box as it climbs (its right, left, lower and upper side, and its angle): what each does.
_TO_SIDES = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 0]], np.float64)
_TO_MIDDLE = np.array([0.5, -0.5, 0.5, -0.5])
_TO_WAY = np.vstack((np.eye(5), [[0, 0, 0, 0, 1]]))  # both pairs of sides turn the box
_LEAST = np.array([0.05, 0.05, 0.05, 0.05, -math.inf])
_QUARTERS = np.array([[0, 0, -1, -1], [1, 1, 0, 0]])[:, None] * math.pi / 2  # so that a cosine is the side's x, and y


@functools.cache
def _side_points() -> tuple[Float32, Float32]:
    """Points under the sides (right, left, lower, upper), and what is made of the cells there.

    (5, 4 POINTS): what to multiply the ways to the sides and 1 by; (4 POINTS, 6): the mean of each side, and how much
    more of the object the ends of the lower and upper side (times w²) and of the right and left side (times h²) find
    one way round.
    """
    t = (np.arange(POINTS) + 0.5) / POINTS
    one, none = np.ones(POINTS), np.zeros(POINTS)
    points = [[one, none, t, t], [none, -one, t - 1, t - 1], [t, t, one, none], [t - 1, t - 1, none, -one], [one] * 4]
    forms = np.zeros((4, POINTS, 6), np.float32)
    forms[range(4), :, range(4)] = 1 / POINTS
    forms[range(4), :, [5, 5, 4, 4]] = np.outer((-1, 1, 1, -1), t - 0.5) / POINTS
    return np.array(points, np.float32).reshape(5, -1), forms.reshape(-1, 6)


# The coarse grid


def _coarse_boxes(shares: Float32, alpha: float) -> tuple[Float, float]:
    """The best boxes (STARTS, 5) of a mask on a coarser grid: cx, cy, w, h in cells of `shares`, and radians.

    Also how many of those cells a coarse one measures.
    """
    across, down, angles, n, first, lines = _turned_grids()
    cell = max(shares.shape) / COARSE
    rows, columns = (max(1, round(length / cell)) for length in shares.shape)
    share = cv2.resize(shares, (columns, rows), interpolation=cv2.INTER_AREA)
    square = np.full((COARSE, COARSE), -1, np.float32)
    square[:rows, :columns] += share * np.float32(1 + alpha)
    m = cv2.moments(share)
    ox, oy = m["m10"] / m["m00"] - (COARSE - 1) / 2, m["m01"] / m["m00"] - (COARSE - 1) / 2
    weights = cv2.remap(square, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=-1.0)
    sums = cv2.integral(weights, sdepth=cv2.CV_32F)  # of all the turned grids, one below the other
    # two places to begin at for each angle: rows about the middle of mass, and the densest band
    cos, sin = np.cos(angles), np.sin(angles)
    middle = oy * cos - ox * sin + n / 2
    spread = (sin * sin * m["mu20"] - 2 * sin * cos * m["mu11"] + cos * cos * m["mu02"]) / m["m00"]
    half = np.sqrt(np.maximum(3 * spread, 0.25))
    rims = sums[lines[:ANGLES], -1]
    band = np.argmax(rims[:, BAND:] - rims[:, :-BAND], axis=1)
    top = np.concatenate((np.maximum(middle - half, 0).astype(np.intp), band))
    bottom = np.concatenate((np.minimum(middle + half + 1, n).astype(np.intp), band + BAND))
    for _ in range(2):
        left, right, _ = _best_runs(sums[first + bottom] - sums[first + top])
        top, bottom, gain = _best_runs(sums[lines, right[:, None]] - sums[lines, left[:, None]])
    better = np.argmax(gain.reshape(2, -1), axis=0) * ANGLES + np.arange(ANGLES)
    found = gain[better]
    ring = np.concatenate((found[-1:], found, found[:1]))  # a quarter turn leads back to the first angle
    peak = found >= np.maximum(ring[2:], ring[:-2])  # neighbours climb to the same box
    best = better[np.lexsort((-found, ~peak))[:STARTS]]
    u, v = (left + right - n)[best] / 2, (top + bottom - n)[best] / 2
    cos, sin = cos[best % ANGLES], sin[best % ANGLES]
    x, y = u * cos - v * sin + COARSE / 2, u * sin + v * cos + COARSE / 2
    boxes = np.column_stack((x, y, (right - left)[best], (bottom - top)[best], angles[best % ANGLES]))
    return boxes * (cell, cell, cell, cell, 1), cell


@functools.cache
def _turned_grids() -> tuple[Float32, Float32, Float, int, Index, Index]:
    """Places x and y (ANGLES n, n) on the coarse cells of turned grids of n x n cells, and the angles in radians.

    With them n and, twice over, the rows of their integral that the grids begin at (2 ANGLES,), and all rows of each.
    """
    angles = np.linspace(-math.pi / 4, math.pi / 4, ANGLES, endpoint=False)
    n = math.ceil(COARSE * math.sqrt(2)) + 1
    at = np.arange(n) - (n - 1) / 2
    cos, sin = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    x, y = cos * at - sin * at[:, None], sin * at + cos * at[:, None]
    x, y = ((v + (COARSE - 1) / 2).reshape(-1, n).astype(np.float32) for v in (x, y))
    first = np.tile(np.arange(ANGLES) * n, 2)
    return x, y, angles, n, first, first[:, None] + np.arange(n + 1)


def _best_runs(sums: Float32) -> tuple[Index, Index, Float32]:
    """Of each line (A, n), given by its sums (A, n + 1) up to each cell: the run [first, end) of largest sum, and that.

    >>> [part.tolist() for part in _best_runs(np.array([[0.0, -1, 2, 4, 3]]))]
    [[1], [3], [5.0]]
    """
    low = np.minimum.accumulate(sums, axis=1)
    held = sums - low
    end = np.argmax(held, axis=1)
    each = np.arange(len(sums))
    first = np.argmax(sums == low[each, end][:, None], axis=1)
    return first, end, held[each, end]


# Areas


def _covered(boxes: Float, sums: _Sums) -> Float:
    """Sum (B,) of a picture under each of the boxes (B, 5): every pixel by the share of it that the box covers.

    Between two cuts, at rows of pixels and corners of the box, both ends of the box's chord run along straight lines;
    so the mean of the sums up to an end is a difference of the sums' own sums.
    """
    rows = len(sums.once)
    cx, cy, w, h, angle = boxes.T[:, :, None]
    cos, sin = (np.where(np.abs(f) < 1e-9, 1e-9, f) for f in (np.cos(np.radians(angle)), np.sin(np.radians(angle))))
    across, along = np.array([-0.5, -0.5, 0.5, 0.5]), np.array([-0.5, 0.5, -0.5, 0.5])
    corners = np.clip(cy + across * w * sin + along * h * cos, 0, rows)
    whole = np.broadcast_to(np.arange(rows + 1.0), (len(boxes), rows + 1))
    y = np.sort(np.concatenate((whole, corners), axis=1), axis=1)
    # a line meets the strip between the left and right side, and the one between the upper and lower side
    first, second = cx - (y - cy) * sin / cos, cx + (y - cy) * cos / sin
    a, b = np.abs(w / cos) / 2, np.abs(h / sin) / 2
    left, right = np.maximum(first - a, second - b), np.minimum(first + a, second + b)
    crossed = left[:, 1:] + left[:, :-1] < right[:, 1:] + right[:, :-1]
    row = np.minimum(((y[:, 1:] + y[:, :-1]) / 2).astype(np.intp), rows - 1)
    until_left, until_right = sums.mean_until(row, np.stack((left, right)))
    found: Float = np.where(crossed, (until_right - until_left) * np.diff(y, axis=1), 0.0).sum(axis=1)
    return found


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
        once = np.cumsum(values, axis=1) - values
        steps = once + values / 2
        return cls(values, once, np.cumsum(steps, axis=1) - steps)

    def mean_until(self, row: Index, x: Float) -> Float:
        """Mean (..., N) of the sums of `row` up to a place that runs evenly from each `x` (..., N + 1) to the next."""
        begin, length = x[..., :-1], np.diff(x)
        length = np.where(np.abs(length) < 1e-6, 1e-6, length)
        x = np.stack((begin + length, begin)) + 1
        pixel = np.maximum(np.minimum(x, self.values.shape[1] - 1), 0).astype(np.intp)
        x -= pixel
        pixel += row * self.values.shape[1]
        upto = self.twice.take(pixel) + x * (self.once.take(pixel) + x / 2 * self.values.take(pixel))
        out: Float = (upto[0] - upto[1]) / length
        return out
