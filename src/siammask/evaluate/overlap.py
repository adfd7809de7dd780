"""How well two boxes or two masks agree: overlap and centre error of boxes, J and F of masks."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from siammask.errors import InputError

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


def box_iou(a: Float64, b: Float64) -> Float64:
    """Intersection over union in [0, 1] of boxes (..., 4) x, y, w, h as real rectangles; 0 where either has no area."""
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - shared
    has_area = (a[..., 2:] > 0).all(axis=-1) & (b[..., 2:] > 0).all(axis=-1)
    # the difference above can round to a hair below the intersection of two equal boxes
    return np.minimum(np.where(has_area, shared, 0) / np.where(has_area, union, 1), 1)


def centres(boxes: Float64) -> Float64:
    """Centres (..., 2) of boxes (..., 4) as the toolkits count: x + (w - 1) / 2, y + (h - 1) / 2."""
    return boxes[..., :2] + (boxes[..., 2:] - 1) / 2


def region_similarity(truth: Bool, predicted: Bool) -> float:
    """J of two masks (H, W): intersection over union; 1 where both are empty (Perazzi et al., CVPR 2016)."""
    _check(truth, predicted)
    union = int(np.count_nonzero(truth | predicted))
    return int(np.count_nonzero(truth & predicted)) / union if union else 1.0


def contour_accuracy(truth: Bool, predicted: Bool) -> float:
    """F of two masks (H, W): harmonic mean of the precision and recall of boundary pixels (Perazzi et al., CVPR 2016).

    A boundary pixel is found when one of the other mask lies within ceil(0.008 sqrt(H^2 + W^2)) pixels. 1 where neither
    mask has a boundary, 0 where only one has.
    """
    _check(truth, predicted)
    height, width = truth.shape
    reach = math.ceil(0.008 * math.hypot(height, width))
    rows, columns = _extent(truth | predicted)
    of_truth, of_predicted = boundary(truth[rows, columns]), boundary(predicted[rows, columns])
    if not of_truth.any() and not of_predicted.any():
        return 1.0
    precision, recall = _share_near(of_predicted, of_truth, reach), _share_near(of_truth, of_predicted, reach)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: Bool) -> Bool:
    """Pixels (H, W) that differ from their right, lower or lower-right neighbour; the frame's border is no boundary."""
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1, :] |= mask[:-1, :] != mask[1:, :]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge


def _share_near(points: Bool, others: Bool, reach: int) -> float:
    """Share of `points` that have one of `others` within `reach` pixels; 0 where either is empty."""
    if not points.any() or not others.any():
        return 0.0
    distance = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # squared distances between pixels are whole, so half a unit of room keeps float32 roots on the right side
    return float(np.mean(distance[points] < math.sqrt(reach * reach + 0.5)))


def _extent(mask: Bool) -> tuple[slice, slice]:
    """The window of `mask` that holds all its pixels and the boundary around them."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return slice(0, 0), slice(0, 0)
    return slice(max(0, rows[0] - 1), rows[-1] + 2), slice(max(0, columns[0] - 1), columns[-1] + 2)


def _check(truth: Bool, predicted: Bool) -> None:
    if truth.ndim != 2 or truth.shape != predicted.shape or truth.dtype != bool or predicted.dtype != bool:
        raise InputError(
            f"Masks are {truth.shape} {truth.dtype} and {predicted.shape} {predicted.dtype}; "
            "expected two (H, W) bool of one size."
        )
