"""Two real processes that train one network, one of which dies on the way, against one process with both batches."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from two_processes import settings, train

from siammask.errors import InputError
from siammask.train import group as groups
from siammask.train.config import TrainConfig
from siammask.train.group import Group

HERE = Path(__file__).parent


def start(c: TrainConfig, root: Path, processes: int, restarts: int) -> str:
    """Run `two_processes.py` under torchrun; what it wrote on stderr."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["--max-restarts", str(restarts), "--monitor-interval", "0.1"]
    command += [str(HERE / "two_processes.py"), str(root), c.output]
    paths = [*sys.path, os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_processes_are_one_with_the_doubled_batch(root: Path, tmp_path: Path) -> None:
    """Same clips, same losses, same weights, though the second process dies in step 3 and both begin again at 2."""
    one, two = (settings(root, tmp_path / name) for name in ("one", "two"))
    train(one)
    said = start(two, root, 2, 1)
    assert "dies" in said
    assert [row["step"] for row in rows(tmp_path / "two")] == ["1", "2", "3", "4"]
    for ours, theirs in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        for name in ("mask", "dice", "coarse", "score", "overlap", "norm", "rate"):
            assert float(theirs[name]) == pytest.approx(float(ours[name]), rel=2e-4), (ours["step"], name)
    begun = load_file(tmp_path / "start.safetensors")
    ours, theirs = (load_file(tmp_path / name / "final.safetensors") for name in ("one", "two"))
    moved = max(float((ours[name] - begun[name]).abs().max()) for name in ours)
    apart = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
    assert apart < 0.05 * moved  # AdamW makes much of a gradient that is nearly nought, and so of its rounding
    assert json.loads((tmp_path / "two" / "seeds.json").read_text()) == [5, 5 + (1 << 32)]


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    with groups.joined("cpu") as group:
        assert group == Group()
    assert group.leads
    assert group.seed(3) == 3
    assert group.share("x") == "x"
    layer = torch.nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    assert group.average(layer, {"a": 1.0}) == {"a": 1.0}
    torch.testing.assert_close(layer.weight.grad, torch.ones(1, 2))


def test_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "TORCHELASTIC_RESTART_COUNT": "2"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert Group.named() == Group(3, 4, 1, 2)
    assert not Group.named().leads


def test_a_batch_is_shared_out() -> None:
    assert Group(1, 4).portion(16) == 4
    with pytest.raises(InputError, match=r"optim\.batch is 10, but 4 processes"):
        Group(1, 4).portion(10)
    assert replace(Group(), rank=2).seed(1) != Group().seed(1)
