"""torch as a runtime, for tests, training and CUDA: the modules that are trained, or TorchScript made of them."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from siammask.engines.base import Precision, in_one_batch
from siammask.errors import InputError, MissingExtra, WeightsError

try:
    import torch
    from torch import nn
except ImportError:
    raise MissingExtra("Engine 'torch'", "train") from None


NAMES = "names.json"  # inside a TorchScript file: names of its inputs and outputs, in order
_HALF = {"bf16": torch.bfloat16, "f16": torch.float16}


class TorchGraphs:
    """The graphs of one network as modules; see `siammask.engines.base.Graphs`.

    Each module's `forward` takes its inputs by name and returns a dict of named tensors, batch first.
    """

    name = "torch"

    def __init__(
        self, graphs: Mapping[str, nn.Module], precision: Precision, threads: int | None = None, device: str = "cpu"
    ) -> None:
        self._precision = precision
        self._device = torch.device(device)
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise InputError("This torch sees no CUDA device; use device 'cpu', or install torch for CUDA.")
        self._graphs = {name: module.to(self._device).eval() for name, module in graphs.items()}
        if self._device.type == "cuda":  # tensor cores work on channels-last tensors; pixels come so
            for module in self._graphs.values():
                module.to(memory_format=torch.channels_last)
        if threads is not None:
            torch.set_num_threads(threads)  # torch knows no setting narrower than the process
        self._planar = False

    @property
    def precision(self) -> Precision:
        return self._precision

    def planar(self) -> TorchGraphs:
        """The same with pixels channel after channel in memory, as plain torch has them: slower on a CPU."""
        found = copy.copy(self)
        found._planar = True
        return found

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of one graph by name; the arrays are copies."""
        if graph not in self._graphs:
            raise WeightsError(f"This network has no graph {graph!r}, only {', '.join(self._graphs)}.")
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()}
        if self._planar and "pixels" in tensors:
            tensors["pixels"] = tensors["pixels"].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, _HALF.get(self._precision), enabled=self._precision in _HALF),
        ):
            outputs = self._graphs[graph](**{name: tensor.to(self._device) for name, tensor in tensors.items()})
        return {name: np.array(tensor.float().cpu().numpy()) for name, tensor in outputs.items()}

    def run_each(self, graph: str, items: Iterable[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """In one batch."""
        return in_one_batch(self, graph, items)


class Script(nn.Module):
    """A TorchScript graph, which takes and gives tensors in order, under the names of its inputs and outputs."""

    def __init__(self, script: Any, inputs: list[str], outputs: list[str]) -> None:
        super().__init__()
        self.script, self.inputs, self.outputs = script, inputs, outputs

    def forward(self, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(self.outputs, self.script(*(tensors[name] for name in self.inputs)), strict=True))


def read_scripts(folder: Path) -> dict[str, Script]:
    """Every `<graph>.pt` that `siammask export --to torchscript` wrote into a folder; there may be none.

    Raises WeightsError for a file that is damaged or not such a graph.
    """
    found: dict[str, Script] = {}
    for file in sorted(folder.glob("*.pt")):
        extra = {NAMES: ""}
        try:
            with warnings.catch_warnings():  # torch announces torch.export in its place
                warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=DeprecationWarning)
                script = torch.jit.load(file, map_location="cpu", _extra_files=extra)
            names = json.loads(extra[NAMES])
            found[file.stem] = Script(script, names["inputs"], names["outputs"])
        except (RuntimeError, ValueError, KeyError) as error:
            first = (str(error).strip().splitlines() or [""])[0]
            raise WeightsError(f"{file} is no exported graph ({first}); export the network again.") from error
    return found
