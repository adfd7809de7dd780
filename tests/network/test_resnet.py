"""ResNet-50 as released: sizes that only its mix of paddings gives."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="networks need the extra 'train'")
from siammask.network.resnet import ResNet50  # noqa: E402


@pytest.mark.parametrize(
    ("size", "sizes"),
    [(127, (61, 31, 15, 15)), (255, (125, 63, 31, 31)), (143, (69, 35, 17, 17))],  # exemplar, search, refine training
)
def test_sizes(size, sizes):
    backbone = ResNet50().eval()
    with torch.inference_mode():
        skips, top = backbone(torch.rand(1, 3, size, size) * 255)
    assert [tuple(level.shape[1:]) for level in (*skips, top)] == [
        (channels, n, n) for channels, n in zip((*backbone.skips, backbone.channels), sizes, strict=True)
    ]
