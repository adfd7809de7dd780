"""Does the score say how good the mask is? Calibration of scores against true overlaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siammask.errors import InputError
from siammask.evaluate.overlap import Float64

BINS = 10
_ROUNDS, _RIDGE = 300, 1e-3  # of `fit`; the ridge keeps it at (1, 0) where the scores say nothing
GOOD = 0.5  # overlap from which on the target counts as tracked


@dataclass(frozen=True, slots=True)
class Bin:
    """Frames whose scores lie in one tenth of [0, 1]."""

    frames: int
    score: float  # mean
    overlap: float  # mean


@dataclass(frozen=True, slots=True)
class Honesty:
    """Scores beside the overlaps they stand for, over frames; all in [0, 1] but `bias`, which may be negative."""

    bias: float  # mean of score - overlap: above 0 the tracker is too sure of itself
    error: (
        float  # expected calibration error: |mean score - mean overlap| of each bin, by its frames (Guo et al., 2017)
    )
    tells: float | None  # chance that a tracked frame scores higher than one that is not; None where all are alike
    bins: tuple[Bin, ...]  # those that hold frames, low scores first


def honesty(scores: Float64, overlaps: Float64) -> Honesty | None:
    """Of scores (n,) and true overlaps (n,), both in [0, 1], frame by frame; None without frames."""
    if len(scores) == 0:
        return None
    which = np.minimum((scores * BINS).astype(int), BINS - 1)
    chosen = [which == i for i in range(BINS)]
    bins = tuple(Bin(int(c.sum()), float(scores[c].mean()), float(overlaps[c].mean())) for c in chosen if c.any())
    error = sum(b.frames * abs(b.score - b.overlap) for b in bins) / len(scores)
    return Honesty(float((scores - overlaps).mean()), float(error), _tells(scores, overlaps >= GOOD), bins)


def fit(scores: Float64, overlaps: Float64) -> tuple[float, float]:
    """Scale and shift for which sigmoid(scale * logit(score) + shift) is nearest to the overlaps (Platt, 1999).

    Of scores and overlaps (n,) in [0, 1]: least logistic loss, found by Newton's method with the curvature that bounds
    it (Boehning, 1992), so that no step goes too far. Raises InputError without frames.
    """
    if len(scores) == 0:
        raise InputError("There are no scores to calibrate; track at least two frames.")
    logit = np.log(np.clip(scores, 1e-6, 1 - 1e-6) / np.clip(1 - scores, 1e-6, 1))
    facts = np.stack((logit, np.ones_like(logit)), 1)
    found = np.array([1.0, 0.0])
    curve = facts.T @ facts / 4 + _RIDGE * np.eye(2)
    for _ in range(_ROUNDS):
        told = 1 / (1 + np.exp(-facts @ found))
        slope = facts.T @ (told - overlaps) + _RIDGE * (found - (1.0, 0.0))
        found = found - np.linalg.solve(curve, slope)
    return float(found[0]), float(found[1])


def _tells(scores: Float64, good: np.ndarray) -> float | None:
    """Area under the ROC curve, equal scores counting half."""
    if good.all() or not good.any():
        return None
    yes, no = np.sort(scores[good]), scores[~good]
    below = np.searchsorted(yes, no, "left") + np.searchsorted(yes, no, "right")
    return float(1 - below.mean() / 2 / len(yes))
