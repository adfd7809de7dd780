"""The tracking loop: `start` on one frame, `step` on each later one, `follow` over many.

`step(state, frame)` is pure: state in, new state and result out. The network remembers nothing, so any number of
targets can share one tracker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from siammask import regions
from siammask.engines.base import Embedding, Engine
from siammask.errors import InputError
from siammask.geometry import Box, Patch, RotatedBox, UInt8, check_box, check_frame, mean_colour
from siammask.locate import Locator, locator_for
from siammask.variants import Variant


@dataclass(frozen=True, slots=True, eq=False)
class TrackerState:
    """All that is known of one target between two frames; boxes and patch in pixels of the frame."""

    box: Box
    size: tuple[int, int]  # (W, H) of every frame of this clip
    fill: tuple[int, int, int]  # mean colour of the first frame
    first: Embedding
    last: Embedding | None = None
    patch: Patch | None = None
    score: float = 1.0
    velocity: tuple[float, float] = (0.0, 0.0)  # pixels a frame
    unsure: int = 0  # frames since the last one that scored well


@dataclass(frozen=True, slots=True, eq=False)
class TrackResult:
    """What is known of one target on one frame; pixels of that frame."""

    box: Box
    score: float  # in [0, 1]
    visible: bool  # False: the tracker thinks that the target is not there
    patch: Patch | None
    size: tuple[int, int]  # (W, H)
    threshold: float  # of the mask

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool: the object's pixels; the filled box for models that draw no mask."""
        return regions.mask_of(self.patch, self.threshold, self.size, self.box)

    @property
    def rotated_box(self) -> RotatedBox:
        """The smallest rotated rectangle around the mask (MBR); the upright box where the mask is too small for one."""
        return regions.rotated_box_of(self.patch, self.threshold, self.size, self.box)

    @property
    def polygon(self) -> np.ndarray:
        """(N, 2) float x, y: outline of the largest part of the mask; the box's corners where there is none."""
        return regions.polygon_of(self.patch, self.threshold, self.size, self.box)


@dataclass(frozen=True, slots=True)
class Tracker:
    """One variant running on one engine."""

    variant: Variant
    engine: Engine

    @property
    def locator(self) -> Locator:
        return locator_for(self.variant)

    def start(self, frame: UInt8, target: Box | np.ndarray) -> tuple[TrackerState, TrackResult]:
        """Begin on `frame` (H, W, 3) uint8 BGR with a box, or with a mask (H, W) whose non-zero pixels are the object.

        Raises InputError for a frame, box or mask that cannot be used.
        """
        raise NotImplementedError

    def step(self, state: TrackerState, frame: UInt8) -> tuple[TrackerState, TrackResult]:
        """Find the target on the next frame (same size as the first).

        Raises InputError where the frame is not (H, W, 3) uint8 or has changed its size.
        """
        raise NotImplementedError

    def follow(self, frames: Iterable[UInt8], target: Box | np.ndarray) -> Iterator[TrackResult]:
        """One result for each frame, the first included; frames are pulled one at a time."""
        state = None
        for frame in frames:
            state, result = self.start(frame, target) if state is None else self.step(state, frame)
            yield result
