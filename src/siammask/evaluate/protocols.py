"""How trackers are run and scored: one pass, DAVIS J and F, OTB success and precision, GOT-10k AO and SR."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal

import numpy as np

from siammask.errors import InputError, MediaError
from siammask.evaluate.overlap import Bool, Float64, box_iou, centres, contour_accuracy, region_similarity
from siammask.evaluate.sequences import Sequence
from siammask.tracker import Tracker, TrackerState, TrackResult

# What a tracker is given beside the frames: the first true box; the first true mask instead; also the place of the
# target on each last frame; or, there, its true mask as well, in the tracker's memory.
Given = Literal["box", "mask", "place", "state"]

SUCCESS_THRESHOLDS = np.linspace(0, 1, 21)  # OTB: Wu et al., CVPR 2013
NORM_THRESHOLDS = np.linspace(0, 0.5, 51)  # TrackingNet: Mueller et al., ECCV 2018


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One object followed once through one sequence: a row for each frame from `first` on."""

    first: int  # number of the frame on which tracking began
    boxes: Float64  # (n, 4) x, y, w, h; the first row is the true box
    scores: Float64  # (n,) in [0, 1]
    visible: Bool  # (n,) what the tracker said
    ms: Float64  # (n,) from decoded frame to mask and rotated box; the first row includes what is done once
    region: Float64 | None  # (n,) J of every frame; None where there are no true masks
    contour: Float64 | None  # (n,) F likewise


def one_pass(
    tracker: Tracker, sequence: Sequence, each: Callable[[int], None] | None = None, given: Given = "box"
) -> Trajectory:
    """Follow the object from the first frame with a true box to the end, without a second chance (OPE).

    Masks are compared as they come and let go. `each` is called with the number of every frame that is done. `given`
    may help the tracker, to see where its mistakes begin.
    Raises MediaError for pictures that cannot be used, or where true masks are to be given and there are none.
    """
    first = sequence.first
    target = sequence.box(first)
    if target is None:
        raise InputError(f"Sequence {sequence.name} shows no object on frame {first}.")
    start = sequence.read_mask(first) if given in ("mask", "state") else target
    boxes, scores, seen, ms, region, contour = [], [], [], [], [], []
    state = None
    for number in range(first, len(sequence)):
        frame = sequence.read_frame(number)
        if state is not None:
            state = helped(tracker, state, sequence, number - 1, given)
        begin = perf_counter()
        state, result = tracker.start(frame, start) if state is None else tracker.step(state, frame)
        mask = _drawn(result)
        ms.append((perf_counter() - begin) * 1e3)
        boxes.append((target if number == first else result.box).xywh)
        scores.append(result.score)
        seen.append(result.visible)
        if sequence.masks is not None:
            truth = sequence.read_mask(number)
            if truth.shape != mask.shape:
                raise MediaError(f"Mask {sequence.masks[number]} is {truth.shape} beside a frame of {mask.shape}.")
            region.append(region_similarity(truth, mask))
            contour.append(contour_accuracy(truth, mask))
        if each is not None:
            each(number)
    return Trajectory(
        first,
        np.array(boxes, np.float64),
        np.array(scores, np.float64),
        np.array(seen, bool),
        np.array(ms, np.float64),
        np.array(region, np.float64) if sequence.masks is not None else None,
        np.array(contour, np.float64) if sequence.masks is not None else None,
    )


def helped(tracker: Tracker, state: TrackerState, sequence: Sequence, number: int, given: Given) -> TrackerState:
    """`state` after frame `number` with what is true there put in, where `given` says so and the object is seen."""
    box = sequence.box(number)
    if box is None or given in ("box", "mask"):
        return state
    if given == "place":
        return replace(state, box=box, unsure=0)
    true, _ = tracker.start(sequence.read_frame(number), sequence.read_mask(number))
    return replace(state, box=true.box, patch=true.patch, last=true.first, unsure=0)


def _drawn(result: TrackResult) -> Bool:
    """The mask at frame size; the rotated box is made too, as it is part of the job that is timed."""
    mask = result.mask
    _ = result.rotated_box
    return mask


@dataclass(frozen=True, slots=True)
class Statistics:
    """DAVIS (Perazzi et al., CVPR 2016): how J or F runs through a sequence."""

    mean: float
    recall: float  # share of frames above 0.5
    decay: float  # mean of the first quarter less mean of the last


def davis(per_frame: Float64) -> Statistics | None:
    """Statistics of J or F per frame (n,), semi-supervised: the first and the last frame are left out.

    None where no frame is left. The quarters share the frame they meet at, as in the official code.
    """
    values = per_frame[1:-1]
    n = len(values)
    if n == 0:
        return None
    cuts = [math.floor(1 + i * (n - 1) / 4 + 0.5) - 1 for i in range(5)]  # halves up
    decay = values[cuts[0] : cuts[1] + 1].mean() - values[cuts[3] : cuts[4] + 1].mean()
    return Statistics(float(values.mean()), float((values > 0.5).mean()), float(decay))


@dataclass(frozen=True, slots=True)
class OnePassScores:
    """OTB and LaSOT figures of one sequence (means over all its frames, the first included), each in [0, 1].

    As in the pysot toolkit, frames on which the object is not visible count in full: never as a success, always as a
    hit of precision.
    """

    success_auc: float  # mean of the success curve
    precision: float  # share of frames with a centre error of at most 20 pixels
    norm_precision: float  # share of frames with a centre error of at most 0.2 of the object's size
    norm_precision_auc: float  # mean over 0 .. 0.5 of that size


def one_pass_scores(truth: Float64, predicted: Float64) -> OnePassScores:
    """Score boxes (N, 4) x, y, w, h in pixels of the frame."""
    norm_curve = precision_curve(normalised_centre_error(truth, predicted), NORM_THRESHOLDS)
    return OnePassScores(
        float(success_curve(truth, predicted).mean()),
        float((centre_error(truth, predicted) <= 20).mean()),
        float(norm_curve[20]),
        float(norm_curve.mean()),
    )


def success_curve(truth: Float64, predicted: Float64) -> Float64:
    """Share of frames with an overlap strictly above 0, 0.05 .. 1 (21,); a perfect tracker has 20 ones and a zero."""
    _check(truth, predicted)
    iou = np.where((truth[:, 2:] > 0).all(axis=1), box_iou(truth, predicted), -1)
    return np.asarray(np.mean(iou[None] > SUCCESS_THRESHOLDS[:, None], axis=1))


def precision_curve(error: Float64, thresholds: Float64) -> Float64:
    """Share of frames whose error (N,) is at most each threshold."""
    return np.asarray(np.mean(error[None] <= thresholds[:, None], axis=1))


def centre_error(truth: Float64, predicted: Float64) -> Float64:
    """Distance of the centres in pixels (N,); -1 where the true centre has a coordinate <= 0 (so says pysot)."""
    _check(truth, predicted)
    return _distance(centres(truth), centres(predicted))


def normalised_centre_error(truth: Float64, predicted: Float64) -> Float64:
    """Distance of the centres (N,) in units of the true width and height; -1 as in `centre_error`."""
    _check(truth, predicted)
    size = truth[:, 2:] + 1e-16  # pysot's guard against a size of 0
    return _distance(centres(truth) / size, centres(predicted) / size)


@dataclass(frozen=True, slots=True)
class Got10k:
    """GOT-10k (Huang et al., TPAMI 2021): average overlap and success rates, each in [0, 1]."""

    ao: float
    sr_50: float
    sr_75: float


def got10k_overlaps(truth: Float64, predicted: Float64, size: tuple[int, int] | None = None) -> Float64:
    """Overlaps that GOT-10k counts, of boxes (N, 4): without the first frame and those without an object.

    `size` = (W, H) bounds both boxes to the frame as the toolkit does: a box that hangs over the left or the top is
    moved in, one that hangs over the right or the bottom is cut. None leaves them.
    """
    _check(truth, predicted)
    shown = (truth[1:, 2:] > 0).all(axis=1)
    truth, predicted = truth[1:][shown], predicted[1:][shown]
    if size is not None:
        truth, predicted = _bounded(truth, size), _bounded(predicted, size)
    return box_iou(truth, predicted)


def got10k(overlaps: Float64) -> Got10k | None:
    """Figures of overlaps (n,), of one sequence or of all pooled (the toolkit's way); None where there are none."""
    if len(overlaps) == 0:
        return None
    return Got10k(float(overlaps.mean()), float((overlaps > 0.5).mean()), float((overlaps > 0.75).mean()))


def _bounded(boxes: Float64, size: tuple[int, int]) -> Float64:
    frame = np.array(size, np.float64)
    corner = np.clip(boxes[:, :2], 0, frame)
    return np.hstack([corner, np.clip(boxes[:, 2:], 0, frame - corner)])


def _distance(truth: Float64, predicted: Float64) -> Float64:
    distance = np.sqrt(((truth - predicted) ** 2).sum(axis=1))
    return np.where((truth > 0).all(axis=1), distance, -1)


def _check(truth: Float64, predicted: Float64) -> None:
    if truth.ndim != 2 or truth.shape[1:] != (4,) or truth.shape != predicted.shape or len(truth) == 0:
        raise InputError(f"Boxes are {truth.shape} and {predicted.shape}; expected two (N, 4) x, y, w, h with N > 0.")
