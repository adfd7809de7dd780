"""The overlay video holds every frame, painted."""

from __future__ import annotations

from pathlib import Path

import clips
import numpy as np

from siammask.formats import Row
from siammask.formats.overlay import OverlayWriter
from siammask.geometry import Box, RotatedBox
from siammask.media import Frame, open_source


def test_painted_frames_at_their_times(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), bool)
    mask[20:40, 20:44] = True
    row = Row(1, Box.from_xywh(20, 20, 24, 20), RotatedBox(32, 30, 24, 20, 0), mask, 0.9, 1.0)
    writer = OverlayWriter(tmp_path / "overlay.mp4", 25)
    for index, pixels in enumerate(clips.numbered(5)):
        writer.write(Frame(index, index**2 / 25, pixels), [row] if index else [])
    writer.close()
    frames = list(open_source(tmp_path / "overlay.mp4"))
    assert [round(frame.time * 25, 2) for frame in frames] == [0, 1, 4, 9, 16]
    reds = [frame.pixels[25:35, 25:40].astype(int).mean(axis=(0, 1)) for frame in frames]
    assert abs(reds[0][2] - reds[0][0]) < 10
    assert all(red[2] > red[0] + 80 for red in reds[1:])
