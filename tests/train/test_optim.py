"""Muon: matrices take orthonormal steps, everything else AdamW's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from siammask.train.optim import Muon, is_matrix, orthonormal, split


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthonormal(torch.randn(shape) * 1e-3))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_which_weights_are_matrices() -> None:
    full, point = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 1)
    depthwise, last = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 1, 3)
    assert [is_matrix(conv.weight) for conv in (full, point, depthwise, last)] == [True, True, False, False]
    assert not is_matrix(full.bias)
    assert not is_matrix(nn.Parameter(torch.tensor(1.0)))


def test_split_keeps_shares() -> None:
    conv = nn.Conv2d(4, 8, 3)
    a, b = split([{"params": list(conv.parameters()), "share": 0.2}])
    assert (a["matrices"], b["matrices"]) == (True, False)
    assert a["params"][0] is conv.weight
    assert b["params"][0] is conv.bias
    assert a["share"] == b["share"] == 0.2


def test_a_step() -> None:
    """The matrix moves by rate x .2 x root of its longer side in every direction alike; the bias as under AdamW."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, 3)
    twin = nn.Parameter(conv.bias.detach().clone())
    before = conv.weight.detach().clone()
    muon = Muon(split([{"params": list(conv.parameters())}]), lr=0.01, weight_decay=0.0)
    adamw = torch.optim.AdamW([twin], lr=0.01, weight_decay=0.0)
    conv.weight.grad, conv.bias.grad = torch.randn_like(conv.weight), torch.randn(8)
    twin.grad = conv.bias.grad.clone()
    muon.step()
    adamw.step()
    torch.testing.assert_close(conv.bias, twin)
    values = torch.linalg.svdvals((conv.weight.detach() - before).flatten(1)) / (0.01 * 0.2 * 36**0.5)
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_its_state_goes_on() -> None:
    """A run that is saved and resumed takes the same next step."""

    def run(steps: int, state: dict | None = None, weight: torch.Tensor | None = None):  # type: ignore[no-untyped-def]
        torch.manual_seed(1)
        conv = nn.Conv2d(4, 4, 3)
        if weight is not None:
            conv.load_state_dict(weight)
        optimizer = Muon(split([{"params": list(conv.parameters())}]), lr=0.01)
        if state is not None:
            optimizer.load_state_dict(state)
        for _ in range(steps):
            optimizer.zero_grad()
            conv(torch.ones((1, 4, 5, 5))).square().sum().backward()
            optimizer.step()
        return conv.state_dict(), optimizer.state_dict()

    whole, _ = run(3)
    half, state = run(2)
    resumed, _ = run(1, state, half)
    torch.testing.assert_close(whole, resumed)
