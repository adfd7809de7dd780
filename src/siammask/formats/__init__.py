"""The kinds of result that a run can leave in its folder: one row each, one file each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from siammask.errors import InputError
from siammask.formats.base import Row, Writer
from siammask.formats.csv import CsvWriter
from siammask.formats.masks import MaskWriter
from siammask.formats.overlay import OverlayWriter
from siammask.media import Source

__all__ = ["FORMATS", "Format", "Row", "Writer", "formats"]


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of result."""

    name: str
    path: str  # below the folder of results
    open: Callable[[Path, Source], Writer]


_ROWS = (
    Format("overlay", "overlay.mp4", lambda path, source: OverlayWriter(path, source.fps)),
    Format("masks", "masks", lambda path, _: MaskWriter(path)),
    Format("csv", "track.csv", lambda path, _: CsvWriter(path)),
)

FORMATS: dict[str, Format] = {row.name: row for row in _ROWS}


def formats(names: str) -> tuple[Format, ...]:
    """The formats named in a list with commas; raise InputError, naming those there are, for an unknown one.

    >>> [format.path for format in formats("csv,masks")]
    ['track.csv', 'masks']
    """
    wanted = dict.fromkeys(name.strip() for name in names.split(","))
    unknown = [name for name in wanted if name not in FORMATS]
    if unknown:
        raise InputError(f"No kind of result is called {unknown[0]!r}; choose from {','.join(FORMATS)}.")
    return tuple(FORMATS[name] for name in wanted)
