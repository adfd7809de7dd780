"""A network that needs no weights: it sees whatever has the colour that the exemplar's middle had.

It stands behind the same protocol as the real ones and answers in the manner of each kind of head, so the tracker can
be followed from end to end on drawn frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from siammask import anchors
from siammask.engines.base import Precision, Search, in_turn
from siammask.geometry import Box, Float32, Patch, UInt8
from siammask.variants import Variant

BACKGROUND = (96, 112, 80)
RED, BLUE = (40, 40, 220), (220, 60, 40)


def scene(*squares: tuple[Box, tuple[int, int, int]], size: tuple[int, int] = (320, 240)) -> UInt8:
    """A frame (H, W, 3) with filled rectangles on a plain ground; later ones in front."""
    frame = np.empty((size[1], size[0], 3), np.uint8)
    frame[:] = BACKGROUND
    for box, colour in squares:
        x0, y0 = round(box.x), round(box.y)
        cv2.rectangle(frame, (x0, y0), (x0 + round(box.w) - 1, y0 + round(box.h) - 1), colour, -1)
    return frame


@dataclass(frozen=True, slots=True)
class Memory:
    """What the fake remembers: the colour, and how large the coloured thing was in the exemplar (crop pixels)."""

    colour: tuple[float, float, float]
    area: float
    mask: Float32 | None = None
    drawn: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class FakeResponse:
    """Answers of a fake search; see FakeEngine."""

    seen: Float32  # (x, x) in [0, 1]: how much each pixel has the colour
    memory: Memory
    variant: Variant
    confidence: float | None = None
    score: Float32 = field(init=False)
    delta: Float32 | None = field(init=False, default=None)
    box: Box | None = None  # as the network says it

    def __post_init__(self) -> None:
        put = object.__setattr__
        half = self.seen.shape[0] / 2
        box = Box.from_mask(self.seen > 0.5)
        n = 16 if self.variant.mask == "guided" else 25
        if self.variant.locate == "rpn":
            grid = anchors.AnchorGrid()
            put(self, "score", np.zeros((5, n, n), np.float32))
            put(self, "delta", np.zeros((4, 5, n, n), np.float32))
            if box is not None:
                truth = Box(box.cx - half, box.cy - half, box.w, box.h)
                put(self, "score", anchors.overlap(truth, grid).astype(np.float32))
                put(self, "delta", anchors.encode(truth, grid))
            return
        if self.variant.mask == "guided":
            put(self, "score", cv2.resize(self.seen, (n, n), interpolation=cv2.INTER_AREA)[None])
            return
        score = np.zeros((n, n), np.float32)
        if box is not None:
            at = (np.arange(n) - n // 2) * 8.0
            far = ((at - (box.cx - half))[None] ** 2 + (at - (box.cy - half))[:, None] ** 2) / 20.0**2
            alike = min(box.area, self.memory.area) / max(box.area, self.memory.area)
            score = (np.exp(-far) * alike).astype(np.float32)
        put(self, "score", score[None])

    def mask(self, row: int, col: int) -> Patch | None:
        size = self.seen.shape[0]
        if self.variant.mask == "none":
            return None
        if self.variant.mask == "guided":
            values = cv2.resize(self.seen, (128, 128), interpolation=cv2.INTER_AREA)
            return Patch(values, Box.from_xywh(0, 0, size, size))
        place = Box.from_xywh((col - 4) * 8, (row - 4) * 8, 127, 127)
        return Patch(Patch(self.seen, Box.from_xywh(0, 0, size, size)).seen_in(place, 127), place, "released")

    def remember(self, patch: Patch) -> Memory | None:
        if self.variant.mask != "guided":
            return None
        return Memory(self.memory.colour, self.memory.area, patch.values, True)


@dataclass(frozen=True, slots=True)
class FakeEngine:
    """An engine for `variant` that sees the exemplar's middle colour.

    `calls` notes what was asked of it: ("embed", mask, drawn), ("search", memory, guide) or, before the searches of
    one call for several, ("search_many", how many).
    """

    variant: Variant
    confidence: float | None = None  # what guided responses say of themselves
    calls: list[tuple[object, ...]] = field(default_factory=list, compare=False)

    @property
    def name(self) -> str:
        return "fake"

    @property
    def precision(self) -> Precision:
        return "f32"

    def embed(self, pixels: UInt8, mask: Float32 | None, drawn: bool) -> Memory:
        size = self.variant.search.exemplar_size
        assert pixels.shape == (size, size, 3)
        assert pixels.dtype == np.uint8
        self.calls.append(("embed", mask, drawn))
        middle = size // 2
        colour = tuple(float(v) for v in pixels[middle, middle])
        return Memory(colour, float((_alike(pixels, colour) > 0.5).sum()), mask, drawn)  # type: ignore[arg-type]

    def search(self, memory: tuple[Memory, ...], pixels: UInt8, guide: Float32 | None) -> FakeResponse:
        size = self.variant.search.search_size
        assert pixels.shape == (size, size, 3)
        assert pixels.dtype == np.uint8
        assert len(memory) == 2
        self.calls.append(("search", memory, guide))
        return FakeResponse(_alike(pixels, memory[0].colour), memory[0], self.variant, self.confidence)

    def search_many(self, searches: Iterable[Search]) -> Iterator[FakeResponse]:
        together = list(searches)
        self.calls.append(("search_many", len(together)))
        return in_turn(self, together)  # type: ignore[return-value]


def _alike(pixels: UInt8, colour: tuple[float, ...]) -> Float32:
    """1 where a pixel has the colour, falling to 0 at the colour of the ground."""
    far = np.abs(pixels.astype(np.float32) - np.array(colour, np.float32)).max(axis=2)
    most = max(abs(a - b) for a, b in zip(colour, BACKGROUND, strict=True))
    return np.clip(1.0 - far / max(most, 1.0), 0, 1).astype(np.float32)
