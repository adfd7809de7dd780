"""Which runtime, family and precision `open_engine` picks, and what it says where it cannot."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from siammask import engines
from siammask.engines import EngineOptions, open_engine, pick_precision
from siammask.errors import InputError, WeightsError
from siammask.variants import variant
from siammask.weights import shipped


def test_precision_is_bf16_only_where_the_cpu_computes_in_it(monkeypatch):
    for features, default in (({"avx512f"}, "f32"), ({"avx512_bf16"}, "bf16"), ({"amx_bf16"}, "bf16"), ((), "f32")):
        monkeypatch.setattr(engines, "cpu_features", lambda features=features: frozenset(features))
        assert pick_precision(None) == default
        assert pick_precision("f32") == "f32"


def test_bf16_on_a_cpu_without_it_is_refused(monkeypatch):
    monkeypatch.setattr(engines, "cpu_features", frozenset)
    with pytest.raises(InputError, match=r"bf16 needs a CPU with avx512_bf16 or amx_bf16.*use f32"):
        pick_precision("bf16")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (EngineOptions("tensorrt"), "'tensorrt' is unknown; choose from openvino, onnxruntime, torch"),  # type: ignore[arg-type]
        (EngineOptions(precision="f8"), "'f8' is unknown; choose from f32, bf16, f16"),  # type: ignore[arg-type]
        (EngineOptions(device="tpu"), "'tpu' is unknown; choose from cpu, cuda"),  # type: ignore[arg-type]
        (EngineOptions("torch", "f16"), "f16 needs engine torch on device cuda"),
        (EngineOptions("openvino", device="cuda"), "'openvino' runs on the CPU"),
        (EngineOptions("onnxruntime", "bf16"), "computes as its files say, not in bf16"),
        (EngineOptions(threads=0), "threads is 0"),
    ],
)
def test_options_that_do_not_exist(options, says):
    with pytest.raises(InputError, match=says):
        open_engine(variant("siammask"), options)


def test_onnx_computes_in_f32_and_cuda_in_what_is_asked(monkeypatch):
    monkeypatch.setattr(engines, "cpu_features", lambda: frozenset({"avx512_bf16"}))
    assert pick_precision(None, "onnxruntime") == "f32"
    assert [pick_precision(asked, "torch", "cuda") for asked in (None, "f16", "bf16")] == ["f32", "f16", "bf16"]


@pytest.mark.parametrize(
    ("features", "cores", "asked", "threads"),
    [
        ({"avx512_bf16", "amx_bf16"}, 2, ("guided", "openvino", None), 1),
        ({"avx512_bf16", "amx_bf16"}, 16, ("guided", "openvino", "bf16"), 15),
        ({"avx512_bf16", "amx_bf16"}, 1, ("guided", "openvino", None), None),
        ({"avx512_bf16", "amx_bf16"}, 2, ("guided", "openvino", "f32"), None),
        ({"avx512_bf16", "amx_bf16"}, 2, ("guided", "torch", None), None),
        ({"avx512_bf16"}, 2, ("guided", "openvino", None), None),
        ({"avx512_bf16", "amx_bf16"}, 2, ("siammask_light", "openvino", None), 1),
        ({"avx512_bf16", "amx_bf16"}, 2, ("siammask", "openvino", None), None),
        ({"avx2"}, 2, ("guided", "openvino", None), None),
    ],
)
def test_a_core_is_left_to_the_rest_where_matrix_units_make_up_for_it(monkeypatch, features, cores, asked, threads):
    monkeypatch.setattr(engines, "cpu_features", lambda: frozenset(features))
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    name, *how = asked
    assert engines.threads_beside(variant(name), *how) == threads


def test_onnx_graphs_do_not_ship_and_the_command_is_named():
    pytest.importorskip("onnxruntime", reason="the onnxruntime engine needs the extra 'onnxruntime'")
    if "guided" not in shipped():
        pytest.skip("The package holds no weights of the guided model.")
    with pytest.raises(WeightsError, match="`siammask export guided --to onnx --out FOLDER`"):
        open_engine(variant("guided"), EngineOptions("onnxruntime"))


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_weights_that_are_not_there(tmp_path, engine):
    if engine == "torch":
        pytest.importorskip("torch", reason="the torch engine needs the extra 'train'")
    with pytest.raises(WeightsError, match=r"'siammask'.*nowhere.*give the path"):
        open_engine(variant("siammask"), EngineOptions(engine=engine, precision="f32"), tmp_path / "nowhere")


def said_by(code: str) -> str:
    """What a fresh interpreter prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return run.stdout.strip()


@pytest.mark.parametrize(
    ("runtime", "extra"), [("openvino", "openvino"), ("onnxruntime", "onnxruntime"), ("torch", "train")]
)
def test_a_runtime_that_is_not_installed_names_the_extra(runtime, extra):
    code = f"""
import sys
sys.modules[{runtime!r}] = None
from siammask.engines import EngineOptions, open_engine
from siammask.errors import MissingExtra
from siammask.variants import variant
try:
    open_engine(variant("siammask"), EngineOptions(engine={runtime!r}, precision="f32"))
except MissingExtra as error:
    print(error)
"""
    assert said_by(code) == f"Engine {runtime!r} needs an extra: pip install 'siammask[{extra}]'."


def test_importing_engines_loads_no_runtime():
    code = "import sys, siammask.engines; print(sorted({'torch', 'openvino'} & set(sys.modules)))"
    assert said_by(code) == "[]"
