"""Random networks whose answers depend on their inputs: torch's default weights fade to nothing in a deep network."""

from __future__ import annotations

import torch
from torch import nn

from siammask.network import guided
from siammask.network.guided import Guided
from siammask.variants import variant


def guided_network(seed: int = 0, name: str = "guided") -> Guided:
    """A guided network with seeded He weights, in evaluation mode."""
    torch.manual_seed(seed)
    network = guided.build(variant(name))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    network.to_mask.weight.data *= 0.1  # so that probabilities are neither 0 nor 1
    return network.eval()
