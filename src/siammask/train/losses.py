"""Losses of the guided network on one search: mask, coarse mask, score and predicted overlap."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from siammask.network.guided import Drawing
from siammask.train.config import LossConfig


def guided_losses(
    drawing: Drawing, truth: Tensor, weights: LossConfig, boxed: Tensor | None = None
) -> dict[str, Tensor]:
    """Each loss as a scalar, unweighted, by the name of its weight.

    `truth` is (N, 1, 128, 128) in [0, 1]; where `boxed` (N,) it is a filled box, of which only the extent counts: the
    mask must reach its four sides and not beyond (Tian et al., BoxInst, CVPR 2021).
    """
    logits = drawing.mask
    if boxed is None:
        boxed = torch.zeros(len(truth), dtype=torch.bool, device=truth.device)
    share = (~boxed).to(logits.dtype) / (~boxed).sum().clamp(min=1)  # of each clip in losses that need its true mask
    edge = 1.0 + weights.boundary * boundary(truth)
    bce = _mean(F.binary_cross_entropy_with_logits(logits, truth, edge, reduction="none")) / _mean(edge)
    probability = torch.sigmoid(logits)
    extent = _projected(probability, truth)
    dice = torch.where(boxed, extent, _dice(probability, truth, (1, 2, 3)))
    at32 = F.avg_pool2d(truth, 4)
    coarse = _mean(F.binary_cross_entropy_with_logits(drawing.coarse, at32, reduction="none"))
    cells, importance = score_target(truth, drawing.score.shape[-1])
    score = F.binary_cross_entropy_with_logits(drawing.score, cells, importance)
    overlap = F.binary_cross_entropy_with_logits(drawing.overlap, overlaps(logits.detach(), truth, boxed))
    found = {
        "mask": (bce * share).sum(),
        "dice": dice.mean(),
        "coarse": (coarse * share).sum(),
        "score": score,
        "overlap": overlap,
    }
    if weights.extent:
        found["extent"] = (extent * share).sum()
    return found if drawing.box is None else found | {"box": box_loss(drawing.box, truth)}


def total(losses: dict[str, Tensor], weights: LossConfig) -> Tensor:
    """The weighted sum."""
    return torch.stack([getattr(weights, name) * value for name, value in losses.items()]).sum()


def box_loss(box: Tensor, truth: Tensor) -> Tensor:
    """Mean of 1 - generalised IoU and of the edges' distance in sizes of the object; where nothing is seen, none.

    `box` is (N, 4) as `Drawing.box`, `truth` (N, 1, m, m) in [0, 1]. Rezatofighi et al., CVPR 2019.
    """
    on = truth[:, 0] > 0.5
    (left, right), (top, bottom) = _ends(on.any(1)), _ends(on.any(2))
    goal = torch.stack((left, top, right, bottom), 1) / truth.shape[-1] - 0.5
    size = ((goal[:, 2] - goal[:, 0]) * (goal[:, 3] - goal[:, 1])).clamp(min=1e-4)
    both = _area_of(torch.maximum(box[:, :2], goal[:, :2]), torch.minimum(box[:, 2:], goal[:, 2:]))
    around = _area_of(torch.minimum(box[:, :2], goal[:, :2]), torch.maximum(box[:, 2:], goal[:, 2:]))
    union = (_area_of(box[:, :2], box[:, 2:]) + size - both).clamp(min=1e-6)
    overlap = both / union - 1.0 + union / around.clamp(min=1e-6)
    far = (box - goal).abs().mean(1) / size.sqrt()
    seen = on.flatten(1).any(1).to(box.dtype)
    return ((1.0 - overlap + far) * seen).sum() / seen.sum().clamp(min=1)


def _area_of(low: Tensor, high: Tensor) -> Tensor:
    """Areas (N,) of rectangles from `low` to `high`, both (N, 2) x, y; 0 where they are none."""
    return (high - low).clamp(min=0).prod(1)


def _ends(line: Tensor) -> tuple[Tensor, Tensor]:
    """Where (N, n) bool begins and ends to be true, in cells; the whole line from its end where it never is."""
    index = torch.arange(line.shape[1], device=line.device, dtype=torch.float32)
    return torch.where(line, index, line.shape[1]).amin(1), torch.where(line, index, -1.0).amax(1) + 1


def boundary(truth: Tensor) -> Tensor:
    """1 within two pixels of an edge of the mask (N, 1, H, W), else 0."""
    near = F.avg_pool2d(truth, 5, 1, 2, count_include_pad=False)
    return ((near > 0.02) & (near < 0.98)).to(truth.dtype)


def mask_iou(logits: Tensor, truth: Tensor) -> Tensor:
    """IoU (N,) of the masks at one half; two empty masks overlap by 0: an absent target is to be scored low."""
    a, b = logits > 0, truth > 0.5
    return (a & b).sum((1, 2, 3)) / (a | b).sum((1, 2, 3)).clamp(min=1)


def overlaps(logits: Tensor, truth: Tensor, boxed: Tensor) -> Tensor:
    """IoU (N,) of mask and truth at one half; where `boxed`, of the mask's bounding box and the truth."""
    return torch.where(boxed, mask_iou(_extent(logits > 0), truth), mask_iou(logits, truth))


def score_target(truth: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Labels and weights (N, 1, n, n) of the score map: 1 near the middle of the object's box, 0 elsewhere.

    As in SiamFC (section 3.2), with the radius a quarter of the box's sides (at least 0.75 cells); the positive and
    the negative cells of a crop weigh the same in all.
    """
    n, side = truth.shape[0], truth.shape[-1]
    on = truth[:, 0] > 0.5

    def span(line: Tensor) -> tuple[Tensor, Tensor]:  # (N, side) bool -> centre and half size in pixels
        low, high = _ends(line)
        return (low + high) / 2, (high - low) / 2

    cx, rx = span(on.any(1))
    cy, ry = span(on.any(2))
    step = side / cells
    at = (torch.arange(cells, device=truth.device, dtype=truth.dtype) + 0.5) * step
    dx = (at[None, None, :] - cx[:, None, None]) / (rx * 0.5).clamp(min=0.75 * step)[:, None, None]
    dy = (at[None, :, None] - cy[:, None, None]) / (ry * 0.5).clamp(min=0.75 * step)[:, None, None]
    label = ((dx * dx + dy * dy) <= 1.0) & on.flatten(1).any(1)[:, None, None]
    label = label[:, None].to(truth.dtype)
    positives = label.sum((2, 3), keepdim=True)
    negatives = cells * cells - positives
    weight = torch.where(label > 0, 0.5 / positives.clamp(min=1), 0.5 / negatives)
    return label, weight * (cells * cells) * torch.ones((n, 1, 1, 1), device=truth.device)


def _extent(mask: Tensor) -> Tensor:
    """1 in the bounding box of a mask (N, 1, H, W) bool, -1 around it."""

    def between(line: Tensor) -> Tensor:
        seen = line.to(torch.int32)
        return (seen.cumsum(-1) > 0) & (seen.flip(-1).cumsum(-1).flip(-1) > 0)

    box = between(mask.any(2))[:, :, None, :] & between(mask.any(3))[:, :, :, None]
    return torch.where(box, 1.0, -1.0)


def _projected(probability: Tensor, truth: Tensor) -> Tensor:
    """Dice loss (N,) of the highest value of each column and of each row, the mean of the two."""
    return (_dice(probability.amax(2), truth.amax(2), (1, 2)) + _dice(probability.amax(3), truth.amax(3), (1, 2))) / 2


def _dice(probability: Tensor, truth: Tensor, axes: tuple[int, ...]) -> Tensor:
    soft = 20.0 if len(axes) == 3 else 1.0  # so that a few pixels drawn where nothing is cost little
    both = (probability * truth).sum(axes)
    return 1.0 - (2.0 * both + soft) / (probability.sum(axes) + truth.sum(axes) + soft)


def _mean(x: Tensor) -> Tensor:
    return x.mean((1, 2, 3))
