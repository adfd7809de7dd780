"""Heads of the released family."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Correlation(nn.Module):
    """Depth-wise cross-correlation (SiamMask, section 3.1): each channel of each picture with its own kernel."""

    def forward(self, pixels: Tensor, kernel: Tensor) -> Tensor:
        n, c, h, w = pixels.shape
        rows, columns = kernel.shape[-2:]
        response = F.conv2d(pixels.reshape(1, n * c, h, w), kernel.reshape(n * c, 1, rows, columns), groups=n * c)
        return response.reshape(n, c, h - rows + 1, w - columns + 1)
