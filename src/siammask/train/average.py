"""The mean of checkpoints of one network: weights of runs that went on from the same ones often lie in one basin.

python -m siammask.train.average OUT.safetensors CHECKPOINT CHECKPOINT ...

Wortsman et al., Model soups (ICML 2022).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from siammask.errors import WeightsError


def average(out: Path, files: list[Path]) -> None:
    """Write the mean of the tensors of `files`, with the last one's header and their names as `mean_of`.

    A part that was put into the network later, which some files lack, is the mean of those that have it. Raises
    WeightsError for a missing file, and where one is of another network than the last.
    """
    for file in files:
        if not file.exists():
            raise WeightsError(f"Checkpoint {file} is missing.")
    states = [load_file(file) for file in files]
    last = states[-1]
    for file, state in zip(files, states, strict=True):
        shared = [name for name in state if name in last]
        if not shared or any(state[name].shape != last[name].shape for name in shared):
            raise WeightsError(f"{file} and {files[-1]} are not of the same network; give checkpoints of one variant.")
    with safe_open(files[-1], "pt") as file:
        header: dict[str, str] = file.metadata() or {}
    mean = {}
    for name in dict.fromkeys(name for state in states for name in state):
        given = [state[name] for state in states if name in state]
        mean[name] = torch.stack([x.float() for x in given]).mean(0).to(given[-1].dtype)
    save_file(mean, out, metadata={**header, "validation": "{}", "mean_of": ", ".join(map(str, files))})


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(f"usage: python -m siammask.train.average OUT CHECKPOINT CHECKPOINT ...; got {sys.argv[1:]}")
    average(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
