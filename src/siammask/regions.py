"""From a mask to what people use: its pixels, largest part, outline, run lengths; rotated boxes are in `boxes`.

The functions that take a Patch work on its window of the frame only; none makes a full frame of floats.
Outlines of an exact patch follow the frame's convention (pixel j covers [j, j + 1)); those of a released patch join
bare pixel indices, as the released code does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from siammask.errors import InputError
from siammask.geometry import Box, Patch, RotatedBox, UInt8

Mask = NDArray[np.bool_]
Points = NDArray[np.float32]
Contour = NDArray[np.int32]


def mask_of(patch: Patch | None, threshold: float, size: tuple[int, int], box: Box) -> Mask:
    """(H, W) bool: where the patch is above `threshold`; the filled box where there is no patch. `size` is (W, H)."""
    out = np.zeros((size[1], size[0]), np.bool_)
    if patch is None:
        x0, y0 = max(0, round(box.x)), max(0, round(box.y))
        out[y0 : max(0, round(box.y + box.h)), x0 : max(0, round(box.x + box.w))] = True
        return out
    x0, y0, part = drawn(patch, threshold, size)
    out[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = part
    return out


def polygon_of(patch: Patch | None, threshold: float, size: tuple[int, int], box: Box) -> Points:
    """(N, 2) float32 x, y: outline of the mask's largest part; the corners of `box` where the mask is empty."""
    contour = None if patch is None else _patch_contour(patch, threshold, size)
    if patch is None or contour is None:
        return RotatedBox(box.cx, box.cy, box.w, box.h, 0.0).corners.astype(np.float32)
    shift = 0.5 if patch.alignment == "exact" else 0.0  # a contour joins pixel indices; the centre of pixel 0 is 0.5
    return contour.astype(np.float32) + np.float32(shift)


def largest_contour(mask: Mask | UInt8, corners: bool = False) -> Contour | None:
    """(N, 2) int32 pixel indices x, y: outline of the part of (H, W) with the largest outline area; None if empty.

    All pixels of the outline, or only its `corners`: the ends of its straight runs.
    """
    points = cv2.CHAIN_APPROX_SIMPLE if corners else cv2.CHAIN_APPROX_NONE
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, points)
    if not contours:
        return None
    best = contours[0] if len(contours) == 1 else max(contours, key=cv2.contourArea)
    return cast(Contour, best.reshape(-1, 2))


def run_lengths(mask: Mask) -> list[int]:
    """Lengths of the runs of (H, W), row by row, in turn of 0 and 1 and beginning with 0 (so the first may be 0).

    >>> run_lengths(np.array([[True, True, False], [False, True, True]]))
    [0, 2, 2, 2]
    """
    flat = np.concatenate(([False], np.ravel(mask).astype(np.bool_)))
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(n) for n in np.diff(np.concatenate(([0], changes, [mask.size])))]


def from_run_lengths(runs: list[int], width: int, height: int) -> Mask:
    """The mask (height, width) that has these runs; raise InputError where they do not fill it."""
    if min(runs, default=0) < 0 or sum(runs) != width * height:
        raise InputError(f"Runs add up to {sum(runs)} pixels; a mask of {width}x{height} has {width * height}.")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(height, width)


@lru_cache(maxsize=16)  # a result's rotated box, mask and polygon are all made of this; so they are for many targets
def drawn(patch: Patch, threshold: float, size: tuple[int, int]) -> tuple[int, int, Mask]:
    """Left, top and (h, w) bool, read-only, of a part of the frame that holds all that is above `threshold`."""
    part = patch.above(threshold)
    x0, y0, values = (0, 0, np.zeros((0, 0), np.float32)) if part is None else part.window(*size)
    mask: Mask = values > threshold
    mask.setflags(write=False)
    return x0, y0, mask


def _patch_contour(patch: Patch, threshold: float, size: tuple[int, int]) -> Contour | None:
    """The largest contour of a patch, in pixel indices of the frame."""
    x0, y0, part = drawn(patch, threshold, size)
    contour = largest_contour(part) if part.size else None
    return None if contour is None else contour + np.array([x0, y0], np.int32)
