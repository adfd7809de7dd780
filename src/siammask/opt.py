"""Opt: the rotated box that costs least by the rule with which the boxes of VOT2016 were made.

Vojir and Matas, "Pixel-wise object segmentations for the VOT 2016 dataset" (2017). The search has no random part: at
some angles the best box on a coarse grid is found (there it is a rectangle of largest sum, found by running sums); the
best of those then climb, each side and the angle by what lies under the sides.
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

COARSE = 28  # cells along the mask's longer side, where all angles are tried
ANGLES = 16  # of them, over a quarter turn; upright is among them
BAND = 2  # rows of the coarse grid; the densest of them are one place to begin at
STARTS = 8  # boxes that climb first ...
FINALS = 3  # ... and that climb to the end
ROUNDS = (8, 14)
POINTS = 96  # looked at under each side
GROW = 1.2  # a step in the same direction as the last one
SHRINK = (0.25, 0.6)  # a step back, by where a straight line between the last two slopes is 0
FINE = 128  # cells along the longer side of the mask that the climbers are compared on


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
    height, width = mask.shape
    side = max(height, width)
    cell = side / COARSE
    share = mask if side <= FINE else _reduced(mask, FINE)
    scene, sums, scale = _Scene.of(mask, alpha), _Sums.of(share), np.array([share.shape[1] / width] * 4 + [1.0])

    def gains(boxes: Float) -> Float:
        small = boxes * scale
        gained: Float = (1 + alpha) * _covered(small, sums) - small[:, 2] * small[:, 3]
        return gained

    boxes = _coarse_boxes(_reduced(mask, COARSE), alpha) * [cell, cell, cell, cell, 1]
    boxes[:, :2] += (width / 2, height / 2)
    reach = np.array([0.5 * cell] * 4 + [math.radians(0.4 * 90 / ANGLES)])
    boxes = _climb(boxes, scene, reach, ROUNDS[0])
    boxes = _climb(boxes[np.argsort(-gains(boxes))[:FINALS]], scene, reach / 4, ROUNDS[1])
    boxes = np.vstack((boxes, (width / 2, height / 2, width, height, 0)))  # where nothing beats the upright one
    cx, cy, w, h, angle = (float(v) for v in boxes[np.argmax(gains(boxes))])
    return RotatedBox(cx, cy, w, h, angle)


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
        (height, width), margin = mask.shape, max(mask.shape) // 2 + 2
        pixels = np.zeros((height + 2 * margin, width + 2 * margin), np.bool_)
        pixels[margin : margin + height, margin : margin + width] = mask
        return cls(pixels.ravel(), width + 2 * margin, margin, alpha)


def _climb(boxes: Float, scene: _Scene, reach: Float, rounds: int) -> Float:
    """Boxes (B, 5) cx, cy, w, h, degrees after some rounds; `reach` (5,) is the first step of each side and the angle.

    A side moves out while more than 1 / (1 + alpha) of it lies on the object, else in; the box turns to where its ends
    find more of the object. Only the sign of a slope says which way: steps grow while it stays and shrink when it turns
    (Rprop), because the cost has kinks: at a straight edge of the mask the slope jumps.
    """
    points, forms = _side_points()
    middle = boxes[:, 0] + scene.margin + (boxes[:, 1] + scene.margin) * 1j  # places as complex numbers: turning is
    sides, angle = boxes[:, 2:4], np.radians(boxes[:, 4])  # multiplying
    step, before = np.tile(reach, (len(boxes), 1)), np.zeros((len(boxes), 5))
    frame = np.empty((len(boxes), 3), np.complex128)
    for _ in range(rounds):
        turn = np.exp(1j * angle)
        frame[:, :2] = sides * turn[:, None]
        frame[:, 2] = middle
        place = (frame @ points).view(np.float64).astype(np.intp)
        seen = scene.pixels.take(place[:, 1::2] * scene.columns + place[:, ::2], mode="clip").astype(np.float64) @ forms
        seen[:, 4:] *= sides * sides
        way = seen @ _TO_WAY
        way *= 1 + scene.alpha
        way[:, :4] -= 1
        back = np.clip(way / np.where(way == before, 1.0, way - before), *SHRINK)
        step *= np.where(way * before < 0, back, GROW)
        before, move = way, np.sign(way) * step
        middle = middle + (move @ _TO_MIDDLE) * turn
        sides = np.maximum(sides + move @ _TO_SIDES, 0.1)
        angle = angle + move[:, 4]
    corner = np.stack((middle.real - scene.margin, middle.imag - scene.margin), 1)
    return np.concatenate((corner, sides, np.degrees(angle)[:, None]), 1)


# Of the five ways of a box (its right, left, lower and upper side outwards, and its angle): what each does.
_TO_SIDES = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 0]], np.float64)
_TO_MIDDLE = np.array([0.5, -0.5, 0.5j, -0.5j, 0])
_TO_WAY = np.vstack((np.eye(5), [[0, 0, 0, 0, 1]]))  # both pairs of sides turn the box


@functools.cache
def _side_points() -> tuple[NDArray[np.complex128], Float]:
    """Points under the sides (right, left, lower, upper), and what is made of the pixels there.

    (3, 4 POINTS): what to multiply w, h and 1 by; (4 POINTS, 6): the mean of each side, and how much more of the object
    the ends of the lower and upper side (times w²) and of the right and left side (times h²) find one way round.
    """
    t, half = (np.arange(POINTS) + 0.5) / POINTS - 0.5, np.full(POINTS, 0.5)
    points = np.stack((np.stack((half, -half, t, t)), np.stack((t, t, half, -half)) * 1j, np.ones((4, POINTS))))
    forms = np.zeros((4, POINTS, 6))
    forms[range(4), :, range(4)] = 1 / POINTS
    forms[2, :, 4], forms[3, :, 4], forms[1, :, 5], forms[0, :, 5] = t, -t, t, -t
    return points.reshape(3, -1), forms.reshape(-1, 6)


# The coarse grid


def _coarse_boxes(share: Float32, alpha: float) -> Float:
    """The best boxes (STARTS, 5) of a mask of coarse cells: cx, cy, w, h in cells about its middle, and degrees."""
    across, down, angles, n = _turned_grids()
    rows, columns = share.shape
    m = cv2.moments(share)
    ox, oy = m["m10"] / m["m00"] - (columns - 1) / 2, m["m01"] / m["m00"] - (rows - 1) / 2
    weights = cv2.remap(
        share * np.float32(1 + alpha),
        across + np.float32((columns - 1) / 2),
        down + np.float32((rows - 1) / 2),
        cv2.INTER_LINEAR,
    )
    sums = cv2.integral(weights - np.float32(1))  # of all the turned grids, one below the other
    # two places to begin at for each angle: rows about the middle of mass, and the densest band
    first = np.arange(len(angles)) * n  # row of each grid
    cos, sin = np.cos(angles), np.sin(angles)
    middle = oy * cos - ox * sin + n / 2
    spread = (sin * sin * m["mu20"] - 2 * sin * cos * m["mu11"] + cos * cos * m["mu02"]) / m["m00"]
    half = np.sqrt(np.maximum(3 * spread, 0.25))
    rims = sums[first[:, None] + np.arange(n + 1), -1]
    band = np.argmax(rims[:, BAND:] - rims[:, :-BAND], axis=1)
    top = np.concatenate((np.floor(middle - half).astype(np.intp).clip(0, n), band))
    bottom = np.concatenate((np.ceil(middle + half).astype(np.intp).clip(0, n), band + BAND))
    first = np.tile(first, 2)
    lines = first[:, None] + np.arange(n + 1)
    for _ in range(2):
        left, right, _ = _best_runs(sums[first + bottom] - sums[first + top])
        top, bottom, gain = _best_runs(sums[lines, right[:, None]] - sums[lines, left[:, None]])
    better = np.argmax(gain.reshape(2, -1), axis=0) * len(angles) + np.arange(len(angles))
    best = better[np.argsort(-gain[better])[:STARTS]]
    u, v = (left + right - n)[best] / 2, (top + bottom - n)[best] / 2
    angle = angles[best % len(angles)]
    cos, sin = np.cos(angle), np.sin(angle)
    sizes = (right - left)[best], (bottom - top)[best]
    return np.stack((u * cos - v * sin, u * sin + v * cos, *sizes, np.degrees(angle)), 1)


@functools.cache
def _turned_grids() -> tuple[Float32, Float32, Float, int]:
    """Places x and y (ANGLES n, n), in cells about the middle, of grids of n x n cells, and the angles in radians."""
    angles = np.linspace(-math.pi / 4, math.pi / 4, ANGLES, endpoint=False)
    n = math.ceil(COARSE * math.sqrt(2)) + 1
    at = np.arange(n) - (n - 1) / 2
    cos, sin = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    x: Float32 = (cos * at - sin * at[:, None]).reshape(-1, n).astype(np.float32)
    y: Float32 = (sin * at + cos * at[:, None]).reshape(-1, n).astype(np.float32)
    return x, y, angles, n


def _best_runs(sums: Float) -> tuple[Index, Index, Float]:
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


def _reduced(mask: Mask, cells: int) -> Float32:
    """The mask as shares in [0, 1] of `cells` cells along its longer side."""
    repeat = -(-cells // max(mask.shape))  # what is smaller is made larger first, so that cells hold whole pixels
    values = mask.view(np.uint8) * np.uint8(255)
    if repeat > 1:
        values = values.repeat(repeat, axis=0).repeat(repeat, axis=1)
    height, width = values.shape
    factor = cells / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(255)


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
