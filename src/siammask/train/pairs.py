"""Pairs of the published family: an exemplar and a search crop of one clip, and what each cell is to say of the search.

A pair shows two frames of a clip of `siammask.train.clips`. Both crops are cut around the box of the object's visible
mask, measured alike in either, and either frame may be the exemplar: so boxes are neither larger nor smaller in the
search than in the exemplar, whatever the source, and a tracker that learns from them neither swells nor shrinks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from siammask import anchors
from siammask.anchors import AnchorGrid
from siammask.engines import Graphs, pick_precision
from siammask.geometry import Box, UInt8, context_side
from siammask.network.guided import CROP
from siammask.train import clips
from siammask.train.batches import Batch, Frozen
from siammask.train.clips import Chooser, ClipSettings, Plan
from siammask.train.pool import Pool
from siammask.variants import SearchSettings, Variant

LEAST_SIDE = 6  # px of the exemplar that the object must measure


@dataclass(frozen=True, slots=True)
class PairSettings:
    """How pairs are cut and labelled; the numbers are the released ones (crop pixels, and logarithms of factors)."""

    negative: float = 0.2  # share whose search crop shows another object
    near: float = 0.5  # share of pairs of videos that are taken close together (`clips.max_gap`), not anywhere
    still: bool = False  # stills pair with themselves, not moved
    gray: float = 0.25
    exemplar_shift: float = 4.0
    exemplar_scale: float = 0.05
    shift: float = 64.0
    scale: float = 0.18
    search_size: int = 0  # 0: as the variant tracks; the refinement stage takes 143 (light: 144)
    reach: int = 64  # masks are taught in cells up to this far from the middle cell (refinement stage: 1)
    rows: int = 4  # cells a pair that masks are taught in
    radius: float = 16.0  # without anchors a cell is the target up to this far from its centre


@dataclass(frozen=True, slots=True)
class PairGrid:
    """How the crops of a variant meet: `size` pixels of the search crop, `cells` of its score map."""

    search: SearchSettings
    size: int
    cells: int
    anchors: bool

    @classmethod
    def of(cls, variant: Variant, settings: PairSettings, cells: int) -> PairGrid:
        return cls(variant.search, settings.search_size or variant.search.search_size, cells, variant.locate == "rpn")

    def window(self, row: int, col: int) -> tuple[int, int]:
        """Left, top pixel of the search crop from which on the mask of a cell is drawn."""
        middle, s = self.cells // 2, self.search
        left, top = ((self.size - s.exemplar_size) // 2 + (at - middle) * s.stride for at in (col, row))
        return left, top


@dataclass(frozen=True, slots=True)
class View:
    """One crop (n, n, 3) BGR, the visible mask of its object (n, n), 255 = object, and that mask's box, in crop pixels
    about the crop's centre.
    """

    pixels: UInt8
    mask: UInt8
    box: Box


@dataclass(frozen=True, slots=True)
class Pair:
    exemplar: View
    search: View
    negative: bool  # the search shows another object
    boxed: bool  # the mask of the search is only its filled box


def pair(
    rng: np.random.Generator, pool: Pool, chooser: Chooser, clip: ClipSettings, s: PairSettings, grid: PairGrid
) -> Pair:
    """Draw one; unusable choices are drawn again."""
    while True:
        made = clips.plan(rng, pool, chooser, clip)
        if made is None:
            continue
        exemplar, search = frames(rng, s, made)
        negative = rng.random() < s.negative
        other = clips.plan(rng, pool, chooser, clip) if negative else made
        if other is None:
            continue
        if rng.random() < s.gray:
            made, other = _grayed(made), _grayed(other)
        size = grid.search.exemplar_size
        first = cut(pool, made, exemplar, size, grid, *_off(rng, s.exemplar_shift, s.exemplar_scale))
        if first is None or min(first.box.w, first.box.h) < LEAST_SIDE:
            continue
        second = cut(pool, other, search, grid.size, grid, *_off(rng, s.shift, s.scale))
        if second is not None:
            return Pair(first, second, negative, other.boxed)


def frames(rng: np.random.Generator, s: PairSettings, p: Plan) -> tuple[int, int]:
    """Which frames of a clip are exemplar and search."""
    if s.still and all(picture is layer.pictures[0] for layer in p.layers for picture in layer.pictures):
        return clips.A, clips.A
    a, b = int(rng.integers(clips.A, clips.FRAMES)), clips.FIRST
    if p.start or rng.random() < s.near:  # in a clip that starts with a, `first` is a itself
        b = int(rng.choice([frame for frame in range(clips.A, clips.FRAMES) if frame != a]))
    return (a, b) if rng.random() < 0.5 else (b, a)


def cut(
    pool: Pool, p: Plan, frame: int, size: int, grid: PairGrid, dx: float = 0.0, dy: float = 0.0, zoom: float = 1.0
) -> View | None:
    """The crop of `size` pixels around the object of a frame, at the scale of the exemplar times `zoom`.

    The object lies (dx, dy) pixels off its centre. None where it is not seen.
    """
    box = seen(pool, p, frame)
    if box is None:
        return None
    scale = zoom * grid.search.exemplar_size / context_side(box, grid.search.context)
    corner = (box.cx - (size / 2 + dx) / scale, box.cy - (size / 2 + dy) / scale)
    pixels, mask = clips.draw(pool, p, frame, (*corner, CROP / scale))
    mask = mask[:size, :size]
    found = Box.from_mask(mask > 127)
    if found is None:
        return None
    return View(pixels[:size, :size], mask, Box(found.cx - size / 2, found.cy - size / 2, found.w, found.h))


def seen(pool: Pool, p: Plan, frame: int) -> Box | None:
    """Box on the canvas of what is visible of the object in a frame; None where nothing is."""
    layer = next(layer for layer in p.layers if layer.target is not None)
    about = clips.moved(layer.pictures[frame].boxes.get(layer.target or 0), layer.places[frame])
    if about is None:
        return None
    middle = Box.from_xywh(*about)
    side = 1.3 * context_side(middle)  # a turned object is larger than `moved` says
    x, y = middle.cx - side / 2, middle.cy - side / 2
    _, mask = clips.draw(pool, p, frame, (x, y, side), colours=False)
    box = Box.from_mask(mask > 127)
    if box is None:
        return None
    s = side / CROP
    return Box(x + box.cx * s, y + box.cy * s, box.w * s, box.h * s)


def _off(rng: np.random.Generator, shift: float, scale: float) -> tuple[float, float, float]:
    """dx, dy and the factor of a crop that does not lie as it should; the factor's logarithm is 0 on average."""
    dx, dy = rng.uniform(-shift, shift, 2)
    return float(dx), float(dy), math.exp(rng.uniform(-scale, scale))


def _grayed(p: Plan) -> Plan:
    return replace(p, looks=tuple(replace(look, gray=True) for look in p.looks))


def sample(rng: np.random.Generator, made: Pair, s: PairSettings, grid: PairGrid) -> dict[str, np.ndarray]:
    """A pair as the network trains on it.

    `kind` (K, n, n) is 1 target, 0 background, -1 not asked; `delta` (4, K, n, n) and `weight` (K, n, n) with anchors
    only; `at` (rows,) the cells (row * n + col, -1: none) whose masks `truth` (rows, m, m), +1 and -1, are taught.
    """
    n, box = grid.cells, made.search.box
    out = {"exemplar": made.exemplar.pixels, "search": made.search.pixels}
    if grid.anchors:
        places = AnchorGrid(stride=grid.search.stride, cells=n)
        labels = anchors.label(box, places, rng, negative_pair=made.negative)
        out |= {"kind": labels.kind, "delta": labels.delta, "weight": labels.weight}
        cell = labels.cell
    else:
        cell = centre_cells(box, n, grid.search.stride, s.radius)
        if made.negative:
            cell = np.full_like(cell, -1)
        out["kind"] = (cell > 0).astype(np.int8)[None]
    near = np.abs(np.arange(n) - n // 2) <= s.reach
    index = np.flatnonzero((cell > 0) & near[:, None] & near) if not (made.negative or made.boxed) else np.empty(0, int)
    at = np.full(s.rows, -1, np.int64)
    picked = rng.choice(index, min(s.rows, index.size), replace=False)
    at[: picked.size] = picked
    size = grid.search.exemplar_size
    truth = np.full((s.rows, size, size), -1, np.int8)
    for i, cell_index in enumerate(picked):
        left, top = grid.window(*divmod(int(cell_index), n))
        truth[i] = _patch(made.search.mask, left, top, size)
    return out | {"at": at, "truth": truth}


def centre_cells(box: Box, cells: int, stride: int, radius: float) -> np.ndarray:
    """(n, n) int8: 1 up to `radius` pixels from the centre of a box (pixels about the crop's centre), else -1.

    SiamFC, section 2.2; the nearest cell is always the target.
    """
    middles = (np.arange(cells) - cells // 2) * float(stride)
    distance = np.hypot(middles[:, None] - box.cy, middles - box.cx)
    return np.where(distance <= max(radius, distance.min()), 1, -1).astype(np.int8)


def _patch(mask: UInt8, left: int, top: int, size: int) -> np.ndarray:
    """(size, size) int8 of a mask from a corner that may lie outside: +1 on the object, -1 elsewhere."""
    out = np.full((size, size), -1, np.int8)
    x0, y0, x1, y1 = max(0, left), max(0, top), min(mask.shape[1], left + size), min(mask.shape[0], top + size)
    out[y0 - top : y1 - top, x0 - left : x1 - left] = np.where(mask[y0:y1, x0:x1] > 127, 1, -1)
    return out


class Pairs(IterableDataset):  # type: ignore[type-arg]
    """Endless batches of pairs; the same seed, step and number of workers give the same ones.

    With `frozen`, the part of a light backbone that is not trained, a batch holds its features in place of pixels:
    "exemplar_f8", "search_f16" ..., (N, H, W, C) in bfloat16; those at strides 2 and 4 only of the search and only
    where the network refines masks with them (`skips`), or goes on from them.
    """

    def __init__(
        self,
        pool: Pool,
        clip: ClipSettings,
        settings: PairSettings,
        grid: PairGrid,
        batch: int,
        seed: int,
        step: int,
        frozen: Frozen | None,
        skips: bool,
    ) -> None:
        self.pool, self.clip, self.settings, self.grid = pool, clip, settings, grid
        self.batch, self.seed, self.step, self.frozen, self.skips = batch, seed, step, frozen, skips

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(1)
        info = get_worker_info()
        rng = np.random.default_rng((self.seed, self.step, info.id if info else 0))
        chooser = Chooser.make(self.pool, self.clip)
        sizes = {"exemplar": self.grid.search.exemplar_size, "search": self.grid.size}
        graphs = None if self.frozen is None else open_frozen(self.frozen, sizes, self.skips)
        while True:
            began = time.perf_counter()
            drawn = (pair(rng, self.pool, chooser, self.clip, self.settings, self.grid) for _ in range(self.batch))
            made = [sample(rng, one, self.settings, self.grid) for one in drawn]
            batch = {name: torch.from_numpy(np.stack([one[name] for one in made])) for name in made[0]}
            if graphs is not None:
                for name in sizes:
                    found = features(graphs, name, batch.pop(name).numpy())
                    batch |= {f"{name}_{stride}": f for stride, f in found.items()}
            batch["seconds"] = torch.tensor(time.perf_counter() - began)
            yield batch


def open_frozen(frozen: Frozen, sizes: dict[str, int], skips: bool) -> Graphs:
    """The frozen part as one graph a size of crop, on one thread."""
    from siammask.engines.openvino import OpenVinoGraphs
    from siammask.network.export import GraphSpec, convert

    models = {}
    with torch.inference_mode():
        for name, size in sizes.items():
            example = torch.zeros((1, size, size, 3), dtype=torch.uint8)
            made = tuple(frozen(example))
            needed = (
                made if skips and name == "search" else tuple(n for n in made if n in ("f8", "f16") or n == made[-1])
            )
            models[name] = convert(GraphSpec(frozen, {"pixels": example}, needed))
    return OpenVinoGraphs(models, pick_precision(None), threads=1)


def features(graphs: Graphs, name: str, pixels: np.ndarray) -> dict[str, Tensor]:
    """Features of crops (N, s, s, 3) by stride, (N, H, W, C) in bfloat16."""
    # a few crops at a time keep to the cache
    found = [graphs.run(name, {"pixels": pixels[i : i + 8]}) for i in range(0, len(pixels), 8)]
    return {n: torch.from_numpy(np.concatenate([f[n] for f in found])).to(torch.bfloat16) for n in found[0]}
