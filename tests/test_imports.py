"""Importing stays light, and dependencies point one way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import siammask

HEAVY = ("torch", "openvino", "onnxruntime", "typer", "rich", "av", "safetensors")
CORE = ("geometry", "anchors", "variants", "locate", "regions", "opt", "boxes", "tracker", "multi")
ABOVE = (
    "engines.openvino",
    "engines.onnxruntime",
    "engines.torch",
    "network",
    "train",
    "media",
    "formats",
    "evaluate",
    "cli",
)


def loaded_by(statement: str) -> set[str]:
    """Names of the modules in memory after `statement` in a fresh interpreter."""
    source = str(Path(siammask.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {source!r}); {statement}; import json; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_probe_sees_an_import() -> None:
    assert "safetensors" in loaded_by("import safetensors")


@pytest.mark.parametrize("statement", ["import siammask", *(f"import siammask.{name}" for name in CORE)])
def test_nothing_from_the_tracker_down_needs_a_runtime_or_a_user_interface(statement: str) -> None:
    modules = loaded_by(statement)
    assert not modules & set(HEAVY)
    assert not [name for name in modules for above in ABOVE if name.startswith(f"siammask.{above}")]


def test_the_public_names_are_there() -> None:
    for name in siammask.__all__:
        assert getattr(siammask, name) is not None
    assert siammask.__version__ == "0.1.0"
