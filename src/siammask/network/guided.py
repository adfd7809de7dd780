"""The default network: a siamese mask branch guided by what it last drew.

Two memories - the first frame with its mask, the last good frame with the mask drawn there - are read by every pixel of
the search crop; a depth-wise correlation with the exemplar says where the target is (as in SiamMask); the last mask
says where it was. Related: space-time memory (Oh et al., ICCV 2019), D3S (Lukezic et al., CVPR 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from siammask.network.light import Light
from siammask.variants import Variant

if TYPE_CHECKING:
    from siammask.network.export import GraphSpec

CROP = 256  # search and exemplar crops, pixels
MASK = 128  # side of the mask drawn, and of the masks given
WIDTH = 64
KEY = 32
CORRELATION_STEP = 4  # cells of stride 16 between the 3 x 3 points of the exemplar kernel


class Features(NamedTuple):
    """What the backbone and the neck say of one crop."""

    f2: Tensor  # (N, 16, 128, 128)
    f4: Tensor  # (N, 24, 64, 64)
    feat: Tensor  # (N, 64, 32, 32)
    key: Tensor  # (N, 32, 32, 32), unit length
    low: Tensor  # (N, 64, 16, 16), for the correlation


class Memory(NamedTuple):
    """What is kept of a frame. Positions are the 16 x 16 cells of its crop, flattened."""

    key: Tensor  # (N, 256, 32), unit length
    value: Tensor  # (N, 256, 64)
    mask: Tensor  # (N, 256)
    kernel: Tensor  # (N, 64, 3, 3), exemplar of the depth-wise correlation


class Drawing(NamedTuple):
    """What one search says. Logits, but for `feat` and `key`."""

    mask: Tensor  # (N, 1, 128, 128)
    coarse: Tensor  # (N, 1, 32, 32)
    score: Tensor  # (N, 1, 16, 16)
    overlap: Tensor  # (N,) of the predicted IoU; low where the target is not there


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1)
        self.b = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.relu(self.a(F.relu(x))))


class Guided(nn.Module):
    """Features, memory and drawing as three functions without state between calls."""

    def __init__(self, backbone: Light) -> None:
        super().__init__()
        self.backbone = backbone
        self.from8 = nn.Conv2d(40, WIDTH, 1)
        self.from16 = nn.Conv2d(112, WIDTH, 1)
        self.to_key = nn.Conv2d(WIDTH, KEY, 1)
        self.to_low = nn.Conv2d(112, WIDTH, 1)
        self.to_value = nn.Sequential(nn.Conv2d(WIDTH + 2, WIDTH, 3, padding=1), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 1))
        self.temperature = nn.Parameter(torch.tensor([2.5, 2.5]))  # log; first and last memory
        self.nearness = nn.Parameter(torch.tensor([-2.0, -1.0]))  # log; how much distance counts in reading a memory
        self.correlate = nn.Conv2d(WIDTH, WIDTH, 1)
        self.to_score = nn.Conv2d(WIDTH, 1, 1)
        self.from_correlation = nn.Conv2d(WIDTH, 16, 1)
        self.fuse = nn.Conv2d(WIDTH * 3 + 16 + 8 + 1, 96, 1)
        self.mix = nn.Conv2d(96, WIDTH, 3, padding=1)
        self.body = nn.Sequential(Residual(WIDTH), Residual(WIDTH))
        self.to_coarse = nn.Conv2d(WIDTH, 1, 1)
        self.up64 = nn.Conv2d(WIDTH, 32, 1)
        self.at64 = nn.Conv2d(32 + 24 + 1, 24, 3, padding=1)
        self.up128 = nn.Conv2d(24, 16, 1)
        self.skip128 = nn.Conv2d(16, 8, 1)
        self.at128 = nn.Conv2d(16 + 8, 12, 3, padding=1)
        self.to_mask = nn.Conv2d(12, 1, 3, padding=1)
        self.to_overlap = nn.Sequential(nn.Linear(WIDTH * 2 + 4, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))

    def features(self, pixels: Tensor) -> Features:
        """(N, 3, 256, 256) BGR in 0..255 -> Features."""
        return self.neck(*self.backbone(pixels))

    def neck(self, f2: Tensor, f4: Tensor, f8: Tensor, f16: Tensor) -> Features:
        feat = F.relu(self.from8(f8) + F.interpolate(self.from16(f16), scale_factor=2.0, mode="nearest"))
        key = self.to_key(feat)
        key = key / (key.square().sum(1, keepdim=True) + 1e-6).sqrt()
        return Features(f2, f4, feat, key, self.to_low(f16))

    def memorise(self, feat: Tensor, key: Tensor, low: Tensor, mask: Tensor, drawn: Tensor) -> Memory:
        """Memory of a crop and its mask (N, 1, 128, 128); `drawn` (N, 1, 1, 1) is 0 where that is only a box."""
        at32 = F.avg_pool2d(mask, 4)
        flag = (1.0 - drawn).expand_as(at32)
        value = F.avg_pool2d(self.to_value(torch.cat((feat, at32, flag), 1)), 2)
        key = F.avg_pool2d(key, 2)
        key = key / (key.square().sum(1, keepdim=True) + 1e-6).sqrt()
        kernel = F.avg_pool2d(low[:, :, 2:14, 2:14], CORRELATION_STEP)
        return Memory(_rows(key), _rows(value), F.avg_pool2d(at32, 2).flatten(1), kernel)

    def draw(self, features: Features, first: Memory, last: Memory, guide: Tensor) -> Drawing:
        """The target in the crop of `features`; `guide` (N, 1, 128, 128) is the last mask as this crop sees it."""
        f2, f4, feat, key, low = features
        at32 = F.avg_pool2d(guide, 4)
        query = _rows(key)
        place = _places(at32.flatten(1), 32)
        side = feat.shape[-1]
        reads, likes = [], []
        for i, memory in enumerate((first, last)):
            read, like = _read(query, place, memory, self.temperature[i].exp(), self.nearness[i].exp())
            reads.append(_image(read, side))
            likes.append(_image(like, side))
        found = F.relu(self.correlate(_correlate(low, first.kernel)))
        score = self.to_score(found)
        where = F.interpolate(F.relu(self.from_correlation(found)), scale_factor=2.0, mode="nearest")
        x = F.relu(self.fuse(torch.cat((feat, *reads, where, *likes, at32), 1)))
        x = F.relu(self.body(F.relu(self.mix(x))))
        coarse = self.to_coarse(x)
        y = F.interpolate(F.relu(self.up64(x)), scale_factor=2.0, mode="nearest")
        y = F.relu(self.at64(torch.cat((y, f4, F.avg_pool2d(guide, 2)), 1)))
        z = F.interpolate(F.relu(self.up128(y)), scale_factor=2.0, mode="nearest")
        z = F.relu(self.at128(torch.cat((z, F.relu(self.skip128(f2))), 1)))
        return Drawing(self.to_mask(z), coarse, score, self._overlap(x, coarse, score, likes))

    def _overlap(self, x: Tensor, coarse: Tensor, score: Tensor, likes: list[Tensor]) -> Tensor:
        """Logit (N,) of the IoU the mask will have, from the features under it and around."""
        weight = torch.sigmoid(coarse)
        mass = weight.mean((2, 3))
        under = (x * weight).mean((2, 3)) / (mass + 1e-3)
        like = (likes[0][:, :1] * weight).mean((2, 3)) / (mass + 1e-3)
        facts = torch.cat((under, x.mean((2, 3)), mass, like, score.amax((2, 3)), weight.amax((2, 3))), 1)
        return self.to_overlap(facts).squeeze(1)


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, HW, C); free for channels-last tensors."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _image(x: Tensor, side: int) -> Tensor:
    """(N, side * side, C) -> (N, C, side, side); the inverse of `_rows`."""
    return x.unflatten(1, (side, side)).permute(0, 3, 1, 2)


def _places(mask: Tensor, side: int) -> Tensor:
    """Positions (N, side * side, 2) of the cells in units of the object: relative to the mask's centre, over its size.

    Where the mask (N, side * side) is empty the object is taken to stand in the middle at half the crop's side.
    """
    line = (torch.arange(side, device=mask.device, dtype=mask.dtype) + 0.5) / side
    grid = torch.stack((line.repeat(side), line.repeat_interleave(side)), 1)  # (HW, 2)
    mass = mask.mean(1, keepdim=True) + 1e-4
    prior = 1e-3  # weight of "in the middle, a quarter of the area"
    centre = ((mask[..., None] * grid).mean(1) + 0.5 * prior) / (mass - 1e-4 + prior)
    size = ((mass * mass + 0.25 * prior) / (mass + prior)).sqrt()
    return (grid - centre[:, None]) / size[..., None]


def _read(query: Tensor, place: Tensor, memory: Memory, sharp: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """Read `memory` at the queries: values (N, Q, 64), and likeness (N, Q, 4) to its object and to what is not.

    A value is weighed by softmax(sharp * cosine - near * squared distance). Likeness is the highest such exponent over
    the object's positions and over the background's, as a cosine: first without the distance, then with it.
    All of it is written as inner products of longer vectors, so that no (N, Q, 256) tensor is touched twice.
    """
    there = _places(memory.mask, 16)
    ratio = near / sharp
    one = torch.ones_like(place[..., :1])
    long_query = torch.cat((query, place, place.square().sum(2, keepdim=True), one), 2)
    one = torch.ones_like(there[..., :1])
    distance = torch.cat((2.0 * ratio * there, -ratio * one, -ratio * there.square().sum(2, keepdim=True)), 2)
    close = torch.cat((memory.key, distance), 2)  # long_query . close = cosine - ratio * squared distance
    far = torch.cat((memory.key, torch.zeros_like(distance)), 2)
    read = torch.softmax((sharp * long_query) @ close.transpose(1, 2), 2) @ memory.value
    off = F.pad(2.0 * (1.0 - memory.mask)[..., None], (far.shape[2] - 1, 0))
    on = F.pad(2.0 * memory.mask[..., None], (far.shape[2] - 1, 0))
    likes = [_highest(long_query, keys) for keys in (far - off, far - on, close - off, close - on)]
    return read, torch.stack(likes, 2).clamp(-2.0, 1.0)


def _highest(query: Tensor, keys: Tensor) -> Tensor:
    """Highest inner product (N, Q) of each query (N, Q, C) with the keys (N, M, C).

    While training, the winner is found without a graph and its product taken again: the backward of a maximum over
    (N, Q, M) is most of the cost otherwise.
    """
    if not torch.is_grad_enabled():
        return (query @ keys.transpose(1, 2)).amax(2)
    with torch.no_grad():
        winner = (query @ keys.transpose(1, 2)).argmax(2)
    return (query * keys.gather(1, winner[..., None].expand(-1, -1, keys.shape[2]))).sum(2)


def _correlate(low: Tensor, kernel: Tensor) -> Tensor:
    """Depth-wise correlation (N, C, 16, 16) of search features with a 3 x 3 kernel whose points lie 4 cells apart.

    Written as nine shifted products: both sides are tensors, and a grouped convolution's backward is slow on a CPU.
    """
    step, side = CORRELATION_STEP, low.shape[-1]
    smooth = F.avg_pool2d(F.pad(low, (2, 1, 2, 1)), step, 1)
    padded = F.pad(smooth, (step, step, step, step))
    total = torch.zeros_like(smooth)
    for i in range(3):
        for j in range(3):
            shifted = padded[:, :, i * step : i * step + side, j * step : j * step + side]
            total = total + shifted * kernel[:, :, i : i + 1, j : j + 1]
    return total / 9.0


class SearchGraph(nn.Module):
    """The graph "search": backbone, both memories and drawing in one call; probabilities out."""

    def __init__(self, network: Guided) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        pixels: Tensor,  # (N, 256, 256, 3) uint8 BGR
        guide: Tensor,  # (N, 128, 128)
        first_key: Tensor,
        first_value: Tensor,
        first_mask: Tensor,
        first_kernel: Tensor,
        last_key: Tensor,
        last_value: Tensor,
        last_mask: Tensor,
        last_kernel: Tensor,
    ) -> dict[str, Tensor]:
        features = self.network.features(pixels.permute(0, 3, 1, 2).float())
        first = Memory(first_key, first_value, first_mask, first_kernel)
        last = Memory(last_key, last_value, last_mask, last_kernel)
        drawing = self.network.draw(features, first, last, guide[:, None])
        return {
            "mask": torch.sigmoid(drawing.mask[:, 0]),
            "score": torch.sigmoid(drawing.score),
            "overlap": torch.sigmoid(drawing.overlap),
            "feat": features.feat,
            "key": features.key,
            "low": features.low,
        }


class MemoriseGraph(nn.Module):
    """The graph "memorise": features of a search and a mask -> a memory."""

    def __init__(self, network: Guided) -> None:
        super().__init__()
        self.network = network

    def forward(self, feat: Tensor, key: Tensor, low: Tensor, mask: Tensor, drawn: Tensor) -> dict[str, Tensor]:
        """`mask` is (N, 128, 128), `drawn` (N,) is 1, or 0 where the mask is only a filled box."""
        memory = self.network.memorise(feat, key, low, mask[:, None], drawn[:, None, None, None])
        return {f"memory_{name}": tensor for name, tensor in memory._asdict().items()}


def build(variant: Variant) -> Guided:
    """The untrained network of a variant whose mask head is guided."""
    return Guided(Light())


def graphs(network: Guided) -> dict[str, nn.Module]:
    """What an engine runs, by name."""
    return {"search": SearchGraph(network), "memorise": MemoriseGraph(network)}


MEMORY_SHAPES = {"key": (256, KEY), "value": (256, WIDTH), "mask": (256,), "kernel": (WIDTH, 3, 3)}  # without batch


def graph_specs(network: Guided) -> dict[str, GraphSpec]:
    """The same graphs with example inputs, for export."""
    from siammask.network.export import GraphSpec

    made = graphs(network)
    random = torch.Generator().manual_seed(0)
    example = {
        "pixels": torch.randint(0, 256, (1, CROP, CROP, 3), generator=random, dtype=torch.uint8),
        "guide": torch.rand((1, MASK, MASK), generator=random),
    }
    for which in ("first", "last"):
        for name, shape in MEMORY_SHAPES.items():
            example[f"{which}_{name}"] = torch.rand((1, *shape), generator=random)
    features = {
        "feat": torch.rand((1, WIDTH, 32, 32), generator=random),
        "key": torch.rand((1, KEY, 32, 32), generator=random),
        "low": torch.rand((1, WIDTH, 16, 16), generator=random),
        "mask": torch.rand((1, MASK, MASK), generator=random),
        "drawn": torch.ones(1),
    }
    return {
        "search": GraphSpec(made["search"], example, ("mask", "score", "overlap", "feat", "key", "low")),
        "memorise": GraphSpec(made["memorise"], features, tuple(f"memory_{name}" for name in MEMORY_SHAPES)),
    }
