"""AlexNet without padding, sizes of SiamFC's table 1 and of SiamRPN."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="networks need the extra 'train'")
from siammask.network.alexnet import AlexNet  # noqa: E402


@pytest.mark.parametrize(("size", "cells"), [(127, 6), (255, 22), (271, 24)])
def test_sizes(size, cells):
    backbone = AlexNet().eval()
    with torch.inference_mode():
        skips, top = backbone(torch.rand(1, 3, size, size))
    assert skips == ()
    assert top.shape == (1, 256, cells, cells)


def test_a_shift_by_the_stride_shifts_the_features_by_a_cell():
    backbone = AlexNet().eval()
    picture = torch.rand(1, 3, 263, 263)
    with torch.inference_mode():
        there, moved = backbone(picture[..., :255, :255])[1], backbone(picture[..., 8:, 8:])[1]
    torch.testing.assert_close(there[..., 1:, 1:], moved[..., :-1, :-1])
