"""A perfect drawing costs little, a wrong one more; every case of an empty mask has an answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from siammask.network.guided import Drawing
from siammask.train import losses
from siammask.train.config import LossConfig


def truth(*boxes: tuple[int, int, int, int] | None) -> Tensor:
    """Masks (N, 1, 128, 128) of x0, y0, x1, y1."""
    masks = torch.zeros(len(boxes), 1, 128, 128)
    for mask, box in zip(masks, boxes, strict=True):
        if box is not None:
            mask[0, box[1] : box[3], box[0] : box[2]] = 1.0
    return masks


def drawing(mask: Tensor, sure: float = 12.0) -> Drawing:
    """What a network says that draws `mask` and knows how good that is."""
    cells, _ = losses.score_target(mask, 16)
    there = mask.flatten(1).any(1).float()
    logit = sure * (2 * mask - 1)
    coarse = torch.logit(F.avg_pool2d(mask, 4).clamp(1e-5, 1 - 1e-5))
    return Drawing(logit, coarse, sure * (2 * cells - 1), sure * (2 * there - 1))


HERE, THERE = (40, 30, 90, 100), (5, 5, 30, 25)


def test_a_perfect_drawing_costs_little_and_a_wrong_one_more() -> None:
    goal = truth(HERE, THERE, None)
    right = losses.guided_losses(drawing(goal), goal, LossConfig())
    wrong = losses.guided_losses(drawing(truth(THERE, HERE, HERE)), goal, LossConfig())
    assert set(right) == {"mask", "dice", "coarse", "score", "overlap"}
    for name, value in right.items():
        assert value.shape == ()
        assert float(value) < 0.02, name
        assert float(wrong[name]) > 0.3, name


def test_losses_pull_towards_the_truth() -> None:
    goal = truth(HERE, None)
    flat = Drawing(
        *(torch.zeros(s, requires_grad=True) for s in ((2, 1, 128, 128), (2, 1, 32, 32), (2, 1, 16, 16), (2,)))
    )
    losses.total(losses.guided_losses(flat, goal, LossConfig()), LossConfig()).backward()
    for tensor in flat[:4]:
        assert tensor is not None
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
    assert (flat.mask.grad[goal > 0.5] < 0).all()
    assert (flat.mask.grad[1] > 0).all()  # nothing is there: every pixel is pushed down
    assert flat.overlap.grad[1] > 0


def test_an_empty_truth_drawn_empty_costs_nothing() -> None:
    goal = truth(None, None)
    found = losses.guided_losses(drawing(goal), goal, LossConfig())
    assert all(float(v) < 0.01 for v in found.values())


def said(*boxes: tuple[int, int, int, int]) -> Tensor:
    """Boxes of x0, y0, x1, y1 in cells of 128 as a network says them."""
    return torch.tensor(boxes) / 128 - 0.5


def test_a_box_costs_what_it_is_off_and_nothing_where_there_is_none() -> None:
    goal = truth(HERE, THERE, None)
    right = losses.box_loss(said(HERE, THERE, HERE), goal)
    assert float(right) == pytest.approx(0.0, abs=1e-5)
    shifted = tuple(v + 10 for v in HERE)
    # 40 x 60 of 50 x 70 shared; smallest box around both 60 x 80; the edges are 10 off, the object's size is sqrt(3500)
    union = 2 * 3500 - 2400
    expected = 2 - 2400 / union - union / 4800 + 10 / 3500**0.5
    assert float(losses.box_loss(said(shifted), truth(HERE))) == pytest.approx(expected, abs=1e-4)  # type: ignore[arg-type]
    found = losses.guided_losses(drawing(goal)._replace(box=said(HERE, THERE, HERE)), goal, LossConfig())
    assert float(found["box"]) == pytest.approx(0.0, abs=1e-5)


def test_boxes_turned_inside_out_are_pulled_apart() -> None:
    box = said((90, 100, 40, 30)).requires_grad_()
    loss = losses.box_loss(box, truth(HERE))
    loss.backward()
    assert float(loss.detach()) > 1.0
    assert box.grad is not None
    assert (box.grad[0, :2] > 0).all()  # left and top go down the slope, to smaller values
    assert (box.grad[0, 2:] < 0).all()


def test_total_is_the_weighted_sum() -> None:
    found = {"mask": torch.tensor(2.0), "dice": torch.tensor(3.0), "score": torch.tensor(5.0)}
    assert float(losses.total(found, LossConfig(mask=1.0, dice=10.0, score=100.0))) == 532.0


def test_errors_at_the_boundary_weigh_more() -> None:
    goal = truth(HERE)
    edge = losses.boundary(goal)
    assert edge[0, 0, 30, 60] == 1  # the upper rim
    assert edge[0, 0, 65, 65] == 0  # the middle
    assert edge[0, 0, 2, 2] == 0
    logit = drawing(goal).mask.clone()
    rim, middle = logit.clone(), logit.clone()
    rim[0, 0, 30:32, 60:62] *= -1
    middle[0, 0, 65:67, 65:67] *= -1

    def cost(logits: Tensor, boundary: float) -> float:
        weights = replace(LossConfig(), boundary=boundary)
        return float(losses.guided_losses(drawing(goal)._replace(mask=logits), goal, weights)["mask"])

    assert cost(rim, 3.0) == pytest.approx(4 * cost(middle, 3.0), rel=0.01)
    assert cost(rim, 0.0) == pytest.approx(cost(middle, 0.0), rel=0.01)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (HERE, HERE, 1.0),
        (HERE, THERE, 0.0),
        ((0, 0, 10, 10), (0, 0, 10, 20), 0.5),
        (None, None, 0.0),  # an absent target is to be scored low
        (HERE, None, 0.0),
    ],
)
def test_mask_iou(a: tuple[int, int, int, int] | None, b: tuple[int, int, int, int] | None, expected: float) -> None:
    found = losses.mask_iou(truth(a) - 0.5, truth(b))
    assert found.tolist() == [expected]


@pytest.mark.parametrize("box", [HERE, THERE, (60, 60, 64, 64), (0, 0, 128, 128)])
def test_score_targets_are_balanced(box: tuple[int, int, int, int]) -> None:
    label, weight = losses.score_target(truth(box), 16)
    assert label.shape == weight.shape == (1, 1, 16, 16)
    positive = (weight * label).sum()
    assert label.sum() >= 1
    assert positive == pytest.approx(128, rel=1e-4)
    assert (weight * (1 - label)).sum() == pytest.approx(128, rel=1e-4)
    row, col = ((box[1] + box[3]) // 2 - 1) // 8, ((box[0] + box[2]) // 2 - 1) // 8
    assert label[0, 0, row, col] == 1  # the cell of the middle
    ys, xs = torch.nonzero(label[0, 0], as_tuple=True)
    assert xs.float().mean() == pytest.approx((box[0] + box[2]) / 16 - 0.5, abs=0.6)
    assert ys.float().mean() == pytest.approx((box[1] + box[3]) / 16 - 0.5, abs=0.6)


def test_score_target_of_nothing() -> None:
    label, weight = losses.score_target(truth(None), 16)
    assert not label.any()
    torch.testing.assert_close(weight, torch.full((1, 1, 16, 16), 0.5))


def test_thin_ends_of_a_mask_count_by_its_extent() -> None:
    """A pole that leaves a body costs more when its rows are asked for than its few pixels do."""
    goal = truth(HERE)
    goal[..., 5 : HERE[1], 60:62] = 1.0
    short = losses.guided_losses(drawing(truth(HERE)), goal, LossConfig(extent=1.0))
    assert float(short["extent"]) > 0.05 > float(short["dice"])
    assert float(losses.guided_losses(drawing(goal), goal, LossConfig(extent=1.0))["extent"]) < 0.02
    boxed = losses.guided_losses(drawing(truth(HERE)), goal, LossConfig(extent=1.0), torch.tensor([True]))
    assert float(boxed["extent"]) == 0.0  # it is their dice


def test_a_box_asks_for_the_extent_alone() -> None:
    goal = truth(HERE)
    boxed = torch.tensor([True])
    x0, y0, x1, y1 = HERE
    cross = torch.zeros_like(goal)
    cross[..., (y0 + y1) // 2 - 3 : (y0 + y1) // 2 + 3, x0:x1] = 1.0
    cross[..., y0:y1, (x0 + x1) // 2 - 3 : (x0 + x1) // 2 + 3] = 1.0
    half = goal.clone()
    half[..., : (y0 + y1) // 2, :] = 0.0
    costs = {
        name: losses.guided_losses(drawing(mask), goal, LossConfig(), boxed)
        for name, mask in (("cross", cross), ("half", half), ("all", torch.ones_like(goal)))
    }
    assert float(costs["cross"]["dice"]) < 0.02  # reaches all four sides, though it fills little of the box
    assert float(costs["half"]["dice"]) > 0.1
    assert float(costs["all"]["dice"]) > 0.2
    assert all(float(cost[name]) == 0 for cost in costs.values() for name in ("mask", "coarse"))
    assert losses.overlaps(2 * cross - 1, goal, boxed).item() == 1.0
    assert losses.overlaps(2 * cross - 1, goal, ~boxed).item() < 0.5
