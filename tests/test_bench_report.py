"""What was measured is shown whole: tables, and plots that other programs can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import pytest
from rich.console import Console

from siammask import bench_report
from siammask.errors import InputError, MediaError


def report() -> dict[str, Any]:
    spread = {"median": 2.0, "10%": 1.5, "90%": 3.0}
    row = {"ms": spread, "fps_of_rounds": spread, "times_the_first": spread, "threads": 2}
    return {
        "clip": "a <clip>.mp4",
        "size": [640, 360],
        "frames_a_block": 30,
        "rounds": 10,
        "machine": {"cpu": "A & B", "cores": 2, "features": ["avx2"], "system": "Linux", "gpu": None},
        "versions": {"siammask": "0.1.0"},
        "rows": [{"name": "one", **row}, {"name": "two", **row}],
        "left_out": {"csrt": "OpenCV has none."},
    }


def test_plots(tmp_path: Path) -> None:
    bench_report.plot(report(), tmp_path / "a.svg")
    tree = ElementTree.parse(tmp_path / "a.svg").getroot()
    texts = [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "ms a frame, a <clip>.mp4 640x360, A & B"
    assert texts[1:] == ["one", "2.0 (1.5-3.0)", "two", "2.0 (1.5-3.0)"]
    bars = list(tree.iter("{http://www.w3.org/2000/svg}rect"))[1:]
    assert len({bar.get("width") for bar in bars}) == 1
    bench_report.plot(report(), tmp_path / "a.png")
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture is not None
    assert (picture == (194, 144, 74)).all(axis=2).sum() > 1000
    with pytest.raises(InputError, match=r"neither \.svg nor \.png"):
        bench_report.plot(report(), tmp_path / "a.pdf")
    with pytest.raises(MediaError, match="cannot be written"):
        bench_report.plot(report(), tmp_path / "none" / "a.svg")


def test_tables() -> None:
    console = Console(record=True, width=150)
    bench_report.show(report(), console)
    said = console.export_text()
    assert "a <clip>.mp4, 640x360; A & B, 2 cores, avx2" in said
    assert "Without csrt: OpenCV has none." in said
    assert "2.00 (1.50-3.00)" in said
    assert "mask IoU" not in said
    given = report()
    far = {"mean": 0.01, "max": 0.25}
    given["rows"][1]["accuracy"] = {"to": "one", "mask_iou": {"mean": 0.99, "min": 0.9}, "mask": far, "score": far}
    bench_report.show(given, console)
    assert "0.9900 (0.9000)   0.0100 (0.2500)   0.0100 (0.2500)" in console.export_text()
