"""The tracking loop: `start` on one frame, `step` on each later one, `follow` over many.

`step(state, frame)` is pure: state in, new state and result out. The network remembers nothing, so any number of
targets can share one tracker. What a step must look for it asks for (it yields `Search`es and is sent the responses),
so that `step_many` can serve the steps of several targets with one call of the network for all.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np

from siammask import boxes, regions
from siammask.engines.base import Embedding, Engine, Response, Search, in_turn
from siammask.errors import InputError
from siammask.geometry import (
    Box,
    Crop,
    Float32,
    Patch,
    RotatedBox,
    UInt8,
    check_box,
    check_frame,
    filled,
    mean_colour,
)
from siammask.locate import Found, Locator, locator_for
from siammask.variants import SearchSettings, Variant

T = TypeVar("T")
Asking = Generator[tuple[Search, ...], tuple[Response, ...], T]  # asks for searches until it can say T


_CUT_OFF = 0.9  # what the score of a look that cut its target off is worth beside a wider one's


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
    age: int = 0  # frames since `last`
    rotated_box: RotatedBox | None = None  # of the last result, so that the next one's angle runs on from it


@dataclass(frozen=True, slots=True, eq=False)
class TrackResult:
    """What is known of one target on one frame; pixels of that frame."""

    box: Box
    score: float  # in [0, 1]; where calibrated, the IoU that the mask may be expected to have
    visible: bool  # False: the tracker thinks that the target is not there
    patch: Patch | None
    size: tuple[int, int]  # (W, H)
    threshold: float  # of the mask
    rotated_box: RotatedBox  # as `Tracker.rotated` says; the upright box where the mask is too small for one

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool: the object's pixels; the filled box for models that draw no mask."""
        return regions.mask_of(self.patch, self.threshold, self.size, self.box)

    @property
    def polygon(self) -> np.ndarray:
        """(N, 2) float x, y: outline of the largest part of the mask; the box's corners where there is none."""
        return regions.polygon_of(self.patch, self.threshold, self.size, self.box)


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What one search of a frame found, its mask on the frame, and where it was seen."""

    found: Found
    patch: Patch | None
    crop: Crop
    response: Response


@dataclass(frozen=True, slots=True)
class Tracker:
    """One variant running on one engine."""

    variant: Variant
    engine: Engine
    rotated: boxes.Strategy = "mbr"  # how a mask becomes a rotated box; its angle runs on from frame to frame

    def __post_init__(self) -> None:
        boxes.check_strategy(self.rotated)

    @property
    def locator(self) -> Locator:
        return locator_for(self.variant)

    def start(self, frame: UInt8, target: Box | np.ndarray) -> tuple[TrackerState, TrackResult]:
        """Begin on `frame` (H, W, 3) uint8 BGR with a box, or with a mask (H, W) whose non-zero pixels are the object.

        The first result has the given box and the given mask; from a box alone, the mask that the network draws there.
        Raises InputError for a frame, box or mask that cannot be used.
        """
        check_frame(frame)
        size = (frame.shape[1], frame.shape[0])
        box, given = _target(target, size)
        locator, settings = self.locator, self.locator.settings
        crop, fill = locator.exemplar(box), mean_colour(frame)
        pixels = crop.read(frame, fill)
        guide = given
        if guide is None and settings.guide_size:
            guide = filled(box, crop.place, settings.guide_size)
        first = self.engine.embed(pixels, _seen(guide, crop, settings), given is not None)
        state = TrackerState(box, size, fill, first, patch=guide)
        if given is not None:
            return self._told(state, given, True)
        crops = (crop,) if settings.guide_size else locator.crops(state)  # drawn in the crop that is remembered
        (look,) = _served(self.engine, [self._search(state, frame, crops)])
        patch = look.patch
        if patch is not None and settings.redraw_first:
            patch = patch.cut_to(box)
            if _area(patch, settings.mask_threshold) < settings.redraw_keep * box.area:
                return self._told(state, guide, True)
            first = self.engine.embed(pixels, _seen(patch, crop, settings), True)
            state = replace(state, first=first, patch=patch)
        return self._told(state, patch, True)

    def step(self, state: TrackerState, frame: UInt8) -> tuple[TrackerState, TrackResult]:
        """Find the target on the next frame (same size as the first).

        Raises InputError where the frame is not (H, W, 3) uint8 or has changed its size.
        """
        return self.step_many((state,), frame)[0]

    def step_many(self, states: Sequence[TrackerState], frame: UInt8) -> list[tuple[TrackerState, TrackResult]]:
        """`step` for several targets on one frame, in their order; the network is called for all of them at once."""
        for state in states:
            check_frame(frame, state.size)
        return _served(self.engine, [self._step(state, frame) for state in states])

    def _step(self, state: TrackerState, frame: UInt8) -> Asking[tuple[TrackerState, TrackResult]]:
        settings = self.locator.settings
        look = yield from self._look(state, frame)
        found, patch = look.found, look.patch
        last, age = state.last, state.age + 1
        due = last is None or age >= settings.remember_every
        if due and patch is not None and found.visible and found.score >= settings.remember_score:
            last, age = look.response.remember(patch.in_crop(look.crop)), 0
        new = replace(
            state,
            box=found.box,
            last=last,
            patch=patch,
            score=found.score,
            velocity=_velocity(state, found, settings.velocity_smooth),
            unsure=0 if found.visible else state.unsure + 1,
            age=age,
        )
        return self._told(new, patch, found.visible, found.shown)

    def _look(self, state: TrackerState, frame: UInt8) -> Asking[_Look]:
        """Search `frame` from `state`; where that is not good enough, wider, and then closely where that found it."""
        locator = self.locator
        state = moved_on(state, locator.settings.velocity_gain)
        first = yield from self._search(state, frame, locator.crops(state))
        needed = 0.0 if state.unsure < locator.settings.patience else locator.settings.found_score
        beaten = first.found.score * (_CUT_OFF if first.found.cut else 1.0)
        for crop in locator.wider(state, first.found):
            second = yield from self._search(state, frame, (crop,))
            if not second.found.visible or second.found.score <= beaten:
                continue
            box = second.found.shown or second.found.box
            guide = state.patch and state.patch.carried(state.box, box)
            there = replace(state, box=box, patch=guide, unsure=0, velocity=(0.0, 0.0))
            third = yield from self._search(there, frame, locator.crops(there))
            best = max((third, second), key=lambda look: (look.found.visible and not look.found.cut, look.found.score))
            if best.found.score > needed:
                return best
        return first

    def _search(self, state: TrackerState, frame: UInt8, crops: tuple[Crop, ...]) -> Asking[_Look]:
        """One search of each crop, and the best that came of it."""
        locator = self.locator
        last = state.first if state.last is None else state.last
        memory = (state.first if locator.settings.keep_first else last, last)
        guide = state.patch if locator.settings.give_last else None
        responses = yield tuple(
            Search(memory, crop.read(frame, state.fill), _seen(guide, crop, locator.settings)) for crop in crops
        )
        found = locator.find(state, crops, responses)
        crop, response = crops[found.index], responses[found.index]
        drawn = response.mask(found.row, found.col)
        if drawn is not None:  # an engine may have been opened with another alignment than is searched with
            drawn = replace(drawn, alignment=locator.settings.alignment).on_frame(crop)
        found, patch = locator.settle(state, found, drawn)
        return _Look(found, patch, crop, response)

    def _told(
        self, state: TrackerState, patch: Patch | None, visible: bool, shown: Box | None = None
    ) -> tuple[TrackerState, TrackResult]:
        """The result that goes with a new state, and that state with the result's rotated box."""
        settings = self.locator.settings
        box, size, threshold = shown or state.box, state.size, settings.mask_threshold
        rotated = boxes.rotated_box_of(patch, threshold, size, box, self.rotated, state.rotated_box)
        return replace(state, rotated_box=rotated), TrackResult(
            box, calibrated(state.score, settings), visible, patch, size, threshold, rotated
        )

    def follow(self, frames: Iterable[UInt8], target: Box | np.ndarray) -> Iterator[TrackResult]:
        """One result for each frame, the first included; frames are pulled one at a time."""
        state = None
        for frame in frames:
            state, result = self.start(frame, target) if state is None else self.step(state, frame)
            yield result


def _served(engine: Engine, asking: Sequence[Asking[T]]) -> list[T]:
    """What each comes to.

    Searches of several go to the engine together, which may take them one by one: then the crop of one is read, or the
    response to another made use of, while the engine works on the rest.
    """
    ends: dict[int, T] = {}
    waiting = list(range(len(asking)))
    groups: Iterable[tuple[Search, ...]] = map(next, asking)
    while waiting:
        sizes: list[int] = []
        alone = len(waiting) == 1 and len((groups := tuple(groups))[0]) == 1
        searches = _noted(groups, sizes)
        responses = in_turn(engine, searches) if alone else engine.search_many(searches)
        still, more = [], []
        for position, i in enumerate(waiting):
            first = next(responses)  # so the searches of this one are taken by now
            try:
                more.append(asking[i].send((first, *islice(responses, sizes[position] - 1))))
                still.append(i)
            except StopIteration as end:
                ends[i] = end.value
        waiting, groups = still, more
    return [ends[i] for i in range(len(asking))]


def _noted(groups: Iterable[tuple[Search, ...]], sizes: list[int]) -> Iterator[Search]:
    """The searches of all groups one by one; the size of each group that was begun is noted."""
    for group in groups:
        sizes.append(len(group))
        yield from group


def _target(target: Box | np.ndarray, size: tuple[int, int]) -> tuple[Box, Patch | None]:
    """What the caller gave, checked: its box, and where a mask was given the mask as a patch on the frame."""
    if isinstance(target, Box):
        return check_box(target, *size), None
    if not isinstance(target, np.ndarray):
        raise InputError(f"Target is a {type(target).__name__}; give a Box, or a mask as a numpy array (H, W).")
    if target.shape != (size[1], size[0]):
        raise InputError(f"Mask is {target.shape} but the frame is {(size[1], size[0])}; give a value for each pixel.")
    mask = target != 0
    box = Box.from_mask(mask)
    if box is None:
        raise InputError("Mask is empty; at least one pixel must be non-zero.")
    x, y, w, h = (int(v) for v in box.xywh)
    return check_box(box, *size), Patch(mask[y : y + h, x : x + w].astype(np.float32), box)


def _seen(patch: Patch | None, crop: Crop, settings: SearchSettings) -> Float32 | None:
    """The patch as a crop sees it, for networks that are guided by one; None for the others."""
    if not settings.guide_size:
        return None
    if patch is None:
        return np.zeros((settings.guide_size, settings.guide_size), np.float32)
    return patch.seen_by(crop, settings.guide_size)


def _area(patch: Patch, threshold: float) -> float:
    """Area above `threshold`, in the pixels that the patch lies on."""
    return float((patch.values > threshold).mean()) * patch.place.area


def calibrated(score: float, settings: SearchSettings) -> float:
    """The score as it is told: the network's own, on the scale of true overlaps (Platt, 1999); 0 and 1 stay."""
    if not 0.0 < score < 1.0:
        return score
    logit = math.log(score / (1.0 - score))
    return 1.0 / (1.0 + math.exp(-settings.score_scale * logit - settings.score_shift))


def moved_on(state: TrackerState, frames: float) -> TrackerState:
    """The state with its box and last mask where they are after so many frames of its motion; lost ones stay.

    The box's centre stays on the frame.
    """
    if not frames or state.unsure:
        return state
    (cx, cy), (width, height) = (state.box.cx, state.box.cy), state.size
    dx, dy = (frames * v for v in state.velocity)
    box = replace(state.box, cx=min(max(cx + dx, 0.0), float(width)), cy=min(max(cy + dy, 0.0), float(height)))
    return replace(state, box=box, patch=state.patch and state.patch.carried(state.box, box))


def _velocity(state: TrackerState, found: Found, share: float) -> tuple[float, float]:
    """Displacement of the box's centre in pixels a frame, smoothed over frames; kept while the target is not seen."""
    if not found.visible:
        return state.velocity
    vx, vy = state.velocity
    dx, dy = found.box.cx - state.box.cx, found.box.cy - state.box.cy
    return vx + share * (dx - vx), vy + share * (dy - vy)
