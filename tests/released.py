"""The released resnet50 network with the seeded weights of tests/golden, and what it answered; made once a run."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from golden.make_weights import state_dict

from siammask.network import checkpoint, siamese
from siammask.variants import variant

GOLDEN = Path(__file__).with_name("golden")


@cache
def golden() -> dict[str, np.ndarray]:
    """Crops and released outputs; see tests/golden/README.md."""
    with np.load(GOLDEN / "network.npz") as file:
        return dict(file)


@cache
def released_state() -> dict[str, torch.Tensor]:
    """Seeded weights under the released keys."""
    return {key: torch.from_numpy(value) for key, value in state_dict(str(GOLDEN / "weights.json")).items()}


@cache
def network() -> siamese.Siamese:
    """The network `siammask` with those weights, for reading only."""
    made = siamese.build(variant("siammask")).eval()
    checkpoint.load_state(made, released_state())
    return made
