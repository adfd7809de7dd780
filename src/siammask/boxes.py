"""From a mask to a rotated box, in four ways, and boxes whose angle runs on from frame to frame.

min_max  bounding rectangle of the mask, upright
mbr      rectangle of least area around the mask's largest part (SiamMask, section 3.3)
ellipse  rectangle around the ellipse that has the mask's second moments
opt      rectangle of least cost by the rule of VOT2016 (see `siammask.opt`)
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, get_args, overload

import cv2
import numpy as np

from siammask.errors import InputError
from siammask.geometry import Alignment, Box, Patch, RotatedBox
from siammask.opt import cheapest_box
from siammask.regions import Contour, Mask, drawn, largest_contour

Strategy = Literal["min_max", "mbr", "ellipse", "opt"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

SMALLEST_MBR = 100.0  # pixels²; the released code trusts no rotated rectangle of a smaller outline
LARGEST = 320.0  # pixels a side: a window over this is read in pixels 2, 3, ... times as large for its rotated box
_UPRIGHT = RotatedBox(0, 0, 0, 0, 0.0)


def box_of(
    drawing: Mask | Patch,
    strategy: Strategy = "mbr",
    *,
    threshold: float = 0.5,
    size: tuple[int, int] | None = None,
    last: RotatedBox | None = None,
) -> RotatedBox | None:
    """The rotated box of a mask (H, W) bool, or of a patch on a frame of `size` (W, H) where it is above `threshold`.

    The angle lies in [-45, 45], or with `last` as near to that box's as it can. None where nothing is drawn. Raises
    InputError for an unknown strategy, and for a patch without the frame's size. (What a tracker makes of a mask too
    small to trust is in `rotated_box_of`.)

    >>> mask = np.zeros((40, 60), np.bool_)
    >>> mask[10:20, 5:45] = True
    >>> box_of(mask, "min_max")
    RotatedBox(cx=25.0, cy=15.0, w=40.0, h=10.0, angle=0.0)
    """
    check_strategy(strategy)
    if not isinstance(drawing, Patch):
        return nearest_turn(_fitted(drawing, strategy), last)
    if size is None:
        raise InputError("The box of a patch needs the frame's size (W, H); give it, or the mask.")
    return nearest_turn(_patch_box(drawing, strategy, threshold, size, -1.0), last)


def check_strategy(name: str) -> None:
    """Raise InputError, naming those there are, unless `name` is a strategy."""
    if name not in STRATEGIES:
        raise InputError(f"No way to a rotated box is called {name!r}; choose from {', '.join(STRATEGIES)}.")


def rotated_box_of(
    patch: Patch | None,
    threshold: float,
    size: tuple[int, int],
    box: Box,
    strategy: Strategy = "mbr",
    last: RotatedBox | None = None,
) -> RotatedBox:
    """The rotated box of a tracker's patch; the upright `box` where there is no patch, or nothing drawn on it.

    Released rule: so too for "mbr" where the outline of the mask's largest part holds no more than 100 pixels².
    """
    found = None if patch is None else _patch_box(patch, strategy, threshold, size, SMALLEST_MBR)
    return nearest_turn(found or RotatedBox(box.cx, box.cy, box.w, box.h, 0.0), last)


@overload
def nearest_turn(box: RotatedBox, last: RotatedBox | None) -> RotatedBox: ...
@overload
def nearest_turn(box: RotatedBox | None, last: RotatedBox | None) -> RotatedBox | None: ...
def nearest_turn(box: RotatedBox | None, last: RotatedBox | None) -> RotatedBox | None:
    """The same rectangle under the angle nearest to that of `last`: turned by quarters, its sides changing names.

    So no corner jumps from frame to frame; a target that goes on turning has an angle beyond 180.

    >>> nearest_turn(RotatedBox(0, 0, 40, 20, -44), RotatedBox(0, 0, 20, 40, 44))
    RotatedBox(cx=0, cy=0, w=20, h=40, angle=46.0)
    """
    if box is None or last is None:
        return box
    quarters = round((last.angle - box.angle) / 90)
    w, h = (box.h, box.w) if quarters % 2 else (box.w, box.h)
    return replace(box, w=w, h=h, angle=box.angle + 90.0 * quarters)


def smallest_box(contour: Contour, alignment: Alignment = "exact") -> RotatedBox:
    """The rotated rectangle of least area around a contour of pixel indices; angle in [-45, 45].

    "exact" reaches half a pixel beyond the pixels' centres, so an upright mask gives its own width and height;
    "released" ends at the indices, and so is a pixel shorter each way and half a pixel up and left.
    """
    (cx, cy), (w, h), angle = cv2.minAreaRect(contour.astype(np.float32))
    if abs(angle) > 45:  # which side OpenCV calls the width has changed between its versions
        w, h, angle = h, w, angle - math.copysign(90, angle)
    grow = 1.0 if alignment == "exact" else 0.0
    return RotatedBox(float(cx) + grow / 2, float(cy) + grow / 2, float(w) + grow, float(h) + grow, float(angle))


def _patch_box(
    patch: Patch, strategy: Strategy, threshold: float, size: tuple[int, int], least: float
) -> RotatedBox | None:
    step = int(max(patch.place.w, patch.place.h) // LARGEST) if patch.alignment == "exact" else 1
    step = max(1, step)
    if step > 1:  # a large one is as well seen in larger pixels, in a fraction of the time
        place = Box(*(v / step for v in (patch.place.cx, patch.place.cy, patch.place.w, patch.place.h)))
        patch, size = replace(patch, place=place), (-(-size[0] // step), -(-size[1] // step))
    x, y, part = drawn(patch, threshold, size)
    box = _fitted(part, strategy, patch.alignment, least / step**2) if part.size else None
    return box and RotatedBox((box.cx + x) * step, (box.cy + y) * step, box.w * step, box.h * step, box.angle)


def _fitted(mask: Mask, strategy: Strategy, alignment: Alignment = "exact", least: float = -1.0) -> RotatedBox | None:
    """The box of a mask (H, W); None where it is empty, or the outline that "mbr" takes holds no more than `least`."""
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    if not w:
        return None
    part = mask[y : y + h, x : x + w]
    if strategy == "min_max":
        box: RotatedBox | None = RotatedBox(w / 2, h / 2, float(w), float(h), 0.0)
    elif strategy == "mbr":
        contour = largest_contour(part, corners=True)
        box = None if contour is None or cv2.contourArea(contour) <= least else smallest_box(contour, alignment)
    elif strategy == "ellipse":
        box = _ellipse(part)
    else:
        box = nearest_turn(cheapest_box(part), _UPRIGHT)
    return box and replace(box, cx=box.cx + x, cy=box.cy + y)


def _ellipse(mask: Mask) -> RotatedBox:
    """The box around the ellipse with the second moments of the mask's pixels, each a square of 1 x 1."""
    m = cv2.moments(mask.view(np.uint8), binaryImage=True)
    area = m["m00"]
    xx, yy, xy = m["mu20"] / area + 1 / 12, m["mu02"] / area + 1 / 12, m["mu11"] / area
    mean, spread = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
    w, h = 4 * math.sqrt(mean + spread), 4 * math.sqrt(max(mean - spread, 0.0))
    box = RotatedBox(m["m10"] / area + 0.5, m["m01"] / area + 0.5, w, h, math.degrees(math.atan2(2 * xy, xx - yy)) / 2)
    return nearest_turn(box, _UPRIGHT)
