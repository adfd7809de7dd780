"""Does the score say how good the mask is? Calibration of scores against true overlaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siammask.evaluate.overlap import Float64

BINS = 10
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


def _tells(scores: Float64, good: np.ndarray) -> float | None:
    """Area under the ROC curve, equal scores counting half."""
    if good.all() or not good.any():
        return None
    yes, no = np.sort(scores[good]), scores[~good]
    below = np.searchsorted(yes, no, "left") + np.searchsorted(yes, no, "right")
    return float(1 - below.mean() / 2 / len(yes))
