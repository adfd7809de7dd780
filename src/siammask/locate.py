"""Which crop to look at, and which box the response says: one locator for each kind of head."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from siammask import anchors
from siammask.engines.base import Response
from siammask.geometry import Box, Crop, Float32, Patch, context_side
from siammask.variants import SearchSettings, Variant

if TYPE_CHECKING:
    from siammask.tracker import TrackerState

Float = NDArray[np.float64]
Int32 = NDArray[np.int32]
UInt16 = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Found:
    """Where a response says the target is."""

    box: Box  # on the frame: what the next search region is laid around
    score: float  # in [0, 1]
    row: int
    col: int
    index: int = 0  # which of the crops looked at
    peak: tuple[float, float] | None = None  # x, y on the frame of the best cell
    visible: bool = True  # False: the target seems not to be there
    said: Box | None = None  # on the frame: the box that the network says beside the mask
    shown: Box | None = None  # on the frame: the box to report, where that is another one
    cut: bool = False  # its mask reaches the rim of what was looked at, and the frame goes on


class Locator(Protocol):
    """How one kind of head is searched with. Pure: the same state and response give the same answer."""

    @property
    def settings(self) -> SearchSettings: ...

    def exemplar(self, box: Box) -> Crop:
        """The crop to remember the target by."""

    def crops(self, state: TrackerState) -> tuple[Crop, ...]:
        """The search crops to look at next (more than one only for SiamFC's scales)."""

    def find(self, state: TrackerState, crops: tuple[Crop, ...], responses: tuple[Response, ...]) -> Found:
        """The best cell and the box that its scores say."""

    def settle(self, state: TrackerState, found: Found, patch: Patch | None) -> tuple[Found, Patch | None]:
        """The last word once the mask (on the frame) is drawn: which part of it is the target, and its box."""

    def wider(self, state: TrackerState, found: Found) -> tuple[Crop, ...]:
        """The crops of a second look at the same frame, where `found` is not good enough; none where it is."""


def locator_for(variant: Variant) -> Locator:
    """The locator of a variant's locate head, with its search settings."""
    if variant.locate == "rpn":
        return AnchorLocator(variant.search)
    if variant.locate == "score":
        return PeakLocator(variant.search)
    return GuidedLocator(variant.search)


@dataclass(frozen=True, slots=True)
class GuidedLocator:
    """For networks that see the last mask: the box is that of the part of the mask that is the target."""

    settings: SearchSettings

    def exemplar(self, box: Box) -> Crop:
        """Cut by the same rule as a search crop; wider where what surrounds the target is to be remembered as well."""
        s = self.settings
        return self._crop(box, s.exemplar_factor / s.window_factor if s.exemplar_factor else 1.0)

    def crops(self, state: TrackerState) -> tuple[Crop, ...]:
        """One crop about the box; wider with speed, and while the target is not seen."""
        widen = widening(state.unsure, self.settings) * hurry(state.velocity, state.box, self.settings)
        return (self._crop(state.box, widen),)

    def find(self, state: TrackerState, crops: tuple[Crop, ...], responses: tuple[Response, ...]) -> Found:
        """The cell of the highest score; the box stays the last one until the mask is drawn."""
        (crop,), (response,) = crops, responses
        score = response.score.max(axis=0)
        row, col = _argmax(score)
        value = float(score[row, col]) if response.confidence is None else response.confidence
        cell = crop.side / score.shape[0]
        peak = (crop.place.x + (col + 0.5) * cell, crop.place.y + (row + 0.5) * cell)
        said = None if response.box is None else crop.to_frame(response.box)
        return Found(state.box, value, row, col, peak=peak, visible=value >= self.settings.lost_score, said=said)

    def settle(self, state: TrackerState, found: Found, patch: Patch | None) -> tuple[Found, Patch | None]:
        return settle_on_mask(state, found, patch, self.settings)

    def wider(self, state: TrackerState, found: Found) -> tuple[Crop, ...]:
        """A window `second_factor` times as wide, for targets that left the first one or are cut off by its rim.

        About the last box at first; while the target stays lost, about a few places, one after another, the nearest
        first.
        """
        s = self.settings
        if found.score >= s.second_score and not (s.second_score and found.cut):
            return ()
        here = self._crop(state.box, s.second_factor)
        if state.unsure < s.patience:
            return (here,)
        places = places_by_distance(state.box, state.size, 0.5 * here.side)
        begin = (state.unsure - s.patience) * s.places
        chosen = (places[i % len(places)] for i in range(begin, begin + min(s.places, len(places))))
        return tuple(self._crop(replace(state.box, cx=cx, cy=cy), s.second_factor) for cx, cy in chosen)

    def _crop(self, box: Box, widen: float) -> Crop:
        s = self.settings
        return Crop.around(box.cx, box.cy, s.window_factor * context_side(box, s.context) * widen, s.search_size)


def widening(unsure: int, s: SearchSettings) -> float:
    """Factor on the side of the search region after `unsure` frames without the target; 1 while it is seen."""
    return min(s.max_widen, 1 + s.widen_per_frame * unsure)


def places_by_distance(box: Box, size: tuple[int, int], step: float) -> tuple[tuple[float, float], ...]:
    """Points (x, y) of a grid over the frame (W, H), about `step` apart, those near the box first."""
    columns, rows = (max(1, math.ceil(length / step)) for length in size)
    points = [((i + 0.5) * size[0] / columns, (j + 0.5) * size[1] / rows) for j in range(rows) for i in range(columns)]
    return tuple(sorted(points, key=lambda p: math.hypot(p[0] - box.cx, p[1] - box.cy)))


def hurry(velocity: tuple[float, float], box: Box, s: SearchSettings) -> float:
    """Factor on the side of the search region: 1 at rest, 1 + speed_gain at the target's own size a frame."""
    return 1 + s.speed_gain * min(1.0, math.hypot(*velocity) / math.sqrt(max(1.0, box.area)))


def settle_on_mask(
    state: TrackerState, found: Found, patch: Patch | None, s: SearchSettings
) -> tuple[Found, Patch | None]:
    """The box follows the mask: min-max box of the chosen part, its centre on the frame.

    Where the network says a box too, what is told lies between the two. What the next search region is laid around
    changes its size by one step at a time, so that a mask that is wrong for a frame does not take the region along.

    Without a mask, or with a score too low, the target is not visible and its box stays where it was.
    """
    chosen = None if patch is None else choose_part(patch, state.patch, found.peak, s)
    if chosen is None:
        return replace(found, box=state.box, visible=False), patch
    part, box = chosen
    if found.said is not None:
        box = between(box, found.said, s.box_share)
    if not found.visible:
        return replace(found, box=state.box), part
    found = replace(found, cut=_cut_off(box, part, state.size))
    steady = limit_step(state.box, box, s.max_size_step)
    return replace(found, box=_at_most_the_frame(steady, state.size), shown=_at_most_the_frame(box, state.size)), part


def choose_part(
    patch: Patch, last: Patch | None, peak: tuple[float, float] | None, s: SearchSettings
) -> tuple[Patch, Box] | None:
    """The part of a drawn patch that is the target, everything else zeroed, and its box; None where nothing is drawn.

    Of the connected parts above the threshold the heaviest is chosen: probability mass weighted by the share that the
    last mask saw and by the best score cell. Other parts stay when they are large, near and certain enough to be the
    same object behind an occluder.
    """
    binary = (patch.values > s.mask_threshold).view(np.uint8)
    # labels of 16 bits take half the time of wider ones; stats: x, y, w, h, area of each part
    count, drawn, boxes, _ = cv2.connectedComponentsWithStats(binary, connectivity=8, ltype=cv2.CV_16U)
    labels, stats = cast(UInt16, drawn), cast(Int32, boxes)
    if count < 2:
        return None
    if count == 2:
        return patch, _place_box(patch, patch.values, stats[1], s.mask_threshold)
    x, y, w, h = _union(stats[1:])[:4]
    there = np.s_[y : y + h, x : x + w]  # all that is drawn lies here
    index, drawn_there = labels[there].ravel(), patch.values[there]
    mass = np.bincount(index, weights=drawn_there.ravel(), minlength=count)
    weight = mass * s.mass_weight
    if last is not None:
        seen = last.seen_in(patch.place, patch.values.shape[0])
        shared = np.bincount(index, weights=(drawn_there * seen[there]).ravel(), minlength=count)
        weight += s.overlap_weight * shared
    on_peak = None if peak is None else _label_at(labels, patch.place, peak)
    if on_peak:
        weight[on_peak] += s.peak_weight * mass[on_peak]
    best = 1 + int(np.argmax(weight[1:]))
    certain = mass >= s.part_certainty * mass[best] / stats[best][4] * stats[:, 4]
    keep = [k for k in range(1, count) if k == best or (certain[k] and _belongs(stats[k], stats[best], s))]
    dropped = np.ones(count, np.bool_)
    dropped[[0, *keep]] = False
    values = patch.values
    if dropped.any():
        values = values.copy()
        values[there][dropped[labels[there]]] = 0
    part = replace(patch, values=values)
    return part, _place_box(part, values, _union(stats[keep]), s.mask_threshold)


def _cut_off(box: Box, patch: Patch, size: tuple[int, int]) -> bool:
    """Does a mask's box reach the rim of its patch where the frame (W, H) goes on?"""
    place, cell = patch.place, 1.5 * patch.place.w / int(patch.values.shape[1])
    return (
        (box.x - place.x < cell < place.x)
        or (box.y - place.y < cell < place.y)
        or (place.x + place.w - box.x - box.w < cell < size[0] - place.x - place.w)
        or (place.y + place.h - box.y - box.h < cell < size[1] - place.y - place.h)
    )


def limit_step(last: Box, new: Box, factor: float) -> Box:
    """`new` with neither side more than `factor` times longer or shorter than in `last`."""
    w = min(max(new.w, last.w / factor), last.w * factor)
    h = min(max(new.h, last.h / factor), last.h * factor)
    return Box(new.cx, new.cy, w, h)


def between(a: Box, b: Box, share: float) -> Box:
    """The box each of whose edges lies this share of the way from that of `a` to that of `b`."""
    return Box(*(x + share * (y - x) for x, y in zip((a.cx, a.cy, a.w, a.h), (b.cx, b.cy, b.w, b.h), strict=True)))


def _belongs(part: Int32, chosen: Int32, s: SearchSettings) -> bool:
    """Is this part (a row of component stats: x, y, w, h, area) large and near enough to be of the chosen one?"""
    if part[4] < s.part_area * chosen[4]:
        return False
    gaps = [max(part[a], chosen[a]) - min(part[a] + part[a + 2], chosen[a] + chosen[a + 2]) for a in (0, 1)]
    return bool(max(gaps) <= s.part_gap * max(chosen[2], chosen[3]))


def _union(stats: Int32) -> Int32:
    """x, y, w, h of the rectangle around rows of component stats."""
    first = stats[:, :2].min(axis=0)
    return np.concatenate((first, (stats[:, :2] + stats[:, 2:4]).max(axis=0) - first))


def _label_at(labels: UInt16, place: Box, point: tuple[float, float]) -> int:
    """Label of the cell that holds `point`; 0 outside."""
    rows, columns = labels.shape
    col, row = math.floor((point[0] - place.x) * columns / place.w), math.floor((point[1] - place.y) * rows / place.h)
    return int(labels[row, col]) if 0 <= row < rows and 0 <= col < columns else 0


def _place_box(patch: Patch, values: Float32, stats: Int32, threshold: float) -> Box:
    """Min-max box, in the patch's own pixels, of the cells in the rectangle of `stats` (x, y, w, h); sub-cell."""
    x, y, w, h = (int(v) for v in stats[:4])
    left, right = _edges(values[y : y + h].max(axis=0), x, x + w, threshold)
    top, bottom = _edges(values[:, x : x + w].max(axis=1), y, y + h, threshold)
    rows, columns = values.shape
    place = patch.place
    sx, sy = place.w / columns, place.h / rows
    return Box.from_xywh(place.x + left * sx, place.y + top * sy, (right - left) * sx, (bottom - top) * sy)


def _edges(profile: Float32, first: int, end: int, threshold: float) -> tuple[float, float]:
    """Where a profile of cells rises over `threshold` at `first` and falls under it at `end`, in cells (centre j + .5).

    At the rim of the patch there is nothing to interpolate with: the edge is the rim.
    """
    return (
        0.0 if first == 0 else first + 0.5 - _crossing(profile[first - 1], profile[first], threshold),
        float(end) if end == profile.size else end - 0.5 + _crossing(profile[end], profile[end - 1], threshold),
    )


def _crossing(below: np.float32, above: np.float32, threshold: float) -> float:
    """How far from the cell above the threshold towards the one below the threshold is met, in [0, 1]."""
    if below >= threshold:  # a zero-width step: a part that was dropped touches this one's rectangle
        return 0.5
    return float((above - threshold) / (above - below))


@dataclass(frozen=True, slots=True)
class AnchorLocator:
    """For networks with a box branch: the released tracking step (SiamRPN, section 4.3)."""

    settings: SearchSettings

    def exemplar(self, box: Box) -> Crop:
        return released_exemplar(box, self.settings)

    def crops(self, state: TrackerState) -> tuple[Crop, ...]:
        return (released_search(state.box, 1.0, self.settings),)

    def find(self, state: TrackerState, crops: tuple[Crop, ...], responses: tuple[Response, ...]) -> Found:
        """The anchor with the best penalised score; its box is not yet cut to the frame."""
        (response,) = responses
        s, last = self.settings, state.box
        score = np.asarray(response.score, np.float64)
        if response.delta is None:
            raise TypeError("AnchorLocator needs a response with a box branch.")  # a variant row that cannot be
        boxes = anchors.decode(response.delta, _grid(s.stride, score.shape[-1]))
        scale = crops[0].scale
        if s.alignment == "released":
            scale = s.exemplar_size / context_side(last, s.context)  # quirk: the side before it was rounded
        penalty = change_penalty(boxes[2], boxes[3], last.w * scale, last.h * scale, s.penalty_k)
        ranked = penalty * score * (1 - s.window) + hann(score.shape[-1]) * s.window
        k, row, col = (int(i) for i in np.unravel_index(np.argmax(ranked), ranked.shape))
        cx, cy, w, h = (float(v) / scale for v in boxes[:, k, row, col])
        x, y = _middle(crops[0], last, s)
        rate = float(penalty[k, row, col] * score[k, row, col]) * s.lr
        box = Box(x + cx, y + cy, last.w * (1 - rate) + w * rate, last.h * (1 - rate) + h * rate)
        value = float(score[k, row, col])
        return Found(box, value, row, col, visible=value >= s.lost_score)

    def settle(self, state: TrackerState, found: Found, patch: Patch | None) -> tuple[Found, Patch | None]:
        """The mask's box, or the scores', cut as released: centre on the frame, sides from 10 px to the frame's."""
        if self.settings.follow == "mask":
            return settle_on_mask(state, found, patch, self.settings)
        return replace(found, box=_fit_frame(found.box, state.size)), patch

    def wider(self, state: TrackerState, found: Found) -> tuple[Crop, ...]:
        return ()  # the released step looks once


def released_exemplar(box: Box, s: SearchSettings) -> Crop:
    """The exemplar crop of the released code: the box and its context."""
    return _crop(box.cx, box.cy, context_side(box, s.context), s.exemplar_size, s)


def released_search(box: Box, factor: float, s: SearchSettings) -> Crop:
    """The search crop of the released code, its side times `factor`: the exemplar's scale over a larger window."""
    side = context_side(box, s.context) * s.search_size / s.exemplar_size
    return _crop(box.cx, box.cy, side * factor, s.search_size, s)


def _crop(cx: float, cy: float, side: float, size: int, s: SearchSettings) -> Crop:
    return (Crop.released if s.alignment == "released" else Crop.around)(cx, cy, side, size)


def _middle(crop: Crop, last: Box, s: SearchSettings) -> tuple[float, float]:
    """Where on the frame the middle of a search crop about `last` lies."""
    if s.alignment == "released":
        return last.cx, last.cy  # quirk: as if the crop had not been rounded to whole pixels
    return crop.place.cx, crop.place.cy


def change_penalty(w: Float, h: Float, last_w: float, last_h: float, k: float) -> Float:
    """exp(-k (r s - 1)) in (0, 1] for boxes whose shape changes by the factor r and whose size changes by s."""
    size = _change(_padded(w, h) / _padded(last_w, last_h))
    shape = _change((last_w / last_h) / (w / h))
    out: Float = np.exp(-(shape * size - 1) * k)
    return out


def _change(ratio: Float) -> Float:
    out: Float = np.maximum(ratio, 1.0 / ratio)
    return out


def _padded(w: Float | float, h: Float | float) -> Float:
    """Side of the square with the area of the box and its context (the released code fixes the context to .5 here)."""
    pad = (w + h) * 0.5
    out: Float = np.sqrt((w + pad) * (h + pad))
    return out


@dataclass(frozen=True, slots=True)
class PeakLocator:
    """For networks with only a score map: its peak over some scales (SiamFC), or the mask at it (two branches)."""

    settings: SearchSettings

    def exemplar(self, box: Box) -> Crop:
        return released_exemplar(box, self.settings)

    def crops(self, state: TrackerState) -> tuple[Crop, ...]:
        return tuple(released_search(state.box, factor, self.settings) for factor in self.settings.scales)

    def find(self, state: TrackerState, crops: tuple[Crop, ...], responses: tuple[Response, ...]) -> Found:
        """The highest peak of all scales; between cells the place of the peak is that of a parabola through three."""
        s, last = self.settings, state.box
        maps = [np.asarray(r.score, np.float64).max(axis=0) for r in responses]
        fines = [1.0 if f == 1.0 else s.scale_penalty for f in s.scales]
        ranked = [m * fine * (1 - s.window) + hann(m.shape[0]) * s.window for m, fine in zip(maps, fines, strict=True)]
        index = int(np.argmax([m.max() for m in ranked]))
        row, col = _argmax(ranked[index])
        n, scale = ranked[index].shape[0], crops[index].scale
        x, y = _middle(crops[index], last, s)
        x += (col + _vertex(ranked[index][row], col) - (n - 1) / 2) * s.stride / scale
        y += (row + _vertex(ranked[index][:, col], row) - (n - 1) / 2) * s.stride / scale
        grow = 1.0 if s.follow == "mask" else 1 + s.lr * (s.scales[index] - 1)
        value = float(maps[index][row, col])
        box = Box(x, y, last.w * grow, last.h * grow)
        return Found(box, value, row, col, index, peak=(x, y), visible=value >= s.lost_score)

    def settle(self, state: TrackerState, found: Found, patch: Patch | None) -> tuple[Found, Patch | None]:
        if self.settings.follow == "mask":
            return settle_on_mask(state, found, patch, self.settings)
        return replace(found, box=_fit_frame(found.box, state.size)), patch

    def wider(self, state: TrackerState, found: Found) -> tuple[Crop, ...]:
        return ()  # SiamFC and the two-branch SiamMask look once


def _vertex(line: Float, i: int) -> float:
    """Where, within half a cell of its highest value i, the parabola through it and its neighbours peaks."""
    if not 0 < i < line.size - 1:
        return 0.0
    before, here, after = (float(v) for v in line[i - 1 : i + 2])
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else 0.5 * (before - after) / bend


def _argmax(score: Float | Float32) -> tuple[int, int]:
    col, row = cv2.minMaxLoc(score)[3]
    return row, col


@lru_cache(maxsize=16)
def hann(n: int) -> Float:
    """Cosine window (n, n): 1 in the middle, 0 at the rim; read-only."""
    out: Float = np.outer(np.hanning(n), np.hanning(n))
    out.setflags(write=False)
    return out


@lru_cache(maxsize=16)
def _grid(stride: int, cells: int) -> anchors.AnchorGrid:
    return anchors.AnchorGrid(stride=stride, cells=cells)


def _fit_frame(box: Box, size: tuple[int, int]) -> Box:
    """Released clamp: centre on the frame, sides from 10 pixels to the frame's."""
    w, h = (min(max(side, 10.0), float(most)) for side, most in zip((box.w, box.h), size, strict=True))
    return replace(_centre_on_frame(box, size), w=w, h=h)


def _centre_on_frame(box: Box, size: tuple[int, int]) -> Box:
    """The box moved so that its centre lies on the frame (edges included)."""
    return replace(box, cx=min(max(box.cx, 0.0), float(size[0])), cy=min(max(box.cy, 0.0), float(size[1])))


def _at_most_the_frame(box: Box, size: tuple[int, int]) -> Box:
    """The box with its centre on the frame, and sides no longer than the frame's.

    Else a mask that fills its crop would make the next crop larger, and that one the next.
    """
    return replace(_centre_on_frame(box, size), w=min(box.w, float(size[0])), h=min(box.h, float(size[1])))
