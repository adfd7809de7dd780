"""The score's fit, from a config and weights to two numbers."""

from __future__ import annotations

from collections.abc import Sequence as Many
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEngine

from siammask.errors import InputError
from siammask.evaluate.sequences import find_sequences
from siammask.tracker import Tracker
from siammask.train import calibrate
from siammask.variants import variant

CONFIG = """
variant = "guided"
output = "out"
[data]
root = "{root}"
sources = ["blobs"]
validation = ["blobs/walk", "blobs/back"]
"""


def test_scores_are_judged_by_the_truth(root: Path) -> None:
    (walk,) = find_sequences(root / "blobs" / "walk")
    row = variant("guided").searching(score_scale=1.0, score_shift=0.0)  # as `main` judges: the network's own scores
    scores, overlaps = calibrate.judged(Tracker(row, FakeEngine(row, 0.8)), walk)
    assert scores == pytest.approx(np.full(len(walk) - 1, 0.8))
    assert overlaps.shape == scores.shape
    assert overlaps.min() >= 0.0


def test_from_config_to_two_numbers(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibrate, "open_engine", lambda row, *_: FakeEngine(row, 0.8))
    (tmp_path / "run.toml").write_text(CONFIG.format(root=root.as_posix()))
    calibrate.main([str(tmp_path / "run.toml"), "weights", "--threads=1"])
    said = capsys.readouterr().out
    row = variant("guided").searching(score_scale=1.0, score_shift=0.0)
    some = [calibrate.judged(Tracker(row, FakeEngine(row, 0.8)), s) for s in find_sequences(root / "blobs")]
    mean = np.concatenate([overlaps for _, overlaps in some]).mean()
    scale, shift = (float(part.split("=")[1].strip(",")) for part in said.split()[:2])
    told: Many[float] = calibrate.turned(np.array([0.8]), scale, shift)  # type: ignore[assignment]
    assert told[0] == pytest.approx(mean, abs=0.01)  # scores that are all alike can only become the mean
    assert "before: bias" in said
    assert "after: bias" in said


def test_unknown_arguments(root: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(CONFIG.format(root=root.as_posix()))
    with pytest.raises(InputError, match="is unknown"):
        calibrate.main([str(tmp_path / "run.toml"), "weights", "--fast"])
