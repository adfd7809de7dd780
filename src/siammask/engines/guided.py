"""What the guided network means: an Engine over the graphs "search" and "memorise" (DESIGN: the default model)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from siammask.classifier import fit
from siammask.engines.base import Graphs, Precision, Search, batched, unbatched
from siammask.errors import InputError
from siammask.geometry import Box, Float32, Patch, UInt8
from siammask.variants import Shape, Variant

_FEATURES = ("feat", "key", "low")  # of a search, what a memory is made of


@dataclass(slots=True, eq=False)
class Memory(Mapping[str, np.ndarray]):
    """What is remembered of one crop, by name; made when it is first looked at.

    So what several targets remember of a frame is made in one call: at the next search for them all.
    """

    graphs: Graphs
    shape: Shape
    seen: Mapping[str, np.ndarray]  # what the search that is remembered gave
    drawing: Float32  # (m, m) in [0, 1]
    drawn: bool  # False: it is only a filled box
    made: Mapping[str, np.ndarray] | None = None
    classifier: Float32 | None = None  # (C + 1,), of a first frame, where the network has one

    def __getitem__(self, name: str) -> np.ndarray:
        if self.made is None:
            make([self])
        return self.made[name]  # type: ignore[index]  # it is made by now

    def __iter__(self) -> Iterator[str]:
        return iter(self.shape.memory)

    def __len__(self) -> int:
        return len(self.shape.memory)


def make(memories: Sequence[Memory]) -> None:
    """Make memories of one engine's searches, all in one call; what they are made of is let go."""
    inputs = {name: batched([memory.seen[name][0] for memory in memories]) for name in _FEATURES}
    inputs["mask"] = batched([np.asarray(memory.drawing, np.float32) for memory in memories])
    inputs["drawn"] = np.array([memory.drawn for memory in memories], np.float32)
    for memory, made in zip(memories, unbatched(memories[0].graphs.run("memorise", inputs)), strict=True):
        memory.made, memory.seen = {name: made[f"memory_{name}"][0] for name in memory}, {}


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
        (seen,) = self.search_many((Search((nothing, nothing), pixels, np.zeros(mask.shape, np.float32)),))
        memory = Memory(self.graphs, self.variant.shape, seen.out, mask, drawn)
        if self.variant.shape.ridge:
            memory.classifier = fitted(memory)
        return memory

    def search(self, memory: tuple[Memory, ...], pixels: UInt8, guide: Float32 | None) -> GuidedResponse:
        return self.search_many((Search(memory, pixels, guide),))[0]

    def search_many(self, searches: Sequence[Search]) -> tuple[GuidedResponse, ...]:
        guides = [search.guide for search in searches if search.guide is not None]
        if len(guides) < len(searches):
            raise InputError("A guided model searches with the last mask; give an empty one where there is none.")
        shape = self.variant.shape
        memories = {id(memory): memory for search in searches for memory in search.memory}.values()
        if waiting := [memory for memory in memories if isinstance(memory, Memory) and memory.made is None]:
            make(waiting)
        inputs = {"pixels": batched([search.pixels for search in searches]), "guide": batched(guides)}
        for i, which in enumerate(("first", "last")):
            for name in shape.memory:
                inputs[f"{which}_{name}"] = batched([search.memory[i][name] for search in searches])
        if shape.ridge:  # a memory of a later frame has none, nor has no memory: no opinion
            none = np.zeros(shape.width + 1, np.float32)
            given = (getattr(search.memory[0], "classifier", None) for search in searches)
            inputs["classifier"] = batched([none if one is None else one for one in given])
        out = self.graphs.run("search", inputs)
        return tuple(GuidedResponse(self.graphs, shape, one) for one in unbatched(out))
