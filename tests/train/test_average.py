"""The mean of checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from siammask.errors import WeightsError
from siammask.train.average import average


def test_the_mean_of_two(tmp_path: Path) -> None:
    for i, value in enumerate((1.0, 4.0)):
        tensors = {"a": torch.full((2, 3), value), "b": torch.tensor([value, -value], dtype=torch.float16)}
        save_file(tensors, tmp_path / f"{i}.safetensors", metadata={"variant": "guided", "step": str(i)})
    files = [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]
    average(tmp_path / "out.safetensors", files)
    found = load_file(tmp_path / "out.safetensors")
    assert torch.equal(found["a"], torch.full((2, 3), 2.5))
    assert torch.equal(found["b"], torch.tensor([2.5, -2.5], dtype=torch.float16))
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        header = file.metadata()
    assert header == {
        "variant": "guided",
        "step": "1",
        "validation": "{}",
        "mean_of": f"{files[0]}, {files[1]}",
    }


def test_a_part_that_was_put_in_later(tmp_path: Path) -> None:
    """Is taken from where it is, whichever file that is."""
    before, after = tmp_path / "before.safetensors", tmp_path / "after.safetensors"
    save_file({"a": torch.zeros(2), "other": torch.ones(1)}, before)
    save_file({"a": torch.ones(2), "new": torch.full((3,), 4.0)}, after)
    for files in ([before, after], [after, before]):
        average(tmp_path / "out.safetensors", files)
        found = load_file(tmp_path / "out.safetensors")
        assert set(found) == {"a", "new", "other"}
        assert torch.equal(found["a"], torch.full((2,), 0.5))
        assert torch.equal(found["new"], torch.full((3,), 4.0))
        assert torch.equal(found["other"], torch.ones(1))


def test_what_cannot_be_averaged(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "0.safetensors")
    save_file({"a": torch.zeros(3)}, tmp_path / "1.safetensors")
    with pytest.raises(WeightsError, match=r"0\.safetensors and .*1\.safetensors are not of the same network"):
        average(tmp_path / "out.safetensors", [tmp_path / "0.safetensors", tmp_path / "1.safetensors"])
    save_file({"b": torch.zeros(2)}, tmp_path / "2.safetensors")
    with pytest.raises(WeightsError, match=r"0\.safetensors and .*2\.safetensors are not of the same network"):
        average(tmp_path / "out.safetensors", [tmp_path / "0.safetensors", tmp_path / "2.safetensors"])
    with pytest.raises(WeightsError, match=r"none\.safetensors is missing"):
        average(tmp_path / "out.safetensors", [tmp_path / "0.safetensors", tmp_path / "none.safetensors"])
    assert not (tmp_path / "out.safetensors").exists()
