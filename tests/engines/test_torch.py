"""torch as a runtime: names in, names out, float32 arrays in either precision."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the torch engine needs the extra 'train'")
from torch import Tensor, nn  # noqa: E402

from siammask.engines.torch import TorchGraphs  # noqa: E402
from siammask.errors import InputError, WeightsError  # noqa: E402


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 8)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": self.dropout(self.linear(x))}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def test_runs_in_evaluation_mode_and_leaves_arrays_to_the_caller(net):
    graphs = TorchGraphs({"net": net}, "f32", threads=1)
    x = np.ones((2, 64), np.float32)
    first = graphs.run("net", {"x": x})["y"]
    np.testing.assert_array_equal(first, graphs.run("net", {"x": x})["y"])
    np.testing.assert_allclose(
        first, x @ net.linear.weight.detach().numpy().T + net.linear.bias.detach().numpy(), rtol=1e-5
    )
    first[:] = 0


def test_bf16_is_coarser_and_comes_back_as_float32(net):
    x = {"x": np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)}
    full, half = (TorchGraphs({"net": net}, precision, threads=1).run("net", x)["y"] for precision in ("f32", "bf16"))
    assert half.dtype == np.float32
    assert 0 < np.abs(full - half).max() < 0.03


def test_pixels_channel_after_channel_are_the_same_pixels():
    class Seen(nn.Module):
        def forward(self, pixels: Tensor) -> dict[str, Tensor]:
            planes = pixels.permute(0, 3, 1, 2).float()
            return {"planes": planes, "planar": torch.tensor([float(planes.is_contiguous())])}

    graphs = TorchGraphs({"seen": Seen()}, "f32", threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 3), np.uint8)
    for one, planar in ((graphs, 0), (graphs.planar(), 1), (graphs, 0)):
        found = one.run("seen", {"pixels": pixels})
        assert found["planar"] == planar
        np.testing.assert_array_equal(found["planes"], pixels.transpose(0, 3, 1, 2))


def test_unknown_graph(net):
    with pytest.raises(WeightsError, match="no graph 'refine', only net"):
        TorchGraphs({"net": net}, "f32").run("refine", {})


def test_a_device_that_is_not_there_is_said(net):
    if torch.cuda.is_available():
        pytest.skip("There is a CUDA device here.")
    with pytest.raises(InputError, match="sees no CUDA device"):
        TorchGraphs({"net": net}, "f32", device="cuda")


@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 2e-3), ("f16", 0.01), ("bf16", 0.05)])
def test_cuda_agrees_with_the_cpu(precision, tolerance):
    if not torch.cuda.is_available():
        pytest.skip("There is no CUDA device.")
    torch.manual_seed(0)
    conv = Conv()
    x = {"x": np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)}
    want = TorchGraphs({"conv": conv}, "f32", threads=1).run("conv", x)["y"]
    have = TorchGraphs({"conv": conv}, precision, device="cuda").run("conv", x)["y"]
    assert have.dtype == np.float32
    np.testing.assert_allclose(have, want, atol=tolerance * np.abs(want).max())


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": self.conv(x)}
