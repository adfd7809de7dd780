"""The training loop of the guided network: clips in, weights out.

    siammask train configs/guided.toml

Each clip has three crops. The network draws a from the first frame's mask and a spoiled mask of before; then it draws b
guided by what it has just drawn on a, so that it learns to live with its own mistakes.
"""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from siammask.engines.guided import GuidedEngine
from siammask.engines.torch import TorchGraphs
from siammask.errors import InputError, WeightsError
from siammask.evaluate.report import evaluate_sequences
from siammask.evaluate.sequences import Sequence, find_sequences
from siammask.network import guided
from siammask.network.guided import Features, Guided
from siammask.network.light import imagenet_light
from siammask.tracker import Tracker
from siammask.train import config as configs
from siammask.train import device as on_device
from siammask.train import losses, pool
from siammask.train.batches import FEATURES, Batch, Clips, Frozen
from siammask.train.config import TrainConfig
from siammask.variants import variant


@dataclass(frozen=True, slots=True)
class Steps:
    """What one step says: the sum, and the parts of a and of b."""

    total: Tensor
    parts: dict[str, float]


def main(file: Path, resume: bool = False) -> None:
    """Run a config to its last step; `resume` goes on from `last.pt` in its output folder.

    Raises InputError for a bad config, or an output folder that holds a run which is not to be resumed; WeightsError
    where `resume` finds nothing.
    """
    run(configs.read(file), resume)


def run(c: TrainConfig, resume: bool = False, console: Console | None = None) -> None:
    """As `main`, for a config already read."""
    if variant(c.variant).mask != "guided":
        raise InputError(f"Training of {c.variant!r} is not available yet; the guided variant is.")
    device = _device(c.device)
    out = Path(c.output)
    if not resume and (out / "last.pt").exists():
        raise InputError(f"{out} holds a run already; go on with --resume, or give another `output`.")
    out.mkdir(parents=True, exist_ok=True)
    if c.threads:
        torch.set_num_threads(c.threads)
    torch.manual_seed(c.seed)
    network = initial(c).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = make_optimizer(network, c)
    step = 0
    if resume:
        step = restore(out / "last.pt", network, average, optimizer)
    validation = validation_sequences(c)
    batches = make_batches(c, network, step, device)
    log = Log(out / "log.csv", step)
    best = best_so_far(out / "validation.jsonl")
    console = console or Console()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[says]}"),
        console=console,
    ) as bar:
        task = bar.add_task(c.variant, total=c.optim.steps, completed=step, says="")
        while step < c.optim.steps:
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            rate = set_rate(optimizer, step, c)
            network.train()
            made = guided_step(network, batch, c, step)
            optimizer.zero_grad(set_to_none=True)
            made.total.backward()
            norm = nn.utils.clip_grad_norm_(network.parameters(), c.optim.clip)
            if not torch.isfinite(norm):
                raise WeightsError(f"Step {step}: the gradient is not finite; lower optim.lr ({c.optim.lr}).")
            optimizer.step()
            follow(average, network, min(c.optim.ema, (1 + step) / (10 + step)))
            step += 1
            seconds = time.perf_counter() - began
            log.write(step, rate=rate, norm=float(norm), seconds=seconds, waited=waited, **made.parts)
            bar.update(task, completed=step, says=log.says())
            if step % c.save_every == 0 or step == c.optim.steps:
                save(out / "last.pt", network, average, optimizer, step)
            if validation and (step % c.validate_every == 0 or step == c.optim.steps):
                figures = validate(average, c, validation)
                with (out / "validation.jsonl").open("a") as file:
                    file.write(json.dumps({"step": step, **figures}) + "\n")
                console.print(f"step {step}: " + "  ".join(f"{k} {v:.3f}" for k, v in figures.items()))
                if figures["mean"] > best:
                    best = figures["mean"]
                    save_weights(out / "best.safetensors", average, c, step, figures)
    save_weights(out / "final.safetensors", average, c, step, {})


def guided_step(network: Guided, batch: Batch, c: TrainConfig, step: int) -> Steps:
    """Draw a, then b guided by the drawing of a; the losses of both."""
    f = features(network, batch, c.optim.amp)
    first, a, b = (Features(*(t[i::3] for t in f)) for i in range(3))
    masks = _unit(batch["masks"])
    n = masks.shape[0]
    device = masks.device
    given = _unit(batch["first"])[:, None]
    drawn = batch["drawn"].view(n, 1, 1, 1)
    start = batch["start"].view(n, 1, 1, 1)
    remembered = network.memorise(first.feat, first.key, first.low, given, drawn)
    drawing_a = network.draw(a, remembered, remembered, _unit(batch["guide"])[:, None])

    share = c.optim.teacher[0] + (c.optim.teacher[1] - c.optim.teacher[0]) * min(1.0, step / (0.5 * c.optim.steps))
    boxed = batch["boxed"]
    taught = (torch.rand((n, 1, 1, 1), device=device) < share) & ~boxed.view(n, 1, 1, 1)
    own = torch.sigmoid(drawing_a.mask.detach())
    used = torch.where(taught, _unit(batch["teacher"])[:, None], own)
    # after the first frame is drawn from its box, the drawing, cut by the box, is what is remembered of it
    box = _unit(batch["box"])[:, None]
    given = torch.where(start, used * box, given)
    remembered = network.memorise(first.feat, first.key, first.low, given, torch.where(start, 1.0, drawn))
    last = network.memorise(a.feat, a.key, a.low, torch.where(start, used * box, used), torch.ones_like(drawn))
    keep = torch.rand((n, 1, 1, 1), device=device) >= c.optim.guide_drop
    guide = carried(used, batch["crops"][:, 1], batch["crops"][:, 2]) * keep
    drawing_b = network.draw(b, remembered, last, guide)

    total = torch.zeros((), device=device)
    parts: dict[str, float] = {}
    for name, drawing, truth in (("a", drawing_a, masks[:, 1:2]), ("b", drawing_b, masks[:, 2:3])):
        found = losses.guided_losses(drawing, truth, c.loss, boxed)
        total = total + losses.total(found, c.loss)
        parts |= {f"{k}_{name}": float(v.detach()) for k, v in found.items()}
        seen = truth.flatten(1).any(1)
        parts[f"iou_{name}"] = float(losses.overlaps(drawing.mask.detach(), truth, boxed)[seen].mean())
    return Steps(total, parts)


def features(network: Guided, batch: Batch, amp: bool = False) -> Features:
    """Features of all crops, from pixels (the frozen part in bfloat16 with `amp`) or from those of the data process."""
    if "pixels" in batch:
        pixels = batch["pixels"].permute(0, 3, 1, 2).float()
        with torch.no_grad(), torch.autocast(pixels.device.type, torch.bfloat16, enabled=amp):
            found = tuple(f.float() for f in network.backbone.begin(pixels, network_begins(network)))
    else:
        found = tuple(batch[name].permute(0, 3, 1, 2).float() for name in FEATURES if name in batch)
    return network.neck(*network.backbone.finish(found))


def network_begins(network: Guided) -> int:
    """Number of the first block of the backbone that is trained; 11 where none is."""
    trained = [i for i, block in enumerate(network.backbone.blocks) if next(block.parameters()).requires_grad]
    return min(trained, default=len(network.backbone.blocks))


def carried(mask: Tensor, source: Tensor, goal: Tensor) -> Tensor:
    """Masks (N, 1, m, m) of the crops `source` as the crops `goal` see them; crops are (N, 3) x, y, side."""
    zoom = goal[:, 2] / source[:, 2]
    # grid_sample's coordinates run from -1 to 1 over the crop
    tx, ty = (2.0 * (goal[:, i] + goal[:, 2] / 2 - source[:, i] - source[:, 2] / 2) / source[:, 2] for i in (0, 1))
    none = torch.zeros_like(zoom)
    theta = torch.stack((torch.stack((zoom, none, tx), 1), torch.stack((none, zoom, ty), 1)), 1)
    grid = F.affine_grid(theta, list(mask.shape), align_corners=False)
    return F.grid_sample(mask, grid, align_corners=False)


def initial(c: TrainConfig) -> Guided:
    """The network before the first step: ImageNet's backbone, or a checkpoint of the same variant."""
    if c.init == "imagenet":
        return Guided(imagenet_light())
    network = guided.build(variant(c.variant))
    file = Path(c.init)
    if not file.exists():
        raise WeightsError(f"Checkpoint {file} (option `init`) is missing; give a *.safetensors file or 'imagenet'.")
    network.load_state_dict(load_file(file))
    return network


def make_optimizer(network: Guided, c: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over the head and, at a rate of its own, the last blocks of the backbone; the rest is frozen."""
    network.backbone.requires_grad_(False)
    groups = []
    if c.optim.backbone_lr > 0:
        late = [p for block in network.backbone.blocks[c.optim.train_from :] for p in block.parameters()]
        for p in late:
            p.requires_grad_(True)
        groups.append({"params": late, "share": c.optim.backbone_lr / c.optim.lr})
    head = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
    groups.append({"params": head, "share": 1.0})
    return torch.optim.AdamW(groups, lr=c.optim.lr, weight_decay=c.optim.weight_decay, betas=(0.9, 0.99))


def set_rate(optimizer: torch.optim.Optimizer, step: int, c: TrainConfig) -> float:
    """Linear warm-up, the full rate, from `decay_from` on a cosine down to `final`; returns the rate of the head."""
    o = c.optim
    begin = max(float(o.warmup), o.decay_from * o.steps)
    if step < o.warmup:
        share = (step + 1) / o.warmup
    else:
        t = max(0.0, step - begin) / max(1.0, o.steps - begin)
        share = o.final + (1 - o.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, t)))
    for group in optimizer.param_groups:
        group["lr"] = o.lr * share * group["share"]
    return o.lr * share


def make_batches(c: TrainConfig, network: Guided, step: int, device: torch.device) -> Iterator[Batch]:
    """Batches on `device`: on the CPU made by the workers, with features; elsewhere drawn there, with pixels."""
    data = pool.build(Path(c.data.root), Path(c.data.cache), c.data.sources, c.data.validation)
    if device.type != "cpu":
        return on_device.batches(data, c.data.clips, c.optim.batch, c.seed, step, c.data.workers, device)
    frozen = Frozen(copy.deepcopy(network.backbone).eval(), network_begins(network))
    clips = Clips(data, c.data.clips, c.optim.batch, c.seed, step, frozen)
    return iter(
        DataLoader(
            clips,
            batch_size=None,
            num_workers=c.data.workers,
            prefetch_factor=4 if c.data.workers else None,
        )
    )


def validation_sequences(c: TrainConfig) -> tuple[Sequence, ...]:
    """The sequences held out of training."""
    if not c.data.validation:
        return ()
    return tuple(s for name in c.data.validation for s in find_sequences(Path(c.data.root) / name))


def validate(network: Guided, c: TrainConfig, sequences: tuple[Sequence, ...]) -> dict[str, float]:
    """The closed-loop tracker on the validation sequences: J, F and success AUC, and their mean."""
    row = variant(c.variant)
    engine = GuidedEngine(TorchGraphs(guided.graphs(network), "f32", device=c.device), row)
    report = evaluate_sequences(sequences, Tracker(row, engine))
    means = report.means
    figures = {"J": means.get("J", 0.0), "F": means.get("F", 0.0), "AUC": means["success_auc"]}
    return figures | {"mean": sum(figures.values()) / 3}


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Exponential moving average of the weights."""
    for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1.0 - decay)


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


def restore(file: Path, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Read what `save` wrote; returns the step."""
    if not file.exists():
        raise WeightsError(f"Nothing to resume: {file} is missing; start without --resume.")
    state = torch.load(file, map_location="cpu", weights_only=True)
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

    def __init__(self, file: Path, step: int = 0) -> None:
        self.file = file
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
        parts = [f"iou {s.get('iou_a', 0):.3f}/{s.get('iou_b', 0):.3f}", f"mask {s.get('mask_b', 0):.3f}"]
        return "  ".join([*parts, f"{s['seconds']:.2f} s, waited {s['waited'] / max(1e-9, s['seconds']):.0%}"])


def _device(name: str) -> torch.device:
    """Raises InputError for a device that torch does not have."""
    if name not in ("cpu", "cuda"):
        raise InputError(f"device is {name!r}; choose cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device is 'cuda', but torch finds no CUDA device here; give device = \"cpu\".")
    return torch.device(name)


def _unit(x: Tensor) -> Tensor:
    """uint8 0..255 -> float 0..1."""
    return x.float() / 255.0
