"""The published family's losses against sums written out by hand, and that they fall where they should."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from siammask import anchors  # noqa: E402
from siammask.geometry import Box  # noqa: E402
from siammask.train.siamese_losses import (  # noqa: E402
    PAPER,
    REFINE,
    SiameseWeights,
    box_loss,
    mask_loss,
    score_loss,
    total,
)


def test_score_loss_is_half_of_each_kind() -> None:
    logits = torch.zeros(1, 2, 1, 3)  # one anchor, three cells: class 0, then class 1
    logits[0, 1, 0, 0] = 2.0  # the positive, rather sure
    kind = torch.tensor([[[[1, 0, -1]]]])
    positive, negative = math.log(1 + math.exp(-2)), math.log(2)
    assert score_loss(logits, kind).item() == pytest.approx(0.5 * positive + 0.5 * negative, abs=1e-6)
    assert score_loss(logits, torch.full_like(kind, -1)).item() == 0.0
    logits[0, :, 0, 2] = 50.0  # a cell that is not asked says nothing
    assert score_loss(logits, kind).item() == pytest.approx(0.5 * positive + 0.5 * negative, abs=1e-6)


def test_score_channels_are_class_then_anchor() -> None:
    logits = torch.zeros(1, 4, 1, 1)
    logits[0, 3] = 9.0  # class 1 of the second anchor
    second, first = torch.tensor([[[[-1]], [[1]]]]), torch.tensor([[[[1]], [[-1]]]])
    assert score_loss(logits, second) < 0.01 < score_loss(logits, first)


@pytest.mark.parametrize(("smooth", "expected"), [(False, 0.5 * (0.5 + 2.0)), (True, 0.5 * (0.125 + 1.5))])
def test_box_loss(smooth: bool, expected: float) -> None:
    truth = torch.zeros(1, 4, 1, 1, 2)
    delta = torch.zeros(1, 4, 1, 2)
    delta[0, 0, 0, 0], delta[0, 3, 0, 0], delta[0, 2, 0, 1] = 0.5, -2.0, 7.0
    weight = torch.tensor([[[[0.5, 0.0]]]])  # two positives, of which one is here
    assert box_loss(delta, truth, weight, smooth=smooth).item() == pytest.approx(expected)


def test_mask_loss() -> None:
    truth = torch.full((2, 127, 127), -1.0)
    truth[:, 40:90, 40:90] = 1.0
    assert mask_loss(torch.zeros(2, 63, 63), truth).item() == pytest.approx(math.log(2), abs=1e-6)
    assert mask_loss(20 * truth, truth).item() < 1e-6
    assert mask_loss(-20 * truth, truth).item() == pytest.approx(20, abs=1e-3)
    assert mask_loss(torch.zeros(0, 63, 63), torch.zeros(0, 127, 127)).item() == 0.0


def test_the_sum_and_its_weights() -> None:
    one = torch.tensor(1.0)
    assert total(SiameseWeights(), one, one, one).item() == pytest.approx(38.2)
    assert total(PAPER, one, one, one).item() == 34.0
    assert total(PAPER, one, one).item() == 33.0  # two branches: no box
    assert total(REFINE, one, one, one).item() == 36.0


def test_labels_of_the_anchor_grid_are_what_the_losses_ask_for() -> None:
    grid = anchors.AnchorGrid()
    labels = anchors.label(Box(4, -6, 70, 60), grid, np.random.default_rng(0))
    kind, weight, truth = (torch.from_numpy(a)[None] for a in (labels.kind, labels.weight, labels.delta))
    assert int((kind == 1).sum()) > 0
    perfect = truth.reshape(1, -1, 25, 25)
    assert box_loss(perfect, truth, weight).item() == 0.0
    assert box_loss(perfect + 0.25, truth, weight).item() == pytest.approx(1.0, abs=1e-5)  # four numbers, off by .25
    side = 2.0 * (kind == 1) - 1.0
    sure = torch.stack((-side, side), 1).reshape(1, -1, 25, 25) * 20
    assert score_loss(sure, kind).item() < 1e-6
