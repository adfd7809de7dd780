"""OpenVINO as a runtime: the graphs of a network read from IR files, or given as converted models."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from siammask.engines.base import Precision
from siammask.errors import MissingExtra, WeightsError

# OpenVINO imports its model converter with itself where it finds one, and that a telemetry client: more than half of
# what the import takes. Running a network needs neither; who asks for the converter gets it then.
_CONVERTER = "openvino.tools.ovc"
_alone = "openvino" not in sys.modules
try:
    if _alone:
        sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # Python's way to say that a module is not there
    import openvino as ov
except ImportError:
    raise MissingExtra("Engine 'openvino'", "openvino") from None
finally:
    if _alone:
        del sys.modules[_CONVERTER]


def _converter(name: str) -> Any:
    """`openvino.convert_model`, when it is first asked for."""
    if name != "convert_model":
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")
    return importlib.import_module(_CONVERTER).convert_model


if _alone:
    ov.__getattr__ = _converter

Shapes = tuple[tuple[int, ...], ...]


def core() -> ov.Core:
    """The one OpenVINO of this process, never let go.

    Its CPU plug-in gives the thread that loads it a stack for signal handlers, and frees that stack with itself; with
    several, one after another let go, the thread is left with a freed stack, and the next signal that Python handles
    (Ctrl-C, a child that ends) kills the process.
    """
    return _core(os.getpid())


@functools.cache
def _core(process: int) -> ov.Core:
    """By process: one that was forked off cannot use its parent's threads."""
    return ov.Core()


class OpenVinoGraphs:
    """The graphs of one network on the CPU; see `siammask.engines.base.Graphs`.

    Each graph is compiled for the very shapes it is run with (batch 1 at once, others when first met), because static
    shapes run faster and because the correlation, whose number of groups is batch x channels, exists only so. So that
    targets can come and go without compiling anew, a batch is run in parts whose sizes are powers of two.
    One infer request serves a compiled graph, so an object of this class belongs to one thread at a time.
    """

    name = "openvino"

    def __init__(
        self,
        models: Mapping[str, ov.Model],
        precision: Precision,
        threads: int | None = None,
        cache: Path | None = None,
    ) -> None:
        self._precision = precision
        self._models = dict(models)
        self._most = 2 * (threads or os.cpu_count() or 1)  # more crops at a time only leave the cache
        self._config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,  # never the runtime's default, which is bf16 where the CPU has it
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads
        if cache is not None:
            self._config["CACHE_DIR"] = str(cache)
        self._inputs = {graph: [port.get_any_name() for port in model.inputs] for graph, model in self._models.items()}
        self._outputs = {
            graph: [port.get_any_name() for port in model.outputs] for graph, model in self._models.items()
        }
        self._requests: dict[tuple[str, Shapes], ov.InferRequest] = {}
        for graph, model in self._models.items():
            shapes = [port.get_partial_shape() for port in model.inputs]
            if all(axis.is_static for shape in shapes for axis in list(shape)[1:]):
                self._request(graph, tuple((1, *(axis.get_length() for axis in list(shape)[1:])) for shape in shapes))

    @classmethod
    def read(
        cls, folder: Path, precision: Precision, threads: int | None = None, cache: Path | None = None
    ) -> OpenVinoGraphs:
        """Every `<graph>.xml` (and `.bin`) of a folder; raise WeightsError where one is missing or damaged."""
        files = sorted(folder.glob("*.xml"))
        if not files:
            raise WeightsError(
                f"No exported graphs (*.xml) in {folder}; export the network there (siammask.network.export), "
                "or name another weights folder."
            )
        models: dict[str, ov.Model] = {}
        for file in files:
            if not file.with_suffix(".bin").is_file():
                raise WeightsError(
                    f"{file.with_suffix('.bin')} is missing beside {file.name}; export the network again."
                )
            try:
                models[file.stem] = core().read_model(file)
            except RuntimeError as error:
                first = str(error).strip().splitlines()[-1]
                raise WeightsError(f"{file} cannot be read ({first}); export the network again.") from error
        return cls(models, precision, threads, cache)

    @property
    def precision(self) -> Precision:
        return self._precision

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of one graph by name; the arrays are copies."""
        if graph not in self._models:
            raise WeightsError(f"These weights have no graph {graph!r}, only {', '.join(self._models)}; export again.")
        ordered = [np.ascontiguousarray(inputs[name]) for name in self._inputs[graph]]
        count = len(ordered[0])
        if count == 1:
            return self._infer(graph, ordered)
        parts, first = [], 0
        for size in powers_of_two(count, self._most):
            parts.append(self._infer(graph, [array[first : first + size] for array in ordered]))
            first += size
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs[graph]}

    def _infer(self, graph: str, ordered: list[np.ndarray]) -> dict[str, np.ndarray]:
        request = self._request(graph, tuple(array.shape for array in ordered))
        for index, array in enumerate(ordered):  # `infer(ordered)` does the same, half a millisecond slower
            shared = array if array.flags.writeable else array.copy()  # the runtime shares no read-only memory
            request.set_input_tensor(index, ov.Tensor(shared, shared_memory=True))
        request.start_async()
        request.wait()
        return {name: np.array(request.get_output_tensor(i).data) for i, name in enumerate(self._outputs[graph])}

    def _request(self, graph: str, shapes: Shapes) -> ov.InferRequest:
        """The request of a graph compiled for these input shapes."""
        key = (graph, shapes)
        if key not in self._requests:
            model = self._models[graph].clone()
            model.reshape({index: list(shape) for index, shape in enumerate(shapes)})
            self._requests[key] = core().compile_model(model, "CPU", self._config).create_infer_request()
        return self._requests[key]


def powers_of_two(count: int, most: int) -> list[int]:
    """Powers of two up to `most` that sum to `count`, the largest first.

    >>> powers_of_two(13, 4)
    [4, 4, 4, 1]
    """
    sizes: list[int] = []
    while (left := count - sum(sizes)) > 0:
        sizes.append(1 << (min(left, most).bit_length() - 1))
    return sizes
