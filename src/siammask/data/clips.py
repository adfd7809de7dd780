"""What every reader of a layout gives: clips of pictures with the objects on them, and the problems that it met."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from siammask.data.report import Problem
from siammask.errors import MediaError
from siammask.geometry import UInt8
from siammask.media.read import PICTURES, read_picture
from siammask.regions import Mask

XYWH = tuple[float, float, float, float]
Draw = Callable[[int, int], Mask]  # of height and width


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """One object on one picture; coordinates in pixels, with the edges of pixels at whole numbers."""

    key: int | str  # the same for the same object all through a clip
    box: XYWH | None = None
    draw: Draw | None = None  # its mask; None where there is only a box
    category: str = ""
    ignore: bool = False  # what lies there is of no known object (a crowd)
    layer: int = 0  # higher ones lie in front; in one layer the smaller ones do


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture and what is known of it."""

    file: Path
    things: tuple[Thing, ...] = ()
    ids: Path | None = None  # an indexed mask, in place of things
    size: tuple[int, int] | None = None  # (W, H) that the annotation speaks of
    relative: bool = False  # boxes are in shares of the frame
    cutout: str = ""  # category of its one object, which its alpha shows; in place of things


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Pictures in time order, or one still."""

    name: str
    pictures: tuple[Picture, ...]
    video: bool


Found = Iterator[Clip | Problem]
Reader = Callable[[Path], Found]


class Finder:
    """Finds the pictures that an annotation names: beside it, below usual folders, or by their bare name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, name: str, *near: Path) -> Path | None:
        """The picture `name`, looked for in the folders `near` first; None where there is none, or several."""
        for place in (*near, self._folder, self._folder / "images", self._folder / "data"):
            if (place / name).is_file():
                return place / name
        if self._by_name is None:
            self._by_name = {}
            for file in pictures(self._folder, deep=True):
                self._by_name.setdefault(file.name, []).append(file)
        found = self._by_name.get(Path(name.replace("\\", "/")).name, [])
        return found[0] if len(found) == 1 else None


def pictures(folder: Path, deep: bool = False) -> list[Path]:
    """The pictures in a folder (and those below), numbers in natural order."""
    found = (path for path in (folder.rglob("*") if deep else folder.iterdir()) if path.suffix.lower() in PICTURES)
    return sorted(found, key=lambda path: (path.parent, len(path.stem), path.stem))


def read_whole(path: Path) -> UInt8:
    """A picture (H, W, 3) BGR; raise MediaError where it cannot be read or is cut off (OpenCV fills with grey)."""
    whole(path)
    return read_picture(path)


def whole(path: Path) -> bytes:
    """A picture's file; raise MediaError where it cannot be read, or is cut off.

    A JPEG's last scan (marker FFDA) must be followed by the end marker FFD9, a PNG's data by IEND, and a WebP be as
    long as it says.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MediaError(f"Picture {path} cannot be read ({error.strerror}).") from error
    jpeg = data[:2] == b"\xff\xd8" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    webp = data[:4] == b"RIFF" and len(data) < 8 + int.from_bytes(data[4:8], "little")
    if jpeg or webp or (data[:4] == b"\x89PNG" and b"IEND" not in data[-32:]):
        raise MediaError(f"Picture {path} ends in the middle.")
    return data


def flat(path: Path | str) -> str:
    """A relative path as one name without ending.

    >>> flat("train/a/0001.jpg")
    'train_a_0001'
    """
    return "_".join(Path(str(path).replace("\\", "/")).with_suffix("").parts)
