"""What the tracker asks of a network, whatever runs it: pixels in, probabilities out, numpy on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from siammask.geometry import Box, Float32, Patch, UInt8

Precision = Literal["f32", "bf16", "f16"]
Device = Literal["cpu", "cuda"]
Runtime = Literal["openvino", "onnxruntime", "torch"]
Embedding = Any  # opaque to the tracker: only the engine that made it reads it


class Response(Protocol):
    """What one search saw. Coordinates are those of the search crop."""

    @property
    def score(self) -> Float32:
        """(K, n, n) in [0, 1]: how likely the target is at anchor k of cell (row, col)."""

    @property
    def delta(self) -> Float32 | None:
        """(4, K, n, n) box regression of each anchor; None for networks without a box branch."""

    @property
    def confidence(self) -> float | None:
        """The network's own estimate in [0, 1] of the overlap of its mask with the object; None where it gives none."""

    @property
    def box(self) -> Box | None:
        """The target's box in crop pixels as the network says it; None for networks that do not, or say it by cell."""

    def mask(self, row: int, col: int) -> Patch | None:
        """The mask that belongs to one cell, placed in crop pixels; None for networks without a mask branch."""

    def remember(self, patch: Patch) -> Embedding | None:
        """An embedding made of this very search with `patch` (crop pixels) as its mask; None where none is used."""


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What `Engine.search` is asked, as a value: so that the searches of several targets can go in one call."""

    memory: tuple[Embedding, ...]
    pixels: UInt8  # (x, x, 3) BGR
    guide: Float32 | None  # (m, m) in [0, 1]


class Engine(Protocol):
    """A loaded network without memory: two targets can share it."""

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> Precision: ...

    def embed(self, pixels: UInt8, mask: Float32 | None, drawn: bool) -> Embedding:
        """What must be remembered of an exemplar crop (z, z, 3) uint8 BGR.

        `mask` is (m, m) in [0, 1] over the crop, None for networks that see only the crop; `drawn` is False when the
        mask is only a filled box.
        """

    def search(self, memory: tuple[Embedding, ...], pixels: UInt8, guide: Float32 | None) -> Response:
        """Look for the remembered target in a search crop (x, x, 3) uint8 BGR.

        `guide` is the last mask as this crop sees it, (m, m) in [0, 1]; None for networks that are not guided.
        """

    def search_many(self, searches: Iterable[Search]) -> Iterator[Response]:
        """The response to each search, in their order; see `Graphs.run_each`, or else `in_turn`."""


def in_turn(engine: Engine, searches: Iterable[Search]) -> Iterator[Response]:
    """`Engine.search_many` for engines that take one search at a time."""
    return (engine.search(search.memory, search.pixels, search.guide) for search in searches)


class Graphs(Protocol):
    """A runtime holding the named graphs of one network: arrays in, arrays out.

    What a network *means* is written once for each family (engines/siamese.py, engines/guided.py) as an Engine over
    these; openvino, onnxruntime and torch are runtimes.
    """

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> Precision: ...

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name. float32 and uint8 arrays, batch first; the arrays returned are the caller's to keep."""

    def run_each(self, graph: str, items: Iterable[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """Outputs for each of several inputs, all with a batch of 1, in their order: side by side, or in one batch.

        Side by side an input is taken when there is room for it, so that it can be made, and outputs be made use of,
        while the runtime works on others.
        """


def in_one_batch(
    graphs: Graphs, graph: str, items: Iterable[Mapping[str, np.ndarray]]
) -> Iterator[dict[str, np.ndarray]]:
    """`Graphs.run_each` for runtimes that a batch serves better."""
    given = list(items)
    if given:
        yield from unbatched(graphs.run(graph, {name: batched([item[name][0] for item in given]) for name in given[0]}))


def batched(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of one shape with a batch in front, (N, ...); a single one is not copied."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


def unbatched(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Named arrays (N, ...) as N of (1, ...)."""
    count = len(next(iter(arrays.values())))
    return [{name: array[i : i + 1] for name, array in arrays.items()} for i in range(count)]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to run a network."""

    engine: Runtime = "openvino"
    precision: Precision | None = None  # None: bf16 where openvino or torch compute in it on this CPU, else f32
    threads: int | None = None  # None: what the runtime takes
    device: Device = "cpu"  # cuda: torch and onnxruntime only
