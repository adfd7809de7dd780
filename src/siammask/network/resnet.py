"""ResNet-50 as released with SiamMask: three stages, total stride 8, few paddings, so that crops stay centred.

He et al. (CVPR 2016) for the blocks; Wang et al. (CVPR 2019), section 3 and appendix A, for strides and dilations.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ResNet50(nn.Module):
    """Raw BGR pixels to features at stride 8, with the skips that refinement reads.

    (N, 3, 255, 255) in 0..255, without mean or deviation -> ((N, 64, 125, 125), (N, 256, 63, 63), (N, 512, 31, 31)),
    (N, 1024, 31, 31). An exemplar of 127 gives 61, 31, 15 and 15.
    """

    skips = (64, 256, 512)  # channels
    channels = 1024

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, bias=False)  # no padding
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, 3, nn.Conv2d(64, 256, 1, bias=False))
        self.layer2 = _stage(256, 128, 4, nn.Conv2d(256, 512, 3, stride=2, bias=False), stride=2)
        self.layer3 = _stage(512, 256, 6, nn.Conv2d(512, 1024, 3, padding=1, bias=False), dilation=2)

    def forward(self, pixels: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        p0 = F.relu(self.bn1(self.conv1(pixels)))  # (N, 64, 125, 125)
        p1 = self.layer1(self.maxpool(p0))  # (N, 256, 63, 63)
        p2 = self.layer2(p1)  # (N, 512, 31, 31)
        return (p0, p1, p2), self.layer3(p2)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut. A 3x3 with stride 2 is not padded, the others keep the size."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int, shortcut: nn.Conv2d | None) -> None:
        super().__init__()
        padding = 0 if stride == 2 else dilation
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * 4)
        self.downsample = None if shortcut is None else nn.Sequential(shortcut, nn.BatchNorm2d(width * 4))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def _stage(inputs: int, width: int, blocks: int, shortcut: nn.Conv2d, stride: int = 1, dilation: int = 1) -> nn.Module:
    """The first block takes the stride and the shortcut and is never dilated; the others are."""
    first = Bottleneck(inputs, width, stride, 1, shortcut)
    return nn.Sequential(first, *(Bottleneck(width * 4, width, 1, dilation, None) for _ in range(blocks - 1)))
