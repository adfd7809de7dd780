"""`overlay.mp4`: the source with every object's mask, boxes and score painted on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from siammask.formats.base import Row
from siammask.media import Frame, VideoWriter
from siammask.media.draw import paint


class OverlayWriter:
    """Paints and encodes; the file appears under its name when it is closed."""

    def __init__(self, path: Path, fps: float | None) -> None:
        self.path = path
        self._video = VideoWriter(path, fps)

    def write(self, frame: Frame, rows: Sequence[Row]) -> None:
        pixels = frame.pixels
        for row in rows:
            pixels = paint(
                pixels,
                row.mask,
                box=row.box,
                rotated=row.rotated,
                label=f"{row.object}  {row.score:.2f}",
                object_id=row.object,
            )
        self._video.write(pixels, frame.time)

    def close(self) -> None:
        self._video.close()
