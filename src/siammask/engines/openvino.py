"""OpenVINO as a runtime: the graphs of a network read from IR files, or given as converted models."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from siammask.engines.base import Precision
from siammask.errors import MissingExtra, WeightsError

# OpenVINO imports its model converter with itself where it finds one: more than half of what the import takes. Running
# a network does not need it; who asks for the converter gets it then. And it brings a client that reports each
# conversion, from a process forked off another thread: a matrix product on this one may then wait for ever for threads
# that the fork has ended. Nothing is reported from here.
_CONVERTER = "openvino.tools.ovc"
_REPORTS = "openvino_telemetry"


@contextlib.contextmanager
def _hidden(name: str) -> Iterator[None]:
    """While it lasts there is no module of this name to import."""
    had = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # Python's way to say so
    try:
        yield
    finally:
        if had is None:
            del sys.modules[name]
        else:
            sys.modules[name] = had


_alone = "openvino" not in sys.modules
try:
    with _hidden(_CONVERTER) if _alone else contextlib.nullcontext():
        import openvino as ov
except ImportError:
    raise MissingExtra("Engine 'openvino'", "openvino") from None


def _converter(name: str) -> Any:
    """`openvino.convert_model`, when it is first asked for."""
    if name != "convert_model":
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")
    with _hidden(_REPORTS):
        return importlib.import_module(_CONVERTER).convert_model


if _alone:
    ov.__getattr__ = _converter

Shapes = tuple[tuple[int, ...], ...]
Running = tuple[ov.InferRequest, list[np.ndarray]]  # with its inputs: the runtime works on these very arrays

_STREAMS = 4  # inputs that are run side by side at most: on more cores each has several
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

    Each graph is compiled for the very shapes it is run with, with a batch of 1, because static shapes run faster and
    because the correlation, whose number of groups is batch x channels, exists only so. Several inputs are run side by
    side, each on its share of the threads: a layer that is split over two threads takes more than half of its time on
    one, batch or not. So targets come and go without compiling anew.
    Infer requests are shared, so an object of this class belongs to one thread at a time.
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
        self._config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,  # never the runtime's default, which is bf16 where the CPU has it
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads
        self._streams = min(threads or os.cpu_count() or 1, _STREAMS)  # of several inputs
        self._cache = cache
        self._keys = {
            graph: _digest(file.read_bytes(), file.with_suffix(".bin").read_bytes())
            for graph, file in models.items()
            if cache is not None and isinstance(file, Path)
        }
        self._beside = False  # inputs are being run side by side
        self._inputs: dict[str, list[str]] = {}
        self._outputs: dict[str, list[str]] = {}
        self._requests: dict[tuple[str, Shapes, int], list[ov.InferRequest]] = {}
        for graph in models:
            if (compiled := self._compiled(graph, None)) is not None:
                shapes = tuple(tuple(port.get_shape()) for port in compiled.inputs)
                self._requests[graph, shapes, 1] = [compiled.create_infer_request()]

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
        ordered = self._ordered(graph, inputs)
        if (count := len(ordered[0])) == 1:
            streams = self._streams if self._beside else 1  # not on all threads where they are busy
            return self._outcome(graph, self._begin(self._request(graph, ordered, streams, 0), ordered))
        each = ({name: array[i : i + 1] for name, array in inputs.items()} for i in range(count))
        found = list(self.run_each(graph, each))
        return {name: np.concatenate([one[name] for one in found]) for name in self._outputs[graph]}

    def run_each(self, graph: str, items: Iterable[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """Side by side; one waits for each that is run."""
        running: deque[Running] = deque()
        self._beside = True
        try:
            for number, item in enumerate(items):
                ordered = self._ordered(graph, item)
                request = self._request(graph, ordered, self._streams, 1 + number % (2 * self._streams))
                if len(running) == 2 * self._streams:
                    yield self._oldest(graph, running)
                request.wait()  # it may still work for another call, which nobody waited for
                running.append((self._begin(request, ordered), ordered))
            while running:
                yield self._oldest(graph, running)
        finally:  # also where an item could not be made, or nobody waits any more
            self._beside = False
            for request, _ in running:
                request.wait()

    def _oldest(self, graph: str, running: deque[Running]) -> dict[str, np.ndarray]:
        out = self._outcome(graph, running[0][0])
        running.popleft()  # not before it is done: with it go its arrays
        return out

    def _ordered(self, graph: str, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        if graph not in self._models:
            raise WeightsError(f"These weights have no graph {graph!r}, only {', '.join(self._models)}; export again.")
        return [np.ascontiguousarray(inputs[name]) for name in self._inputs[graph]]

    def _begin(self, request: ov.InferRequest, ordered: list[np.ndarray]) -> ov.InferRequest:
        for index, array in enumerate(ordered):  # `infer(ordered)` does the same, half a millisecond slower
            if not array.flags.writeable:  # the runtime shares no read-only memory
                array = ordered[index] = array.copy()
            request.set_input_tensor(index, ov.Tensor(array, shared_memory=True))
        request.start_async()
        return request

    def _outcome(self, graph: str, request: ov.InferRequest) -> dict[str, np.ndarray]:
        request.wait()
        return {name: np.array(request.get_output_tensor(i).data) for i, name in enumerate(self._outputs[graph])}

    def _request(self, graph: str, ordered: list[np.ndarray], streams: int, number: int) -> ov.InferRequest:
        """One of the requests for a graph compiled for inputs of these shapes, so many of them side by side."""
        key = (graph, tuple(array.shape for array in ordered), streams)
        if key not in self._requests:
            compiled = self._compiled(graph, key[1], streams)
            assert compiled is not None
            self._requests[key] = [compiled.create_infer_request()]
        requests = self._requests[key]
        while number >= len(requests):
            requests.append(requests[0].get_compiled_model().create_infer_request())
        return requests[number]

    def _compiled(self, graph: str, shapes: Shapes | None, streams: int = 1) -> ov.CompiledModel | None:
        """A graph for these input shapes, or for a batch of 1; None where more than the batch is open."""
        config = self._config | {"NUM_STREAMS": streams}
        file = self._kept(graph, shapes, config)
        if file is not None and (kept := _sound(file)) is not None:
            names, _, blob = kept.partition(b"\n")  # compiled ones have names of their own
            self._inputs[graph], self._outputs[graph] = json.loads(names)
            with contextlib.suppress(RuntimeError):  # whole, but not to OpenVINO's liking: compiled anew
                return core().import_model(blob, "CPU", config)
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
        compiled = core().compile_model(model, "CPU", config)
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

    def _kept(self, graph: str, shapes: Shapes | None, config: dict[str, Any]) -> Path | None:
        """Where a graph of a file is kept, compiled for this processor in these shapes by this version of OpenVINO.

        OpenVINO's own cache reads the network and hashes it before it looks: nearly half of what opening a model takes.
        """
        if self._cache is None or graph not in self._keys:
            return None
        processor = [core().get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
        where = repr((ov.get_version(), processor, sorted(config.items()), shapes))
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
