"""What the guided network means: an Engine over the graphs "search" and "memorise" (DESIGN: the default model)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from siammask.classifier import fit
from siammask.engines.base import Graphs, Precision, Search
from siammask.errors import InputError
from siammask.geometry import Box, Float32, Patch, UInt8
from siammask.variants import Shape, Variant

_FEATURES = ("feat", "key", "low")  # of a search, what a memory is made of


@dataclass(slots=True, eq=False)
class Memory(Mapping[str, np.ndarray]):
    """What is remembered of one crop, by name; made when it is first looked at."""

    graphs: Graphs
    shape: Shape
    seen: Mapping[str, np.ndarray]  # what the search that is remembered gave
    drawing: Float32  # (m, m) in [0, 1]
    drawn: bool  # False: it is only a filled box
    made: Mapping[str, np.ndarray] | None = None
    classifier: Float32 | None = None  # (C + 1,), of a first frame, where the network has one

    def __getitem__(self, name: str) -> np.ndarray:
        if self.made is None:  # what it is made of is let go
            inputs = {name: self.seen[name] for name in _FEATURES}
            inputs["mask"] = np.asarray(self.drawing, np.float32)[None]
            inputs["drawn"] = np.array([self.drawn], np.float32)
            made = self.graphs.run("memorise", inputs)
            self.made, self.seen = {name: made[f"memory_{name}"][0] for name in self}, {}
        return self.made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shape.memory)

    def __len__(self) -> int:
        return len(self.shape.memory)


def fitted(memory: Memory) -> Float32:
    """The classifier (C + 1,) of what is to be remembered of one crop."""
    side, drawing = memory.shape.kept, memory.drawing
    cells = drawing.reshape(side, drawing.shape[0] // side, side, -1).mean((1, 3))
    return fit(memory.seen["feat"][0], cells.ravel(), memory.shape.ridge)


@dataclass(frozen=True, slots=True)
class GuidedResponse:
    """See `siammask.engines.base.Response`. One mask is drawn for the whole crop, so every cell has the same."""

    graphs: Graphs
    shape: Shape
    out: Mapping[str, np.ndarray]

    @property
    def score(self) -> Float32:
        return np.asarray(self.out["score"][0], np.float32)

    @property
    def delta(self) -> None:
        return None

    @property
    def confidence(self) -> float:
        return float(self.out["overlap"][0])

    @property
    def box(self) -> Box | None:
        if "box" not in self.out:
            return None
        x0, y0, x1, y1 = (self.shape.crop * (float(v) + 0.5) for v in self.out["box"][0])
        return Box.from_xywh(x0, y0, max(1.0, x1 - x0), max(1.0, y1 - y0))

    def mask(self, row: int, col: int) -> Patch:
        side = self.shape.crop
        return Patch(np.asarray(self.out["mask"][0]), Box(side / 2, side / 2, side, side))

    def remember(self, patch: Patch) -> Memory:
        return Memory(self.graphs, self.shape, self.out, patch.values, drawn=True)


@dataclass(frozen=True, slots=True)
class GuidedEngine:
    """See `siammask.engines.base.Engine`."""

    graphs: Graphs
    variant: Variant

    @property
    def name(self) -> str:
        return self.graphs.name

    @property
    def precision(self) -> Precision:
        return self.graphs.precision

    def embed(self, pixels: UInt8, mask: Float32 | None, drawn: bool) -> Memory:
        """Features come from a search with empty memories: one graph less to ship, and only once a clip."""
        if mask is None:
            raise InputError("A guided model remembers a crop together with a mask; give one, or a filled box.")
        nothing = {name: np.zeros(shape, np.float32) for name, shape in self.variant.shape.memory.items()}
        seen = self.search((nothing, nothing), pixels, np.zeros(mask.shape, np.float32))
        memory = Memory(self.graphs, self.variant.shape, seen.out, mask, drawn)
        if self.variant.shape.ridge:
            memory.classifier = fitted(memory)
        return memory

    def search(
        self, memory: tuple[Mapping[str, np.ndarray], ...], pixels: UInt8, guide: Float32 | None
    ) -> GuidedResponse:
        inputs = self._inputs(Search(memory, pixels, guide))
        return GuidedResponse(self.graphs, self.variant.shape, self.graphs.run("search", inputs))

    def search_many(self, searches: Iterable[Search]) -> Iterator[GuidedResponse]:
        found = self.graphs.run_each("search", map(self._inputs, searches))
        return (GuidedResponse(self.graphs, self.variant.shape, out) for out in found)

    def _inputs(self, search: Search) -> dict[str, np.ndarray]:
        if search.guide is None:
            raise InputError("A guided model searches with the last mask; give an empty one where there is none.")
        shape = self.variant.shape
        inputs: dict[str, np.ndarray] = {"pixels": search.pixels[None], "guide": search.guide[None]}
        for which, memory in zip(("first", "last"), search.memory, strict=True):
            inputs |= {f"{which}_{name}": memory[name][None] for name in shape.memory}
        if shape.ridge:  # a memory of a later frame has none, nor has no memory: no opinion
            known = getattr(search.memory[0], "classifier", None)
            inputs["classifier"] = np.zeros((1, shape.width + 1), np.float32) if known is None else known[None]
        return inputs
