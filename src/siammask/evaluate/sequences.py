"""Annotated video on disk: `<source>/<sequence>/frames`, `masks`, `boxes.txt`, read a frame at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from siammask.errors import MediaError
from siammask.geometry import Box, UInt8
from siammask.media.read import PICTURES, read_picture


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """One object in one clip: paths of frames and masks, and the true box of every frame."""

    name: str  # as it lies in the folder that was asked for: "source/sequence", with "#3" for object 3 of several
    frames: tuple[Path, ...]
    masks: tuple[Path, ...] | None  # one for each frame; None where there are only boxes
    boxes: NDArray[np.float64]  # (N, 4) x, y, w, h in pixels of the frame; 0, 0, 0, 0 where the object is not visible
    index: int | None = None  # the value of the object's pixels in the masks; None: every pixel that is not 0

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def first(self) -> int:
        """Number of the first frame whose true box has an area."""
        return int(np.flatnonzero(visible(self.boxes))[0])

    def box(self, frame: int) -> Box | None:
        """True box of one frame; None where the object is not visible."""
        row = self.boxes[frame]
        return Box.from_xywh(*row) if visible(row) else None

    def read_frame(self, frame: int) -> UInt8:
        """Frame (H, W, 3) uint8 BGR; raises MediaError where the picture cannot be read."""
        return read_picture(self.frames[frame])

    def read_mask(self, frame: int) -> NDArray[np.bool_]:
        """True mask (H, W) of one frame; raises MediaError where it cannot be read, or there is none."""
        if self.masks is None:
            raise MediaError(f"Sequence {self.name} has boxes but no masks.")
        values = read_indexed_png(self.masks[frame])
        return np.asarray(values != 0 if self.index is None else values == self.index)


def visible(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of (..., 4) x, y, w, h have an area."""
    return np.asarray((boxes[..., 2] > 0) & (boxes[..., 3] > 0))


def find_sequences(folder: str | Path) -> tuple[Sequence, ...]:
    """Every sequence of `folder`, by name: a folder of sources, one source, or one sequence. Pictures stay on disk.

    A sequence is a folder with a folder `frames`; others (stills, say) are passed over. `boxes.txt` gives the boxes of
    the one object. Without it the tight box of each object in `masks` does, and every object is a sequence of its own.
    An object that is never visible is none.

    Raises MediaError where nothing is found, and for a sequence whose counts or names of frames, masks and boxes
    differ, or whose boxes are not numbers.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MediaError(f"{root} is not a folder; give a folder of sources, of sequences, or one sequence.")
    places = [p for p in (root, *sorted(root.glob("*")), *sorted(root.glob("*/*"))) if (p / "frames").is_dir()]
    found = tuple(sequence for place in places for sequence in _sequences_at(place, root))
    if not found:
        raise MediaError(f"{root} holds no sequence; expected <sequence>/frames/ with masks/ or boxes.txt beside it.")
    return found


def read_indexed_png(path: str | Path) -> UInt8:
    """Values (H, W) uint8 of an indexed or grey picture: the palette's index, never its colour.

    Raises MediaError for a picture that is damaged or in colour. (`cv2.imread` turns an index into its colour.)
    """
    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
    except (av.error.FFmpegError, OSError, StopIteration, IndexError) as error:
        raise MediaError(f"Mask {path} cannot be read as a picture ({error}).") from error
    if frame.format.name.startswith("mono"):  # one bit a pixel, eight pixels a byte
        frame = frame.reformat(format="gray")
    if frame.format.name not in ("pal8", "gray"):
        raise MediaError(
            f"Mask {path} is a {frame.format.name} picture; expected one 8-bit value a pixel (indexed or grey)."
        )
    plane = frame.planes[0]
    values = np.asarray(memoryview(plane), np.uint8).reshape(-1, plane.line_size)  # rows may be padded
    return values[: frame.height, : frame.width].copy()


def _sequences_at(place: Path, root: Path) -> Iterator[Sequence]:
    """The objects of one sequence folder."""
    name = root.resolve().name if place == root else place.relative_to(root).as_posix()
    frames = _pictures(place / "frames")
    if not frames:
        raise MediaError(f"{place / 'frames'} holds no picture.")
    masks = _pictures(place / "masks") or None
    if masks is not None:
        _check_pairs(frames, masks, place)
    if (place / "boxes.txt").is_file():
        boxes = read_boxes(place / "boxes.txt", len(frames))
        if visible(boxes).any():
            yield Sequence(name, frames, masks, boxes)
        return
    if masks is None:
        raise MediaError(f"{place} has neither masks/ nor boxes.txt.")
    by_object = _boxes_of_masks(masks)
    for index, boxes in by_object.items():
        yield Sequence(name if len(by_object) == 1 else f"{name}#{index}", frames, masks, boxes, index)


def _pictures(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    pictures = (path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    return tuple(sorted(pictures, key=lambda path: (len(path.stem), path.stem)))  # so that 10 follows 9


def _check_pairs(frames: tuple[Path, ...], masks: tuple[Path, ...], place: Path) -> None:
    if len(frames) != len(masks):
        raise MediaError(f"{place} has {len(frames)} frames but {len(masks)} masks; every frame needs its mask.")
    for frame, mask in zip(frames, masks, strict=True):
        if frame.stem != mask.stem:
            raise MediaError(f"Frame {frame} stands beside mask {mask}; a mask must be named like its frame.")


def read_boxes(path: Path, count: int) -> NDArray[np.float64]:
    """(N, 4) of a file with x,y,w,h on each line (commas, tabs or spaces)."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise MediaError(f"{path} cannot be read ({error}).") from error
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        try:
            row = [float(value) for value in line.replace(",", " ").split()]
        except ValueError:
            row = []
        if len(row) != 4 or not np.isfinite(row).all():
            raise MediaError(f"{path}, line {number} is {line.strip()!r}; expected x,y,w,h in pixels.")
        rows.append(row)
    if len(rows) != count:
        raise MediaError(
            f"{path} has {len(rows)} boxes for {count} frames; every frame needs one (0,0,0,0 = not visible)."
        )
    return np.array(rows, np.float64)


def _boxes_of_masks(masks: tuple[Path, ...]) -> dict[int, NDArray[np.float64]]:
    """Tight boxes (N, 4) of every object value in the masks."""
    by_object: dict[int, NDArray[np.float64]] = {}
    for number, path in enumerate(masks):
        values = read_indexed_png(path)
        for index in np.unique(values[values != 0]).tolist():
            box = Box.from_mask(values == index)
            boxes = by_object.setdefault(index, np.zeros((len(masks), 4)))
            boxes[number] = box.xywh if box is not None else 0
    return dict(sorted(by_object.items()))
