"""ONNX Runtime as a runtime: the graphs of a network read from ONNX files, or given as their bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from siammask.engines.base import Device, Precision, in_one_batch
from siammask.errors import InputError, MissingExtra, WeightsError

try:
    import onnxruntime as ort
except ImportError:
    raise MissingExtra("Engine 'onnxruntime'", "onnxruntime") from None

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxGraphs:
    """The graphs of one network; see `siammask.engines.base.Graphs`.

    Numbers are computed as the files say: in f32, or where they hold quantised layers partly in int8.
    """

    name = "onnxruntime"
    precision: Precision = "f32"

    def __init__(self, models: Mapping[str, Path | bytes], threads: int | None = None, device: Device = "cpu") -> None:
        if _PROVIDERS[device] not in ort.get_available_providers():
            raise InputError(f"This onnxruntime cannot compute on {device!r}; install onnxruntime-gpu, or use the CPU.")
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors; what it warns of concerns its own optimiser
        if threads is not None:
            options.intra_op_num_threads = threads
        self._sessions = {name: _session(name, model, options, device) for name, model in models.items()}

    @classmethod
    def read(cls, folder: Path, threads: int | None = None, device: Device = "cpu", model: str = "MODEL") -> OnnxGraphs:
        """Every `<graph>.onnx` of a folder; raise WeightsError where there is none, or one is damaged."""
        files = sorted(folder.glob("*.onnx"))
        if not files:
            raise WeightsError(
                f"No ONNX graphs (*.onnx) in {folder}; make them with `siammask export {model} --to onnx --out FOLDER` "
                "and give that folder as weights."
            )
        return cls({file.stem: file for file in files}, threads, device)

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of one graph by name; the arrays are the caller's."""
        if graph not in self._sessions:
            raise WeightsError(
                f"These weights have no graph {graph!r}, only {', '.join(self._sessions)}; export again."
            )
        session = self._sessions[graph]
        ports = session.get_inputs()  # an input that does not matter to any output is not in the file
        given = {port.name: np.ascontiguousarray(inputs[port.name]) for port in ports}
        names = [port.name for port in session.get_outputs()]
        count = len(given[ports[0].name])
        if ports[0].shape[0] != 1 or count == 1:
            return dict(zip(names, session.run(names, given), strict=True))
        # a correlation has a number of groups for each picture, and in ONNX that is written into the file
        each = [session.run(names, {name: array[i : i + 1] for name, array in given.items()}) for i in range(count)]
        return {name: np.concatenate(arrays) for name, arrays in zip(names, zip(*each, strict=True), strict=True)}

    def run_each(self, graph: str, items: Iterable[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """In one batch."""
        return in_one_batch(self, graph, items)


def _session(name: str, model: Path | bytes, options: Any, device: Device) -> Any:
    try:
        source = model if isinstance(model, bytes) else str(model)
        return ort.InferenceSession(source, options, providers=[_PROVIDERS[device]])
    except Exception as error:  # its exceptions have no base of their own
        first = (str(error).strip().splitlines() or [""])[-1]
        raise WeightsError(f"Graph {name!r} cannot be read ({first}); export the network again.") from error
