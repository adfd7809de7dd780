"""What stands on the backbone: correlation branches for score, box and mask, and the refinement of one mask."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Correlation(nn.Module):
    """Depth-wise cross-correlation (SiamMask, section 3.1): each channel of each picture with its own kernel.

    (N, C, h, w), (N, C, a, b) -> (N, C, h - a + 1, w - b + 1)
    """

    def forward(self, pixels: Tensor, kernel: Tensor) -> Tensor:
        if not torch.jit.is_scripting() and pixels.device.type == "cpu" and kernel.requires_grad:
            return _learning(pixels, kernel)
        return correlated(pixels, kernel)


def correlated(pixels: Tensor, kernel: Tensor) -> Tensor:
    """What `Correlation` gives."""
    n, c, h, w = pixels.shape
    rows, columns = kernel.shape[-2:]
    response = F.conv2d(pixels.reshape(1, n * c, h, w), kernel.reshape(n * c, 1, rows, columns), groups=n * c)
    return response.reshape(n, c, h - rows + 1, w - columns + 1)


def _learning(pixels: Tensor, kernel: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return cast(Tensor, _Correlated.apply(pixels.float(), kernel.float()))


class _Correlated(torch.autograd.Function):
    """`correlated` with a backward for CPUs: a kernel's gradient is the correlation of pixels and response's gradient.

    torch's own takes ten times as long, and with it more than half of a training step.
    """

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(pixels, kernel)
        return correlated(pixels, kernel)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        pixels, kernel = ctx.saved_tensors
        rows, columns = kernel.shape[-2] - 1, kernel.shape[-1] - 1
        of_pixels = None
        if ctx.needs_input_grad[0]:
            around = F.pad(gradient, (columns, columns, rows, rows))
            of_pixels = correlated(around, kernel.flip(-2, -1))
        return of_pixels, correlated(pixels, gradient)


class Branch(nn.Module):
    """One branch: its own 3x3 on exemplar and search features, their correlation, and a 1x1 head on every cell.

    `outputs` is 1 (score of a two-branch network), 2k (score of k anchors), 4k (box) or 63 x 63 (mask).
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv_kernel = nn.Sequential(*_conv(channels, channels, 3), nn.ReLU(inplace=True))
        self.conv_search = nn.Sequential(*_conv(channels, channels, 3), nn.ReLU(inplace=True))
        self.correlation = Correlation()
        self.head = nn.Sequential(*_conv(channels, channels, 1), nn.ReLU(inplace=True), nn.Conv2d(channels, outputs, 1))

    def kernel(self, exemplar: Tensor) -> Tensor:
        """(N, C, 7, 7) -> (N, C, 5, 5)"""
        return self.conv_kernel(exemplar)

    def correlate(self, kernel: Tensor, search: Tensor) -> Tensor:
        """(N, C, 5, 5), (N, C, 31, 31) -> (N, C, 25, 25): at every cell the response of its candidate window."""
        return self.correlation(self.conv_search(search), kernel)

    def forward(self, kernel: Tensor, search: Tensor) -> Tensor:
        """(N, C, 5, 5), (N, C, 31, 31) -> (N, outputs, 25, 25)"""
        return self.head(self.correlate(kernel, search))


class Refine(nn.Module):
    """The mask of one cell, drawn from its correlation vector and the backbone's features under its window.

    SiamMask, section 3.2 and figure 7. `skips` are the channels of the features at strides 2, 4, 8 and `windows` how
    many of their cells a mask window spans; the logits come out as (N, size, size).
    """

    def __init__(self, channels: int, skips: tuple[int, int, int], windows: tuple[int, int, int], size: int) -> None:
        super().__init__()
        w0, w1, w2 = windows
        self.sizes = (w1, w0, size)
        self.deconv = nn.ConvTranspose2d(channels, 32, w2, w2)
        self.v0 = _pair(skips[0], skips[0] // 4, 4)
        self.v1 = _pair(skips[1], skips[1] // 4, 16)
        self.v2 = _pair(skips[2], skips[2] // 4, 32)
        self.h2 = _pair(32, 32, 32)
        self.h1 = _pair(16, 16, 16)
        self.h0 = _pair(4, 4, 4)
        self.post0 = nn.Conv2d(32, 16, 3, padding=1)
        self.post1 = nn.Conv2d(16, 4, 3, padding=1)
        self.post2 = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, vector: Tensor, w0: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        """(N, C), (N, 64, 61, 61), (N, 256, 31, 31), (N, 512, 15, 15) -> logits (N, 127, 127)"""
        x = self.deconv(vector[:, :, None, None])  # (N, 32, 15, 15)
        x = self.post0(F.interpolate(self.h2(x) + self.v2(w2), size=self.sizes[0]))  # (N, 16, 31, 31)
        x = self.post1(F.interpolate(self.h1(x) + self.v1(w1), size=self.sizes[1]))  # (N, 4, 61, 61)
        x = self.post2(F.interpolate(self.h0(x) + self.v0(w0), size=self.sizes[2]))  # (N, 1, 127, 127)
        return x[:, 0]


def _conv(inputs: int, outputs: int, size: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, size, bias=False), nn.BatchNorm2d(outputs)


def _pair(inputs: int, middle: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, middle, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, outputs, 3, padding=1),
        nn.ReLU(inplace=True),
    )
