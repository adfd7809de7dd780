"""From torch to OpenVINO: each graph is converted, compared with torch, and only then saved."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as opset
from openvino.frontend.pytorch import ConversionExtension, ModuleExtension
from torch import Tensor, nn

from siammask.engines.openvino import OpenVinoGraphs
from siammask.engines.torch import TorchGraphs
from siammask.errors import WeightsError
from siammask.network.heads import Correlation
from siammask.weights import CERTIFICATE

TOLERANCE = 1e-3  # largest difference between the two runtimes in f32, relative to the output's largest value
TOLERANCE_SAVED = 0.05  # the same once weights are rounded to float16: only gross damage (overflow) is refused

_Arrays = dict[str, np.ndarray]
_Case = tuple[_Arrays, _Arrays]  # inputs and what torch makes of them


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """One graph to export.

    `module.forward` takes the tensors of `example` by name (or in this order) and returns a dict that holds `outputs`.
    Inputs and outputs are batch first; the batch is free in what is exported, all other sizes are the example's.
    """

    module: nn.Module
    example: Mapping[str, Tensor]
    outputs: tuple[str, ...]


def export(graphs: Mapping[str, GraphSpec], folder: Path) -> dict[str, Any]:
    """Write `<graph>.xml` and `.bin` (weights in float16) and `certificate.json`; return what the certificate says.

    Nothing is written unless every graph agrees with torch: WeightsError names the output that does not.
    """
    specs = {name: _frozen(spec) for name, spec in graphs.items()}
    models = {name: convert(spec) for name, spec in specs.items()}
    reference = TorchGraphs({name: spec.module for name, spec in specs.items()}, "f32")
    ours = OpenVinoGraphs(models, "f32")
    cases = {name: _cases(reference, name, spec) for name, spec in specs.items()}
    certificate: dict[str, Any] = {
        "error_f32": _checked(ours, cases, "converted", TOLERANCE),
        "tolerance": {"error_f32": TOLERANCE, "error_saved": TOLERANCE_SAVED},
        "versions": {"openvino": ov.__version__.split("-")[0], "torch": torch.__version__, "numpy": np.__version__},
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as draft:
        for name, model in models.items():
            ov.save_model(model, Path(draft) / f"{name}.xml", compress_to_fp16=True)
        certificate["error_saved"] = _checked(OpenVinoGraphs.read(Path(draft), "f32"), cases, "saved", TOLERANCE_SAVED)
        (Path(draft) / CERTIFICATE).write_text(json.dumps(certificate, indent=2) + "\n")
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(Path(draft).iterdir()):
            shutil.copyfile(file, folder / file.name)
    return certificate


class _InOrder(nn.Module):
    """Tracing wants tensors in order in and out; graphs take and return them by name."""

    def __init__(self, spec: GraphSpec) -> None:
        super().__init__()
        self.module = spec.module
        self.inputs = tuple(spec.example)
        self.outputs = spec.outputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        named = self.module(**dict(zip(self.inputs, tensors, strict=True)))
        return tuple(named[name] for name in self.outputs)


def _frozen(spec: GraphSpec) -> GraphSpec:
    """The same graph as a copy in float32 on the CPU, in evaluation mode; the caller's module stays as it is."""
    example = {name: tensor.detach().cpu() for name, tensor in spec.example.items()}
    return GraphSpec(copy.deepcopy(spec.module).cpu().float().eval(), example, spec.outputs)


def convert(spec: GraphSpec) -> ov.Model:
    """The graph as an OpenVINO model with named inputs and outputs and a free batch."""
    with warnings.catch_warnings():
        # torch announces torch.export; its programs cannot hold a number of groups that depends on the batch
        warnings.filterwarnings("ignore", message=r".*torch\.jit\..* is deprecated", category=DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # sizes become constants; the comparison is the judge
        with torch.inference_mode():
            model = ov.convert_model(
                _InOrder(spec),
                example_input=tuple(spec.example.values()),
                input=[ov.PartialShape([-1, *tensor.shape[1:]]) for tensor in spec.example.values()],
                extension=[
                    ModuleExtension(Correlation, "Correlation"),
                    ConversionExtension("Correlation", _correlation),
                ],
            )
    for port, name in zip(model.inputs, spec.example, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
    for port, name in zip(model.outputs, spec.outputs, strict=True):
        port.get_tensor().set_names({name})
    model.validate_nodes_and_infer_types()
    return model


def _correlation(context: Any) -> Any:
    """`heads.Correlation` in OpenVINO's operations, with the batch left free."""
    pixels, kernel = context.get_input(0), context.get_input(1)
    _, channels, rows, columns = (axis.get_length() if axis.is_static else -1 for axis in kernel.get_partial_shape())
    one_picture = opset.reshape(pixels, np.array([1, -1, 0, 0]), True)  # 0: as it was
    kernels = opset.reshape(kernel, np.array([-1, 1, 1, rows, columns]), False)
    response = opset.group_convolution(one_picture, kernels, [1, 1], [0, 0], [0, 0], [1, 1])
    return opset.reshape(response, np.array([-1, channels, 0, 0]), True).outputs()


def _cases(reference: TorchGraphs, graph: str, spec: GraphSpec) -> list[_Case]:
    """The example and a random batch of two, each with what torch makes of it."""
    random = np.random.default_rng(0)
    example = {name: tensor.numpy() for name, tensor in spec.example.items()}
    pair = {name: _random(value, 2, random) for name, value in example.items()}
    found = [(inputs, reference.run(graph, inputs)) for inputs in (example, pair)]
    return [(inputs, {name: outputs[name] for name in spec.outputs}) for inputs, outputs in found]


def _checked(
    ours: OpenVinoGraphs, cases: Mapping[str, list[_Case]], what: str, tolerance: float
) -> dict[str, dict[str, float]]:
    """Largest difference of each graph's outputs over its cases, relative; raise WeightsError above `tolerance`."""
    worst: dict[str, dict[str, float]] = {graph: {} for graph in cases}
    for graph, pairs in cases.items():
        for inputs, wanted in pairs:
            have = ours.run(graph, inputs)
            for name, want in wanted.items():
                worst[graph][name] = max(worst[graph].get(name, 0.0), _difference(want, have[name]))
        for name, error in worst[graph].items():
            if error > tolerance:
                raise WeightsError(
                    f"Graph {graph!r} as {what} differs from torch by {error:.2g} in {name!r} "
                    f"(allowed: {tolerance:g}, relative); nothing was written."
                )
    return worst


def _difference(want: np.ndarray, have: np.ndarray) -> float:
    """Largest difference over the largest value; infinite where shapes differ or a value is not finite."""
    if want.shape != have.shape or not (np.isfinite(want).all() and np.isfinite(have).all()):
        return float("inf")
    return float(np.abs(want - have).max() / max(np.abs(want).max(), 1e-12))


def _random(example: np.ndarray, batch: int, random: np.random.Generator) -> np.ndarray:
    """(batch, ...) of the example's kind: pixels are drawn, floats are the example's own values in another order."""
    shape = (batch, *example.shape[1:])
    if example.dtype == np.uint8:
        return random.integers(0, 256, shape, np.uint8)
    return random.choice(example.ravel(), shape).astype(example.dtype)
