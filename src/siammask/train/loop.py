"""The training loop: batches in, weights out. What is special to a kind of network is its `Task`.

siammask train configs/guided.toml
"""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import nn

from siammask.engines import cpu_features
from siammask.engines.base import Engine
from siammask.errors import InputError, WeightsError
from siammask.evaluate.report import evaluate_sequences
from siammask.evaluate.sequences import Sequence, find_sequences
from siammask.tracker import Tracker
from siammask.train import config as configs
from siammask.train import guided, siamese
from siammask.train.config import TrainConfig
from siammask.train.group import Group, joined
from siammask.train.harder import harder
from siammask.train.optim import Muon, split
from siammask.train.task import Task
from siammask.variants import Variant, variant


def main(file: Path, resume: bool = False, stages: bool = False, seed: int | None = None) -> None:
    """Run a config to its last step; `resume` goes on from `last.pt` in its output folder.

    With `stages` the runs go before it whose weights it begins with: what is finished of them is left as it is, what
    was begun is gone on with. With a `seed` the run has that one and an output folder of its own (`configs.seeded`).
    Raises InputError for a bad config, or an output folder that holds a run which is not to be resumed; WeightsError
    where `resume` finds nothing.
    """
    for stage in configs.stages(file)[:-1] if stages else ():
        c = configs.read(stage)
        if not (Path(c.output) / "final.safetensors").exists():
            run(c, (Path(c.output) / "last.pt").exists())
    c = configs.read(file)
    run(c if seed is None else configs.seeded(c, seed), resume)


def run(c: TrainConfig, resume: bool = False, console: Console | None = None) -> None:
    """As `main`, for a config already read; started by `torchrun`, as one of its processes."""
    row = variant(c.variant).searching(**c.search)
    task = task_of(row)
    device = _device(c.device)
    with joined(c.device) as group:
        if device.type == "cuda" and group.size > 1:
            device = torch.device("cuda", group.local_rank)
        _run(c, row, task, group, device, resume, console or Console(quiet=not group.leads))


def _run(
    c: TrainConfig, row: Variant, task: Task, group: Group, device: torch.device, resume: bool, console: Console
) -> None:
    out = Path(c.output)
    again = group.restarts > 0
    state = None
    if group.leads:
        there = (out / "last.pt").exists()
        if there and not resume and not again:
            raise InputError(f"{out} holds a run already; go on with --resume, or give another `output`.")
        out.mkdir(parents=True, exist_ok=True)
        if resume or (again and there):
            state = read_state(out / "last.pt")
    state = group.share(state)
    if c.threads:
        torch.set_num_threads(c.threads)
    torch.manual_seed(c.seed)
    network = task.network(c).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = make_optimizer(task.groups(network, c), c)
    step = 0 if state is None else restore(state, network, average, optimizer)
    own = replace(c, seed=group.seed(c.seed), optim=replace(c.optim, batch=group.portion(c.optim.batch)))
    torch.manual_seed(own.seed)
    with group.one_by_one():  # the first decodes the pool
        batches = task.batches(own, network, step, device)
    validates = group.leads and c.validate_every > 0
    validation = validation_sequences(c) if validates else ()
    hard = harder_sequences(c) if validates else ()
    log = Log(out / "log.csv", step, task.says) if group.leads else None
    best = best_so_far(out / "validation.jsonl")
    half = c.optim.amp and device.type == "cpu" and "amx_bf16" in cpu_features()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[says]}"),
        console=console,
        disable=not group.leads,
    ) as bar:
        shown = bar.add_task(c.variant, total=c.optim.steps, completed=step, says="")
        while step < c.optim.steps:
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            if not c.data.workers and "frozen" in batch:  # in this process, and part of the network's work
                waited -= float(batch["frozen"])
            rate = set_rate(optimizer, step, c)
            network.train()
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                made = task.step(network, batch, c, step)
            optimizer.zero_grad(set_to_none=True)
            made.total.backward()
            parts = group.average(network, made.parts)
            norm = nn.utils.clip_grad_norm_(network.parameters(), c.optim.clip)
            if not torch.isfinite(norm):
                raise WeightsError(f"Step {step}: the gradient is not finite; lower optim.lr ({c.optim.lr}).")
            optimizer.step()
            follow(average, network, min(c.optim.ema, (1 + step) / (10 + step)))
            step += 1
            seconds = time.perf_counter() - began
            if log is None:
                continue
            log.write(step, rate=rate, norm=float(norm), seconds=seconds, waited=waited, **parts)
            bar.update(shown, completed=step, says=log.says())
            if step % c.save_every == 0 or step == c.optim.steps:
                save(out / "last.pt", network, average, optimizer, step)
            if c.keep_every and step % c.keep_every == 0:
                save_weights(out / f"step-{step:06}.safetensors", average, c, step, {})
            if validation and (step % c.validate_every == 0 or step == c.optim.steps):
                figures = validate(row, task.engine(average, c, str(device)), validation, hard)
                with (out / "validation.jsonl").open("a") as file:
                    file.write(json.dumps({"step": step, **figures}) + "\n")
                console.print(f"step {step}: " + "  ".join(f"{k} {v:.3f}" for k, v in figures.items()))
                if figures["mean"] > best:
                    best = figures["mean"]
                    save_weights(out / "best.safetensors", average, c, step, figures)
    if group.leads:
        save_weights(out / "final.safetensors", average, c, step, {})


def task_of(row: Variant) -> Task:
    """How a variant is trained."""
    return guided.TASK if row.mask == "guided" else siamese.TASK


def make_optimizer(groups: Iterable[dict[str, Any]], c: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, Muon or SGD over groups of parameters, each with its `share` of the learning rate."""
    o = c.optim
    if o.method == "muon":
        return Muon(split(groups), lr=o.lr, weight_decay=o.weight_decay, betas=(0.9, 0.99))
    if o.method == "sgd":
        return torch.optim.SGD(groups, lr=o.lr, weight_decay=o.weight_decay, momentum=0.9)
    return torch.optim.AdamW(groups, lr=o.lr, weight_decay=o.weight_decay, betas=(0.9, 0.99))


def set_rate(optimizer: torch.optim.Optimizer, step: int, c: TrainConfig) -> float:
    """Linear warm-up, the full rate, from `decay_from` on a fall to `final`; returns the rate of the head."""
    o = c.optim
    begin = max(float(o.warmup), o.decay_from * o.steps)
    if step < o.warmup:
        share = o.warmup_from + (1 - o.warmup_from) * (step + 1) / o.warmup
    else:
        t = min(1.0, max(0.0, step - begin) / max(1.0, o.steps - begin))
        cosine = o.final + (1 - o.final) * 0.5 * (1 + math.cos(math.pi * t))
        share = o.final**t if o.schedule == "log" else cosine
    for group in optimizer.param_groups:
        group["lr"] = o.lr * share * group["share"]
    return o.lr * share


def validation_sequences(c: TrainConfig) -> tuple[Sequence, ...]:
    """The sequences held out of training."""
    if not c.data.validation:
        return ()
    return tuple(s for name in c.data.validation for s in find_sequences(Path(c.data.root) / name))


def harder_sequences(c: TrainConfig) -> tuple[Sequence, ...]:
    """Harder versions of those, made in the cache where they are asked for and missing."""
    return harder(validation_sequences(c), Path(c.data.cache) / "harder") if c.data.harder else ()


def validate(
    row: Variant, engine: Engine, sequences: tuple[Sequence, ...], hard: tuple[Sequence, ...] = ()
) -> dict[str, float]:
    """The closed-loop tracker on the validation sequences: J, F and success AUC, and their mean.

    With harder ones the same of those, and the mean over both.
    """
    figures: dict[str, float] = {}
    for prefix, some in (("", sequences), ("hard_", hard)):
        if some:
            means = evaluate_sequences(some, Tracker(row, engine)).means
            three = {"J": means.get("J", 0.0), "F": means.get("F", 0.0), "AUC": means["success_auc"]}
            figures |= {prefix + name: value for name, value in three.items()}
    return figures | {"mean": sum(figures.values()) / len(figures)}


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Exponential moving average of the weights; running statistics are taken as they are."""
    for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1.0 - decay)
    for slow, fast in zip(average.buffers(), network.buffers(), strict=True):
        slow.copy_(fast)


def save(file: Path, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """All that resuming needs, written beside and then renamed, so that a crash leaves the last good one."""
    state = {
        "step": step,
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    part = file.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, file)


def read_state(file: Path) -> dict[str, Any]:
    """What `save` wrote."""
    if not file.exists():
        raise WeightsError(f"Nothing to resume: {file} is missing; start without --resume.")
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def restore(state: dict[str, Any], network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put back what `read_state` read; returns the step."""
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def save_weights(file: Path, network: nn.Module, c: TrainConfig, step: int, figures: dict[str, float]) -> None:
    """The averaged weights with the variant, the config and the validation figures in their header."""
    header = {
        "variant": c.variant,
        "step": str(step),
        "config": json.dumps(asdict(c)),
        "validation": json.dumps(figures),
    }
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in network.state_dict().items()}
    save_file(state, file, metadata=header)


def best_so_far(file: Path) -> float:
    """Highest validation mean that a run has noted."""
    if not file.exists():
        return -1.0
    return max((json.loads(line)["mean"] for line in file.read_text().splitlines() if line), default=-1.0)


class Log:
    """A CSV row a step, and a smoothed line for the progress bar; rows after `step` are dropped, to be done again."""

    def __init__(self, file: Path, step: int = 0, shown: tuple[str, ...] = ()) -> None:
        self.file, self.shown = file, shown
        self.smooth: dict[str, float] = {}
        if file.exists():
            rows = file.read_text().splitlines(keepends=True)
            file.write_text("".join([*rows[:1], *(row for row in rows[1:] if int(row.split(",")[0]) <= step)]))

    def write(self, step: int, **values: float) -> None:
        fresh = not self.file.exists() or not self.file.stat().st_size
        with self.file.open("a", newline="") as out:
            writer = csv.writer(out)
            if fresh:
                writer.writerow(["step", *values])
            writer.writerow([step, *(f"{v:.6g}" for v in values.values())])
        for name, value in values.items():
            if math.isfinite(value):
                self.smooth[name] = value + 0.97 * (self.smooth.get(name, value) - value)

    def says(self) -> str:
        s = self.smooth
        parts = [f"{name} {s.get(name, 0):.3f}" for name in self.shown]
        return "  ".join([*parts, f"{s['seconds']:.2f} s, waited {s['waited'] / max(1e-9, s['seconds']):.0%}"])


def _device(name: str) -> torch.device:
    """Raises InputError for a device that torch does not have."""
    if name not in ("cpu", "cuda"):
        raise InputError(f"device is {name!r}; choose cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device is 'cuda', but torch finds no CUDA device here; give device = \"cpu\".")
    return torch.device(name)
