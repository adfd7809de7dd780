"""Training of the published family: pairs in, and what one step says of them.

L2B and L3B of SiamMask (section 3.2) as `siamese_losses` has them. Stage "all" trains every branch a variant has, a
refined mask through its refinement; "refine" is the released second stage: mask branch and refinement only.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from siammask.engines.siamese import VECTOR, WINDOWS, SiameseEngine
from siammask.engines.torch import TorchGraphs
from siammask.errors import InputError, WeightsError
from siammask.network import checkpoint, siamese
from siammask.network.light import imagenet_light
from siammask.network.resnet import ResNet50
from siammask.network.siamese import LightTop, Siamese
from siammask.train.batches import FEATURES, Batch, Frozen, processes
from siammask.train.config import TrainConfig
from siammask.train.pairs import PairGrid, Pairs
from siammask.train.siamese_losses import box_loss, mask_loss, score_loss, total
from siammask.train.task import Steps, Task
from siammask.variants import variant

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB in 0..1


def step(network: Siamese, batch: Batch, c: TrainConfig, number: int) -> Steps:
    """Scores and boxes of all cells, masks of a few on the object; their losses."""
    settle(network, c, number)
    row = variant(c.variant)
    seen = network.search(network.embed(_crops(batch, "exemplar")), _crops(batch, "search"))
    logits = seen["score_logits"].float()  # losses are taken in float32, whatever the network computes in
    if row.locate == "score":  # the logistic function is the softmax of 0 and the logit
        logits = torch.cat((torch.zeros_like(logits), logits), 1)
    found = {"score": score_loss(logits, batch["kind"])}
    if "delta" in seen:
        found["box"] = box_loss(seen["delta"].float(), batch["delta"], batch["weight"], smooth=c.siamese.smooth)
    parts: dict[str, float] = {}
    if draws(c):
        exact = row.search.alignment == "exact"
        if bool((batch["at"] >= 0).any()):
            drawn, truth = masks(network, seen, batch, row.backbone, c.data.pairs.search_size or row.search.search_size)
            found["mask"] = mask_loss(drawn.float(), truth, exact=exact)
            parts["iou"] = _overlap(drawn.detach(), truth)
        else:  # nothing to draw: every parameter still has its gradient, as in the other processes of a run
            found["mask"] = torch.stack([p.sum() for p in network.parameters() if p.requires_grad]).sum() * 0.0
            parts["iou"] = float("nan")
    parts |= {name: float(value.detach()) for name, value in found.items()}
    return Steps(total(c.siamese.weights, **found), parts)


def masks(network: Siamese, seen: dict[str, Tensor], batch: Batch, backbone: str, search: int) -> tuple[Tensor, Tensor]:
    """Mask logits (M, v, v) of the cells that are taught, and their truth (M, m, m); the crop has `search` pixels."""
    which, slot = torch.nonzero(batch["at"] >= 0, as_tuple=True)
    cell, n = batch["at"][which, slot], seen["correlation"].shape[-1]
    vectors = seen["correlation"].flatten(2)[which, :, cell]
    truth = batch["truth"][which, slot].float()
    if network.refine is None:
        return network.vector(vectors), truth
    top, left = ((search - truth.shape[-1]) // 2 + (at - n // 2) * 8 for at in (cell // n, cell % n))
    cut = []
    for level, window in enumerate(WINDOWS[backbone]):
        unit = 2 << level  # pixels of one cell of this level; as `SiameseResponse.mask` cuts them
        cut.append(windows(seen[f"p{level}"], which, top // unit, left // unit, window))
    return network.refine(vectors, *cut), truth


def windows(features: Tensor, which: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Windows (M, C, size, size) of features (N, C, h, w): of sample `which`, from corners that may lie outside (0)."""
    h, w = features.shape[-2:]
    span = torch.arange(size, device=features.device)
    rows, columns = top[:, None] + span, left[:, None] + span  # (M, size)
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
    rows, columns = rows.clamp(0, h - 1), columns.clamp(0, w - 1)
    cut = features.permute(0, 2, 3, 1)[which[:, None, None], rows[:, :, None], columns[:, None, :]]
    return (cut * inside[..., None]).permute(0, 3, 1, 2)


def draws(c: TrainConfig) -> bool:
    """Whether masks are taught: the variant has a mask branch, and its loss counts."""
    return variant(c.variant).mask != "none" and c.siamese.weights.mask > 0


def settle(network: Siamese, c: TrainConfig, number: int) -> None:
    """What does not learn at this step counts no statistics either."""
    for parameter in late(network, c):
        parameter.requires_grad_(number >= c.optim.backbone_from)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()


def late(network: Siamese, c: TrainConfig) -> list[nn.Parameter]:
    """The parameters of the backbone that learn, sooner or later: its last blocks (light), layers 2 and 3, or all."""
    if c.optim.backbone_lr <= 0 or c.siamese.stage == "refine":
        return []
    backbone = network.backbone
    if isinstance(backbone, LightTop):
        return [p for block in backbone.light.blocks[c.optim.train_from :] for p in block.parameters()]
    if isinstance(backbone, ResNet50):
        return [*backbone.layer2.parameters(), *backbone.layer3.parameters()]
    return list(backbone.parameters())


def groups(network: Siamese, c: TrainConfig) -> list[dict[str, Any]]:
    """The heads (in stage "refine" mask branch and refinement) and, at a rate of its own, the end of the backbone."""
    network.requires_grad_(False)
    parts = ("mask.", "refine.") if c.siamese.stage == "refine" else ("neck.", "score.", "box.", "mask.", "refine.")
    unused = ("mask.head.",) if network.refine is not None else ()  # it decodes vectors, which are refined instead
    if not draws(c):
        unused = ("mask.", "refine.")
    named = network.named_parameters()
    head = [p for name, p in named if name.startswith(parts) and not name.startswith(unused)]
    for parameter in (*head, *late(network, c)):
        parameter.requires_grad_(True)
    found = [{"params": head, "share": 1.0}]
    if late(network, c):
        found.append({"params": late(network, c), "share": c.optim.backbone_lr / c.optim.lr})
    return found


def batches(c: TrainConfig, network: Siamese, start: int, device: torch.device) -> Iterator[Batch]:
    """Batches on `device`; on the CPU those of a light variant hold features of the frozen part of its backbone."""
    row = variant(c.variant)
    data = c.data.pool()
    settings = c.data.pairs if draws(c) else replace(c.data.pairs, rows=0)
    size = settings.search_size or row.search.search_size
    grid = PairGrid(row.search, size, cells(network, row.search.exemplar_size, size), row.locate == "rpn")
    frozen = None
    if isinstance(network.backbone, LightTop) and device.type == "cpu":
        end = c.optim.train_from if late(network, c) else len(network.backbone.light.blocks)
        frozen = Frozen(copy.deepcopy(network.backbone.light).eval(), end)
    skips = draws(c) and row.mask == "refined"
    pairs = Pairs(data, c.data.clips, settings, grid, c.optim.batch, c.seed, start, frozen, skips)
    loader = DataLoader(pairs, batch_size=None, **processes(c.data.workers))
    return ({name: value.to(device) for name, value in batch.items()} for batch in loader)


def cells(network: Siamese, exemplar: int, search: int) -> int:
    """Cells a side of the score map of crops of these sizes."""
    shape = copy.deepcopy(network).eval().to("meta")  # computes no number, only shapes
    with torch.inference_mode():
        kernels = shape.embed(torch.zeros((1, 3, exemplar, exemplar), device="meta"))
        return int(shape.search(kernels, torch.zeros((1, 3, search, search), device="meta"))["score_logits"].shape[-1])


def initial(c: TrainConfig) -> Siamese:
    """The network before the first step: a light backbone from ImageNet, or a checkpoint.

    The checkpoint is one of the same variant; of the variant without refinement, which then begins at random; or one
    of ResNet-50 in torchvision's layout. Raises InputError or WeightsError for what does not fit.
    """
    row = variant(c.variant)
    network = siamese.build(row)
    if c.init == "random":
        return network
    if c.init == "imagenet":
        if not isinstance(network.backbone, LightTop):
            raise InputError(f"init is 'imagenet', but {row.name!r} has no backbone weights at hand; give a file.")
        network.backbone.light = imagenet_light()
        if row.mask == "vector":
            smooth_masks(network)
        return network
    file = Path(c.init)
    if not file.exists():
        raise WeightsError(f"Checkpoint {file} (option `init`) is missing; give a file, 'imagenet' or 'random'.")
    given, _ = checkpoint.read(file)
    own = network.state_dict()
    if "layer1.0.conv1.weight" in given and isinstance(network.backbone, ResNet50):
        given = {**own, **resnet50(given, own)}
    elif not any(checkpoint.ours(name).startswith("refine.") for name in given):
        given = {**given, **{name: value for name, value in own.items() if name.startswith("refine.")}}
    checkpoint.load_state(network, checkpoint.fitting(network, given) if c.partial else given, str(file))
    return network


@torch.no_grad()
def smooth_masks(network: Siamese) -> None:
    """The vector mask head begins with sums of smooth patterns about a disc in the middle, where the object is.

    Each hidden channel draws one low frequency of the cosine transform, every second one its negative. Left at random,
    3,969 pixels learn apart from one another; their biases alone need some 2,000 steps to say "background".
    """
    last = network.mask.head[-1]  # type: ignore[union-attr, index]
    assert isinstance(last, nn.Conv2d)
    at = (torch.arange(VECTOR) + 0.5) / VECTOR
    waves = torch.cos(math.pi * torch.arange(VECTOR)[:, None] * at)  # (frequency, place)
    order = sorted((math.hypot(u, v), u, v) for u in range(VECTOR) for v in range(VECTOR))
    for channel in range(last.in_channels):
        far, u, v = order[channel // 2]
        pattern = waves[u][:, None] * waves[v] * (0.5 / (1 + far))
        last.weight[:, channel, 0, 0] = (pattern if channel % 2 else -pattern).flatten()
    radius = torch.hypot(at[:, None] - 0.5, at - 0.5)
    last.bias.copy_((3 * (1 - 4 * radius)).clamp(-4, 2).flatten())  # type: ignore[union-attr]


def resnet50(given: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """ImageNet weights in torchvision's layout under our names, taking raw BGR in place of normalised RGB.

    The shortcuts with other kernels here (3 x 3) are left out; raises WeightsError where anything else does not fit.
    """
    found = {f"backbone.{name}": v for name, v in given.items() if not name.startswith(("fc.", "layer4."))}
    other = [name for name, value in found.items() if name not in own or value.shape != own[name].shape]
    if not all(name.endswith("downsample.0.weight") for name in other):
        raise WeightsError(f"Not the weights of a ResNet-50: {', '.join(other[:4])}; take torchvision's.")
    scale, mean = (torch.tensor(v).view(1, 3, 1, 1) for v in (_IMAGENET_STD, _IMAGENET_MEAN))
    kernel = found["backbone.conv1.weight"] / scale
    # no padding, so the mean is the same everywhere and goes into the batch norm's
    found["backbone.bn1.running_mean"] = found["backbone.bn1.running_mean"] + (kernel * mean).sum((1, 2, 3))
    found["backbone.conv1.weight"] = (kernel / 255).flip(1)
    return {name: value for name, value in found.items() if name not in other}


def engine(network: Siamese, c: TrainConfig, device: str) -> SiameseEngine:
    """The network as it tracks; it draws nothing where it was taught no masks."""
    row = variant(c.variant) if draws(c) else replace(variant(c.variant), mask="none")
    return SiameseEngine(TorchGraphs(siamese.graphs(network), "f32", device=device), row)


def _crops(batch: Batch, name: str) -> Any:
    """Crops as the network takes them: pixels, or features of the frozen part of its backbone."""
    if name in batch:
        return batch[name].permute(0, 3, 1, 2).float()
    found = [batch.get(f"{name}_{stride}") for stride in FEATURES]
    last = max(i for i, f in enumerate(found) if f is not None)
    return tuple(None if f is None else f.permute(0, 3, 1, 2).float() for f in found[: last + 1])


def _overlap(logits: Tensor, truth: Tensor) -> float:
    """Mean IoU of masks with their truth, read at the masks' own size."""
    step = truth.shape[-1] / logits.shape[-1]
    at = ((torch.arange(logits.shape[-1], device=truth.device) + 0.5) * step).long()
    a, b = logits > 0, truth[:, at][:, :, at] > 0
    return float(((a & b).sum((1, 2)) / (a | b).sum((1, 2)).clamp(min=1)).mean())


TASK = Task(initial, groups, batches, step, engine, ("score", "box", "mask", "iou"))
