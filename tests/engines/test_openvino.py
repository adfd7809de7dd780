"""OpenVINO runs graphs by name, in the precision that is asked for, and says what is wrong with files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as opset

import siammask
from siammask.engines import openvino, pick_precision
from siammask.engines.openvino import OpenVinoGraphs
from siammask.errors import WeightsError

WEIGHTS = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)


def model(factor: float = 1.0) -> ov.Model:
    """y = factor x W, x (N, 256)."""
    x = opset.parameter([-1, 256], np.float32, name="x")
    x.output(0).get_tensor().set_names({"x"})
    y = opset.matmul(x, opset.constant(np.float32(factor) * WEIGHTS), False, False)
    y.output(0).get_tensor().set_names({"y"})
    return ov.Model([opset.result(y)], [x])


def inputs(batch: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((batch, 256)).astype(np.float32)}


@pytest.fixture
def folder(tmp_path):
    ov.save_model(model(), tmp_path / "net.xml", compress_to_fp16=False)
    return tmp_path


def test_graphs_of_a_folder_run_with_any_batch(folder):
    graphs = OpenVinoGraphs.read(folder, "f32", threads=1)
    for batch in (1, 3, 1):
        given = inputs(batch)
        np.testing.assert_allclose(graphs.run("net", given)["y"], given["x"] @ WEIGHTS, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_side_by_side_inputs_are_taken_when_there_is_room(folder, threads):
    """Each gives what it gives alone, in order; one that fails, or nobody asking any more, does no harm."""
    graphs, taken = OpenVinoGraphs.read(folder, "f32", threads), []

    def items(broken_at=None):
        for k in range(12):
            taken.append(k)
            if k == broken_at:
                raise KeyError("none")
            yield {"x": np.full((1, 256), k, np.float32)}

    expected = [graphs.run("net", {"x": np.full((1, 256), k, np.float32)})["y"] for k in range(12)]
    found = graphs.run_each("net", items())
    assert taken == []
    np.testing.assert_allclose(next(found)["y"], expected[0], rtol=1e-4, atol=1e-4)
    assert len(taken) == 2 * threads + 1
    for k, one in enumerate(found, 1):
        np.testing.assert_allclose(one["y"], expected[k], rtol=1e-4, atol=1e-3)
    with pytest.raises(KeyError):
        list(graphs.run_each("net", items(5)))
    left = graphs.run_each("net", items())
    np.testing.assert_allclose(next(left)["y"], expected[0], rtol=1e-4, atol=1e-4)  # and no more
    assert len(list(graphs.run_each("net", items()))) == 12
    np.testing.assert_allclose(graphs.run("net", inputs())["y"], inputs()["x"] @ WEIGHTS, rtol=1e-4, atol=1e-4)
    assert list(graphs.run_each("net", ())) == []


def test_outputs_belong_to_the_caller(folder):
    graphs = OpenVinoGraphs.read(folder, "f32", threads=1)
    first = graphs.run("net", inputs())["y"]
    kept = first.copy()
    graphs.run("net", {"x": np.zeros((1, 256), np.float32)})
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # and may be written to


def test_strided_inputs_are_read_as_they_look(folder):
    graphs = OpenVinoGraphs.read(folder, "f32", threads=1)
    x = inputs()["x"]
    np.testing.assert_array_equal(
        graphs.run("net", {"x": x[:, ::-1]})["y"], graphs.run("net", {"x": x[:, ::-1].copy()})["y"]
    )


def test_inputs_may_be_read_only_and_are_not_changed(folder):
    graphs = OpenVinoGraphs.read(folder, "f32", threads=1)
    x = inputs()["x"]
    expected, before = graphs.run("net", {"x": x})["y"], x.copy()
    x.setflags(write=False)
    np.testing.assert_array_equal(graphs.run("net", {"x": x})["y"], expected)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_precision_is_what_is_asked_for(folder, precision):
    if precision == "bf16" and pick_precision(None) != "bf16":
        pytest.skip("this CPU does not compute in bf16")
    graphs = OpenVinoGraphs.read(folder, precision, threads=1)
    assert graphs.precision == precision
    ((request,),) = graphs._requests.values()
    compiled = request.get_compiled_model()
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == {"f32": ov.Type.f32, "bf16": ov.Type.bf16}[precision]
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_what_is_kept_compiled_is_not_read_again(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.mkdir()
    expected = OpenVinoGraphs.read(folder, "f32", 2, cache).run("net", inputs(2))["y"]
    assert len(list(cache.iterdir())) == 2  # for one on both threads, and for two side by side
    core = openvino.core()
    with monkeypatch.context() as patch:
        only = SimpleNamespace(import_model=core.import_model, get_property=core.get_property)
        patch.setattr(openvino, "core", lambda: only)
        np.testing.assert_array_equal(OpenVinoGraphs.read(folder, "f32", 2, cache).run("net", inputs(2))["y"], expected)
    OpenVinoGraphs.read(folder, "f32", 3, cache)  # compiled for more threads is another thing,
    ov.save_model(model(2.0), folder / "net.xml", compress_to_fp16=False)  # and so are other weights
    doubled = OpenVinoGraphs.read(folder, "f32", 2, cache).run("net", inputs(2))["y"]
    np.testing.assert_allclose(doubled, 2 * expected, rtol=1e-4, atol=1e-4)
    assert len(list(cache.iterdir())) == 5


def test_a_damaged_file_of_the_cache_is_made_anew(folder, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    expected = OpenVinoGraphs.read(folder, "f32", 1, cache).run("net", inputs())["y"]
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    foreign = b'[["x"], ["y"]]\nnot what OpenVINO wrote'
    for damaged in (
        b"",
        whole[: len(whole) // 2],
        whole[:-1] + bytes([whole[-1] ^ 1]),
        openvino._digest(foreign) + foreign,
    ):
        kept.write_bytes(damaged)
        np.testing.assert_array_equal(OpenVinoGraphs.read(folder, "f32", 1, cache).run("net", inputs())["y"], expected)
        assert len(kept.read_bytes()) == len(whole)


def test_a_cache_without_room_is_done_without(folder, tmp_path):
    cache = tmp_path / "nowhere"
    assert OpenVinoGraphs.read(folder, "f32", 1, cache).run("net", inputs())["y"].shape == (1, 256)


def test_inputs_of_another_network(folder):
    graphs = OpenVinoGraphs.read(folder, "f32", threads=1)
    with pytest.raises(WeightsError, match=r"'net' does not take inputs of the shapes \[\(1, 255\)\].*export it again"):
        graphs.run("net", {"x": np.zeros((1, 255), np.float32)})


def test_folder_without_graphs(tmp_path):
    with pytest.raises(WeightsError, match=r"No exported graphs \(\*.xml\).*export"):
        OpenVinoGraphs.read(tmp_path, "f32")


def test_half_a_graph(folder):
    (folder / "net.bin").unlink()
    with pytest.raises(WeightsError, match=r"net\.bin is missing"):
        OpenVinoGraphs.read(folder, "f32")


def test_damaged_graph(folder):
    text = (folder / "net.xml").read_text()
    (folder / "net.xml").write_text(text[: len(text) // 2])
    with pytest.raises(WeightsError, match=r"net\.xml cannot be read"):
        OpenVinoGraphs.read(folder, "f32")


def test_truncated_weights(folder):
    data = (folder / "net.bin").read_bytes()
    (folder / "net.bin").write_bytes(data[:100])
    with pytest.raises(WeightsError, match=r"net\.xml cannot be read"):
        OpenVinoGraphs.read(folder, "f32")


def test_unknown_graph(folder):
    with pytest.raises(WeightsError, match="no graph 'refine', only net"):
        OpenVinoGraphs.read(folder, "f32").run("refine", inputs())


def test_signals_are_survived_after_engines_are_let_go():
    """OpenVINO's plug-in leaves a freed signal stack behind where several are let go (see `openvino.core`)."""
    code = """
import gc, signal, subprocess, siammask
trackers = [siammask.load(threads=1, precision="f32") for _ in range(2)]
while trackers:
    del trackers[0]
    gc.collect()
signal.signal(signal.SIGCHLD, lambda *_: print("handled"))
subprocess.run(["true"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=_environment())
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_only_what_runs_a_network_is_imported():
    """OpenVINO's converter, and with it a client of the network, comes when it is asked for."""
    code = """
import sys, siammask
siammask.load(threads=1)
print([name for name in ("openvino.tools.ovc", "openvino_telemetry", "urllib.request", "av", "rich", "typer", "torch")
       if name in sys.modules])
import openvino
print(openvino.convert_model.__name__, hasattr(openvino, "no_such_thing"))
print("openvino_telemetry" in sys.modules)  # it would report, and fork to do so
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=_environment())
    assert (done.returncode, done.stdout) == (0, "[]\nconvert_model False\nFalse\n"), done.stderr


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(siammask.__file__).parents[1])}
