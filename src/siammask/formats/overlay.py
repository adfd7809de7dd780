"""`overlay.mp4`: the source with every object's mask, boxes and score painted on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from siammask.formats.base import Row
from siammask.geometry import UInt8
from siammask.media import Frame, VideoWriter
from siammask.media.draw import paint
from siammask.pipeline import Behind


class OverlayWriter:
    """Paints, and encodes in a thread of its own; the file appears under its name when it is closed."""

    def __init__(self, path: Path, fps: float | None) -> None:
        self.path = path
        video = VideoWriter(path, fps)
        self._encoding = Behind[tuple[UInt8, float]](lambda painted: video.write(*painted), video.close)

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
        self._encoding.put((pixels, frame.time))

    def close(self) -> None:
        self._encoding.close()
