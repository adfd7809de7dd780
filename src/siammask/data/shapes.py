"""Masks out of annotations: polygons, and COCO's run lengths.

The run lengths are decoded here, in a dozen lines, because pycocotools would be a compiled dependency for just that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siammask.data.clips import Draw
from siammask.errors import InputError
from siammask.regions import Mask, from_run_lengths

Points = NDArray[np.float64]


def polygons(parts: Sequence[Points]) -> Draw:
    """Draws everything inside of any part; each is (N, 2) x, y with N >= 3."""

    def draw(height: int, width: int) -> Mask:
        mask = np.zeros((height, width), np.bool_)
        for part in parts:
            mask |= inside(part, height, width)
        return mask

    return draw


def inside(points: Points, height: int, width: int) -> Mask:
    """(H, W): the pixels whose centres lie inside a polygon (N, 2) (even-odd rule). Pixel j covers [j, j + 1).

    >>> int(inside(np.array([[1, 1], [4, 1], [4, 3], [1, 3]]), 5, 5).sum())
    6
    """
    changes = np.zeros((height, width + 1), np.int32)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        low, high = np.clip(np.ceil(np.array(sorted((y0, y1))) - 0.5), 0, height).astype(int)
        if low < high:
            rows = np.arange(low, high)
            x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            changes[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)] += 1
    return np.asarray(np.cumsum(changes, axis=1)[:, :width] % 2 == 1)


def run_lengths(size: Sequence[int], counts: str | Sequence[int]) -> Draw:
    """Draws a COCO mask: runs down the columns of (H, W) `size`, as numbers or as COCO's compressed text.

    Raises InputError, when drawn, where the runs do not fill the size, or the picture has another one.
    """

    def draw(height: int, width: int) -> Mask:
        if [height, width] != list(size):
            raise InputError(f"Run lengths are for {size[1]}x{size[0]}, but the picture is {width}x{height}.")
        runs = decompress(counts) if isinstance(counts, str) else [int(count) for count in counts]
        return from_run_lengths(runs, height, width).T

    return draw


def decompress(text: str) -> list[int]:
    """The numbers in COCO's text: 5 bits a character, lowest first; from the fourth on, the change since two before.

    >>> decompress("231N")
    [2, 3, 1, 1]
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise InputError(f"Run lengths hold the character {character!r}; expected COCO's compressed text.")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # more to come
            continue
        if bits & 16:  # negative
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def coco(segmentation: Any) -> Draw | None:
    """Draws a COCO `segmentation`: polygons, or run lengths. None for an empty one; InputError for something else."""
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        return run_lengths(segmentation["size"], segmentation["counts"])
    if isinstance(segmentation, list) and all(isinstance(part, list) for part in segmentation):
        return polygons([points(part) for part in segmentation])
    raise InputError(f"A segmentation is a {type(segmentation).__name__}; expected polygons or run lengths.")


def points(flat: Sequence[float]) -> Points:
    """(N, 2) of x, y, x, y, ...; raise InputError for fewer than three points, or what is no number."""
    if len(flat) < 6 or len(flat) % 2:
        raise InputError(f"A polygon has {len(flat)} coordinates; expected x and y of at least three points.")
    try:
        array = np.array(flat, np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise InputError(f"A polygon holds something that is no number ({error}).") from error
    if not np.isfinite(array).all():
        raise InputError("A polygon holds a coordinate that is not finite.")
    return array
