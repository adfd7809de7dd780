"""Losses of the published family: L2B and L3B of SiamMask (section 3.2), with the released weights or the paper's.

What each anchor and cell is taught comes from `siammask.anchors.label`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SiameseWeights:
    """Weights of the sum; the paper's are 32, 1, 1 (section 4.1), the released code's 36, 1, 1.2."""

    mask: float = 36.0
    score: float = 1.0
    box: float = 1.2


PAPER = SiameseWeights(32.0, 1.0, 1.0)
REFINE = SiameseWeights(36.0, 0.0, 0.0)  # the released refinement stage


def score_loss(logits: Tensor, kind: Tensor) -> Tensor:
    """Half the mean loss of the positives and half that of the negatives; a part without any counts 0.

    `logits` (N, 2 K, n, n) hold class and anchor in this order (class x K + anchor); `kind` (N, K, n, n)
    is 1 for the target, 0 for background, -1 where nothing is asked.
    """
    n, channels, rows, columns = logits.shape
    says = F.log_softmax(logits.reshape(n, 2, channels // 2, rows, columns), 1)
    halves = [-(says[:, c] * (kind == c)).sum() / (kind == c).sum().clamp(min=1) for c in (1, 0)]
    return 0.5 * halves[0] + 0.5 * halves[1]


def box_loss(delta: Tensor, truth: Tensor, weight: Tensor, *, smooth: bool = False) -> Tensor:
    """Weighted L1 of the regression, summed over its four numbers, a mean over the N pairs.

    `delta` (N, 4 K, n, n) holds number and anchor in this order; `truth` (N, 4, K, n, n); `weight` (N, K, n, n) is
    1 / positives at the positives. `smooth`: smooth L1, as the paper has it, in place of the released L1.
    """
    n, channels, rows, columns = delta.shape
    says = delta.reshape(n, 4, channels // 4, rows, columns)
    error = F.smooth_l1_loss(says, truth, reduction="none") if smooth else (says - truth).abs()
    return (error.sum(1) * weight).sum() / n


def mask_loss(vectors: Tensor, truth: Tensor, *, exact: bool = False) -> Tensor:
    """Binary logistic loss, a mean over pixels and over the RoWs given (the positives: (1 + y) / 2 = 0 for the others).

    `vectors` (P, v, v) are logits, brought to the size of `truth` (P, s, s), +1 on the object and -1 around it (127
    where the mask head says 63) corner on corner, as released, or where `exact` as the tracker then pastes them, cells
    covering pixels. 0 where P is 0.
    """
    if not len(vectors):
        return vectors.sum() * 0.0
    size = list(truth.shape[-2:])
    logits = vectors[:, None]
    if list(logits.shape[-2:]) != size:
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=not exact)
    return F.softplus(-truth * logits[:, 0]).mean()


def total(
    weights: SiameseWeights, mask: Tensor | None = None, score: Tensor | None = None, box: Tensor | None = None
) -> Tensor:
    """The weighted sum of the branches that a variant has: L3B with a box, L2B without."""
    parts = [(weights.mask, mask), (weights.score, score), (weights.box, box)]
    return torch.stack([w * value for w, value in parts if value is not None]).sum()
