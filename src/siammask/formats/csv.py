"""`track.csv`, a public contract: one line for each object on each frame, with its upright and its rotated box."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from siammask.errors import MediaError
from siammask.formats.base import Row
from siammask.media import Frame

HEADER = "frame,time,object,x,y,w,h,x1,y1,x2,y2,x3,y3,x4,y4,score,ms"


class CsvWriter:
    """Writes line by line and hands each frame over to the system at once, so what is tracked survives a crash.

    frame: index in the source. time: seconds from frame 0. x, y, w, h: the upright box; x1 .. y4: the corners of the
    rotated box in turn; both in pixels of the source frame. score in [0, 1]. ms: time spent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("w", encoding="utf-8", newline="")
            self._put(HEADER + "\n")
        except OSError as error:
            raise _unwritable(path, error) from error

    def write(self, frame: Frame, rows: Sequence[Row]) -> None:
        try:
            self._put("".join(f"{line(frame, row)}\n" for row in rows))
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def close(self) -> None:
        self._file.close()

    def _put(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()


def line(frame: Frame, row: Row) -> str:
    """One line of the file, without its end."""
    places = (*row.box.xywh, *row.rotated.corners.ravel().tolist())
    boxes = ",".join(f"{value:.2f}" for value in places)
    return f"{frame.index},{frame.time:.6f},{row.object},{boxes},{row.score:.4f},{row.ms:.2f}"


def _unwritable(path: Path, error: OSError) -> MediaError:
    return MediaError(f"{path} cannot be written ({error.strerror}).")
