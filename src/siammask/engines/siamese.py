"""The released family as an engine: what its graphs mean, whatever runs them.

Graphs: "embed" (pixels -> kernel_*); "search" (pixels, kernel_* -> score_logits, delta, correlation, p0, p1, p2); and
for the mask of one cell "vector" (correlation -> mask) or "refine" (correlation, w0, w1, w2 -> mask).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from siammask.engines.base import Embedding, Graphs, Precision, Search
from siammask.errors import InputError
from siammask.geometry import Box, Float32, Patch, UInt8
from siammask.variants import Variant

VECTOR = 63  # side of the mask that a correlation vector is decoded to without refinement
# Cells of the features at strides 2, 4, 8 that a mask window spans (resnet50 loses some to missing padding).
WINDOWS = {"resnet50": (61, 31, 15), "light": (64, 32, 16)}


@dataclass(frozen=True, slots=True)
class SiameseEngine:
    """A network of the released family on some runtime; see `siammask.engines.base.Engine`."""

    graphs: Graphs
    variant: Variant

    @property
    def name(self) -> str:
        return self.graphs.name

    @property
    def precision(self) -> Precision:
        return self.graphs.precision

    def embed(self, pixels: UInt8, mask: Float32 | None = None, drawn: bool = False) -> Embedding:
        """Kernels of an exemplar crop; this family sees only the crop, so `mask` and `drawn` do not matter."""
        _check(pixels, self.variant.search.exemplar_size, "Exemplar")
        return self.graphs.run("embed", {"pixels": pixels[None]})

    def search(self, memory: tuple[Embedding, ...], pixels: UInt8, guide: Float32 | None = None) -> SiameseResponse:
        """What a search crop says of the first remembered exemplar; this family uses no other memory and no guide."""
        return SiameseResponse(self.graphs, self.variant, self.graphs.run("search", self._inputs(memory, pixels)))

    def search_many(self, searches: Iterable[Search]) -> Iterator[SiameseResponse]:
        inputs = (self._inputs(search.memory, search.pixels) for search in searches)
        return (SiameseResponse(self.graphs, self.variant, seen) for seen in self.graphs.run_each("search", inputs))

    def _inputs(self, memory: tuple[Embedding, ...], pixels: UInt8) -> dict[str, np.ndarray]:
        _check(pixels, self.variant.search.search_size, "Search")
        return {**memory[0], "pixels": pixels[None]}


@dataclass(frozen=True, eq=False)
class SiameseResponse:
    """One search; see `siammask.engines.base.Response`. Masks are drawn when asked for, one cell at a time."""

    graphs: Graphs
    variant: Variant
    seen: dict[str, np.ndarray]

    @cached_property
    def score(self) -> Float32:
        """(K, n, n) in [0, 1]: softmax over (not target, target) of each anchor; logistic without anchors."""
        logits = self.seen["score_logits"][0]
        if self.variant.locate == "rpn":
            background, target = logits.reshape(2, -1, *logits.shape[1:])  # released order: class, anchor
            logits = target - background
        score: Float32 = np.exp(-np.logaddexp(0, -logits))
        return score

    @property
    def delta(self) -> Float32 | None:
        """(4, K, n, n); None without a box branch."""
        if "delta" not in self.seen:
            return None
        delta: Float32 = self.seen["delta"][0]
        return delta.reshape(4, -1, *delta.shape[1:])

    @property
    def confidence(self) -> float | None:
        return None

    @property
    def box(self) -> None:
        return None

    def mask(self, row: int, col: int) -> Patch | None:
        """The mask of a cell: (127, 127) refined or (63, 63), over the window that the exemplar would cover there."""
        if self.variant.mask == "none":
            return None
        inputs = {"correlation": self.seen["correlation"][:, :, row, col]}
        settings = self.variant.search
        size, stride = settings.exemplar_size, settings.stride
        n = self.seen["correlation"].shape[-1]
        # the middle cell's window lies in the middle of the crop; released: left = (col - 4) * 8
        left, top = ((settings.search_size - size) / 2 + (at - (n - 1) / 2) * stride for at in (col, row))
        if self.variant.mask == "refined":
            for level, window in enumerate(WINDOWS[self.variant.backbone]):
                step = stride >> (2 - level)  # pixels from one cell of this level to the next: 2, 4, 8
                inputs[f"w{level}"] = _window(self.seen[f"p{level}"], int(top) // step, int(left) // step, window)
            values = self.graphs.run("refine", inputs)["mask"][0]
        else:
            values = self.graphs.run("vector", inputs)["mask"][0]
        return Patch(values, Box.from_xywh(left, top, size, size), settings.alignment)

    def remember(self, patch: Patch) -> Embedding | None:
        """This family keeps its first exemplar."""
        return None


def _window(features: Float32, top: int, left: int, size: int) -> Float32:
    """(1, C, size, size) of (1, C, h, w) from a corner that may lie outside; 0 there."""
    _, channels, height, width = features.shape
    out = np.zeros((1, channels, size, size), np.float32)
    y0, x0, y1, x1 = max(0, top), max(0, left), min(height, top + size), min(width, left + size)
    out[:, :, y0 - top : y1 - top, x0 - left : x1 - left] = features[:, :, y0:y1, x0:x1]
    return out


def _check(pixels: UInt8, size: int, what: str) -> None:
    if pixels.shape != (size, size, 3) or pixels.dtype != np.uint8:
        raise InputError(f"{what} crop is {pixels.shape} {pixels.dtype}; expected ({size}, {size}, 3) uint8 BGR.")
