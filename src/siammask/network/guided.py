"""The default network: a siamese mask branch guided by what it last drew.

Two memories - the first frame with its mask, the last good frame with the mask drawn there - are read by every pixel of
the search crop; a depth-wise correlation with the exemplar says where the target is (as in SiamMask), a classifier
fitted to the first frame what is its own; the last mask says where it was. Related: space-time memory (Oh et al., ICCV
2019), D3S (Lukezic et al., CVPR 2020).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from siammask.classifier import fit
from siammask.network.light import Light, padded
from siammask.variants import Shape, Variant

if TYPE_CHECKING:
    from siammask.network.export import GraphSpec

CROP, MASK = Shape().crop, Shape().mask  # of the default; training clips are drawn so, whatever network they are for


# Sizes in comments are the default's; see `siammask.variants.Shape` for what they follow from.


class Features(NamedTuple):
    """What the backbone and the neck say of one crop."""

    f2: Tensor  # (N, 16, 128, 128)
    f4: Tensor  # (N, 24, 64, 64)
    feat: Tensor  # (N, 64, 32, 32)
    key: Tensor  # (N, 32, 32, 32), unit length
    low: Tensor  # (N, 64, 16, 16), for the correlation


class Memory(NamedTuple):
    """What is kept of a frame. Positions are the 16 x 16 cells of its crop, flattened."""

    key: Tensor  # (N, 256, 32 + 4): unit length, and where each lies (`_keys`)
    value: Tensor  # (N, 256, 64)
    mask: Tensor  # (N, 256)
    kernel: Tensor  # (N, 64, 3, 3), exemplar of the depth-wise correlation


class Drawing(NamedTuple):
    """What one search says. Logits, but for `feat` and `key`."""

    mask: Tensor  # (N, 1, 128, 128)
    coarse: Tensor  # (N, 1, 32, 32)
    score: Tensor  # (N, 1, 16, 16)
    overlap: Tensor  # (N,) of the predicted IoU; low where the target is not there
    box: Tensor | None = None  # (N, 4) no logits: left, top, right, bottom from the crop's middle, in sides of the crop


class Residual(nn.Module):
    """Two 3 x 3 convolutions; where `lean`, a depth-wise 5 x 5 and a 1 x 1."""

    def __init__(self, width: int, lean: bool = False) -> None:
        super().__init__()
        if lean:
            self.a = nn.Conv2d(width, width, 5, padding=2, groups=width)
            self.b = nn.Conv2d(width, width, 1)
        else:
            self.a = nn.Conv2d(width, width, 3, padding=1)
            self.b = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.relu(self.a(F.relu(x))))


class Edges(nn.Module):
    """The target's box as four expectations: where its left, top, right and bottom edges lie (Yan et al., STARK, 2021).

    Each edge has a map of where it may be seen; its place is the mean of the cells' places under the map's softmax.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(Residual(width, lean=True), Residual(width, lean=True))  # at stride 16
        self.near = Residual(width, lean=True)
        self.maps = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, s, s) -> (N, 4), as `Drawing.box`."""
        maps = self.maps(F.relu(self.near(x + _grown(self.wide(F.avg_pool2d(x, 2))))))
        side = maps.shape[-1]
        likely = torch.softmax(maps.flatten(2), 2).unflatten(2, (side, side))
        line = torch.arange(side, device=x.device, dtype=x.dtype) / (side - 1) - 0.5  # the outer cells reach the rim
        across, down = (likely.sum(2) * line).sum(2), (likely.sum(3) * line).sum(2)
        return torch.stack((across[:, 0], down[:, 1], across[:, 2], down[:, 3]), 1)


class Guided(nn.Module):
    """Features, memory and drawing as three functions without state between calls."""

    def __init__(self, backbone: Light, shape: Shape | None = None) -> None:
        super().__init__()
        self.backbone, self.shape = backbone, shape or Shape()
        width, fused, lean = self.shape.width, self.shape.fused, self.shape.lean
        self.from8 = nn.Conv2d(40, width, 1)
        self.from16 = nn.Conv2d(112, width, 1)
        self.to_key = nn.Conv2d(width, self.shape.key, 1)
        self.to_low = nn.Conv2d(112, width, 1)
        self.to_value = nn.Sequential(nn.Conv2d(width + 2, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1))
        self.temperature = nn.Parameter(torch.tensor([2.5, 2.5]))  # log; first and last memory
        self.nearness = nn.Parameter(torch.tensor([-2.0, -1.0]))  # log; how much distance counts in reading a memory
        self.correlate = nn.Conv2d(width, width, 1)
        self.to_score = nn.Conv2d(width, 1, 1)
        self.from_correlation = nn.Conv2d(width, 16, 1)
        self.fuse = nn.Conv2d(width * 3 + 16 + 4 + 1, fused, 1)
        if self.shape.ridge:
            self.from_classifier = nn.Conv2d(1, fused, 1, bias=False)  # adds nothing at first
            nn.init.zeros_(self.from_classifier.weight)
        self.mix = nn.Conv2d(fused, width, 3, padding=1)
        self.body = nn.Sequential(*(Residual(width, lean) for _ in range(self.shape.residuals)))
        self.to_coarse = nn.Conv2d(width, 1, 1)
        if lean:
            self.up64 = nn.Conv2d(width, 16, 1)
            self.at64 = nn.Conv2d(16 + 24 + 1, 16, 3, padding=1)
            self.from2 = nn.Conv2d(16, 16, 2, stride=2)
            self.to_mask = nn.Conv2d(16, 4, 3, padding=1)
        else:
            self.up64 = nn.Conv2d(width, 32, 1)
            self.at64 = nn.Conv2d(32 + 24 + 1, 24, 3, padding=1)
            self.up128 = nn.Conv2d(24, 16, 1)
            self.skip128 = nn.Conv2d(16, 8, 1)
            self.at128 = nn.Conv2d(16 + 8, 12, 3, padding=1)
            self.to_mask = nn.Conv2d(12, 1, 3, padding=1)
        if self.shape.boxed:
            self.to_box = Edges(width)
        self.to_overlap = nn.Sequential(nn.Linear(width * 2 + 4, width), nn.ReLU(), nn.Linear(width, 1))

    def sized(self, crop: int) -> Guided:
        """The same network, with the same parameters, for crops of another side."""
        if crop == self.shape.crop:
            return self
        other = copy.copy(self)
        other.shape = replace(self.shape, crop=crop)
        return other

    def features(self, pixels: Tensor) -> Features:
        """(N, 3, 256, 256) BGR in 0..255 -> Features."""
        return self.neck(*self.backbone(pixels))

    def neck(self, f2: Tensor, f4: Tensor, f8: Tensor, f16: Tensor) -> Features:
        feat = F.relu(self.from8(f8) + F.interpolate(self.from16(f16), scale_factor=2.0, mode="nearest"))
        return Features(f2, f4, feat, _unit(self.to_key(feat)), self.to_low(f16))

    def kept(self, features: Features) -> tuple[Tensor, Tensor, Tensor]:
        """What `memorise` needs of a crop: feat, key and low; all at stride 16 where lean."""
        _, _, feat, key, low = features
        if self.shape.lean:
            feat, key = F.avg_pool2d(feat, 2), F.avg_pool2d(key, 2)
        return feat, key, low

    def memorise(self, feat: Tensor, key: Tensor, low: Tensor, mask: Tensor, drawn: Tensor) -> Memory:
        """Memory of what is `kept` of a crop, and its mask (N, 1, 128, 128).

        `drawn` (N, 1, 1, 1) is 0 where the mask is only a box.
        """
        at = F.avg_pool2d(mask, 8 if self.shape.lean else 4)
        flag = (1.0 - drawn).expand_as(at)
        first, _, second = self.to_value
        # the same as `to_value` of all channels at once, pooled at last; matrix units would pad 66 channels to 96
        of_feat, of_mask = first.weight.split((feat.shape[1], 2), 1)
        masks = torch.cat((at.to(feat), flag.to(feat)), 1)
        value = F.relu(F.conv2d(feat, of_feat, first.bias, padding=1) + F.conv2d(masks, of_mask, padding=1))
        if not self.shape.lean:
            value, key, at = (F.avg_pool2d(x, 2) for x in (value, key, at))
        value = second(value)
        step = _step(self.shape)
        begin = (self.shape.cells - 3 * step) // 2
        middle = slice(begin, begin + 3 * step)
        keys = _keys(_rows(_unit(key)), _places(at.flatten(1), self.shape.cells))
        return Memory(keys, _rows(value), at.flatten(1), F.avg_pool2d(low[:, :, middle, middle], step))

    def fit(self, feat: Tensor, mask: Tensor) -> Tensor:
        """The targets' own classifiers (N, 65): from `feat` of what is `kept` of a crop and its mask (N, 1, 128, 128).

        Nothing is learnt through them.
        """
        at = F.avg_pool2d(mask, 8 if self.shape.lean else 4).flatten(1)
        features, drawn = (x.detach().float().cpu().numpy() for x in (_rows(feat), at))
        return torch.from_numpy(fit(features, drawn, self.shape.ridge)).to(mask)

    def draw(
        self, features: Features, first: Memory, last: Memory, guide: Tensor, classifier: Tensor | None = None
    ) -> Drawing:
        """The target in the crop of `features`; `guide` (N, 1, 128, 128) is the last mask as this crop sees it.

        `classifier` (N, 65) is that of the first frame, for networks that have one; None has no opinion.
        """
        feat, key = features.feat, features.key
        cells, lean = self.shape.cells, self.shape.lean
        at32 = F.avg_pool2d(guide, 4)
        look, place = _rows(key), _places(at32.flatten(1), 2 * cells)
        if lean:
            coarse_look = _rows(_unit(F.avg_pool2d(key, 2)))
            coarse_place = _places(F.avg_pool2d(guide, 8).flatten(1), cells)
        reads, likes = [], []
        for i, memory in enumerate((first, last)):
            sharp = self.temperature[i].exp()
            ratio = self.nearness[i].exp() / sharp
            query = _query(look, place, ratio)
            reads.append(_read(_query(coarse_look, coarse_place, ratio) if lean else query, memory, sharp))
            # a target may have gone far since the first frame
            alike = (query, memory.key) if i else (look, memory.key[..., : look.shape[2]])
            likes.append(_likeness(*alike, memory.mask))
        found = F.relu(self.correlate(_correlate(features.low, first.kernel, _step(self.shape))))
        score = self.to_score(found)
        where = F.relu(self.from_correlation(found))
        facts = [*likes, _rows(at32.to(feat))]
        if self.shape.ridge:
            facts.append(_judged(_rows(feat), classifier))
        x = F.relu(self._fused(_rows(feat), reads, where, facts))
        x = F.relu(self.mix(x))
        x = F.relu(self.body(x))
        coarse = self.to_coarse(x)
        box = self.to_box(x) if self.shape.boxed else None
        return Drawing(self._mask(x, features, guide), coarse, score, self._overlap(x, coarse, score, likes), box)

    def _fused(self, feat: Tensor, reads: list[Tensor], where: Tensor, facts: list[Tensor]) -> Tensor:
        """The 1 x 1 convolution `fuse` of all that is known; where lean, what lies at stride 16 grows after it.

        All but `where` come as rows, and are put together so: no layout is converted.
        """
        cells, weight = self.shape.cells, self.fuse.weight
        if self.shape.ridge:
            weight = torch.cat((weight, self.from_classifier.weight), 1)
        if not self.shape.lean:
            together = _image(torch.cat((feat, *reads, _rows(_grown(where)), *facts), 2), 2 * cells)
            return F.conv2d(together, weight, self.fuse.bias)
        width = self.shape.width
        before, coarse, after = weight.split((width, 2 * width + 16, weight.shape[1] - 3 * width - 16), 1)
        fine = _image(torch.cat((feat, *facts), 2), 2 * cells)
        fine = F.conv2d(fine, torch.cat((before, after), 1), self.fuse.bias)
        return fine + _grown(F.conv2d(_image(torch.cat((*reads, _rows(where)), 2), cells), coarse))

    def _mask(self, x: Tensor, features: Features, guide: Tensor) -> Tensor:
        """Logits (N, 1, 128, 128)."""
        y = self.at64(torch.cat((_grown(F.relu(self.up64(x))), features.f4, F.avg_pool2d(guide, 2).to(x)), 1))
        if self.shape.lean:
            return F.pixel_shuffle(self.to_mask(F.relu(y + self.from2(features.f2))), 2)
        z = _grown(F.relu(self.up128(F.relu(y))))
        return _single(self.to_mask, F.relu(self.at128(torch.cat((z, F.relu(self.skip128(features.f2))), 1))))

    def _overlap(self, x: Tensor, coarse: Tensor, score: Tensor, likes: list[Tensor]) -> Tensor:
        """Logit (N,) of the IoU the mask will have, from the features under it and around."""
        weight = torch.sigmoid(coarse)
        mass = weight.mean((2, 3))
        under = (x * weight).mean((2, 3)) / (mass + 1e-3)
        like = (_image(likes[0][..., :1], weight.shape[-1]) * weight).mean((2, 3)) / (mass + 1e-3)
        facts = torch.cat((under, x.mean((2, 3)), mass, like, score.amax((2, 3)), weight.amax((2, 3))), 1)
        return self.to_overlap(facts).squeeze(1)


def _single(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 3 x 3 convolution (N, C, 2 H, 2 W) -> (N, 1, 2 H, 2 W), done as a 4 x 4 one of stride 2 that gives four values.

    Matrix units compute 16 channels where one is asked for; so they do it for a quarter of the places.
    """
    column, row = (conv.weight.new_zeros((*conv.weight.shape[:2], *size)) for size in ((3, 1), (1, 4)))
    left, right = torch.cat((conv.weight, column), 3), torch.cat((column, conv.weight), 3)
    weight = torch.cat([torch.cat(rows, 2) for rows in ((left, row), (right, row), (row, left), (row, right))])
    bias = None if conv.bias is None else conv.bias.expand(4)
    return F.pixel_shuffle(F.conv2d(x, weight, bias, stride=2, padding=1), 2)


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, HW, C); free for channels-last tensors."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _own(x: Tensor) -> Tensor:
    """The same values, as a tensor of their own where a graph is exported.

    OpenVINO does a change of layout that leads to an output and to another layer alike in float32, and twice.
    """
    return x.clamp(-1e4, 1e4)


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


def _unit(x: Tensor) -> Tensor:
    """(N, C, H, W) with C-vectors of unit length."""
    return x / (x.square().sum(1, keepdim=True) + 1e-6).sqrt()


def _grown(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2 H, 2 W)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


# A value of a memory is weighed by softmax(sharp * cosine - near * squared distance). Likeness is the highest such
# exponent, in units of a cosine, over the object's positions and over the background's; that to the first frame is
# a cosine alone. All is written as inner products of longer vectors, so that no (N, Q, 256) tensor is touched twice.


def _query(look: Tensor, place: Tensor, ratio: Tensor) -> Tensor:
    """Vectors (N, Q, C + 4) of looks (N, Q, C) at places (N, Q, 2).

    Their products with those of `_keys` are cosine - ratio * squared distance.
    """
    place = torch.cat((place, place.square().sum(2, keepdim=True), torch.ones_like(place[..., :1])), 2)
    return torch.cat((look, (ratio * place).to(look)), 2)


def _keys(look: Tensor, place: Tensor) -> Tensor:
    """Vectors (N, M, C + 4) of what is remembered; see `_query`."""
    distance = (2.0 * place, -torch.ones_like(place[..., :1]), -place.square().sum(2, keepdim=True))
    return torch.cat((look, torch.cat(distance, 2).to(look)), 2)


def _read(query: Tensor, memory: Memory, sharp: Tensor) -> Tensor:
    """Values (N, Q, 64) as the queries see them."""
    return torch.softmax((sharp * query) @ memory.key.transpose(1, 2), 2) @ memory.value


def _judged(feat: Tensor, classifier: Tensor | None) -> Tensor:
    """What the target's classifier (N, C + 1) says of features (N, Q, C): (N, Q, 1), near 1 where they are its own."""
    if classifier is None:
        return torch.zeros_like(feat[..., :1])
    own = classifier.to(feat)
    return (feat @ own[:, :-1, None] + own[:, None, -1:]).clamp(-2.0, 2.0)


def _likeness(query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Likeness (N, Q, 2) of queries (N, Q, C) to the object of a memory, keys (N, M, C), and to what is not.

    Differences of one product, or where there is a graph to learn through the maxima of two.
    """
    others = 1.0 - mask, mask
    if torch.is_grad_enabled():
        longer = torch.cat((query, torch.ones_like(query[..., :1])), 2)
        kinds = [torch.cat((keys, -2.0 * other[..., None].to(keys)), 2) for other in others]
        return torch.stack([_highest(longer, kind) for kind in kinds], 2).clamp(-2.0, 1.0)
    # half of all, and the maxima doubled: OpenVINO would apply a factor on the masks to each pair of cells
    like = 0.5 * query @ keys.transpose(1, 2)
    return (2.0 * torch.stack([(like - other[:, None]).amax(2) for other in others], 2)).clamp(-2.0, 1.0)


def _highest(query: Tensor, keys: Tensor) -> Tensor:
    """Highest inner product (N, Q) of each query (N, Q, C) with the keys (N, M, C), for training.

    The winner is found without a graph and its product taken again: the backward of a maximum over (N, Q, M) is most of
    the cost otherwise.
    """
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
        winner = _winner(query.float() @ keys.float().transpose(1, 2))
    return (query * keys.gather(1, winner[..., None].expand(-1, -1, keys.shape[2]))).sum(2)


def _winner(products: Tensor) -> Tensor:
    """Index (N, Q) of the highest of (N, Q, M) float32, which are spoiled; of some that agree to 2^-23 * M either one.

    A maximum of numbers whose last bits are their index: on a CPU torch's own argmax takes six times as long.
    """
    mask = (1 << (products.shape[2] - 1).bit_length()) - 1
    index = torch.arange(products.shape[2], dtype=torch.int32, device=products.device)
    products.view(torch.int32).bitwise_and_(~mask).bitwise_or_(index)
    return (products.amax(2).view(torch.int32) & mask).long()


def _step(shape: Shape) -> int:
    """Cells of stride 16 between the 3 x 3 points of the exemplar kernel: a quarter of the crop, 4 in the default."""
    return round(shape.cells / 4)


def _correlate(low: Tensor, kernel: Tensor, step: int) -> Tensor:
    """Depth-wise correlation (N, C, 16, 16) of search features with a 3 x 3 kernel whose points lie `step` cells apart.

    Written as nine shifted products: both sides are tensors, and a grouped convolution's backward is slow on a CPU.
    """
    before, after, side = step // 2, (step - 1) // 2, low.shape[-1]
    smooth = F.avg_pool2d(F.pad(low, (before, after, before, after)), step, 1)
    padded = F.pad(smooth, (step, step, step, step))
    total = torch.zeros_like(smooth)
    for i in range(3):
        for j in range(3):
            shifted = padded[:, :, i * step : i * step + side, j * step : j * step + side]
            total = total + shifted * kernel[:, :, i : i + 1, j : j + 1]
    return total / 9.0


KEPT = ("feat", "key", "low")  # outputs of a search that "memorise" takes, as rows: so they lie in memory


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
        classifier: Tensor | None = None,  # (N, 65)
    ) -> dict[str, Tensor]:
        features = self.network.features(pixels.permute(0, 3, 1, 2).float())
        first = Memory(first_key, first_value, first_mask, first_kernel)
        last = Memory(last_key, last_value, last_mask, last_kernel)
        drawing = self.network.draw(features, first, last, guide[:, None], classifier)
        return {
            "mask": torch.sigmoid(drawing.mask[:, 0]),
            "score": torch.sigmoid(drawing.score),
            "overlap": torch.sigmoid(drawing.overlap),
            **({} if drawing.box is None else {"box": drawing.box}),
            **{name: _rows(_own(x)) for name, x in zip(KEPT, self.network.kept(features), strict=True)},
        }


class MemoriseGraph(nn.Module):
    """The graph "memorise": what is kept of a search, and a mask -> a memory."""

    def __init__(self, network: Guided) -> None:
        super().__init__()
        self.network = network

    def forward(self, feat: Tensor, key: Tensor, low: Tensor, mask: Tensor, drawn: Tensor) -> dict[str, Tensor]:
        """`mask` is (N, 128, 128), `drawn` (N,) is 1, or 0 where the mask is only a filled box."""
        shape = self.network.shape
        feat, key = (_image(x, shape.kept) for x in (feat, key))
        memory = self.network.memorise(feat, key, _image(low, shape.cells), mask[:, None], drawn[:, None, None, None])
        return {f"memory_{name}": tensor for name, tensor in memory._asdict().items()}


def build(variant: Variant, backbone: Light | None = None) -> Guided:
    """The network of a variant whose mask head is guided: untrained, or on a trained backbone of as many blocks."""
    return Guided(backbone or Light(variant.shape.blocks), variant.shape)


def graphs(network: Guided) -> dict[str, nn.Module]:
    """What an engine runs, by name."""
    return {"search": SearchGraph(network), "memorise": MemoriseGraph(network)}


def graph_specs(network: Guided) -> dict[str, GraphSpec]:
    """The same graphs with example inputs, for export."""
    from siammask.network.export import GraphSpec

    network = copy.deepcopy(network)
    network.backbone = padded(network.backbone)
    made, s = graphs(network), network.shape
    random = torch.Generator().manual_seed(0)
    example = {
        "pixels": torch.randint(0, 256, (1, s.crop, s.crop, 3), generator=random, dtype=torch.uint8),
        "guide": torch.rand((1, s.mask, s.mask), generator=random),
    }
    for which in ("first", "last"):
        for name, shape in s.memory.items():
            example[f"{which}_{name}"] = torch.rand((1, *shape), generator=random)
    if s.ridge:
        example["classifier"] = torch.rand((1, s.width + 1), generator=random)
    features = {
        "feat": torch.rand((1, s.kept**2, s.width), generator=random),
        "key": torch.rand((1, s.kept**2, s.key), generator=random),
        "low": torch.rand((1, s.cells**2, s.width), generator=random),
        "mask": torch.rand((1, s.mask, s.mask), generator=random),
        "drawn": torch.ones(1),
    }
    return {
        "search": GraphSpec(
            made["search"], example, ("mask", "score", "overlap", *(("box",) if s.boxed else ()), *KEPT)
        ),
        "memorise": GraphSpec(made["memorise"], features, tuple(f"memory_{name}" for name in s.memory)),
    }
