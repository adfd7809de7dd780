"""The examples, and the Python of the README, run as they stand."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEngine

import siammask
from siammask import demo
from siammask.tracker import Tracker

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def fake_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str = "guided", **_: object) -> Tracker:
        variant = siammask.variant(name)
        return Tracker(variant, FakeEngine(variant))

    monkeypatch.setattr(siammask, "load", load)


def test_track_file(capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(ROOT / "examples" / "track_file.py"))["main"]
    main([str(demo.BUNNY), "145,88,150,205"])
    assert len(capsys.readouterr().out.splitlines()) == 90


def test_own_frames(capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(ROOT / "examples" / "own_frames.py"))["main"]
    main(4)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_readme(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(demo.BUNNY.read_bytes())
    monkeypatch.chdir(tmp_path)
    pieces = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(pieces) == 3
    frames = [frame.pixels for frame in demo.bunny().frames(85)]
    names: dict[str, object] = {"first_frame": frames[0], "frames": frames[1:]}
    exec(pieces[0], dict(names))
    assert len(capsys.readouterr().out.splitlines()) == 90
    exec(pieces[1], names | {"siammask": siammask})
    exec(pieces[2], names | {"siammask": siammask})
    with pytest.raises(siammask.InputError):  # the frames must keep their size
        exec(pieces[1], names | {"siammask": siammask, "frames": [np.zeros((9, 9, 3), np.uint8)]})
