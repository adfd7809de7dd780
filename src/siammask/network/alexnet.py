"""AlexNet without padding, total stride 8: the backbone of SiamFC and SiamRPN.

Bertinetto et al. (ECCVW 2016), table 1, for layers and strides; Li et al. (CVPR 2018), section 5.1, for leaving out
the groups of conv2 and conv4.
"""

from __future__ import annotations

from torch import Tensor, nn


class AlexNet(nn.Module):
    """Raw BGR pixels to features: (N, 3, s, s) -> (), (N, 256, n, n) with s 127 -> n 6, 255 -> 22, 271 -> 24."""

    skips = ()  # nothing to refine with
    channels = 256

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv(3, 96, 11, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            _conv(96, 256, 5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            _conv(256, 384, 3),
            nn.ReLU(inplace=True),
            _conv(384, 384, 3),
            nn.ReLU(inplace=True),
            _conv(384, 256, 3),  # no ReLU: what is correlated has a sign
        )

    def forward(self, pixels: Tensor) -> tuple[tuple[()], Tensor]:
        return (), self.layers(pixels)


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, bias=False), nn.BatchNorm2d(outputs))
