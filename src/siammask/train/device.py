"""Training clips drawn where the network is: the pool's bytes lie on the device, and plans are drawn there in batches.

Workers only choose (`clips.plan`) and write their choices down as tables of numbers (`pack`); `draw` reads four pixels
of the pool for each pixel that it draws, for all layers of all crops at once, and returns what `batches.collate` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from siammask.network.guided import CROP, MASK
from siammask.train import effects
from siammask.train.batches import Batch, Guides, guides
from siammask.train.clips import (
    FIRST,
    LEAST_AREA,
    LEAST_SIDE,
    SHOWN,
    A,
    Chooser,
    ClipSettings,
    Cut,
    Layer,
    Look,
    P,
    Plan,
    bend_field,
    drawn_layers,
    plan,
    view,
)
from siammask.train.pool import IGNORE, Picture, Pool

SLOTS = len(SHOWN)
_CHUNK = 64  # layers read at a time: 64 x 256 x 256 indices are 34 MB


@dataclass(frozen=True)
class Packed:
    """Plans as tables. A slot is a crop to draw, SLOTS of them a clip; a view is a layer as one crop sees it.

    `alphas` are masks of objects to be read through a view; they are named by their row.
    """

    # one row a view; the first `coloured` of them are drawn, of the others only masks are read
    offset: Tensor  # (V,) int64, of the picture in the pool
    size: Tensor  # (V, 2) int64 width, height
    small: Tensor  # (V, 2) int64 of the shrunk copy that is read
    inverse: Tensor  # (V, 2, 3) crop pixel -> pixel of the shrunk copy
    bend: Tensor  # (V,) int64 row of `fields`, -1: none
    fields: Tensor  # (K, 2, 5, 5)
    fill: Tensor  # (V, 3) colour around the picture, -1: its mirror image
    tint: Tensor  # (V, 4)
    factors: tuple[int, ...]  # of each view
    coloured: int
    # one row an alpha
    alpha_view: Tensor  # (M,) int64
    alpha_id: Tensor  # (M,) int64 of the object
    alpha_box: Tensor  # (M, 4) int64 left, top, right, bottom of a filled box, -1: the picture has a mask
    alpha_cut: Tensor  # (M, 2, 3), two half-planes
    alpha_factors: tuple[int, ...]
    rims: tuple[tuple[int, Picture, int], ...]  # alpha, picture, object: of these the rim is not known
    # layers from below, each as rows (slot, view, alpha or -1, alpha that is the truth from here on or -1)
    layers: tuple[tuple[tuple[int, int, int, int], ...], ...]
    # one a clip
    before: Tensor  # (N, 2) int64 alphas whose union was drawn at p
    after: Tensor  # (N, 2) the same of a; -1: what is seen of the target there
    starts: tuple[bool, ...]
    boxed: tuple[bool, ...]
    crops: Tensor  # (N, SLOTS, 3)
    box_error: Tensor  # (N, 4)
    looks: tuple[Look, ...]  # of each slot
    guides: tuple[Guides, ...]

    def to(self, device: torch.device) -> Packed:
        """The same with its tensors on `device`."""
        values = {n: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for n, v in vars(self).items()}
        return Packed(**values)


def batches(
    pool: Pool, settings: ClipSettings, batch: int, seed: int, step: int, workers: int, device: torch.device
) -> Iterator[Batch]:
    """Endless batches on `device`, with pixels; planned by `workers` processes, drawn here.

    The pool's file goes to the device as it is: as much memory as it has bytes.
    """
    flat = on_device(pool, device)
    loader = DataLoader(
        Plans(pool, settings, batch + max(2, batch // 8), seed, step),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
    )
    for packed in loader:
        began = time.perf_counter()
        drawn = draw(flat, packed.to(device), batch)
        if drawn is not None:
            yield drawn | {"seconds": torch.tensor(time.perf_counter() - began)}


def on_device(pool: Pool, device: torch.device) -> Tensor:
    """All bytes of a pool, (bytes,) uint8; on the CPU the mapped file itself."""
    size = pool.file.stat().st_size
    return torch.from_file(str(pool.file), shared=False, size=size, dtype=torch.uint8).to(device)


class Plans(IterableDataset):  # type: ignore[type-arg]
    """Endless packed plans, `count` at a time; the same seed, step and number of workers give the same plans."""

    def __init__(self, pool: Pool, settings: ClipSettings, count: int, seed: int, step: int) -> None:
        self.pool, self.settings, self.count, self.seed, self.step = pool, settings, count, seed, step

    def __iter__(self) -> Iterator[Packed]:
        info = get_worker_info()
        rng = np.random.default_rng((self.seed, self.step, info.id if info else 0))
        chooser = Chooser.make(self.pool, self.settings)
        while True:
            made: list[Plan] = []
            while len(made) < self.count:
                one = plan(rng, self.pool, chooser, self.settings)
                if one is not None:
                    made.append(one)
            yield pack(made, [guides(rng, p.start or p.boxed) for p in made])


def pack(plans: Sequence[Plan], given: Sequence[Guides]) -> Packed:
    """Plans as tables; reads no pixel."""
    views: list[tuple[Any, ...]] = []
    alphas: list[tuple[Any, ...]] = []
    rims: list[tuple[int, Picture, int]] = []
    fields: list[np.ndarray] = []
    depth = max(len(p.layers) for p in plans)
    layers: list[list[tuple[int, int, int, int]]] = [[] for _ in range(depth)]

    def see(layer: Layer, frame: int, crop: tuple[float, float, float], around: tuple[int, ...] | None) -> int:
        picture = layer.pictures[frame]
        matrix, factor = view(layer.places[frame], crop)
        bend = -1
        if layer.bend is not None and frame != FIRST:
            bend = len(fields)
            fields.append(bend_field(layer.bend, frame))
        small = max(1, round(picture.width / factor)), max(1, round(picture.height / factor))
        views.append((picture, small, matrix, bend, around or (-1, -1, -1), layer.colour, factor))
        return len(views) - 1

    def alpha(at: int, layer: Layer, k: int, cut: Cut | None = None, soft: bool = False) -> int:
        picture: Picture = views[at][0]
        box = (-1, -1, -1, -1)
        if not picture.mask:
            x, y, w, h = picture.boxes.get(k, (0.0, 0.0, 0.0, 0.0))
            box = round(max(0.0, x)), round(max(0.0, y)), round(x + w), round(y + h)
        elif soft and picture.ignore:
            rims.append((len(alphas), picture, k))
        halves = (cut or ((0.0, 0.0, 1.0),)) * 2
        alphas.append((at, k, box, halves[:2]))
        return len(alphas) - 1

    for n, p in enumerate(plans):
        for slot, frame in enumerate(SHOWN):
            if p.start and frame == A:
                continue  # it is the first crop once more
            for number, layer in enumerate(p.layers):
                if not layer.shown[frame]:
                    continue
                at = see(layer, frame, p.crops[frame], p.fill if number == 0 else None)
                over = truth = -1
                if layer.object_id is not None:
                    over = alpha(at, layer, layer.object_id)
                    truth = over
                if layer.target is None:
                    truth = -1
                elif layer.object_id is None or layer.cuts is not None:
                    truth = alpha(at, layer, layer.target, layer.cut(frame), soft=layer.object_id is None)
                layers[number].append((SLOTS * n + slot, at, over, truth))
    coloured = len(views)
    drawn: dict[int, list[list[int]]] = {P: [], A: []}
    for p in plans:
        for frame, pairs in drawn.items():
            if frame == A and not p.drift:
                pairs.append([-1, -1])
                continue
            union = [
                alpha(see(one, frame, p.crops[A], None), one, one.target, one.cut(frame)) for one in drawn_layers(p)
            ]
            pairs.append((union * 2)[:2])
    pictures, small, matrices, bends, fills, colours, factors = zip(*views, strict=True)
    forward = np.stack(matrices)
    turn = np.linalg.inv(forward[:, :, :2])
    inverse = np.concatenate((turn, -turn @ forward[:, :, 2:]), 2)
    alpha_view, alpha_id, alpha_box, alpha_cut = zip(*alphas, strict=True)
    return Packed(
        offset=torch.tensor([picture.offset for picture in pictures]),
        size=torch.tensor([(picture.width, picture.height) for picture in pictures]),
        small=torch.tensor(small),
        inverse=torch.from_numpy(inverse.astype(np.float32)),
        bend=torch.tensor(bends),
        fields=torch.from_numpy(np.stack(fields)) if fields else torch.zeros((0, 2, 5, 5)),
        fill=torch.tensor(fills, dtype=torch.float32),
        tint=torch.tensor(colours, dtype=torch.float32),
        factors=factors,
        coloured=coloured,
        alpha_view=torch.tensor(alpha_view),
        alpha_id=torch.tensor(alpha_id),
        alpha_box=torch.tensor(alpha_box),
        alpha_cut=torch.tensor(alpha_cut, dtype=torch.float32),
        alpha_factors=tuple(factors[i] for i in alpha_view),
        rims=tuple(rims),
        layers=tuple(map(tuple, layers)),
        before=torch.tensor(drawn[P]),
        after=torch.tensor(drawn[A]),
        starts=tuple(p.start for p in plans),
        boxed=tuple(p.boxed for p in plans),
        crops=torch.tensor([[p.crops[i] for i in SHOWN] for p in plans], dtype=torch.float32),
        box_error=torch.tensor([p.box_error for p in plans], dtype=torch.float32),
        looks=tuple(p.looks[FIRST if p.start and frame == A else frame] for p in plans for frame in SHOWN),
        guides=tuple(given),
    )


@torch.no_grad()
def draw(flat: Tensor, p: Packed, batch: int) -> Batch | None:
    """The first `batch` clips whose target can be seen in its first crop, as `batches.collate` gives them.

    Where fewer can, they come again; None where none can.
    """
    device, n = flat.device, len(p.starts)
    colours = _colours(flat, p)
    alphas = _alphas(flat, p)
    canvas = torch.zeros((SLOTS * n, 3, CROP, CROP), device=device)
    truth = torch.zeros((SLOTS * n, CROP, CROP), device=device)
    for number, rows in enumerate(p.layers):
        slot, at, over, seen = torch.tensor(rows, device=device).unbind(1)
        colour = effects.tint(colours[at].float(), p.tint[at])
        if number == 0:
            canvas[slot] = colour
            truth[slot] = torch.where((seen >= 0)[:, None, None], alphas[seen.clamp(min=0)].float(), 0.0)
            continue
        alpha = alphas[over].float()
        below = canvas[slot]
        canvas[slot] = torch.round(below + (colour - below) * effects.soften(alpha)[:, None] / 255)
        mine = alphas[seen.clamp(min=0)].float()
        truth[slot] = torch.where((seen >= 0)[:, None, None], mine, torch.minimum(truth[slot], 255 - alpha))
    start = torch.tensor(p.starts, device=device)
    again = torch.where(start, 0, 1) + SLOTS * torch.arange(n, device=device)
    canvas[1::SLOTS], truth[1::SLOTS] = canvas[again], truth[again]
    before = torch.where(start[:, None, None], truth[0::SLOTS], alphas[p.before].amax(1).float())
    drifted = p.after[:, 0] >= 0
    after = torch.where(drifted[:, None, None], alphas[p.after.clamp(min=0)].amax(1).float(), truth[1::SLOTS])

    x0, y0, x1, y1, found = effects.box_of(truth[0::SLOTS])
    large = torch.minimum(x1 - x0, y1 - y0) >= LEAST_SIDE
    usable = found & large & ((truth[0::SLOTS] > 127).float().mean((1, 2)) >= LEAST_AREA)
    chosen = torch.nonzero(usable)[:, 0]  # the one place where the device is waited for
    if len(chosen) == 0:
        return None
    chosen = chosen[torch.arange(batch, device=device) % len(chosen)]
    names = chosen.tolist()
    box = _filled(torch.stack((x0, y0, x1, y1), 1)[chosen], p.box_error[chosen])
    slots = (SLOTS * chosen[:, None] + torch.arange(SLOTS, device=device)).flatten()
    pixels = effects.finish(canvas[slots], [p.looks[SLOTS * i + k] for i in names for k in range(SLOTS)])
    masks = _half(truth[slots]).view(batch, SLOTS, MASK, MASK)
    given = [p.guides[i] for i in names]
    last = (_half(before[chosen]), _half(after[chosen]))
    return _batch(pixels, masks, last, box, p.crops[chosen], names, p, given) | {"drifted": drifted[chosen]}


def _batch(
    pixels: Tensor,
    masks: Tensor,
    last: tuple[Tensor, Tensor],
    box: Tensor,
    crops: Tensor,
    names: list[int],
    p: Packed,
    given: list[Guides],
) -> Batch:
    """As `batches.guided_sample`, for all clips."""
    device = pixels.device

    def flag(values: list[bool]) -> Tensor:
        return torch.tensor(values, device=device)

    def choose(where: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.where(where[:, None, None], a, b)

    start, only_box = flag([p.starts[i] for i in names]), flag([g.box for g in given])
    spoilt = [i for i, g in enumerate(given) if g.first is not None]
    first = masks[:, 0].clone()
    if spoilt:
        first[spoilt] = effects.spoil(first[spoilt], [given[i].first for i in spoilt])
    guide = effects.spoil(last[0], [g.guide for g in given])
    teacher = effects.spoil(last[1], [g.teacher for g in given])
    whole = {
        "pixels": pixels.permute(0, 2, 3, 1),
        "masks": masks,
        "box": box,
        "first": choose(only_box, box, first),
        "guide": choose(start, box, guide),
        "teacher": teacher,
    }
    return {name: tensor.to(torch.uint8).contiguous() for name, tensor in whole.items()} | {
        "crops": crops,
        "drawn": (~only_box).float(),
        "start": start,
        "boxed": flag([p.boxed[i] for i in names]),
    }


def _colours(flat: Tensor, p: Packed) -> Tensor:
    """Every coloured view as its crop sees it, (V, 3, 256, 256) uint8."""
    out = torch.empty((p.coloured, 3, CROP, CROP), dtype=torch.uint8, device=flat.device)
    for factor, names in _chunks(p.factors[: p.coloured]):
        rows = torch.tensor(names, device=flat.device)
        start, width = _column(p.offset[rows]), _column(p.size[rows, 0])

        def read(x: Tensor, y: Tensor, start: Tensor = start, width: Tensor = width) -> Tensor:
            index = start + (y * width + x) * 3
            return torch.stack([flat[index + c] for c in range(3)], 1).float()

        out[rows] = _bilinear(p, rows, factor, p.fill[rows], read).to(torch.uint8)
    return out


def _alphas(flat: Tensor, p: Packed) -> Tensor:
    """Every alpha as its view sees it, (M, 256, 256) uint8: 255 inside, 127 where the truth is not known."""
    out = torch.empty((len(p.alpha_view), CROP, CROP), dtype=torch.uint8, device=flat.device)
    soft = {number: (picture, k) for number, picture, k in p.rims}
    for factor, names in _chunks(p.alpha_factors):
        rows = torch.tensor(names, device=flat.device)
        at = p.alpha_view[rows]
        width, height = _column(p.size[at, 0]), _column(p.size[at, 1])
        start = _column(p.offset[at]) + width * height * 3
        planes, places = _rims(flat, [soft.get(name) for name in names])

        def read(x: Tensor, y: Tensor, at: Any = (start, width, rows, planes, places)) -> Tensor:
            start, width, rows, planes, places = at
            here = y * width + x
            k = _column(p.alpha_id[rows])
            value = 255.0 * (flat[(start + here).clamp(max=len(flat) - 1)] == k)
            x0, y0, x1, y1 = (_column(v) for v in p.alpha_box[rows].unbind(1))
            value = torch.where(x0 >= 0, 255.0 * ((x >= x0) & (x < x1) & (y >= y0) & (y < y1)), value)
            if planes is not None:
                for i, place in places:
                    value[i] = planes[place + here[i]].float()
            for half in p.alpha_cut[rows].unbind(1):
                a, b, d = (_column(v) for v in half.unbind(1))
                value = torch.where(a * x + b * y < d, value, 0.0)
            return value[:, None]

        nothing = torch.zeros((len(rows), 1), device=flat.device)
        out[rows] = _bilinear(p, at, factor, nothing, read)[:, 0].to(torch.uint8)
    return out


def _rims(flat: Tensor, wanted: list[tuple[Picture, int] | None]) -> tuple[Tensor | None, list[tuple[int, int]]]:
    """Planes of the masks whose rim is not known, one after the other, and (row, where its plane begins)."""
    planes, places, length = [], [], 0
    for row, one in enumerate(wanted):
        if one is None:
            continue
        picture, k = one
        start = picture.offset + picture.width * picture.height * 3
        ids = flat[start : start + picture.width * picture.height].view(1, 1, picture.height, picture.width)
        inside = (ids == k).float()
        near = F.max_pool2d(inside, 13, 1, 6)
        planes.append(torch.maximum(255 * inside, 127 * near * (ids == IGNORE)).flatten().to(torch.uint8))
        places.append((row, length))
        length += planes[-1].numel()
    return (torch.cat(planes), places) if planes else (None, [])


def _bilinear(p: Packed, rows: Tensor, factor: int, fill: Tensor, read: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """What the views `rows` see, (R, C, 256, 256) rounded: read(x, y) gives (R, C, 256, 256) of the whole picture.

    Outside it is `fill` (R, C), or the picture's mirror image where that is negative.
    """
    xs, ys = _coordinates(p, rows)
    width, height = _column(p.size[rows, 0]), _column(p.size[rows, 1])
    small_w, small_h = _column(p.small[rows, 0]), _column(p.small[rows, 1])
    x0, y0 = xs.floor(), ys.floor()
    fx, fy = (xs - x0)[:, None], (ys - y0)[:, None]
    x0, y0 = x0.long(), y0.long()
    outside = fill[:, :, None, None]
    total = torch.zeros((len(rows), fill.shape[1], CROP, CROP), device=fill.device)
    for dx, weight_x in ((0, 1 - fx), (1, fx)):
        x = x0 + dx
        mirrored_x, in_x = _mirrored(x, small_w), (x >= 0) & (x < small_w)
        for dy, weight_y in ((0, 1 - fy), (1, fy)):
            y = y0 + dy
            mirrored_y, inside = _mirrored(y, small_h), in_x & (y >= 0) & (y < small_h)
            if factor == 1:
                value = read(mirrored_x, mirrored_y)
            else:  # the mean of the pixels that this pixel of the small copy stands for
                left, top = mirrored_x * width // small_w, mirrored_y * height // small_h
                value = torch.zeros_like(total)
                for j in range(factor):
                    for i in range(factor):
                        value += read((left + i).clamp(max=width - 1), (top + j).clamp(max=height - 1))
                value = (value / factor**2 + 0.5).floor()
            value = torch.where(inside[:, None] | (outside < 0), value, outside)
            total += value * weight_x * weight_y
    return (total + 0.5).floor()


def _coordinates(p: Packed, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Where in the small copies the pixels of the crops lie: x and y, (R, 256, 256)."""
    line = torch.arange(CROP, device=p.inverse.device, dtype=torch.float32)
    u, v = line.view(1, 1, -1).expand(len(rows), CROP, -1), line.view(1, -1, 1).expand(len(rows), -1, CROP)
    bend = p.bend[rows]
    if len(p.fields):
        fields = F.interpolate(p.fields[bend.clamp(min=0)], (CROP, CROP), mode="bicubic", align_corners=False)
        fields = fields * (bend >= 0).view(-1, 1, 1, 1)
        u, v = u + fields[:, 0], v + fields[:, 1]
    m = p.inverse[rows][:, :, :, None, None]
    return m[:, 0, 0] * u + m[:, 0, 1] * v + m[:, 0, 2], m[:, 1, 0] * u + m[:, 1, 1] * v + m[:, 1, 2]


def _mirrored(index: Tensor, length: Tensor) -> Tensor:
    """Indices reflected into 0..length - 1, the border pixel not repeated."""
    period = (2 * (length - 1)).clamp(min=1)
    index = torch.remainder(index, period)
    return torch.minimum(torch.minimum(index, period - index), length - 1)


def _chunks(factors: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Rows that have the same factor, a few at a time."""
    for factor in sorted(set(factors)):
        rows = [i for i, f in enumerate(factors) if f == factor]
        for i in range(0, len(rows), _CHUNK):
            yield factor, rows[i : i + _CHUNK]


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)


def _half(masks: Tensor) -> Tensor:
    """Masks at half their size."""
    return (F.avg_pool2d(masks[:, None], 2)[:, 0] + 0.5).floor()


def _filled(boxes: Tensor, error: Tensor) -> Tensor:
    """Boxes (N, 4) in crop pixels, given with an error, as masks of themselves (N, 128, 128)."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    x0, y0, x1, y1 = (_column(v) for v in (boxes + error * sides).clamp(0, CROP).round().unbind(1))
    line = torch.arange(CROP, device=boxes.device)
    xs, ys = line.view(1, 1, -1), line.view(1, -1, 1)
    return _half(255.0 * ((xs >= x0) & (xs < x1) & (ys >= y0) & (ys < y1)))
