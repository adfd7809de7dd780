"""Batches of training clips, made in processes of their own: drawn, and sent through the frozen part of the backbone.

The frozen part runs in OpenVINO (bf16 where the CPU computes in it), which is several times faster than torch on a CPU.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset, get_worker_info

from siammask.engines import EngineOptions, Graphs, open_engine, pick_precision
from siammask.network.guided import CROP
from siammask.network.light import Light
from siammask.tracker import Tracker
from siammask.train import followed
from siammask.train.clips import SHOWN, Chooser, ClipSettings, Rendered, Spoiling, plan, render, spoil, spoiling
from siammask.train.pool import Pool
from siammask.variants import variant

Batch = dict[str, Tensor]
FEATURES = ("f2", "f4", "f8", "f16")  # by stride; a batch holds pixels, or the first few of these


class Frozen(nn.Module):
    """The part of the backbone that is not trained, its blocks before `end`: uint8 (N, 256, 256, 3) BGR -> features.

    With `crop` those of the same pictures as a network with crops of that side sees them.
    """

    def __init__(self, backbone: Light, end: int, crop: int | None = None) -> None:
        super().__init__()
        self.backbone, self.end, self.crop = backbone, end, crop

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """By the first few names of FEATURES; channels last, as the trainer wants them in memory."""
        seen = pixels.permute(0, 3, 1, 2).float()
        features = self.backbone.begin(seen if self.crop is None else averaged(seen, self.crop), self.end)
        return {name: f.permute(0, 2, 3, 1) for name, f in zip(FEATURES[: len(features)], features, strict=True)}


def averaged(x: Tensor, side: int) -> Tensor:
    """Square pictures (..., s, s) float as (..., side, side), side <= s: each value the mean of the area it covers."""
    before = int(x.shape[-1])
    if before == side:
        return x
    edges = torch.arange(side + 1, device=x.device, dtype=x.dtype) * (before / side)
    reach = (edges[:, None] - torch.arange(before, device=x.device, dtype=x.dtype)).clamp(0.0, 1.0)  # up to each edge
    share = (reach[1:] - reach[:-1]) * (side / before)
    return share @ x @ share.T


DEPTH = 8  # batches of clips that wait to be used once more, for each size of crop


@dataclass(frozen=True, slots=True)
class Seen:
    """A clip and what the frozen part of the backbone says of its four crops, or their pixels."""

    clip: Rendered
    inputs: Batch  # each (4, H, W, C)


class Clips(IterableDataset):  # type: ignore[type-arg]
    """Endless batches; the same seed, step and number of workers give the same clips.

    A batch holds features of one of `frozen`, chosen by chance; its pixels where there are none. Each clip is drawn
    once and used `echo` times, each time in other company and with other faults in the masks that go with it (Choi et
    al., Faster neural network training with data echoing, 2019). `follow` names the variant and the folder of weights
    of the tracker whose clips `settings.followed` asks for.
    """

    def __init__(
        self,
        pool: Pool,
        settings: ClipSettings,
        batch: int,
        seed: int,
        step: int,
        frozen: tuple[Frozen, ...] = (),
        echo: int = 1,
        follow: tuple[str, Path | None] | None = None,
    ) -> None:
        self.pool, self.settings, self.batch, self.seed, self.step = pool, settings, batch, seed, step
        self.frozen, self.echo, self.follow = frozen, echo, follow

    def __iter__(self) -> Iterator[Batch]:
        cv2.setNumThreads(1)
        info = get_worker_info()
        rng = np.random.default_rng((self.seed, self.step, info.id if info else 0))
        sizes = np.random.default_rng((self.seed & 0xFFFFFFFF, self.step))  # the same in all processes of a run
        chooser = Chooser.make(self.pool, self.settings)
        draw = self._drawing(rng, chooser)
        graphs: list[Graphs | None] = [*map(_openvino, self.frozen)] or [None]
        waiting: list[list[Seen]] = [[] for _ in graphs]
        while True:
            began = time.perf_counter()
            i = int(sizes.integers(len(graphs)))
            full = len(waiting[i]) >= DEPTH * self.batch
            fresh = -(-self.batch // self.echo) if full else self.batch
            drawn = [draw() for _ in range(fresh)]
            done = time.perf_counter()
            seen = [Seen(one, inputs) for one, inputs in zip(drawn, _inputs(graphs[i], drawn), strict=True)]
            frozen = time.perf_counter() - done
            again = [waiting[i].pop(int(rng.integers(len(waiting[i])))) for _ in range(self.batch - fresh)]
            waiting[i] += seen * (self.echo - 1)
            del waiting[i][: max(0, len(waiting[i]) - (DEPTH + 1) * self.batch)]
            batch = collate([self._sample(rng, one) for one in seen + again])
            batch["seconds"] = torch.tensor(time.perf_counter() - began)
            if graphs[i] is not None:
                batch["frozen"] = torch.tensor(frozen)  # of these, what the network's first blocks took
            yield batch

    def _drawing(self, rng: np.random.Generator, chooser: Chooser) -> Callable[[], Rendered]:
        """What draws the next clip: one that is made up, or, of the share that is to be so, one that was followed."""

        def made() -> Rendered:
            return clip(rng, self.pool, chooser, self.settings)

        if self.follow is None or not self.settings.followed:
            return made
        name, weights = self.follow
        tracker = Tracker(variant(name), open_engine(variant(name), EngineOptions(threads=1), weights))
        lived = followed.clips(rng, self.pool, chooser, self.settings, tracker)
        return lambda: next(lived) if rng.random() < self.settings.followed else made()

    @staticmethod
    def _sample(rng: np.random.Generator, seen: Seen) -> Batch:
        one = seen.clip
        return guided_sample(one, AS_DRAWN if one.followed else guides(rng, one.start or one.boxed), seen.inputs)


def processes(workers: int) -> dict[str, Any]:
    """Options of a DataLoader whose batches are made in so many processes of their own; 0: in this one.

    They are not forked from this one: OpenVINO, once it has computed here, would wait in them for threads that a fork
    does not take along. What they are given is pickled (a `Pool` as its path, which they map again).
    """
    if not workers:
        return {"num_workers": 0}
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    return {"num_workers": workers, "prefetch_factor": 4, "multiprocessing_context": method}


def clip(rng: np.random.Generator, pool: Pool, chooser: Chooser, settings: ClipSettings) -> Rendered:
    """One clip; unusable choices are drawn again."""
    while True:
        made = plan(rng, pool, chooser, settings)
        drawn = render(pool, made) if made is not None else None
        if drawn is not None:
            return drawn


@dataclass(frozen=True, slots=True)
class Guides:
    """Which masks the network is given with a clip, and what is wrong with them."""

    box: bool  # of the first frame only the filled box
    first: Spoiling | None  # else its mask, spoiled; None: as it is
    guide: Spoiling  # of p, for drawing a
    teacher: Spoiling  # of a, for drawing b


AS_DRAWN = Guides(False, None, Spoiling(), Spoiling())  # nothing is wrong but what a tracker did


def guides(rng: np.random.Generator, box: bool) -> Guides:
    """Choose them; where `box`, the first frame's box is all that may be given."""
    box = box or rng.random() < 0.15
    first = spoiling(rng, 0.3) if rng.random() < 0.7 else None
    return Guides(box, first, spoiling(rng), spoiling(rng, 0.7))


def guided_sample(drawn: Rendered, given: Guides, inputs: Batch | None = None) -> Batch:
    """A clip as the guided network trains on it: with the first mask, and the guides of a and b.

    Masks are (128, 128) uint8. `first` is what the first memory gets, `drawn` 0 where that is only the filled box.
    `inputs` is what the network sees of its crops, where that is not their pixels.
    """
    first = drawn.masks[0] if given.first is None else spoil(drawn.masks[0], given.first)
    masks = {
        "masks": drawn.masks,
        "crops": drawn.crops,
        "box": drawn.box,
        "first": drawn.box if given.box else first,
        "drawn": np.float32(not given.box),
        "guide": drawn.box if drawn.start else spoil(drawn.before, given.guide),
        "teacher": spoil(drawn.after, given.teacher),
        "start": np.bool_(drawn.start),
        "boxed": np.bool_(drawn.boxed),
        "drifted": np.bool_(drawn.drifted),
    }
    return {name: torch.from_numpy(np.asarray(value)) for name, value in masks.items()} | (inputs or _pixels(drawn))


def collate(samples: list[Batch]) -> Batch:
    """Stack by name; the crops of clip n are the pixels, or the features, from n * len(SHOWN) on."""
    batch = {name: torch.stack([s[name] for s in samples]) for name in samples[0]}
    return {name: x.flatten(0, 1) if name in ("pixels", *FEATURES) else x for name, x in batch.items()}


def _openvino(frozen: Frozen) -> Graphs:
    """The graph "frozen" on one thread."""
    from siammask.engines.openvino import OpenVinoGraphs
    from siammask.network.export import GraphSpec, convert

    example = torch.zeros((1, CROP, CROP, 3), dtype=torch.uint8)
    with torch.inference_mode():
        names = tuple(frozen(example))
    model = convert(GraphSpec(frozen, {"pixels": example}, names))
    return OpenVinoGraphs({"frozen": model}, pick_precision(None), threads=1)


def _inputs(graphs: Graphs | None, drawn: list[Rendered]) -> list[Batch]:
    """Of each clip the features of its crops, or without `graphs` their pixels."""
    if graphs is None:
        return [_pixels(one) for one in drawn]
    found = _frozen_features(graphs, np.concatenate([one.pixels for one in drawn]))
    split = {name: x.split(len(SHOWN)) for name, x in found.items()}
    return [{name: parts[i] for name, parts in split.items()} for i in range(len(drawn))]


def _pixels(drawn: Rendered) -> Batch:
    return {"pixels": torch.from_numpy(drawn.pixels)}


def _frozen_features(graphs: Graphs, pixels: np.ndarray) -> Batch:
    """Features of (N, 256, 256, 3) by name, (N, H, W, C) in bfloat16."""
    # a few crops at a time keep to the cache
    found = [graphs.run("frozen", {"pixels": pixels[i : i + 8]}) for i in range(0, len(pixels), 8)]
    return {n: torch.from_numpy(np.concatenate([f[n] for f in found])).to(torch.bfloat16) for n in found[0]}
