"""The seam of the training loop: what is special to one kind of network, as one value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from siammask.engines.base import Engine
from siammask.train.batches import Batch
from siammask.train.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Steps:
    """What one step says: the sum that is made smaller, and its parts by name, for the log."""

    total: Tensor
    parts: dict[str, float]


@dataclass(frozen=True, slots=True)
class Task:
    """How one kind of network is trained; the loop does the rest.

    `groups` freezes what is not to learn and returns the optimizer's groups, each with its `share` of the learning
    rate; `batches` begins at a step and never ends; `step` is given the step's number; `engine` is what the closed-loop
    validation tracks with, on a device; `says` are the parts shown while the run goes on.
    """

    network: Callable[[TrainConfig], nn.Module]
    groups: Callable[[Any, TrainConfig], list[dict[str, Any]]]
    batches: Callable[[TrainConfig, Any, int, torch.device], Iterator[Batch]]
    step: Callable[[Any, Batch, TrainConfig, int], Steps]
    engine: Callable[[Any, TrainConfig, str], Engine]
    says: tuple[str, ...]
