"""From torch to other runtimes: each graph is converted, compared with torch, and only then saved."""

from __future__ import annotations

import copy
import io
import json
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import openvino as ov
import torch
import torch.nn.functional as F
from openvino import opset13 as opset
from openvino.frontend.pytorch import ConversionExtension, ModuleExtension
from torch import Tensor, nn

from siammask.engines.base import Graphs, Runtime
from siammask.engines.openvino import OpenVinoGraphs
from siammask.engines.torch import NAMES, Script, TorchGraphs, read_scripts
from siammask.errors import InputError, MissingExtra, WeightsError
from siammask.network.heads import Correlation
from siammask.weights import CERTIFICATE

Form = Literal["openvino", "onnx", "torchscript"]
Kept = Literal["f32", "bf16", "int8"]  # what an exported network computes in

TOLERANCE = 1e-3  # largest difference between the two runtimes in f32, relative to the output's largest value
# The same for what is saved (weights rounded to float16, bf16, int8): only gross damage, such as overflow, is refused;
# what it does to masks is for `siammask.network.certify` to say.
TOLERANCE_SAVED = {"f32": 0.05, "bf16": 0.5, "int8": 2.0}

Real = Mapping[str, Sequence[Mapping[str, np.ndarray]]]  # inputs of each graph as they come while tracking
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
    int8: str = ""  # pattern of the names of convolutions that int8 export puts in int8; the others stay as they are


def export(
    graphs: Mapping[str, GraphSpec],
    folder: Path,
    to: Form = "openvino",
    precision: Kept = "f32",
    real: Real | None = None,
) -> dict[str, Any]:
    """Write a file for each graph (openvino: `.xml` and `.bin`, weights in float16; onnx: `.onnx`; torchscript: `.pt`)
    and `certificate.json`; return what the certificate says.

    int8 needs `real`. Nothing is written unless every
    graph agrees with torch: WeightsError names the output that does not. InputError: a form or precision there is not.
    """
    if to not in _FORMS:
        raise InputError(f"Nothing can be exported to {to!r}; choose from {', '.join(_FORMS)}.")
    if precision not in (offered := _FORMS[to].precisions):
        raise InputError(f"No {to} can be exported in {precision}; choose from {', '.join(offered)}.")
    if precision == "int8" and not real:
        raise InputError("Export in int8 needs inputs of every graph to measure their ranges by; give `real`.")
    specs = {name: _frozen(spec) for name, spec in graphs.items()}
    reference = TorchGraphs({name: spec.module for name, spec in specs.items()}, "f32")
    form = _FORMS[to](specs)
    cases = {name: _cases(reference, name, spec) for name, spec in specs.items()}
    certificate: dict[str, Any] = {
        "to": to,
        "precision": precision,
        "error_f32": _checked(form.exact(), cases, "converted", TOLERANCE),
        "tolerance": {"error_f32": TOLERANCE, "error_saved": TOLERANCE_SAVED[precision]},
        "versions": {"openvino": ov.__version__.split("-")[0], "torch": torch.__version__, "numpy": np.__version__},
    }
    if real is not None:  # quantised layers know only ranges that occur
        cases = {name: [_case(reference, name, spec, real[name][-1])] for name, spec in specs.items()}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as draft:
        form.save(Path(draft), precision, real or {})
        saved = form.read(Path(draft), precision)
        certificate["error_saved"] = _checked(saved, cases, "saved", TOLERANCE_SAVED[precision])
        (Path(draft) / CERTIFICATE).write_text(json.dumps(certificate, indent=2) + "\n")
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(Path(draft).iterdir()):
            shutil.copyfile(file, folder / file.name)
    return certificate


class _Form(Protocol):
    """The graphs of a network in one form of file."""

    precisions: tuple[Kept, ...]
    engine: Runtime  # what runs it here

    def __init__(self, specs: Mapping[str, GraphSpec]) -> None: ...

    def exact(self) -> Graphs:
        """As converted, in f32."""

    def save(self, folder: Path, precision: Kept, real: Real) -> None: ...

    def read(self, folder: Path, precision: Kept) -> Graphs:
        """What was saved."""


class _OpenVino:
    precisions: tuple[Kept, ...] = ("f32", "bf16", "int8")
    engine: Runtime = "openvino"

    def __init__(self, specs: Mapping[str, GraphSpec]) -> None:
        self.specs = specs
        self.models = {name: convert(spec) for name, spec in specs.items()}

    def exact(self) -> Graphs:
        return OpenVinoGraphs(self.models, "f32")

    def save(self, folder: Path, precision: Kept, real: Real) -> None:
        models = self.models  # in bf16 they are the same: it is the engine that computes in it
        if precision == "int8":
            models = {}
            for name, spec in self.specs.items():
                models[name] = _from_onnx(quantised(to_onnx(spec), real[name], spec.int8))
        for name, model in models.items():
            ov.save_model(model, folder / f"{name}.xml", compress_to_fp16=True)

    def read(self, folder: Path, precision: Kept) -> Graphs:
        return OpenVinoGraphs.read(folder, "bf16" if precision == "bf16" else "f32")


class _Onnx:
    precisions: tuple[Kept, ...] = ("f32", "int8")
    engine: Runtime = "onnxruntime"

    def __init__(self, specs: Mapping[str, GraphSpec]) -> None:
        self.specs = specs
        self.models = {name: to_onnx(spec) for name, spec in specs.items()}

    def exact(self) -> Graphs:
        from siammask.engines.onnxruntime import OnnxGraphs

        return OnnxGraphs(self.models)

    def save(self, folder: Path, precision: Kept, real: Real) -> None:
        for name, model in self.models.items():
            data = quantised(model, real[name], self.specs[name].int8) if precision == "int8" else model
            (folder / f"{name}.onnx").write_bytes(data)

    def read(self, folder: Path, precision: Kept) -> Graphs:
        from siammask.engines.onnxruntime import OnnxGraphs

        return OnnxGraphs.read(folder)


class _TorchScript:
    precisions: tuple[Kept, ...] = ("f32", "bf16")
    engine: Runtime = "torch"

    def __init__(self, specs: Mapping[str, GraphSpec]) -> None:
        self.specs = specs

    def exact(self) -> Graphs:
        return TorchGraphs(
            {name: Script(_traced(spec), [*spec.example], [*spec.outputs]) for name, spec in self.specs.items()}, "f32"
        )

    def save(self, folder: Path, precision: Kept, real: Real) -> None:
        for name, spec in self.specs.items():
            names = json.dumps({"inputs": [*spec.example], "outputs": [*spec.outputs]})
            script = _traced(spec, half=precision == "bf16")
            with _tracing():
                torch.jit.save(script, folder / f"{name}.pt", _extra_files={NAMES: names})

    def read(self, folder: Path, precision: Kept) -> Graphs:
        return TorchGraphs(read_scripts(folder), "f32")


_FORMS: dict[Form, type[_Form]] = {"openvino": _OpenVino, "onnx": _Onnx, "torchscript": _TorchScript}
ENGINES: dict[Form, Runtime] = {to: form.engine for to, form in _FORMS.items()}  # what runs each form here


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
    return replace(spec, module=copy.deepcopy(spec.module).cpu().float().eval(), example=example)


def convert(spec: GraphSpec) -> ov.Model:
    """The graph as an OpenVINO model with named inputs and outputs and a free batch."""
    with _tracing():
        model = ov.convert_model(
            _InOrder(spec),
            example_input=tuple(spec.example.values()),
            input=[ov.PartialShape([-1, *tensor.shape[1:]]) for tensor in spec.example.values()],
            extension=[ModuleExtension(Correlation, "Correlation"), ConversionExtension("Correlation", _correlation)],
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


def to_onnx(spec: GraphSpec) -> bytes:
    """The graph as an ONNX file with named inputs and outputs.

    The batch is free, except in graphs with a correlation: its groups, batch x channels, are a constant in ONNX.
    """
    try:
        import onnx  # noqa: F401 (torch writes the file with it)
    except ImportError as error:
        raise MissingExtra("Export to ONNX", "onnx") from error
    names = [*spec.example, *spec.outputs]
    file = io.BytesIO()
    with _tracing():
        torch.onnx.export(
            _with_correlations(spec, _OfOne),
            tuple(spec.example.values()),
            file,
            input_names=[*spec.example],
            output_names=[*spec.outputs],
            dynamic_axes=None if _correlates(spec) else {name: {0: "batch"} for name in names},
            opset_version=17,
            dynamo=False,  # the newer way needs onnxscript, and what is traced here is what the other forms trace
        )
    return file.getvalue()


def quantised(model: bytes, real: Sequence[Mapping[str, np.ndarray]], chosen: str = "") -> bytes:
    """An ONNX graph with its convolutions in int8: weights by channel, activations by the ranges seen with `real`.

    Only those whose name has the pattern `chosen` in it; correlations, whose kernels are no weights, never.
    """
    try:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise MissingExtra("Export in int8", "onnx") from error
    import onnx

    known = {port.name for port in onnx.load_from_string(model).graph.input}

    class Inputs(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(real)

        def get_next(self) -> dict[str, np.ndarray] | None:
            inputs = next(self.left, None)
            return None if inputs is None else {name: array for name, array in inputs.items() if name in known}

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        plain, ready, small = (Path(work) / f"{name}.onnx" for name in ("plain", "ready", "small"))
        plain.write_bytes(model)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        graph = onnx.load(ready).graph
        weights = {tensor.name for tensor in graph.initializer}
        convolutions = [node for node in graph.node if node.op_type == "Conv" and node.input[1] in weights]
        names = [node.name for node in convolutions if re.search(chosen, node.name)]
        if not names:
            return model
        quantization.quantize_static(
            ready,
            small,
            Inputs(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=names,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return small.read_bytes()


def _from_onnx(data: bytes) -> ov.Model:
    """An ONNX graph with quantised layers as an OpenVINO model.

    In such a model OpenVINO (2026.4) takes every product with a constant for the end of a quantisation, and moves it
    past a padding even where that changes what is computed. A maximum with the lowest number, which changes nothing,
    stops it.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        file = Path(work) / "graph.onnx"
        file.write_bytes(data)
        model = ov.convert_model(file)
    for pad in [node for node in model.get_ops() if node.get_type_name() == "Pad"]:
        if pad.get_output_element_type(0) == ov.Type.f32:
            kept = opset.maximum(pad.input_value(0), np.float32(np.finfo(np.float32).min))
            pad.input(0).replace_source_output(kept.output(0))
    model.validate_nodes_and_infer_types()
    return model


def _traced(spec: GraphSpec, half: bool = False) -> Any:
    """The graph as TorchScript, tensors in order in and out; `half`: it computes in bf16 where torch thinks it safe."""
    with _tracing(), torch.autocast("cpu", torch.bfloat16, enabled=half, cache_enabled=False):
        graph = _with_correlations(spec, _Program)
        return torch.jit.trace(graph, tuple(spec.example.values()), check_trace=False)


def _with_correlations(spec: GraphSpec, kind: type[_Program] | type[_OfOne]) -> nn.Module:
    """A copy of the graph, in order in and out, whose correlations are written in another way."""
    graph = copy.deepcopy(_InOrder(spec))
    for parent in list(graph.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Correlation):
                setattr(parent, name, kind(child))
    return graph


class _OfOne(nn.Module):
    """A correlation for one picture, its sizes constants, as ONNX wants them."""

    def __init__(self, correlation: Correlation) -> None:
        super().__init__()

    def forward(self, pixels: Tensor, kernel: Tensor) -> Tensor:
        channels, rows, columns = (int(size) for size in kernel.shape[1:])
        return F.conv2d(pixels, kernel.reshape(channels, 1, rows, columns), groups=channels)


class _Program(nn.Module):
    """A correlation as a program within a trace, which would fix its groups, and so the batch."""

    def __init__(self, correlation: Correlation) -> None:
        super().__init__()
        self.correlation = torch.jit.script(correlation)

    def forward(self, pixels: Tensor, kernel: Tensor) -> Tensor:
        return self.correlation(pixels, kernel.to(pixels.dtype))  # autocast does not reach into programs


@contextmanager
def _tracing() -> Iterator[None]:
    """Without a gradient, and without the warnings that tracing always gives."""
    with warnings.catch_warnings(), torch.inference_mode():
        # torch announces torch.export; its programs cannot hold a number of groups that depends on the batch
        for message in (
            r".*torch\.jit\..* is deprecated",
            r".*legacy TorchScript-based",
            r"The feature will be removed",
        ):
            warnings.filterwarnings("ignore", message=message, category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r"Constant folding", category=UserWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # sizes become constants; the comparison is the judge
        yield


def _correlates(spec: GraphSpec) -> bool:
    """Whether the graph runs a `heads.Correlation`."""
    met: list[bool] = []
    hooks = [
        module.register_forward_hook(lambda *_: met.append(True))
        for module in spec.module.modules()
        if isinstance(module, Correlation)
    ]
    with torch.inference_mode():
        spec.module(**spec.example)
    for hook in hooks:
        hook.remove()
    return bool(met)


def _cases(reference: TorchGraphs, graph: str, spec: GraphSpec) -> list[_Case]:
    """The example and a random batch of two, each with what torch makes of it."""
    random = np.random.default_rng(0)
    example = {name: tensor.numpy() for name, tensor in spec.example.items()}
    pair = {name: _random(value, 2, random) for name, value in example.items()}
    return [_case(reference, graph, spec, inputs) for inputs in (example, pair)]


def _case(reference: TorchGraphs, graph: str, spec: GraphSpec, inputs: Mapping[str, np.ndarray]) -> _Case:
    outputs = reference.run(graph, inputs)
    return dict(inputs), {name: outputs[name] for name in spec.outputs}


def _checked(
    ours: Graphs, cases: Mapping[str, list[_Case]], what: str, tolerance: float
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
