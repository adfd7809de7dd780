"""What is compared, on which sequences, and how sure the difference is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train'")
from hypothesis import given
from hypothesis import strategies as st

from siammask import weights
from siammask.errors import InputError
from siammask.train import compare
from siammask.train.compare import Figures, difference


def config(root: Path, folder: Path, harder: bool = True) -> str:
    """A config's file, whose validation is one sequence of the drawn pool."""
    file = folder / "run.toml"
    lines = ['variant = "guided"', f'output = "{folder / "out"}"', "[data]", f'root = "{root}"', 'sources = ["blobs"]']
    lines += [f'cache = "{folder / "cache"}"', 'validation = ["blobs/walk"]', f"harder = {str(harder).lower()}"]
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def test_candidates_are_tracked_once_and_shown_beside_each_other(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, keep = str(weights.folder("guided", None)), tmp_path / "kept.json"
    given_ = [config(root, tmp_path), folder, f"{folder}:window_factor=2+lr=0.9"]
    compare.main([*given_, f"--keep={keep}", "--precision=f32"])
    kept = json.loads(keep.read_text())
    assert list(kept) == given_[1:]
    assert all("whole/blobs-walk" in figures for figures in kept.values())
    assert kept[folder] != kept[given_[2]]
    said = capsys.readouterr().out
    for text in ("of 1 videos", "J, difference, held out", "J, whole"):
        assert text in said
    kept[folder]["whole/blobs-walk"] = [0.125, 0.5]
    keep.write_text(json.dumps(kept))
    compare.main([*given_[:2], f"--keep={keep}"])  # nothing is tracked again
    assert "0.1250" in capsys.readouterr().out


def test_what_cannot_be_compared_is_said(root: Path, tmp_path: Path) -> None:
    file = config(root, tmp_path)
    with pytest.raises(InputError, match=r"'--fast' is unknown; give --keep"):
        compare.main([file, "folder", "--fast=1"])
    with pytest.raises(InputError, match="at least one config"):
        compare.main(["folder"])
    with pytest.raises(InputError, match="at least one config"):
        compare.main([file])
    with pytest.raises(InputError, match=r"'--processes=0'.*at least 1"):
        compare.main([file, "folder", "--processes=0"])


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12))
def test_error_of_sequences_of_their_own_is_the_usual_one(gaps: list[float]) -> None:
    found = difference(gaps, [0.0] * len(gaps), [str(i) for i in range(len(gaps))])
    assert found.mean == pytest.approx(np.mean(gaps))
    assert found.error == pytest.approx(np.std(gaps, ddof=1) / np.sqrt(len(gaps)), abs=1e-9)


def test_copies_of_a_sequence_make_nothing_surer() -> None:
    once = difference([0.2, -0.1, 0.3], [0.0] * 3, ["a", "b", "c"])
    thrice = difference([0.2, -0.1, 0.3] * 3, [0.0] * 9, ["a", "b", "c"] * 3)
    assert (thrice.mean, thrice.error) == (pytest.approx(once.mean), pytest.approx(once.error))
    assert np.isnan(difference([0.1, 0.3], [0.0, 0.0], ["a", "a"]).error)  # of one video nothing is known


def test_sequences_without_masks_count_for_boxes_alone() -> None:
    first: Figures = {"whole/a": (0.5, 0.4), "whole/b": (None, 0.2), "fast/upper/a": (0.3, 0.3)}
    other: Figures = {"whole/a": (0.7, 0.5), "whole/b": (None, 0.6), "fast/upper/a": (0.3, 0.3)}
    shown = compare.table({"x": first, "y": other}, ["x", "y"], frozenset({"b"}))
    columns = [list(column.cells) for column in shown.columns]
    lines = {cells[0]: cells[1:] for cells in zip(*columns, strict=True)}
    assert lines["J"] == ("0.4000", "0.5000")
    assert lines["AUC"] == ("0.3000", "0.4667")
    assert lines["J, difference, held out"] == ("", "")
    assert lines["AUC, difference, held out"][1].startswith("+0.4000")
    assert lines["J, fast/upper"] == ("0.3000", "0.3000")
