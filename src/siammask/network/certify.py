"""Export of a whole model with a certificate: how near the exported one tracks to its source, and how fast."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import siammask
from siammask import demo
from siammask import weights as shipped
from siammask.engines import EngineOptions, cpu_features, open_engine, pick_precision
from siammask.engines.base import Engine, Graphs, Precision
from siammask.errors import InputError
from siammask.evaluate.parity import parity
from siammask.evaluate.report import CPU_FEATURES
from siammask.geometry import Box, UInt8
from siammask.network import guided, siamese
from siammask.network.checkpoint import load
from siammask.network.export import ENGINES, Form, GraphSpec, Kept, export
from siammask.tracker import Tracker
from siammask.variants import Variant, variant

RANGES = 24  # searches by which int8 ranges are measured

# Of a guided network: those that cost its masks the least for what they save (docs/export.md). Not the backbone's first
# blocks and what draws at stride 4, whose errors are seen in the mask, nor what reads or writes a memory.
_GUIDED_INT8 = r"/(blocks\.([5-9]|10)|mix|body|at128)/"


def export_model(
    name: str,
    to: Form,
    precision: Kept,
    out: Path,
    weights: Path | None = None,
    frames: int = 30,
    threads: int | None = None,
) -> dict[str, Any]:
    """Write the graphs of the model `name` into `out`, with `certificate.json`; return what that says.

    `weights` is a checkpoint or a folder that holds one; None takes the package's. The certificate holds the tensor
    errors (see `export`), under "parity" what `parity` finds on the bundled clip, versions, and SHA-256 of every file.
    Raises WeightsError (no such weights, or graphs that differ), InputError (a form or precision there is not).
    """
    if frames < 2:
        raise InputError(f"frames is {frames}; parity needs at least 2.")
    settings = shipped.search(name, weights)
    row, checkpoint = variant(name).searching(**settings), shipped.checkpoint(name, weights)
    source = Tracker(row, open_engine(row, EngineOptions("torch", "f32", threads), checkpoint))
    real = recorded(source, [frame.pixels for frame in demo.drawn()], demo.drawn_box()) if precision == "int8" else None
    certificate = export(_specs(row, checkpoint), out, to, precision, real)
    computed: Precision = "bf16" if precision == "bf16" and to == "openvino" else "f32"
    if precision == "int8":
        computed = pick_precision(None, ENGINES[to])  # what is not in int8
    ours = Tracker(row, open_engine(row, EngineOptions(ENGINES[to], computed, threads), out))
    clip = [frame.pixels for frame in islice(demo.bunny(), frames)]
    certificate |= {
        "model": name,
        "source": {checkpoint.name: _sha256(checkpoint)},
        "files": {file.name: _sha256(file) for file in sorted(out.iterdir()) if file.suffix in _SUFFIXES[to]},
        "parity": {"clip": demo.BUNNY.name, "frames": len(clip)} | parity(source, ours, clip, demo.BUNNY_BOX),
        "cpu": {"machine": platform.machine(), "features": sorted(cpu_features() & CPU_FEATURES)},
    }
    certificate["versions"] |= _versions(to) | {"siammask": siammask.__version__, "opencv": cv2.__version__}
    if settings:
        shipped.write_search(out, f"that of {checkpoint.name}", settings)
    (out / shipped.CERTIFICATE).write_text(json.dumps(certificate, indent=2) + "\n")
    return certificate


_SUFFIXES = {"openvino": (".xml", ".bin"), "onnx": (".onnx",), "torchscript": (".pt",)}


def recorded(tracker: Tracker, frames: Iterable[UInt8], target: Box) -> dict[str, list[dict[str, np.ndarray]]]:
    """Inputs of each graph while a clip is tracked: `RANGES` of them at even distances, and the very last."""
    graphs = _Recorder(tracker.engine.graphs)  # type: ignore[attr-defined]
    engine: Engine = replace(tracker.engine, graphs=graphs)  # type: ignore[type-var]
    for _ in replace(tracker, engine=engine).follow(frames, target):
        pass
    return {name: [*every[:: max(1, len(every) // RANGES)], every[-1]] for name, every in graphs.inputs.items()}


@dataclass(frozen=True, slots=True)
class _Recorder:
    """Graphs that note what they are given; see `siammask.engines.base.Graphs`."""

    graphs: Graphs
    inputs: dict[str, list[dict[str, np.ndarray]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.graphs.name

    @property
    def precision(self) -> Precision:
        return self.graphs.precision

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.inputs.setdefault(graph, []).append({name: array.copy() for name, array in inputs.items()})
        return self.graphs.run(graph, inputs)


def _specs(row: Variant, checkpoint: Path) -> dict[str, GraphSpec]:
    if row.mask == "guided":
        drawn = guided.build(row)
        load(drawn, checkpoint)
        specs = guided.graph_specs(drawn.float().eval())
        return {name: replace(spec, int8=_GUIDED_INT8) for name, spec in specs.items()}
    network = siamese.build(row)
    load(network, checkpoint)
    return siamese.graph_specs(network.float(), row)


def _versions(to: Form) -> dict[str, str]:
    if to != "onnx":
        return {}
    import onnx
    import onnxruntime

    return {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
