"""The table is a public contract: header, order and units."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from siammask.errors import MediaError
from siammask.formats import Row
from siammask.formats.csv import CsvWriter
from siammask.geometry import Box, RotatedBox
from siammask.media import Frame

PIXELS = np.zeros((48, 64, 3), np.uint8)
ROW = Row(1, Box.from_xywh(10, 20, 30, 8), RotatedBox(25, 24, 30, 8, 0), np.zeros((48, 64), bool), 0.87654, 12.345)


def test_header_and_values(tmp_path: Path) -> None:
    writer = CsvWriter(tmp_path / "track.csv")
    writer.write(Frame(7, 0.28, PIXELS), [ROW])
    writer.close()
    header, line = (tmp_path / "track.csv").read_text().splitlines()
    assert header == "frame,time,object,x,y,w,h,x1,y1,x2,y2,x3,y3,x4,y4,score,ms"
    row = dict(zip(header.split(","), line.split(","), strict=True))
    assert (row["frame"], row["object"]) == ("7", "1")
    assert float(row["time"]) == pytest.approx(0.28)
    assert [float(row[name]) for name in "xywh"] == [10, 20, 30, 8]
    corners = {(float(row[f"x{i}"]), float(row[f"y{i}"])) for i in (1, 2, 3, 4)}
    assert corners == {(10, 20), (40, 20), (40, 28), (10, 28)}
    assert float(row["score"]) == pytest.approx(0.8765, abs=1e-4)
    assert float(row["ms"]) == pytest.approx(12.35, abs=0.01)


def test_each_line_is_on_disk_at_once(tmp_path: Path) -> None:
    writer = CsvWriter(tmp_path / "track.csv")
    for index in range(3):
        writer.write(Frame(index, index / 25, PIXELS), [ROW, ROW])
        with (tmp_path / "track.csv").open() as file:
            assert [row["frame"] for row in csv.DictReader(file)] == [str(i) for i in range(index + 1) for _ in "ab"]
    writer.close()


def test_unwritable(tmp_path: Path) -> None:
    (tmp_path / "track.csv").mkdir()
    with pytest.raises(MediaError, match=r"track\.csv cannot be written"):
        CsvWriter(tmp_path / "track.csv")
