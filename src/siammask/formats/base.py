"""What every result writer takes: one row for each object on each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from siammask.errors import MediaError
from siammask.geometry import Box, RotatedBox
from siammask.media import Frame


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One object on one frame, in pixels of that frame."""

    object: int  # id, 1 to 254; 0 is the background
    box: Box
    rotated: RotatedBox
    mask: NDArray[np.bool_]  # (H, W)
    score: float  # in [0, 1]
    ms: float  # time spent on this object, from decoded frame to mask and rotated box; a frame's is shared evenly


class Writer(Protocol):
    """One kind of result being written; once `close` has been called what lies on disk is whole, however little."""

    @property
    def path(self) -> Path:
        """The file or folder that it writes."""

    def write(self, frame: Frame, rows: Sequence[Row]) -> None:
        """Add the objects of one frame; frames come in order. Raises MediaError where that cannot be written."""

    def close(self) -> None:
        """Finish what is written; a second call does nothing."""


def make_folder(folder: Path) -> None:
    """Create a folder for results, and those above it; raise MediaError where that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"Folder {folder} cannot be made ({error.strerror}: {error.filename}).") from error
