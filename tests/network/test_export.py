"""Graphs come out of export as they went in, in both runtimes and for any batch; a graph that does not is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs the extra 'train'")
from torch import Tensor, nn  # noqa: E402

from siammask.engines.openvino import OpenVinoGraphs  # noqa: E402
from siammask.engines.torch import TorchGraphs, read_scripts  # noqa: E402
from siammask.errors import InputError, WeightsError  # noqa: E402
from siammask.network import export as exporting  # noqa: E402
from siammask.network.export import GraphSpec, export  # noqa: E402
from siammask.network.heads import Correlation  # noqa: E402


class Tiny(nn.Module):
    """uint8 pixels and a kernel in, two outputs of different ranks out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.correlation = Correlation()

    def forward(self, pixels: Tensor, kernel: Tensor) -> dict[str, Tensor]:
        features = self.conv(pixels.permute(0, 3, 1, 2).float() / 255)
        response = self.correlation(features, kernel)
        return {"response": response, "mean": response.mean((1, 2, 3)), "unused": features}


class Plain(Tiny):
    """The same without the correlation, whose batch cannot be free in ONNX."""

    def forward(self, pixels: Tensor, kernel: Tensor) -> dict[str, Tensor]:
        features = self.conv(pixels.permute(0, 3, 1, 2).float() / 255)
        response = features + kernel.mean((1, 2, 3), keepdim=True)
        return {"response": response, "mean": response.mean((1, 2, 3))}


def spec(module: nn.Module | None = None) -> GraphSpec:
    torch.manual_seed(0)
    example = {"pixels": torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8), "kernel": torch.randn(1, 4, 3, 3)}
    return GraphSpec(module or Tiny(), example, ("response", "mean"))


@pytest.mark.parametrize("batch", [1, 3])
def test_both_runtimes_agree_after_saving(tmp_path, batch):
    given = spec()
    export({"tiny": given}, tmp_path)
    random = np.random.default_rng(1)
    inputs = {
        "kernel": random.standard_normal((batch, 4, 3, 3), np.float32),  # in another order than the graph's own
        "pixels": random.integers(0, 256, (batch, 16, 16, 3), np.uint8),
    }
    have = OpenVinoGraphs.read(tmp_path, "f32", threads=1).run("tiny", inputs)
    want = TorchGraphs({"tiny": given.module}, "f32", threads=1).run("tiny", inputs)
    assert have.keys() == {"response", "mean"}
    for name, values in have.items():
        assert values.shape == want[name].shape
        assert values.dtype == np.float32
        np.testing.assert_allclose(
            values, want[name], atol=2e-3 * np.abs(want[name]).max()
        )  # weights are kept in float16


def test_certificate_says_errors_and_versions(tmp_path):
    said = export({"tiny": spec()}, tmp_path)
    assert json.loads((tmp_path / "certificate.json").read_text()) == said
    assert said["error_f32"]["tiny"]["response"] < 1e-5
    assert 0 < said["error_saved"]["tiny"]["response"] < 2e-3
    assert said["versions"].keys() == {"openvino", "torch", "numpy"}


@pytest.mark.parametrize(
    ("to", "precision", "tolerance"),
    [
        ("onnx", "f32", 1e-5),
        ("onnx", "int8", 0.1),
        ("openvino", "int8", 0.1),
        ("torchscript", "f32", 1e-6),
        ("torchscript", "bf16", 0.05),
    ],
)
def test_other_forms_agree_with_torch_for_any_batch(tmp_path, to, precision, tolerance):
    """Relative to the largest value. The correlation has its batch in the file in ONNX: the engine runs it in turn."""
    if to == "onnx" or precision == "int8":
        pytest.importorskip("onnx", reason="export to ONNX needs the extra 'onnx'")
        pytest.importorskip("onnxruntime", reason="export to ONNX needs the extra 'onnx'")
    given = spec(Plain() if (to, precision) == ("openvino", "int8") else None)
    random = np.random.default_rng(1)
    real = [
        {
            "pixels": random.integers(0, 256, (1, 16, 16, 3), np.uint8),
            "kernel": random.standard_normal((1, 4, 3, 3), np.float32),
        }
        for _ in range(4)
    ]
    said = export({"tiny": given}, tmp_path, to, precision, {"tiny": real})
    assert (said["to"], said["precision"]) == (to, precision)
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.suffix != ".json") == list(SUFFIXES[to])
    for batch in (1, 2, 3):
        inputs = {name: np.concatenate([real[i][name] for i in range(batch)]) for name in real[0]}
        have = reading(to, tmp_path).run("tiny", inputs)
        want = TorchGraphs({"tiny": given.module}, "f32", threads=1).run("tiny", inputs)
        for name in given.outputs:
            assert have[name].dtype == np.float32
            np.testing.assert_allclose(have[name], want[name], atol=tolerance * np.abs(want[name]).max())
    if precision != "f32":
        assert said["error_saved"]["tiny"]["response"] > said["error_f32"]["tiny"]["response"]


def test_only_chosen_convolutions_are_in_int8(tmp_path):
    onnx = pytest.importorskip("onnx", reason="export to ONNX needs the extra 'onnx'")
    pytest.importorskip("onnxruntime", reason="export to ONNX needs the extra 'onnx'")

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            self.correlation = Correlation()

        def forward(self, pixels: Tensor, kernel: Tensor) -> dict[str, Tensor]:
            x = self.second(self.first(pixels.permute(0, 3, 1, 2).float() / 255))
            return {"response": self.correlation(x, kernel)}

    given = GraphSpec(Two(), spec().example, ("response",))
    model = exporting.to_onnx(given)
    real = [{name: tensor.numpy() for name, tensor in given.example.items()}]
    for chosen, wanted in (("", ["first", "second"]), ("/second/", ["second"]), ("/third/", [])):
        graph = onnx.load_from_string(exporting.quantised(model, real, chosen)).graph
        makes = {name: node.op_type for node in graph.node for name in node.output}
        found = [n.name for n in graph.node if n.op_type == "Conv" and makes.get(n.input[1]) == "DequantizeLinear"]
        assert [name.split("/")[-2] for name in found] == wanted


def test_a_padded_product_stays_what_it_is_beside_int8(tmp_path):
    """A term 2 (1 - x) as one more channel, in a graph whose convolution is in int8: OpenVINO alone spoils it."""
    pytest.importorskip("onnx", reason="export to ONNX needs the extra 'onnx'")
    pytest.importorskip("onnxruntime", reason="export to ONNX needs the extra 'onnx'")

    class Padded(Plain):
        def forward(self, pixels: Tensor, kernel: Tensor) -> dict[str, Tensor]:
            features = self.conv(pixels.permute(0, 3, 1, 2).float() / 255)
            keys = kernel.flatten(2).transpose(1, 2)
            off = nn.functional.pad(2.0 * (1.0 - keys[:, :, 0])[..., None], (3, 0))
            return {"features": features, "highest": (keys @ (keys - off).transpose(1, 2)).amax(2)}

    given = GraphSpec(Padded(), spec().example, ("features", "highest"))
    inputs = {name: tensor.numpy() for name, tensor in given.example.items()}
    export({"padded": given}, tmp_path, "openvino", "int8", {"padded": [inputs, inputs]})
    found = OpenVinoGraphs.read(tmp_path, "f32", threads=1).run("padded", inputs)
    want = TorchGraphs({"padded": given.module}, "f32", threads=1).run("padded", inputs)
    np.testing.assert_allclose(found["highest"], want["highest"], atol=1e-3)


SUFFIXES = {"onnx": (".onnx",), "openvino": (".bin", ".xml"), "torchscript": (".pt",)}


def reading(to, folder):
    """What the engines read of a folder."""
    if to == "onnx":
        from siammask.engines.onnxruntime import OnnxGraphs

        return OnnxGraphs.read(folder, threads=1)
    if to == "openvino":
        return OpenVinoGraphs.read(folder, "f32", threads=1)
    return TorchGraphs(read_scripts(folder), "f32", threads=1)


def test_what_cannot_be_exported_is_said(tmp_path):
    for to, precision, says in (
        ("tflite", "f32", "'tflite'; choose from openvino, onnx, torchscript"),
        ("onnx", "bf16", "No onnx can be exported in bf16; choose from f32, int8"),
        ("torchscript", "int8", "choose from f32, bf16"),
        ("onnx", "int8", "needs inputs of every graph"),
    ):
        with pytest.raises(InputError, match=says):
            export({"tiny": spec()}, tmp_path / "out", to, precision)
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_graphs(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"junk")
    with pytest.raises(WeightsError, match=r"a\.pt is no exported graph"):
        read_scripts(tmp_path)
    assert read_scripts(tmp_path / "none") == {}


class BatchInside(Tiny):
    """What tracing gets wrong: a value of the example (its batch) becomes part of the graph."""

    def forward(self, pixels: Tensor, kernel: Tensor) -> dict[str, Tensor]:
        return {name: value + 1.0 * len(pixels) for name, value in super().forward(pixels, kernel).items()}


class Broken(Tiny):
    def forward(self, pixels: Tensor, kernel: Tensor) -> dict[str, Tensor]:
        return {name: torch.log(-1 - value.abs()) for name, value in super().forward(pixels, kernel).items()}


@pytest.mark.parametrize("module", [BatchInside, Broken])
def test_a_graph_that_differs_is_not_saved(tmp_path, module):
    with pytest.raises(WeightsError, match=r"'tiny'.*'response'.*nothing was written"):
        export({"tiny": spec(module())}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_rounding_to_float16_spoils_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setitem(exporting.TOLERANCE_SAVED, "f32", 1e-6)
    with pytest.raises(WeightsError, match=r"as saved differs from torch .* nothing was written"):
        export({"tiny": spec()}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_module_is_left_as_it_was(tmp_path):
    module = Tiny().train().double()
    export({"tiny": spec(module)}, tmp_path)
    assert module.training
    assert module.conv.weight.dtype == torch.float64
