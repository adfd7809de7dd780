"""Clips of where the tracker got to: it follows targets of the pool, and the network learns from there.

Their crops lie where the tracker looked, and the masks given with them are those it had drawn, right or wrong. So the
network meets the mistakes it makes and not only those that somebody thought of (DAgger: Ross et al., A reduction of
imitation learning and structured prediction to no-regret online learning, AISTATS 2011).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from siammask.errors import InputError
from siammask.geometry import Box, Crop, Patch, UInt8, filled, mean_colour
from siammask.network.guided import CROP, MASK
from siammask.regions import Mask
from siammask.tracker import Tracker, TrackerState, moved_on
from siammask.train import harder
from siammask.train.clips import (
    LEAST_AREA,
    LEAST_SIDE,
    Affine,
    Chooser,
    ClipSettings,
    Rendered,
    about,
    colours_of,
    cut_box,
    finish,
    gap_of,
    look,
    object_mask,
    part_of,
    rotation,
    seeds_of,
    targets_of,
)
from siammask.train.pool import Clip, Pool

LENGTH = 16  # frames that a target is followed for
LEAST = 9  # frames a scene must have
STEPS = 3  # frames of a clip beside the first: a, b, c
ASTRAY = 0.5  # the last mask is where it overlaps less than this with the true one
EASY = 0.85  # clips that the tracker draws better than this throughout are mostly left out
KINDS = ("whole", "part", "double", "poles")
SHARES = (0.25, 0.4, 0.2, 0.15)  # of the kinds
SAME = 1.6  # factor on a part's share of its object up to which it counts as the same part
CLUSTERED = 64  # pixels a side of a target whose pixels are clustered, at most


Shown = tuple[list[UInt8], list[Mask], list[Affine] | None]  # frames, masks; of a still where each frame shows it


class Scene(NamedTuple):
    """A video with the target's true masks, and the target as it is given on the first frame."""

    frames: list[UInt8]
    masks: list[Mask]
    box: Box


@dataclass(frozen=True, slots=True)
class Followed:
    """One frame that was followed: where the tracker looked first, with what in mind, and what it then drew."""

    crop: Crop
    before: Patch | None
    state: TrackerState


def clips(
    rng: np.random.Generator, pool: Pool, chooser: Chooser, settings: ClipSettings, tracker: Tracker
) -> Iterator[Rendered]:
    """Endless clips, a few of each scene. Raises InputError where the pool has nothing to follow."""
    if not any(_can_be_followed(clip) for clip in pool.clips):
        raise InputError(
            f"data.clips.followed is {settings.followed:g}, but the pool has no still with masks, and no masked video "
            f"of {LEAST} frames; add a source to `data.sources`, or give 0."
        )
    while True:
        found = scene(rng, pool, chooser, settings)
        if found is not None:
            yield from lived(rng, found, tracker, settings)


def lived(rng: np.random.Generator, told: Scene, tracker: Tracker, settings: ClipSettings) -> Iterator[Rendered]:
    """Follow the target of a scene and cut what happened into clips, most of those that went well left out."""
    first = replace(tracker.locator.exemplar(told.box), size=CROP)
    state, _ = tracker.start(told.frames[0], told.box)
    given = _drawn(state.patch, first)
    if (given > 127).mean() < LEAST_AREA:
        return
    steps: list[Followed] = []
    for frame in told.frames[1:]:
        there = moved_on(state, tracker.variant.search.velocity_gain)
        (crop,) = tracker.locator.crops(there)
        state, _ = tracker.step(state, frame)
        steps.append(Followed(replace(crop, size=CROP), there.patch, state))
    for begin in range(int(rng.integers(STEPS)), len(steps) - STEPS + 1, STEPS):
        made = _clip(rng, told, first, given, begin, steps[begin : begin + STEPS], settings)
        if made is not None:
            yield made


def _clip(
    rng: np.random.Generator,
    told: Scene,
    first: Crop,
    given: UInt8,
    begin: int,
    steps: list[Followed],
    settings: ClipSettings,
) -> Rendered | None:
    """The first frame and the steps from number `begin` on; None where they are left out."""
    numbers = range(begin + 1, begin + 1 + len(steps))  # the first frame is no step
    truth = [_seen(told.masks[n], s.crop) for n, s in zip(numbers, steps, strict=True)]
    drawn = [_drawn(s.state.patch, s.crop) for s in steps]
    overlaps = [_overlap(a, b) for a, b in zip(truth, drawn, strict=True)]
    gone = not any((mask > 127).any() for mask in truth)
    if (gone or min(overlaps) > EASY) and rng.random() < 0.7:
        return None
    colours = colours_of(rng, settings)
    seeds = seeds_of(rng, settings, 1 + len(steps))
    crops = [first, *(s.crop for s in steps)]
    frames = [told.frames[0], *(told.frames[n] for n in numbers)]
    pixels = [
        finish(crop.read(frame, steps[0].state.fill), look(seed, *colours, settings.camera))
        for frame, crop, seed in zip(frames, crops, seeds, strict=True)
    ]
    made = Rendered(
        np.stack(pixels),
        np.stack([given, *truth]),
        _drawn(steps[0].before, steps[0].crop),
        drawn[0],
        np.array([(c.x, c.y, c.side) for c in crops], np.float32),
        _levels(filled(told.box, first.place, MASK).values),
        start=False,
        boxed=False,
        drifted=overlaps[0] < ASTRAY,
        followed=True,
    )
    return _mirrored(made, told.frames[0].shape[1]) if rng.random() < 0.5 else made


def _mirrored(clip: Rendered, width: int) -> Rendered:
    """The clip in a mirror; its frames are `width` pixels wide."""
    crops = clip.crops.copy()
    crops[:, 0] = width - crops[:, 0] - crops[:, 2]
    maps = {name: getattr(clip, name)[..., ::-1].copy() for name in ("masks", "before", "after", "box")}
    return replace(clip, pixels=clip.pixels[:, :, ::-1].copy(), crops=crops, **maps)


def scene(rng: np.random.Generator, pool: Pool, chooser: Chooser, settings: ClipSettings) -> Scene | None:
    """A real video, or a still under a moving camera; None where the choice is of no use."""
    clip = chooser.clip(rng)
    if not _can_be_followed(clip):
        return None
    found = (_video if clip.is_video else _still)(rng, pool, clip, settings)
    if found is None:
        return None
    frames, masks, places = found
    kind = KINDS[int(rng.choice(len(KINDS), p=SHARES))]
    if kind == "part":
        piece = part(rng, frames[0], masks[0], settings)
        if piece is None:
            return None
        pieces = harder.held(frames, masks, piece) if places is None else [_warped(piece, place) for place in places]
        count = trusted(pieces, masks) if places is None else len(pieces)
        if count < LEAST:
            return None
        frames, masks = frames[:count], pieces[:count]
    elif kind == "double":
        frames = harder.double(frames, masks)
    elif kind == "poles":
        made = harder.poles(frames, masks, pool.pixels(chooser.ground(rng)), rng)
        if made is None:
            return None
        frames, masks = made
    box = Box.from_mask(masks[0])
    if box is None or min(box.w, box.h) < LEAST_SIDE:
        return None
    error = rng.normal(0, 0.025, 4) * (box.w, box.h, box.w, box.h)
    left, top, right, bottom = np.array((box.x, box.y, box.x + box.w, box.y + box.h)) + error
    return Scene(frames, masks, Box.from_xywh(left, top, right - left, bottom - top))


def _can_be_followed(clip: Clip) -> bool:
    return clip.pictures[0].mask and not clip.cutout and (not clip.is_video or len(clip.pictures) >= LEAST)


def _video(rng: np.random.Generator, pool: Pool, clip: Clip, settings: ClipSettings) -> Shown | None:
    """Frames of a video, forwards or backwards, every one or some left out."""
    n = len(clip.pictures)
    gap = min(gap_of(rng, settings), (n - 1) // (LEAST - 1))
    count = min(LENGTH, (n - 1) // gap + 1)
    begin = int(rng.integers(n - (count - 1) * gap))
    picks = [begin + i * gap for i in range(count)]
    pictures = [clip.pictures[i] for i in (picks if rng.random() < 0.5 else picks[::-1])]
    ids = [k for k, box in pictures[0].boxes.items() if min(box[2:]) >= settings.min_side and k in pictures[1].boxes]
    if not ids or any((p.width, p.height) != (pictures[0].width, pictures[0].height) for p in pictures):
        return None
    k = int(rng.choice(ids))
    return [pool.pixels(p) for p in pictures], [object_mask(pool, p, k) for p in pictures], None


def _still(rng: np.random.Generator, pool: Pool, clip: Clip, settings: ClipSettings) -> Shown | None:
    """A still as a moving, turning, zooming camera sees it."""
    picture = clip.pictures[0]
    ids = targets_of(picture, settings)
    if not ids:
        return None
    k = int(rng.choice(ids))
    x, y, w, h = picture.boxes[k]
    middle, size = np.array((x + w / 2, y + h / 2)), math.sqrt(w * h)
    pixels, mask = pool.pixels(picture), object_mask(pool, picture, k)
    fast = 2.2 if rng.random() < settings.fast else 1.0
    drift = rng.normal(0, 0.06 * size * fast, 2)
    spin, zoom = rng.normal(0, 0.01), rng.normal(0, 0.01)
    flat, fill = (picture.width, picture.height), mean_colour(pixels)
    place, places = np.eye(2, 3), []
    for _ in range(LENGTH):
        places.append(place)
        angle, grow = spin + rng.normal(0, 0.03 * fast), math.exp(zoom + rng.normal(0, 0.02 * fast))
        spot = place[:, :2] @ middle + place[:, 2]
        if not (0 < spot[0] < picture.width and 0 < spot[1] < picture.height):
            drift = -drift
        shift = drift + rng.standard_t(3, 2) * 0.04 * size * fast
        place = about(place, spot, np.hstack([grow * rotation(angle), shift[:, None]]))
    frames = [cv2.warpAffine(pixels, place, flat, borderValue=fill) for place in places]
    return frames, [_warped(mask, place) for place in places], places


def _warped(mask: Mask, place: Affine) -> Mask:
    """A mask on a frame of the same size, at another place."""
    height, width = mask.shape
    moved = cv2.warpAffine(mask.view(np.uint8), place, (width, height), flags=cv2.INTER_NEAREST)
    return np.asarray(moved > 0)


def part(rng: np.random.Generator, frame: UInt8, mask: Mask, settings: ClipSettings) -> Mask | None:
    """A part of the target: of one colour, cut by lines, or by a box about one of its pixels; None of an empty mask."""
    box = Box.from_mask(mask)
    if box is None:
        return None
    if rng.random() < settings.coloured and (piece := of_one_colour(rng, frame, mask)) is not None:
        return piece
    if rng.random() < 0.5:
        return cut_box(mask, box.xywh, part_of(rng, settings.small))
    y, x = (int(v) for v in rng.choice(np.argwhere(mask)))
    reach = rng.uniform(0.15 - 0.07 * bool(settings.small), 0.4) * np.exp(rng.normal(0, 0.2, 2)) * (box.w, box.h)
    piece = np.zeros_like(mask)
    rows, columns = (slice(max(0, round(at - r)), round(at + r)) for at, r in ((y, reach[1]), (x, reach[0])))
    piece[rows, columns] = mask[rows, columns]
    return piece


def trusted(pieces: list[Mask], wholes: list[Mask]) -> int:
    """On how many frames a piece that was carried along may still be the same one.

    Until its share of the target has changed by more than `SAME`: it has run over into the rest, or been lost.
    """
    shares = [piece.sum() / max(1, whole.sum()) for piece, whole in zip(pieces, wholes, strict=True)]
    for i, (share, whole) in enumerate(zip(shares, wholes, strict=True)):
        if whole.any() and not shares[0] / SAME <= share <= shares[0] * SAME:
            return i
    return len(pieces)


def of_one_colour(rng: np.random.Generator, frame: UInt8, mask: Mask) -> Mask | None:
    """A piece of the target with a border of its own - a face, a jersey, a wheel - as a clustering of its pixels by
    colour and place finds it; None where none has a twelfth to two thirds of the target.
    """
    box = Box.from_mask(mask)
    if box is None:
        return None
    x, y, w, h = (int(v) for v in box.xywh)
    there = np.s_[y : y + h, x : x + w]
    side = math.ceil(max(w, h) / CLUSTERED)
    small = (max(2, w // side), max(2, h // side))
    colours = cv2.cvtColor(cv2.resize(frame[there], small, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2LAB)
    inside = cv2.resize(mask[there].view(np.uint8), small, interpolation=cv2.INTER_NEAREST) > 0
    places = np.argwhere(inside)
    count = int(rng.integers(2, 6))
    if len(places) < 12 * count:
        return None
    cv2.setRNGSeed(int(rng.integers(2**31)))
    near = rng.uniform(0.5, 2.0) * 80 / math.sqrt(len(places))  # how many levels of colour the target's size is worth
    rows = np.hstack([colours[inside] * (0.5, 1.0, 1.0), places * near]).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_MAX_ITER | cv2.TERM_CRITERIA_EPS, 10, 1.0)
    _, labels, _ = cv2.kmeans(rows, count, None, stop, 1, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
    label = np.zeros(inside.shape, np.uint8)
    label[inside] = 1 + labels[:, 0]
    pieces = []
    for k in range(1, count + 1):
        smooth = cv2.medianBlur((label == k).astype(np.uint8), 3)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(smooth, connectivity=4)
        best = int(np.argmax(stats[1:, cv2.CC_STAT_AREA], axis=0)) + 1 if len(stats) > 1 else 0
        if best and 1 / 12 < stats[best, cv2.CC_STAT_AREA] / len(places) < 2 / 3:
            pieces.append(parts == best)
    if not pieces:
        return None
    chosen = cv2.resize(pieces[int(rng.integers(len(pieces)))].astype(np.uint8), (w, h)) > 0
    piece = np.zeros_like(mask)
    piece[there] = chosen & mask[there]
    return piece


def _seen(mask: Mask, crop: Crop) -> UInt8:
    """A mask (H, W) as a crop sees it, (128, 128), 255 = object."""
    height, width = mask.shape
    return _drawn(Patch(mask.astype(np.float32), Box.from_xywh(0, 0, width, height)), crop)


def _drawn(patch: Patch | None, crop: Crop) -> UInt8:
    """A patch as a crop sees it, likewise; empty where nothing was drawn."""
    return np.zeros((MASK, MASK), np.uint8) if patch is None else _levels(patch.seen_by(crop, MASK))


def _levels(values: np.ndarray) -> UInt8:
    return np.asarray((255 * values + 0.5).astype(np.uint8))


def _overlap(a: UInt8, b: UInt8) -> float:
    one, other = a > 127, b > 127
    return float((one & other).sum() / max(1, (one | other).sum()))
