"""Engines: what runs a network. `open_engine` picks the runtime and the family from values."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from siammask import weights as shipped
from siammask.cache import cache_folder
from siammask.engines.base import Engine, EngineOptions, Graphs, Precision
from siammask.errors import InputError
from siammask.variants import Variant

__all__ = ["Engine", "EngineOptions", "Graphs", "Precision", "cpu_features", "open_engine", "pick_precision"]

_BF16_FEATURES = frozenset({"avx512_bf16", "amx_bf16"})  # what the runtimes need to be faster in bf16 than in f32


def open_engine(variant: Variant, options: EngineOptions | None = None, weights: Path | None = None) -> Engine:
    """The engine that runs `variant`.

    `weights` is a folder with exported graphs (*.xml, for openvino) or a checkpoint (weights.safetensors, for torch),
    or such a checkpoint's own path; None takes what ships with the package.
    Raises WeightsError (missing or damaged weights), MissingExtra (runtime not installed), InputError (precision).
    """
    options = options or EngineOptions()
    precision = pick_precision(options.precision)
    if options.threads is not None and options.threads < 1:
        raise InputError(f"threads is {options.threads}; give at least 1, or leave it out.")
    graphs: Graphs
    if options.engine == "openvino":
        from siammask.engines.openvino import OpenVinoGraphs

        graphs = OpenVinoGraphs.read(
            shipped.folder(variant.name, weights), precision, options.threads, cache_folder("openvino")
        )
    elif options.engine == "torch":
        from siammask.engines.torch import TorchGraphs

        graphs = TorchGraphs(_modules(variant, shipped.checkpoint(variant.name, weights)), precision, options.threads)
    else:
        raise InputError(f"No engine is called {options.engine!r}; choose openvino or torch.")
    if variant.mask == "guided":
        guided = importlib.import_module("siammask.engines.guided")
        engine: Engine = guided.GuidedEngine(graphs, variant)
        return engine
    from siammask.engines.siamese import SiameseEngine

    return SiameseEngine(graphs, variant)


def cpu_features() -> frozenset[str]:
    """Instruction sets of this CPU as Linux names them ("avx512_bf16", "amx_bf16"); empty where it does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux: nothing is known, so nothing is promised
        return frozenset()
    lines = (line.partition(":") for line in text.splitlines())
    return frozenset(word for key, _, value in lines if key.strip() in ("flags", "Features") for word in value.split())


def pick_precision(asked: Precision | None) -> Precision:
    """The precision to run at: the one asked for, else bf16 where the CPU computes in it, else f32."""
    can = bool(_BF16_FEATURES & cpu_features())
    if asked is None:
        return "bf16" if can else "f32"
    if asked not in ("f32", "bf16"):
        raise InputError(f"Precision {asked!r} is unknown; choose f32 or bf16.")
    if asked == "bf16" and not can:
        raise InputError("Precision bf16 needs a CPU with avx512_bf16 or amx_bf16, and this one has neither; use f32.")
    return asked


def _modules(variant: Variant, checkpoint: Path) -> dict[str, Any]:
    """The graphs of a variant as torch modules with the weights of a checkpoint."""
    from siammask.network.checkpoint import load

    if variant.mask == "guided":
        family = importlib.import_module("siammask.network.guided")
    else:
        family = importlib.import_module("siammask.network.siamese")
    network = family.build(variant)
    load(network, checkpoint)
    graphs: dict[str, Any] = family.graphs(network)
    return graphs
