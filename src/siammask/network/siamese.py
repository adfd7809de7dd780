"""The released family: one siamese network composed of the parts that a row of the table names.

exemplar (N, 3, 127, 127) -> embed  -> kernels, one for each branch
search   (N, 3, 255, 255) -> search -> score, box, correlation of the mask branch, features   (nothing is kept)
one cell                  -> vector | refine -> its mask
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from siammask.anchors import AnchorGrid
from siammask.engines.siamese import VECTOR, WINDOWS
from siammask.errors import InputError
from siammask.network.alexnet import AlexNet
from siammask.network.heads import Branch, Refine
from siammask.network.light import Light
from siammask.network.resnet import ResNet50
from siammask.variants import Variant

if TYPE_CHECKING:
    from siammask.network.export import GraphSpec


class Siamese(nn.Module):
    """A network of the released family; it remembers nothing between calls.

    `backbone(pixels)` gives (skips, features), `neck` brings the features to the branches' width; `margin` cells are
    cut from each side of an exemplar, because its rim shows padding and background. A part that is None is not there.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        score: Branch,
        box: Branch | None,
        mask: Branch | None,
        refine: Refine | None,
        margin: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.score = score
        self.box = box
        self.mask = mask
        self.refine = refine
        self.margin = margin

    def embed(self, exemplar: Tensor) -> dict[str, Tensor]:
        """Kernels (N, C, 5, 5) of (N, 3, 127, 127) BGR in 0..255: "score", and "box", "mask" where there is one."""
        features = self.neck(self.backbone(exemplar)[1])
        m = self.margin
        centre = features[:, :, m : features.shape[2] - m, m : features.shape[3] - m]
        return {name: branch.kernel(centre) for name, branch in self.branches().items()}

    def search(self, kernels: dict[str, Tensor], pixels: Tensor) -> dict[str, Tensor]:
        """What (N, 3, 255, 255) BGR in 0..255 says of the target.

        "score_logits" (N, 2k, n, n) ordered class, anchor (N, 1, n, n without anchors); "delta" (N, 4k, n, n) ordered
        coordinate, anchor; "correlation" (N, C, n, n) of the mask branch; the features "p0", "p1", "p2" for `refine`.
        """
        skips, top = self.backbone(pixels)
        features = self.neck(top)
        out = {"score_logits": self.score(kernels["score"], features)}
        if self.box is not None:
            out["delta"] = self.box(kernels["box"], features)
        if self.mask is not None:
            out["correlation"] = self.mask.correlate(kernels["mask"], features)
        if self.refine is not None:
            out |= {f"p{level}": skip for level, skip in enumerate(skips)}
        return out

    def vector(self, correlation: Tensor) -> Tensor:
        """Mask logits (M, 63, 63) of the cells with correlation vectors (M, C)."""
        assert self.mask is not None
        return self.mask.head(correlation[:, :, None, None]).reshape(-1, VECTOR, VECTOR)

    def branches(self) -> dict[str, Branch]:
        """The correlation branches there are, by name."""
        named = {"score": self.score, "box": self.box, "mask": self.mask}
        return {name: branch for name, branch in named.items() if branch is not None}


class LightTop(nn.Module):
    """`Light` as a backbone of this family: its strides 8 and 16 are one feature map at stride 8."""

    skips = (16, 24, 40)
    channels = 40 + 112

    def __init__(self, light: Light) -> None:
        super().__init__()
        self.light = light

    def forward(self, pixels: Tensor | tuple[Tensor, ...]) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Of pixels, or of the features that `Light.begin` made of them (training computes those beforehand)."""
        f2, f4, f8, f16 = self.light(pixels) if isinstance(pixels, Tensor) else self.light.finish(pixels)
        return (f2, f4, f8), torch.cat((f8, F.interpolate(f16, scale_factor=2.0, mode="nearest")), 1)


def build(variant: Variant) -> Siamese:
    """The network of a row, with weights drawn at random; raise InputError for parts that do not fit together."""
    backbone: ResNet50 | AlexNet | LightTop
    if variant.backbone == "resnet50":
        backbone, width, margin = ResNet50(), 256, 4
    elif variant.backbone == "light":
        backbone, width, margin = LightTop(Light()), 128, 4
    else:
        backbone, width, margin = AlexNet(), 256, 0
    if variant.locate == "guided" or variant.mask == "guided":
        raise InputError(f"{variant} is no siamese network; build it with siammask.network.guided.")
    anchors = len(AnchorGrid().ratios) if variant.locate == "rpn" else 0
    return Siamese(
        backbone=backbone,
        neck=_neck(backbone.channels, width),
        score=Branch(width, 2 * anchors or 1),
        box=Branch(width, 4 * anchors) if anchors else None,
        mask=Branch(width, VECTOR**2) if variant.mask != "none" else None,
        refine=_refine(variant, backbone.skips, width) if variant.mask == "refined" else None,
        margin=margin,
    )


def _neck(channels: int, width: int) -> nn.Module:
    if channels == width:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))


def _refine(variant: Variant, skips: tuple[int, ...], width: int) -> Refine:
    if len(skips) != 3:
        raise InputError(f"{variant}: backbone {variant.backbone} has no features to refine masks with; use a vector.")
    return Refine(width, (skips[0], skips[1], skips[2]), WINDOWS[variant.backbone], variant.search.exemplar_size)


def graphs(network: Siamese) -> dict[str, nn.Module]:
    """The network as the graphs of `siammask.engines.siamese`: pixels (N, s, s, 3) uint8 in, named tensors out."""
    found: dict[str, nn.Module] = {"embed": _Embed(network), "search": _Search(network)}
    if network.refine is not None:
        found["refine"] = _Refine(network)
    elif network.mask is not None:
        found["vector"] = _Vector(network)
    return found


def graph_specs(network: Siamese, variant: Variant) -> dict[str, GraphSpec]:
    """The same graphs with examples of their inputs, for `export`; the network is put into evaluation mode."""
    from siammask.network.export import GraphSpec  # needs openvino, which running this network in torch does not

    found = graphs(network.eval())
    s = variant.search
    draw = torch.Generator().manual_seed(0)

    def pixels(size: int) -> Tensor:
        return torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8, generator=draw)

    inputs: dict[str, dict[str, Tensor]] = {"embed": {"pixels": pixels(s.exemplar_size)}}
    with torch.inference_mode():
        kernels = found["embed"](**inputs["embed"])
        inputs["search"] = {"pixels": pixels(s.search_size), **kernels}
        seen = found["search"](**inputs["search"])
        if "correlation" in seen:
            vector = seen["correlation"][:, :, 0, 0]
            inputs["vector"] = {"correlation": vector}
        if network.refine is not None:
            cut = {f"w{i}": seen[f"p{i}"][:, :, :n, :n] for i, n in enumerate(WINDOWS[variant.backbone])}
            inputs["refine"] = {"correlation": vector, **cut}
        return {name: GraphSpec(module, inputs[name], tuple(module(**inputs[name]))) for name, module in found.items()}


class _Graph(nn.Module):
    def __init__(self, network: Siamese) -> None:
        super().__init__()
        self.network = network


class _Embed(_Graph):
    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {f"kernel_{name}": kernel for name, kernel in self.network.embed(_planes(pixels)).items()}


class _Search(_Graph):
    def forward(self, pixels: Tensor, **kernels: Tensor) -> dict[str, Tensor]:
        named = {name.removeprefix("kernel_"): kernel for name, kernel in kernels.items()}
        return self.network.search(named, _planes(pixels))


class _Vector(_Graph):
    def forward(self, correlation: Tensor) -> dict[str, Tensor]:
        return {"mask": torch.sigmoid(self.network.vector(correlation))}


class _Refine(_Graph):
    def forward(self, correlation: Tensor, w0: Tensor, w1: Tensor, w2: Tensor) -> dict[str, Tensor]:
        assert self.network.refine is not None
        return {"mask": torch.sigmoid(self.network.refine(correlation, w0, w1, w2))}


def _planes(pixels: Tensor) -> Tensor:
    """(N, h, w, 3) uint8 -> (N, 3, h, w) float, still 0..255: the released network takes no mean or deviation off."""
    return pixels.permute(0, 3, 1, 2).float()
