"""The table of rotated boxes, on a drawn bar that turns."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import RED, FakeEngine, scene

import siammask
from siammask import cli
from siammask.boxes import STRATEGIES
from siammask.errors import InputError
from siammask.evaluate.boxes import ORACLE, compare_boxes
from siammask.formats.masks import encode_indexed
from siammask.geometry import RotatedBox
from siammask.tracker import Tracker
from siammask.variants import variant


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bar that turns on the spot by 15 degrees a frame; hidden on the fourth of five frames."""
    for part in ("frames", "masks"):
        (tmp_path / "bar" / part).mkdir(parents=True)
    for k in range(5):
        mask = np.zeros((240, 320), np.uint8)
        if k != 3:
            corners = RotatedBox(160, 120, 90, 30, 15 * (k + 1)).corners
            cv2.fillConvexPoly(mask, np.round(corners).astype(np.int32), 1)
        frame = scene()
        frame[mask > 0] = RED
        cv2.imwrite(str(tmp_path / "bar" / "frames" / f"{k:05d}.png"), frame)
        (tmp_path / "bar" / "masks" / f"{k:05d}.png").write_bytes(encode_indexed(mask))
    return tmp_path


def test_oracle_rows_say_what_the_boxes_are_worth(folder: Path) -> None:
    report = compare_boxes(folder)
    rows = {row.strategy: row for row in report.rows}
    assert tuple(rows) == STRATEGIES
    assert (report.sequences, report.frames) == (("bar",), 3)  # without the first, and the one that shows nothing
    assert all(row.masks == ORACLE for row in report.rows)
    assert rows["min_max"].iou < 0.5 < 0.7 < rows["ellipse"].iou < 0.9 < rows["mbr"].iou < rows["opt"].iou < 1
    assert rows["opt"].over_70 == rows["mbr"].over_50 == 1
    assert rows["min_max"].over_70 == 0


def test_a_tracker_s_masks_are_compared_with_the_true_ones(folder: Path) -> None:
    row, done = variant("guided"), []
    report = compare_boxes(folder, Tracker(row, FakeEngine(row)), lambda *told: done.append(told))
    assert len(report.rows) == 8
    drawn = {r.strategy: r for r in report.rows if r.masks == "guided"}
    true = {r.strategy: r for r in report.rows if r.masks == ORACLE}
    for strategy in STRATEGIES:
        assert drawn[strategy].iou == pytest.approx(true[strategy].iou, abs=0.08)
    assert done[-1] == ("bar", 5, 5)


def test_the_command_prints_the_table_and_writes_the_figures(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["boxes", str(folder), "--json", str(tmp_path / "boxes.json")])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(strategy in out for strategy in STRATEGIES)
    figures = json.loads((tmp_path / "boxes.json").read_text())
    assert [row["strategy"] for row in figures["rows"]] == list(STRATEGIES)


def test_a_folder_without_masks(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    cv2.imwrite(str(tmp_path / "frames" / "0.png"), scene())
    (tmp_path / "boxes.txt").write_text("1,1,5,5\n")
    with pytest.raises(InputError, match="holds no sequence with masks"):
        compare_boxes(tmp_path)


def test_track_writes_the_boxes_asked_for(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = variant("guided")
    monkeypatch.setattr(siammask, "load", lambda *_, **__: Tracker(row, FakeEngine(row)))
    leans = {}
    for strategy in ("min_max", "opt"):
        out, frames = tmp_path / strategy, folder / "bar" / "frames"
        with pytest.raises(SystemExit) as ended:
            cli.main(
                [
                    "track",
                    str(frames),
                    "--box",
                    "110,95,100,50",
                    "--save",
                    "csv",
                    "--rotated",
                    strategy,
                    "--out",
                    str(out),
                ]
            )
        assert ended.value.code == 0
        with (out / "track.csv").open() as file:
            last = list(csv.DictReader(file))[2]
        leans[strategy] = abs(float(last["y2"]) - float(last["y1"])), abs(float(last["x2"]) - float(last["x1"]))
    assert min(leans["min_max"]) == 0
    assert min(leans["opt"]) > 10
