"""OpenVINO as a runtime: the graphs of a network read from IR files, or given as converted models."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import json
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

_DIGEST = 16  # bytes, before the contents of what is kept compiled


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
        models: Mapping[str, ov.Model | Path],
        precision: Precision,
        threads: int | None = None,
        cache: Path | None = None,
    ) -> None:
        """`models` are networks, or files that hold them; what is compiled of files is kept in `cache`."""
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
        self._cache = cache
        self._keys = {
            graph: _digest(file.read_bytes(), file.with_suffix(".bin").read_bytes())
            for graph, file in models.items()
            if cache is not None and isinstance(file, Path)
        }
        self._inputs: dict[str, list[str]] = {}
        self._outputs: dict[str, list[str]] = {}
        self._requests: dict[tuple[str, Shapes], ov.InferRequest] = {}
        for graph in models:
            if (compiled := self._compiled(graph, None)) is not None:
                shapes = tuple(tuple(port.get_shape()) for port in compiled.inputs)
                self._requests[graph, shapes] = compiled.create_infer_request()

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
        for file in files:
            if not file.with_suffix(".bin").is_file():
                raise WeightsError(
                    f"{file.with_suffix('.bin')} is missing beside {file.name}; export the network again."
                )
        return cls({file.stem: file for file in files}, precision, threads, cache)

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
            compiled = self._compiled(graph, shapes)
            assert compiled is not None
            self._requests[key] = compiled.create_infer_request()
        return self._requests[key]

    def _compiled(self, graph: str, shapes: Shapes | None) -> ov.CompiledModel | None:
        """A graph for these input shapes, or for a batch of 1; None where more than the batch is open."""
        file = self._kept(graph, shapes)
        if file is not None and (kept := _sound(file)) is not None:
            names, _, blob = kept.partition(b"\n")  # compiled ones have names of their own
            self._inputs[graph], self._outputs[graph] = json.loads(names)
            with contextlib.suppress(RuntimeError):  # whole, but not to OpenVINO's liking: compiled anew
                return core().import_model(blob, "CPU", self._config)
        model = self._model(graph)
        if shapes is None:
            open_ones = [list(port.get_partial_shape()) for port in model.inputs]
            if not all(axis.is_static for shape in open_ones for axis in shape[1:]):
                return None
            shapes = tuple((1, *(axis.get_length() for axis in shape[1:])) for shape in open_ones)
        model = model.clone()
        try:
            model.reshape({index: list(shape) for index, shape in enumerate(shapes)})
        except RuntimeError as error:
            raise WeightsError(
                f"Graph {graph!r} does not take inputs of the shapes {list(shapes)}: it was exported from another "
                "network, or by another version of it; export it again."
            ) from error
        compiled = core().compile_model(model, "CPU", self._config)
        if file is not None:
            blob = compiled.export_model()
            names = json.dumps([self._inputs[graph], self._outputs[graph]]).encode()
            _keep(file, names + b"\n" + (blob if isinstance(blob, bytes) else blob.getvalue()))
        return compiled

    def _model(self, graph: str) -> ov.Model:
        """A graph as it was given; read when it is first asked for, which one that is kept compiled does without."""
        given = self._models[graph]
        if isinstance(given, Path):
            try:
                given = self._models[graph] = core().read_model(given)
            except RuntimeError as error:
                first = str(error).strip().splitlines()[-1]
                raise WeightsError(f"{given} cannot be read ({first}); export the network again.") from error
        self._inputs[graph] = [port.get_any_name() for port in given.inputs]
        self._outputs[graph] = [port.get_any_name() for port in given.outputs]
        return given

    def _kept(self, graph: str, shapes: Shapes | None) -> Path | None:
        """Where a graph of a file is kept, compiled for this processor in these shapes by this version of OpenVINO.

        OpenVINO's own cache reads the network and hashes it before it looks: nearly half of what opening a model takes.
        """
        if self._cache is None or graph not in self._keys:
            return None
        processor = [core().get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
        where = repr((ov.get_version(), processor, sorted(self._config.items()), shapes))
        return self._cache / f"{_digest(self._keys[graph], where.encode()).hex()}.blob"


def _digest(*parts: bytes) -> bytes:
    found = hashlib.blake2b(digest_size=_DIGEST)
    for part in parts:
        found.update(part)
    return found.digest()


def _sound(file: Path) -> bytes | None:
    """What is kept in a file; None where there is none, or it is damaged."""
    try:
        contents = file.read_bytes()
    except OSError:
        return None
    kept = contents[_DIGEST:]
    return kept if contents[:_DIGEST] == _digest(kept) else None


def _keep(file: Path, contents: bytes) -> None:
    """Write a compiled network, whole or not at all: another process may read it meanwhile. No room is no error."""
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        part.write_bytes(_digest(contents) + contents)
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)


def powers_of_two(count: int, most: int) -> list[int]:
    """Powers of two up to `most` that sum to `count`, the largest first.

    >>> powers_of_two(13, 4)
    [4, 4, 4, 1]
    """
    sizes: list[int] = []
    while (left := count - sum(sizes)) > 0:
        sizes.append(1 << (min(left, most).bit_length() - 1))
    return sizes
