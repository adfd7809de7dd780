"""What `test_group.py` trains: a guided network drawing one crop of each clip, on the same clips in every case."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lively import guided_network
from rich.console import Console
from safetensors.torch import save_file

from siammask.network.guided import Features, Guided
from siammask.train import batches, clips, guided, loop, losses, pool
from siammask.train.batches import Batch
from siammask.train.config import DataConfig, OptimConfig, TrainConfig
from siammask.train.task import Steps

BATCH, DIES = 4, 2  # step in which the second process dies, once


def settings(root: Path, out: Path) -> TrainConfig:
    """Four steps in float32, which any number of processes rounds alike, saved every second."""
    start = out.parent / "start.safetensors"
    if not start.exists():
        save_file(guided_network().state_dict(), start)
    return TrainConfig(
        "guided",
        str(out),
        DataConfig(str(root), ("blobs", "stills"), str(out.parent / "cache"), workers=0),
        seed=5,
        init=str(start),
        threads=1,
        save_every=2,
        optim=OptimConfig(steps=4, batch=BATCH, lr=1e-4, warmup=2, amp=False),
    )


def drawn(c: TrainConfig, network: Guided, step: int, device: torch.device) -> Iterator[Batch]:
    """This process's share of the clips of each step."""
    data = pool.build(Path(c.data.root), Path(c.data.cache), c.data.sources)
    chooser = clips.Chooser.make(data, c.data.clips)
    rank, size = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    seeds = loop.Group.named().share(None) if size == 1 else _seeds(c.seed, size)
    if rank == 0 and seeds:
        (Path(c.output) / "seeds.json").write_text(json.dumps(seeds))
    while True:
        rng = np.random.default_rng(step)
        made = [batches.clip(rng, data, chooser, c.data.clips) for _ in range(BATCH)]
        given = [batches.guided_sample(one, batches.guides(rng, one.start)) for one in made]
        yield batches.collate(given[rank * c.optim.batch : (rank + 1) * c.optim.batch])
        step += 1


def _seeds(seed: int, size: int) -> list[int]:
    found: list[int] = [0] * size
    torch.distributed.all_gather_object(found, seed)
    return found


def step(network: Guided, batch: Batch, c: TrainConfig, number: int) -> Steps:
    """Losses of drawing a; nothing in it is drawn at random."""
    if number == DIES and os.environ.get("RANK") == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
        print("the second process dies", file=sys.stderr, flush=True)
        os._exit(7)
    masks = batch["masks"].float() / 255.0
    found, _ = guided.features(network, batch, c.optim)
    first, a = (Features(*(t[i :: len(clips.SHOWN)] for t in found)) for i in range(2))
    memory = network.memorise(first.feat, first.key, first.low, masks[:, :1], batch["drawn"].view(-1, 1, 1, 1))
    told = losses.guided_losses(network.draw(a, memory, memory, masks[:, 1:2]), masks[:, 1:2], c.loss)
    return Steps(losses.total(told, c.loss), {name: float(value.detach()) for name, value in told.items()})


def train(c: TrainConfig) -> None:
    """The loop with that task."""
    task = replace(guided.TASK, batches=drawn, step=step)
    usual, loop.task_of = loop.task_of, lambda row: task
    try:
        loop.run(c, console=Console(file=io.StringIO()))
    finally:
        loop.task_of = usual


if __name__ == "__main__":
    train(settings(Path(sys.argv[1]), Path(sys.argv[2])))
