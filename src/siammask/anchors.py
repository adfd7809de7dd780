"""One grid of anchors: `decode` turns regression into boxes for tracking, `encode` and `label` do the reverse to train.

Convention: anchors and boxes here are in crop pixels about the centre of the search crop; arrays are (4, K, n, n) as
cx, cy, w, h for K shapes at n x n cells (row, col). Flat order is anchor, row, col.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from siammask.geometry import Box, Float32

Float = NDArray[np.float64]
Int8 = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class AnchorGrid:
    """Which anchors there are (SiamRPN, section 3.2: one scale, five ratios)."""

    ratios: tuple[float, ...] = (0.33, 0.5, 1.0, 2.0, 3.0)  # h / w
    scale: int = 8
    stride: int = 8  # crop pixels from one cell to the next
    cells: int = 25

    @property
    def boxes(self) -> Float:
        """(4, K, n, n) cx, cy, w, h; read-only."""
        return _boxes(self)


@lru_cache(maxsize=16)
def _boxes(grid: AnchorGrid) -> Float:
    shapes = []
    for ratio in grid.ratios:
        w = int(math.sqrt(grid.stride**2 / ratio))  # quirk: cut to whole numbers before scaling, and h from the cut w
        shapes.append((w * grid.scale, int(w * ratio) * grid.scale))
    centres = (np.arange(grid.cells) - grid.cells // 2) * float(grid.stride)
    out = np.empty((4, len(shapes), grid.cells, grid.cells), np.float64)
    out[0] = centres[None, None, :]
    out[1] = centres[None, :, None]
    for k, (w, h) in enumerate(shapes):
        out[2, k], out[3, k] = w, h
    out.setflags(write=False)
    return out


def decode(delta: Float32 | Float, grid: AnchorGrid) -> Float:
    """Boxes (4, K, n, n) that the regression `delta` (same shape) says: cx = d0 aw + ax, w = exp(d2) aw."""
    x, y, w, h = grid.boxes
    d = np.asarray(delta, np.float64)
    return np.stack((d[0] * w + x, d[1] * h + y, np.exp(d[2]) * w, np.exp(d[3]) * h))


def encode(truth: Box, grid: AnchorGrid) -> Float32:
    """Regression (4, K, n, n) that takes every anchor to `truth`: the inverse of `decode`."""
    x, y, w, h = grid.boxes
    delta = ((truth.cx - x) / w, (truth.cy - y) / h, np.log(truth.w / w), np.log(truth.h / h))
    return np.stack(delta).astype(np.float32)


def overlap(truth: Box, grid: AnchorGrid) -> Float:
    """Intersection over union (K, n, n) in [0, 1] of each anchor with `truth`."""
    x, y, w, h = grid.boxes
    across = np.minimum(x + w / 2, truth.cx + truth.w / 2) - np.maximum(x - w / 2, truth.cx - truth.w / 2)
    down = np.minimum(y + h / 2, truth.cy + truth.h / 2) - np.maximum(y - h / 2, truth.cy - truth.h / 2)
    both = np.maximum(across, 0.0) * np.maximum(down, 0.0)
    out: Float = both / (w * h + truth.area - both)
    return out


@dataclass(frozen=True, slots=True)
class LabelRule:
    """Which anchors teach what (released code; Faster R-CNN's rule with SiamRPN's numbers)."""

    positive: float = 0.6  # IoU above this: the target
    negative: float = 0.3  # IoU below this: background
    most_positives: int = 16
    most: int = 64  # positives and negatives together
    off_target: int = 16  # negatives of a pair that shows another object, taken around that object
    reach: int = 3  # cells to each side of that object's centre they are taken from (3: the 7 x 7 around it)


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """What the heads are taught for one search crop."""

    kind: Int8  # (K, n, n): 1 target, 0 background, -1 not asked
    delta: Float32  # (4, K, n, n)
    weight: Float32  # (K, n, n) of the box regression: 1 / positives where kind is 1, else 0
    cell: Int8  # (n, n): 1 where some anchor overlaps more than `positive` (the mask is taught there), else -1


def label(
    truth: Box,
    grid: AnchorGrid,
    rng: np.random.Generator,
    *,
    negative_pair: bool = False,
    rule: LabelRule | None = None,
) -> Labels:
    """Labels for a crop whose object is `truth`; with `negative_pair` that object is not the exemplar's.

    Raises ValueError where `truth` has no area.
    """
    if not (truth.w > 0 and truth.h > 0):
        raise ValueError(f"Box {truth} has no area; labels need a box.")
    rule = rule or LabelRule()
    kind = np.full(grid.boxes.shape[1:], -1, np.int8)
    weight = np.zeros(kind.shape, np.float32)
    if negative_pair:
        row, col = (math.ceil(c / grid.stride + 0.5) + grid.cells // 2 for c in (truth.cy, truth.cx))
        near = np.zeros(kind.shape, bool)
        near[:, _around(row, rule.reach, grid.cells), _around(col, rule.reach, grid.cells)] = True
        kind.flat[_pick(near, rule.off_target, rng)] = 0
        cell = np.full(kind.shape[1:], -1, np.int8)
        return Labels(kind, np.zeros(grid.boxes.shape, np.float32), weight, cell)
    iou = overlap(truth, grid)
    positives = _pick(iou > rule.positive, rule.most_positives, rng)
    negatives = _pick(iou < rule.negative, rule.most - positives.size, rng)
    kind.flat[positives], kind.flat[negatives] = 1, 0
    weight.flat[positives] = 1.0 / max(1, positives.size)
    cell = np.where((iou > rule.positive).any(axis=0), 1, -1).astype(np.int8)
    return Labels(kind, encode(truth, grid), weight, cell)


def _around(centre: int, reach: int, cells: int) -> slice:
    """The cells within `reach` of `centre`, cut to the grid (never empty)."""
    centre = min(max(centre, 0), cells - 1)
    return slice(max(0, centre - reach), min(cells, centre + reach + 1))


def _pick(where: NDArray[np.bool_], most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Flat indices of at most `most` of the true cells, chosen evenly."""
    index = np.flatnonzero(where)
    return index if index.size <= most else rng.choice(index, most, replace=False)
