"""Engines: what runs a network. `open_engine` picks the runtime and the family from values."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, get_args

from siammask import weights as shipped
from siammask.cache import cache_folder
from siammask.engines.base import Device, Engine, EngineOptions, Graphs, Precision, Runtime
from siammask.errors import InputError
from siammask.variants import Variant

__all__ = [
    "Engine",
    "EngineOptions",
    "Graphs",
    "Precision",
    "cpu_features",
    "open_engine",
    "pick_precision",
    "threads_beside",
]

_BF16_FEATURES = frozenset({"avx512_bf16", "amx_bf16"})  # what the runtimes need to be faster in bf16 than in f32


def open_engine(variant: Variant, options: EngineOptions | None = None, weights: Path | None = None) -> Engine:
    """The engine that runs `variant`.

    `weights` is a folder with exported graphs (*.xml for openvino, *.onnx for onnxruntime, *.pt for torch) or, for
    torch, a checkpoint (weights.safetensors) or such a checkpoint's own path; None takes what ships with the package.
    Raises WeightsError (missing or damaged weights), MissingExtra (runtime not installed), InputError (an option).
    """
    options = options or EngineOptions()
    precision = pick_precision(options.precision, options.engine, options.device)
    if options.threads is not None and options.threads < 1:
        raise InputError(f"threads is {options.threads}; give at least 1, or leave it out.")
    graphs: Graphs
    if options.engine == "openvino":
        from siammask.engines.openvino import OpenVinoGraphs

        graphs = OpenVinoGraphs.read(
            shipped.folder(variant.name, weights), precision, options.threads, cache_folder("openvino")
        )
    elif options.engine == "onnxruntime":
        from siammask.engines.onnxruntime import OnnxGraphs

        folder = shipped.folder(variant.name, weights)
        graphs = OnnxGraphs.read(folder, options.threads, options.device, variant.name)
    else:
        from siammask.engines.torch import TorchGraphs, read_scripts

        scripts = None if weights is None else read_scripts(weights)
        modules = scripts or _modules(variant, shipped.checkpoint(variant.name, weights))
        graphs = TorchGraphs(modules, precision, options.threads, options.device)
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


def threads_beside(variant: Variant, engine: Runtime = "openvino", precision: Precision | None = None) -> int | None:
    """Threads of a network that tracks one target while frames are read and written; None: what the runtime takes.

    With matrix units (AMX) a second core gives a light network little, and the rest of that work more: all cores but
    one. The ResNet-50 needs the second one (docs/export.md).
    """
    cores = os.cpu_count() or 1
    light = variant.backbone == "light" and engine == "openvino"
    matrix = light and "amx_bf16" in cpu_features() and pick_precision(precision) == "bf16"
    return cores - 1 if matrix and cores > 1 else None


def pick_precision(asked: Precision | None, engine: Runtime = "openvino", device: Device = "cpu") -> Precision:
    """The precision to run at: the one asked for, else bf16 where openvino and torch gain by it on this CPU, else f32.

    Raises InputError for an engine or device there is not, and for a precision that they do not compute in.
    """
    for kind, value, known in (
        ("Engine", engine, Runtime),
        ("Device", device, Device),
        ("Precision", asked, Precision),
    ):
        if value is not None and value not in get_args(known):
            raise InputError(f"{kind} {value!r} is unknown; choose from {', '.join(get_args(known))}.")
    if engine == "openvino" and device != "cpu":
        raise InputError(f"Engine 'openvino' runs on the CPU here; for {device!r} choose torch or onnxruntime.")
    if engine == "onnxruntime":
        if asked not in (None, "f32"):
            raise InputError(f"Engine 'onnxruntime' computes as its files say, not in {asked}; use f32.")
        return "f32"
    if device == "cuda":
        return asked or "f32"
    can = bool(_BF16_FEATURES & cpu_features())
    if asked is None:
        return "bf16" if can else "f32"
    if asked == "f16":
        raise InputError("Precision f16 needs engine torch on device cuda; on a CPU use bf16 or f32.")
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
