"""torch as a runtime: the same modules that are trained and exported, for tests, training and CUDA."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from siammask.engines.base import Precision
from siammask.errors import MissingExtra, WeightsError

try:
    import torch
    from torch import nn
except ImportError:
    raise MissingExtra("Engine 'torch'", "train") from None


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
        self._graphs = {name: module.to(self._device).eval() for name, module in graphs.items()}
        if threads is not None:
            torch.set_num_threads(threads)  # torch knows no setting narrower than the process

    @property
    def precision(self) -> Precision:
        return self._precision

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of one graph by name; the arrays are copies."""
        if graph not in self._graphs:
            raise WeightsError(f"This network has no graph {graph!r}, only {', '.join(self._graphs)}.")
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()}
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16"),
        ):
            outputs = self._graphs[graph](**{name: tensor.to(self._device) for name, tensor in tensors.items()})
        return {name: np.array(tensor.float().cpu().numpy()) for name, tensor in outputs.items()}
