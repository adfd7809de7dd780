"""What `clips` does to crops and masks with OpenCV, for a whole batch at once in torch on any device.

Pictures are (N, 3, H, W) float BGR with whole values 0..255, masks (N, H, W) likewise; rounding follows OpenCV's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from siammask.train.clips import Look, Spoiling, motion_kernel, turning

# Quantisation of luminance and of colour at quality 50: ITU-T T.81, tables K.1 and K.2.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)


def tint(pictures: Tensor, colour: Tensor) -> Tensor:
    """Each picture with its gains b, g, r about the middle grey and its offset, (N, 4)."""
    gain, offset = colour[:, :3, None, None], colour[:, 3:, None, None]
    return (pictures * gain + (128 - 128 * gain + offset)).round().clamp(0, 255)


def finish(pictures: Tensor, looks: Sequence[Look]) -> Tensor:
    """What a camera does to each picture; see `Look`."""
    device = pictures.device
    pictures = tint(pictures, torch.tensor([look.colour for look in looks], device=device))
    turns = {i: torch.from_numpy(turning(*look.turned)) for i, look in enumerate(looks) if look.turned is not None}
    if turns:
        which = list(turns)
        turned = torch.einsum("nij,njyx->niyx", torch.stack([*turns.values()]).to(device), pictures[which])
        pictures[which] = _round(turned).clamp(0, 255)
    which = [i for i, look in enumerate(looks) if look.gray]
    if which:
        shares = torch.tensor([0.114, 0.587, 0.299], device=device).view(1, 3, 1, 1)
        pictures[which] = _round((pictures[which] * shares).sum(1, keepdim=True)).expand(-1, 3, -1, -1)
    for i, look in enumerate(looks):
        if look.low is not None:  # sizes differ, so one at a time
            shares = _area(pictures.shape[-1], look.low).to(device)
            small = _round(shares @ pictures[i : i + 1] @ shares.T)
            size = pictures.shape[-2:]
            pictures[i] = _round(F.interpolate(small, size=size, mode="bilinear", align_corners=False))[0]
    which = [i for i, look in enumerate(looks) if look.motion is not None]
    if which:
        pictures[which] = _streaked(pictures[which], [looks[i].motion for i in which])
    which = [i for i, look in enumerate(looks) if look.jpeg is not None]
    if which:
        pictures[which] = jpeg(pictures[which], [looks[i].jpeg for i in which])
    which = [i for i, look in enumerate(looks) if look.gamma is not None]
    if which:
        gamma = torch.tensor([looks[i].gamma for i in which], device=device).view(-1, 1, 1, 1)
        pictures[which] = (255 * (pictures[which] / 255) ** gamma + 1e-3).floor()  # 255 must stay 255
    return pictures


def _area(pixels: int, fewer: int) -> Tensor:
    """Shares of `pixels` in each of `fewer` larger ones on the same line, (fewer, pixels); rows sum to 1."""
    step = pixels / fewer
    first = torch.arange(fewer)[:, None] * step
    index = torch.arange(pixels)[None]
    return (torch.minimum(first + step, index + 1.0) - torch.maximum(first, index + 0.0)).clamp(min=0) / step


def _streaked(pictures: Tensor, motions: Sequence[tuple[int, float]]) -> Tensor:
    """Motion blur, each picture with its own length and direction."""
    n, half = len(motions), 6
    kernels = np.zeros((n, 1, 2 * half + 1, 2 * half + 1), np.float32)
    for kernel, (length, turn) in zip(kernels, motions, strict=True):
        start = half - length // 2
        kernel[0, start : start + length, start : start + length] = motion_kernel(length, turn)
    weight = torch.from_numpy(kernels).to(pictures.device).repeat_interleave(3, 0)
    padded = F.pad(pictures, (half,) * 4, mode="reflect").flatten(0, 1)[None]
    return _round(F.conv2d(padded, weight, groups=3 * n)).view_as(pictures)


def jpeg(pictures: Tensor, quality: Sequence[int]) -> Tensor:
    """Each picture after JPEG compression at its quality, colour at half size; sides are multiples of 16."""
    device = pictures.device
    to_ycc = torch.tensor(
        [[0.114, 0.587, 0.299], [0.5, -0.331264, -0.168736], [-0.081312, -0.418688, 0.5]], device=device
    )
    ycc = torch.einsum("ij,njhw->nihw", to_ycc, pictures)
    tables = []
    for base in (_LUMA, _CHROMA):
        scale = torch.tensor([5000 // q if q < 50 else 200 - 2 * q for q in quality], device=device).view(-1, 1, 1)
        tables.append(((torch.tensor(base, device=device) * scale + 50) // 100).clamp(1, 255)[:, None, None, None])
    luma = _quantised(ycc[:, :1] - 128, tables[0]) + 128
    chroma = _quantised(F.avg_pool2d(ycc[:, 1:], 2), tables[1])
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False)
    back = torch.linalg.inv(to_ycc)
    return _round(torch.einsum("ij,njhw->nihw", back, torch.cat((luma, chroma), 1))).clamp(0, 255)


def _quantised(planes: Tensor, table: Tensor) -> Tensor:
    """Planes (N, C, H, W) after rounding their 8 x 8 cosine coefficients to multiples of `table` (N, 1, 1, 1, 8, 8)."""
    n, c, h, w = planes.shape
    k = torch.arange(8, device=planes.device, dtype=torch.float32)
    basis = torch.cos((2 * k[None] + 1) * k[:, None] * torch.pi / 16) / 2
    basis[0] /= 2**0.5
    blocks = planes.view(n, c, h // 8, 8, w // 8, 8).transpose(3, 4)
    coefficients = basis @ blocks @ basis.T
    blocks = basis.T @ (torch.round(coefficients / table) * table) @ basis
    return blocks.transpose(3, 4).reshape(n, c, h, w)


def soften(masks: Tensor) -> Tensor:
    """Masks (N, H, W) after a blur of 3 x 3 (1 2 1)."""
    return _blurred(masks, (1.0, 2.0, 1.0))


def _blurred(masks: Tensor, weights: tuple[float, ...]) -> Tensor:
    line = torch.tensor(weights, device=masks.device) / sum(weights)
    half = len(weights) // 2
    padded = F.pad(masks[:, None], (half,) * 4, mode="reflect")
    return _round(F.conv2d(padded, (line[:, None] * line[None])[None, None]))[:, 0]


def spoil(masks: Tensor, how: Sequence[Spoiling]) -> Tensor:
    """Each mask spoiled in its own way; see `Spoiling`. Swelling is by octagons, where OpenCV's is by discs."""
    device = masks.device

    def numbers(values: list[object]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    n, height, width = masks.shape
    x0, y0, x1, y1, seen = box_of(masks)
    size = ((x1 - x0) * (y1 - y0)).clamp(min=1).sqrt()
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    ys = torch.arange(height, device=device, dtype=torch.float32).view(1, -1, 1)
    xs = torch.arange(width, device=device, dtype=torch.float32).view(1, 1, -1)

    def column(value: Tensor) -> Tensor:
        return value.view(n, 1, 1)

    made = _grown(masks, numbers([h.grow for h in how]), size)
    moves = [h.motion or (1.0, 0.0, 0.0, 1.0) for h in how]
    made = _moved(made, numbers(moves), numbers([h.shift for h in how]) * size[:, None], torch.stack((cx, cy), 1))
    for k in range(max((len(h.blots) for h in how), default=0)):
        none = (0, 0.0, 0.0, -1.0, -1.0, 0.0)
        value, x, y, wide, high, degrees = numbers([h.blots[k] if k < len(h.blots) else none for h in how]).unbind(1)
        dx = xs - column((cx + size * x).trunc())
        dy = ys - column((cy + size * y).trunc())
        c, s = column(torch.cos(torch.deg2rad(degrees))), column(torch.sin(torch.deg2rad(degrees)))
        a, b = column((1 + size * wide).trunc()), column((1 + size * high).trunc())
        inside = ((dx * c + dy * s) / a.clamp(min=1)) ** 2 + ((dy * c - dx * s) / b.clamp(min=1)) ** 2 <= 1.0
        made = torch.where(inside & column(wide > 0), column(value), made)
    turn, reach = numbers([h.half or (0.0, 1e6) for h in how]).unbind(1)
    side = column(torch.cos(turn)) * (xs - column(cx)) + column(torch.sin(turn)) * (ys - column(cy))
    made = torch.where(side < column(reach * size), made, 0.0)
    for pixels, weights in ((3, (1.0, 2.0, 1.0)), (5, (1.0, 4.0, 6.0, 4.0, 1.0))):
        which = [i for i, h in enumerate(how) if h.blur == pixels]
        if which:
            made[which] = _blurred(made[which], weights)
    filled = (xs >= column(x0)) & (xs < column(x1)) & (ys >= column(y0)) & (ys < column(y1))
    made = torch.where(column(numbers([h.boxed for h in how]) > 0), 255.0 * filled, made)
    made = torch.where(column(seen), made, masks)
    return torch.where(column(numbers([h.lost for h in how]) > 0), 0.0, made)


def box_of(masks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Left, top, right, bottom (N,) of what is above half in masks (N, H, W), and whether anything is."""
    on = masks > 127

    def span(line: Tensor) -> tuple[Tensor, Tensor]:
        index = torch.arange(line.shape[1], device=masks.device, dtype=torch.float32)
        return torch.where(line, index, line.shape[1]).amin(1), torch.where(line, index + 1, 0.0).amax(1)

    x0, x1 = span(on.any(1))
    y0, y1 = span(on.any(2))
    return x0, y0, x1, y1, on.flatten(1).any(1)


def _grown(masks: Tensor, grow: Tensor, size: Tensor) -> Tensor:
    """Dilated by 1 + |grow| size pixels where grow > 0, eroded where < 0."""
    shrinks = (grow < 0).view(-1, 1, 1, 1)
    steps = torch.where(grow != 0, 1 + (grow.abs() * size).trunc(), 0.0).view(-1, 1, 1, 1)
    made = torch.where(shrinks, 255 - masks[:, None], masks[:, None])
    for k in range(int(steps.max())):
        if k % 2:
            larger = F.max_pool2d(made, 3, 1, 1)
        else:
            larger = torch.maximum(F.max_pool2d(made, (3, 1), 1, (1, 0)), F.max_pool2d(made, (1, 3), 1, (0, 1)))
        made = torch.where(k < steps, larger, made)
    return torch.where(shrinks, 255 - made, made)[:, 0]


def _moved(masks: Tensor, motion: Tensor, shift: Tensor, middle: Tensor) -> Tensor:
    """Each mask after its linear map (N, 4) about `middle` and its shift, both (N, 2) in pixels; the rest is 0."""
    inverse = torch.linalg.inv_ex(motion.view(-1, 2, 2)).inverse
    size = torch.tensor([masks.shape[2], masks.shape[1]], device=masks.device, dtype=torch.float32)
    # source = inverse (goal - middle - shift) + middle, in pixel indices; grid_sample's run from -1 to 1 over the mask
    fixed = middle[:, :, None] - inverse @ (middle + shift)[:, :, None]
    corner = inverse @ ((size - 1) / 2)[:, None] + fixed
    theta = torch.cat((inverse * (size[None] / size[:, None]), (2 * corner + 1) / size[:, None] - 1), 2)
    grid = F.affine_grid(theta, [len(masks), 1, *masks.shape[1:]], align_corners=False)
    return _round(F.grid_sample(masks[:, None], grid, align_corners=False))[:, 0]


def _round(x: Tensor) -> Tensor:
    """To the nearest whole number, halves upwards."""
    return (x + 0.5).floor()
