"""The optimizer: orthogonalised momentum for weight matrices, AdamW for the rest.

A convolution's weight is a matrix (out, in * kernel * kernel). Its momentum is brought to (nearly) orthonormal rows
before it is applied, so that every direction of the matrix learns alike (Muon: Jordan et al., 2024; size of the step as
in Liu et al., 2025, so that rates are AdamW's). torch's own Muon takes no convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_STEPS = 5  # of Newton and Schulz
_CURVE = (3.4445, -4.7750, 2.0315)  # their quintic, steep at nought


class Muon(torch.optim.AdamW):
    """AdamW, but for parameter groups with `matrices=True`: there, Muon."""

    def __init__(self, groups: list[dict[str, Any]], momentum: float = 0.95, **adamw: Any) -> None:
        super().__init__(groups, **adamw)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        whole = self.param_groups
        self.param_groups = [g for g in whole if not g.get("matrices")]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = whole
        for group in whole:
            if group.get("matrices"):
                for p in group["params"]:
                    if p.grad is not None:
                        self._turn(p, p.grad, group)
        return loss

    def _turn(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state |= {"step": torch.tensor(0.0), "momentum": torch.zeros_like(p)}  # AdamW reads "step" of every state
        average = state["momentum"].lerp_(grad, 1 - self.momentum)
        ahead = grad.lerp(average, self.momentum)
        matrix = orthonormal(ahead.flatten(1))
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(matrix.view_as(p), alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)


def orthonormal(matrix: Tensor) -> Tensor:
    """The matrix (m, n) with its singular values brought near 1, by five steps of a quintic Newton-Schulz iteration."""
    a, b, c = _CURVE
    x = matrix / (matrix.norm() + 1e-7)
    if matrix.shape[0] > matrix.shape[1]:
        x = x.T
    for _ in range(_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def split(groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups of parameters -> each of them in two: its matrices, and the rest; with `adamw=True` it is left whole."""
    found: list[dict[str, Any]] = []
    for group in groups:
        if group.get("adamw"):
            found.append({**group, "params": list(group["params"]), "matrices": False})
            continue
        for matrices in (True, False):
            params = [p for p in group["params"] if is_matrix(p) is matrices]
            if params:
                found.append({**group, "params": params, "matrices": matrices})
    return found


def is_matrix(p: Tensor) -> bool:
    """Weights that mix channels: not biases, not depth-wise kernels, not single numbers."""
    return p.ndim >= 2 and min(p.shape[0], p[0].numel()) > 1 and p.shape[1] > 1
