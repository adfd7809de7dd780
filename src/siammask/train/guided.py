"""Training of the guided network: clips in, and what one step says of them.

Each clip has three crops. The network draws a from the first frame's mask and a spoiled mask of before; then it draws b
guided by what it has just drawn on a, so that it learns to live with its own mistakes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from siammask.engines.guided import GuidedEngine
from siammask.engines.torch import TorchGraphs
from siammask.errors import WeightsError
from siammask.network import guided
from siammask.network.guided import Features, Guided
from siammask.network.light import imagenet_light
from siammask.train import device as on_device
from siammask.train import losses, pool
from siammask.train.batches import FEATURES, Batch, Clips, Frozen
from siammask.train.config import TrainConfig
from siammask.train.task import Steps, Task
from siammask.variants import variant


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


def groups(network: Guided, c: TrainConfig) -> list[dict[str, Any]]:
    """The head and, at a rate of its own, the last blocks of the backbone; the rest is frozen."""
    network.backbone.requires_grad_(False)
    found = []
    if c.optim.backbone_lr > 0:
        late = [p for block in network.backbone.blocks[c.optim.train_from :] for p in block.parameters()]
        for p in late:
            p.requires_grad_(True)
        found.append({"params": late, "share": c.optim.backbone_lr / c.optim.lr})
    head = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
    return [*found, {"params": head, "share": 1.0}]


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


def engine(network: Guided, c: TrainConfig, device: str) -> GuidedEngine:
    """The network as it tracks."""
    return GuidedEngine(TorchGraphs(guided.graphs(network), "f32", device=device), variant(c.variant))


def _unit(x: Tensor) -> Tensor:
    """uint8 0..255 -> float 0..1."""
    return x.float() / 255.0


TASK = Task(initial, groups, make_batches, guided_step, engine, ("iou_a", "iou_b", "mask_b"))
