"""Training of the guided network: clips in, and what one step says of them.

Each clip has four crops. The network draws a from the first frame's mask and a spoiled mask of before; then it draws b
guided by what it has just drawn on a, and c by what it drew on b, so that it learns to live with its own mistakes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from siammask.engines.guided import GuidedEngine
from siammask.engines.torch import TorchGraphs
from siammask.errors import InputError, WeightsError
from siammask.network import checkpoint, guided
from siammask.network.guided import Drawing, Features, Guided, Memory
from siammask.network.light import imagenet_light
from siammask.train import device as on_device
from siammask.train import losses
from siammask.train.batches import FEATURES, Batch, Clips, Frozen, averaged, processes
from siammask.train.clips import SHOWN
from siammask.train.config import OptimConfig, TrainConfig
from siammask.train.task import Steps, Task
from siammask.variants import variant

DRIFTED = 0.5  # share of clips with a wrong last mask whose b is guided by a wrong one as well


def guided_step(network: Guided, batch: Batch, c: TrainConfig, step: int) -> Steps:
    """Draw a from the first frame, then b and c guided by what was drawn before; the losses of all three."""
    search = variant(c.variant).searching(**c.search).search
    whole, network = features(network, batch, c.optim)
    first, *searched = _by_crop(whole)

    def given_as(name: str) -> Tensor:  # clips are drawn in one size, whatever the network's
        return averaged(_unit(batch[name]), network.shape.mask)

    masks = given_as("masks")
    n, device = masks.shape[0], masks.device
    given = given_as("first")[:, None]
    drawn = batch["drawn"].view(n, 1, 1, 1)
    start = batch["start"].view(n, 1, 1, 1)
    boxed = batch["boxed"]
    share = c.optim.teacher[0] + (c.optim.teacher[1] - c.optim.teacher[0]) * min(1.0, step / (0.5 * c.optim.steps))
    share = torch.where(batch["drifted"], max(share, DRIFTED), share).view(n, 1, 1, 1)
    taught = (torch.rand((n, 1, 1, 1), device=device) < share) & ~boxed.view(n, 1, 1, 1)
    remembered = last = network.memorise(*network.kept(first), given, drawn)
    classifier = network.fit(network.kept(first)[0], given) if network.shape.ridge else None
    guide = given_as("guide")[:, None] * search.give_last
    total = torch.zeros((), device=device)
    parts: dict[str, float] = {}
    for i, (name, crop) in enumerate(zip("abc", searched, strict=True), 1):
        drawing = _exact(network.draw(crop, remembered, last, guide, classifier))
        truth = masks[:, i : i + 1]
        found = losses.guided_losses(drawing, truth, c.loss, boxed)
        total = total + losses.total(found, c.loss)
        parts |= {f"{k}_{name}": float(v.detach()) for k, v in found.items()}
        seen = truth.flatten(1).any(1)
        parts[f"iou_{name}"] = float(losses.overlaps(drawing.mask.detach(), truth, boxed)[seen].mean())
        if i == len(searched):
            break
        used = torch.sigmoid(drawing.mask.detach())
        good = torch.sigmoid(drawing.overlap.detach()) >= search.remember_score
        if i == 1:
            used = torch.where(taught, given_as("teacher")[:, None], used)
            # after the first frame is drawn from its box, the drawing, cut by the box, is what is remembered of it
            used_first = used * given_as("box")[:, None]
            given = torch.where(start, used_first, given)
            remembered = network.memorise(*network.kept(first), given, torch.where(start, 1.0, drawn))
            used = torch.where(start, used_first, used)
            if network.shape.ridge:
                classifier = network.fit(network.kept(first)[0], given)
            good = torch.ones_like(good)
        # as the tracker does, what scored badly is not remembered
        now = network.memorise(*network.kept(crop), used, torch.ones_like(drawn))
        last = Memory(*(torch.where(_like(good, new), new, old) for new, old in zip(now, last, strict=True)))
        if search.remember_score > 1:
            last = remembered
        if not search.keep_first:
            remembered, classifier = last, None
        keep = torch.rand((n, 1, 1, 1), device=device) >= c.optim.guide_drop
        guide = carried(used, batch["crops"][:, i], batch["crops"][:, i + 1]) * keep * search.give_last
    return Steps(total, parts)


def _exact(drawing: Drawing) -> Drawing:
    """The same in float32, whatever the network computes in: losses are taken of it."""
    return Drawing(*(None if part is None else part.float() for part in drawing))


def _by_crop(f: Features) -> list[Features]:
    """Features of the crops of all clips -> those of each crop of a clip."""
    return [Features(*(t[i :: len(SHOWN)] for t in f)) for i in range(len(SHOWN))]


def _like(flag: Tensor, x: Tensor) -> Tensor:
    """(N,) -> (N, 1, ...) with as many axes as x."""
    return flag.view(-1, *(1 for _ in x.shape[1:]))


def features(network: Guided, batch: Batch, how: OptimConfig) -> tuple[Features, Guided]:
    """Features of all crops, from pixels (the frozen part in bfloat16 with `amp`) or from those of the data process,
    and the network for crops of their size.
    """
    if "pixels" in batch:
        pixels = averaged(batch["pixels"].permute(0, 3, 1, 2).float(), network.shape.crop)
        with torch.no_grad(), torch.autocast(pixels.device.type, torch.bfloat16, enabled=how.amp):
            found = tuple(f.float() for f in network.backbone.begin(pixels, network_begins(network)))
    else:
        found = tuple(batch[name].permute(0, 3, 1, 2) for name in FEATURES if name in batch)
        if not torch.is_autocast_enabled("cpu"):
            found = tuple(f.float() for f in found)
    backbone = network.backbone.finish(found)
    if how.channel_drop:
        backbone = tuple(thinned(f, how.channel_drop) for f in backbone)
    return network.neck(*backbone), network.sized(2 * found[0].shape[-1])


def thinned(features: Tensor, share: float) -> Tensor:
    """Features (4 N, C, H, W) of the crops of N clips without a share of the channels, others in each clip.

    All crops of a clip lack the same, so what is alike stays alike. What is left is stronger by as much (Tompson et
    al., Efficient object localization, CVPR 2015).
    """
    clips = len(features) // len(SHOWN)
    kept = (torch.rand((clips, features.shape[1]), device=features.device) >= share).to(features) / (1.0 - share)
    return features * kept.repeat_interleave(len(SHOWN), 0)[:, :, None, None]


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
    """The network before the first step: ImageNet's backbone, or a checkpoint of the same variant.

    With `partial` the checkpoint may be of another variant: what fits is taken, the rest begins at random.
    """
    row = variant(c.variant)
    if c.init == "imagenet":
        return guided.build(row, imagenet_light(row.shape.blocks))
    network = guided.build(row)
    file = Path(c.init)
    if not file.exists():
        raise WeightsError(f"Checkpoint {file} (option `init`) is missing; give a *.safetensors file or 'imagenet'.")
    given, _ = checkpoint.read(file)
    checkpoint.load_state(network, checkpoint.fitting(network, given) if c.partial else given, str(file))
    return network


def groups(network: Guided, c: TrainConfig) -> list[dict[str, Any]]:
    """The head, or what of it is to learn, and, at a rate of its own, the end of the backbone; the rest is frozen.

    Raises InputError where `learn` names a part that the network has not.
    """
    network.backbone.requires_grad_(False)
    found = []
    if c.optim.backbone_lr > 0:
        late = network.backbone.blocks[c.optim.train_from :].named_parameters()
        learning = [p for name, p in late if not (c.optim.pointwise and "depthwise" in name)]
        for p in learning:
            p.requires_grad_(True)
        share = c.optim.backbone_lr / c.optim.lr
        found.append({"params": learning, "share": share, "adamw": c.optim.backbone_adamw})
    parts = {name for name, _ in network.named_children()} - {"backbone"}
    for name in c.learn:
        if name not in parts:
            raise InputError(f"learn names {name!r}, which the network has not; it has: {', '.join(sorted(parts))}.")
    head = []
    for name, p in network.named_parameters():
        if not name.startswith("backbone."):
            p.requires_grad_(not c.learn or name.split(".")[0] in c.learn)
            head += [p] if p.requires_grad else []
    return [*found, {"params": head, "share": 1.0}]


def make_batches(c: TrainConfig, network: Guided, step: int, device: torch.device) -> Iterator[Batch]:
    """Batches on `device`: on the CPU made by the workers, with features; elsewhere drawn there, with pixels."""
    data = c.data.pool()
    if device.type != "cpu":
        if c.data.clips.followed:
            raise InputError(
                f"data.clips.followed is {c.data.clips.followed:g}; clips are followed on the CPU only, give 0."
            )
        return on_device.batches(data, c.data.clips, c.optim.batch, c.seed, step, c.data.workers, device)
    backbone, end = copy.deepcopy(network.backbone).eval(), network_begins(network)
    frozen = tuple(Frozen(backbone, end, side) for side in c.data.crops or (network.shape.crop,))
    follow = c.variant, None if c.data.follow is None else Path(c.data.follow)
    clips = Clips(data, c.data.clips, c.optim.batch, c.seed, step, frozen, c.data.echo, follow)
    return iter(DataLoader(clips, batch_size=None, **processes(c.data.workers)))


def engine(network: Guided, c: TrainConfig, device: str) -> GuidedEngine:
    """The network as it tracks."""
    return GuidedEngine(TorchGraphs(guided.graphs(network), "f32", device=device), variant(c.variant))


def _unit(x: Tensor) -> Tensor:
    """uint8 0..255 -> float 0..1."""
    return x.float() / 255.0


TASK = Task(initial, groups, make_batches, guided_step, engine, ("iou_a", "iou_c", "mask_c"))
