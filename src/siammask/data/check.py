"""The data doctor: looks at every file of a pool (or a source, or a sequence) and lists what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from siammask.data.clips import pictures, read_whole
from siammask.data.report import Problem, Progress, Report, by_file
from siammask.errors import MediaError
from siammask.evaluate.sequences import read_boxes, read_indexed_png, visible
from siammask.geometry import UInt8
from siammask.train.pool import IGNORE

Size = tuple[int, int]  # W, H


@dataclass(slots=True)
class _Found:
    """What the doctor has seen so far."""

    problems: list[Problem] = field(default_factory=list)
    clips: int = 0
    stills: int = 0
    pictures: int = 0
    objects: int = 0

    def note(self, file: Path, what: str, fatal: bool = True) -> None:
        self.problems.append(Problem(file, what, fatal))


def check_folder(folder: Path, progress: Progress = lambda name: None) -> Report:
    """Read every picture, mask, box and item of a pool, of one of its sources, or of one sequence.

    Fatal is what training cannot read or would learn wrongly: pictures and masks that are missing, broken or of unequal
    counts, boxes that are no numbers or lie outside, ids that clash. Raises MediaError where there is nothing to check.
    """
    if not folder.is_dir():
        raise MediaError(f"{folder} is not a folder.")
    found = _Found()
    for place in (folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))):
        if (place / "frames").is_dir():
            _sequence(place, found)
        elif (place / "items.json").is_file():
            _stills(place, found, progress)
        else:
            continue
        progress(str(place.relative_to(folder)))
    if not found.clips and not found.stills and not found.problems:
        raise MediaError(f"{folder} holds neither <sequence>/frames/ nor items.json; give a pool, or a source of one.")
    return Report(found.clips, found.stills, found.pictures, found.objects, by_file(found.problems))


def _sequence(place: Path, found: _Found) -> None:
    """`frames/*.jpg` with `masks/*.png` of the same names, or with `boxes.txt`."""
    frames = pictures(place / "frames")
    for frame in frames:
        if frame.suffix != ".jpg":
            found.note(frame, "Training reads only *.jpg.")
    sizes = [_picture(frame, found) for frame in frames]
    for frame, size in zip(frames, sizes, strict=True):
        if size is not None and size != next(s for s in sizes if s is not None):
            found.note(frame, "Its size differs from that of the first frame.", fatal=False)
    found.clips += 1
    found.pictures += len(frames)
    if not frames:
        found.note(place / "frames", "It holds no picture.")
    masks = {path.stem: path for path in pictures(place / "masks")} if (place / "masks").is_dir() else None
    if masks is not None:
        _masks(frames, sizes, masks, place, found)
    if (place / "boxes.txt").is_file():
        _boxes(place / "boxes.txt", frames, sizes, found, alone=masks is None)
    elif masks is None:
        found.note(place, "It has neither masks/ nor boxes.txt.")


def _masks(frames: list[Path], sizes: list[Size | None], masks: Mapping[str, Path], place: Path, found: _Found) -> None:
    if len(masks) != len(frames):
        found.note(place / "masks", f"There are {len(frames)} frames but {len(masks)} masks.")
    seen: set[int] = set()
    for frame, size in zip(frames, sizes, strict=True):
        if frame.stem not in masks:
            found.note(frame, "It has no mask of its name.")
            continue
        ids = _mask(masks[frame.stem], size, found)
        if ids is not None:
            objects = set(_objects(ids))
            if not objects:
                found.note(masks[frame.stem], "The mask is empty.", fatal=False)
            seen |= objects
    for stem in sorted(masks.keys() - {frame.stem for frame in frames}):
        found.note(masks[stem], "There is no frame of its name.")
    if frames and not seen:
        found.note(place / "masks", "No frame shows an object.")
    found.objects += len(seen)


def _boxes(file: Path, frames: list[Path], sizes: list[Size | None], found: _Found, alone: bool) -> None:
    try:
        boxes = read_boxes(file, len(frames))
    except MediaError as error:
        found.problems.append(Problem.of(file, error))
        return
    if not visible(boxes).any():
        found.note(file, "The object is visible on no frame.")
    elif alone:
        found.objects += 1
    for number, ((x, y, w, h), size) in enumerate(zip(boxes, sizes, strict=True), 1):
        if w < 0 or h < 0:
            found.note(file, f"Line {number}: the box is {w:g}x{h:g}.")
        elif w > 0 and h > 0 and size is not None:
            if x >= size[0] or y >= size[1] or x + w <= 0 or y + h <= 0:
                found.note(file, f"Line {number}: the box lies outside of the frame of {size[0]}x{size[1]}.")
            elif x < -1 or y < -1 or x + w > size[0] + 1 or y + h > size[1] + 1:
                found.note(file, f"Line {number}: the box reaches beyond the frame.", fatal=False)


def _stills(place: Path, found: _Found, progress: Progress) -> None:
    """`items.json` with `images/` and `masks/`."""
    file = place / "items.json"
    try:
        items = json.loads(file.read_text(encoding="utf-8"))
        rows = [(place / item["image"], place / item["mask"], item) for item in items]
    except (OSError, ValueError, KeyError, TypeError) as error:
        found.note(file, f"It cannot be read as a list of items ({error!r}).")
        return
    seen: set[str] = set()
    for image, mask, item in rows:
        if image.stem in seen:
            found.note(image, "Two items have a picture of this name.")
        seen.add(image.stem)
        size = _picture(image, found)
        ids = _mask(mask, size, found)
        found.stills += 1
        found.pictures += 1
        if ids is not None:
            found.objects += len(_objects(ids))
            _item(item, ids, mask, found)
        progress(image.stem)
    for folder, listed in (("images", {row[0].name for row in rows}), ("masks", {row[1].name for row in rows})):
        for path in pictures(place / folder) if (place / folder).is_dir() else ():
            if path.name not in listed:
                found.note(path, "No item names it.", fatal=False)


def _item(item: Mapping[str, Any], ids: UInt8, mask: Path, found: _Found) -> None:
    """What an item says of its objects, against the mask."""
    objects = item.get("objects", [])
    numbers = [row.get("id") for row in objects if isinstance(row, Mapping)]
    drawn = _objects(ids)
    if len(numbers) < len(objects) or len(set(numbers)) < len(numbers):
        found.note(mask, f"Its item has the object ids {numbers}; each must be there, and once.")
    for number in numbers:
        if not isinstance(number, int) or not 0 < number < IGNORE:
            found.note(mask, f"Its item has the object id {number}; expected 1 to {IGNORE - 1}.")
        elif number not in drawn:
            found.note(mask, f"The mask of object {number} is empty.", fatal=False)
    for number in set(drawn) - set(numbers):
        found.note(mask, f"Object {number} is in the mask, but not in its item.", fatal=False)
    if not drawn:
        found.note(mask, "The mask is empty.")
    for row in objects:
        x, y, w, h = map(float, row.get("bbox") or (0, 0, 0, 0))
        if w > 0 and h > 0 and (x >= item["width"] or y >= item["height"] or x + w <= 0 or y + h <= 0):
            found.note(mask, f"The box of object {row.get('id')} lies outside of the picture.")


def _picture(file: Path, found: _Found) -> Size | None:
    """(W, H) of a picture; None, and a problem, where it cannot be read."""
    if not file.is_file():
        found.note(file, "It is missing.")
        return None
    try:
        pixels = read_whole(file)
    except MediaError as error:
        found.problems.append(Problem.of(file, error))
        return None
    return pixels.shape[1], pixels.shape[0]


def _mask(file: Path, size: Size | None, found: _Found) -> UInt8 | None:
    """Ids (H, W) of a mask; None, and a problem, where it cannot be read. Training stretches it to its picture."""
    if not file.is_file():
        found.note(file, "It is missing.")
        return None
    try:
        ids = read_indexed_png(file)
    except MediaError as error:
        found.problems.append(Problem.of(file, error))
        return None
    if size is not None and (ids.shape[1], ids.shape[0]) != size:
        same = abs(ids.shape[1] * size[1] - ids.shape[0] * size[0]) <= max(size)  # within a pixel of the same shape
        what = f"The mask is {ids.shape[1]}x{ids.shape[0]}, its picture {size[0]}x{size[1]}."
        found.note(file, what, fatal=not same)
        ids = np.asarray(cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    return ids


def _objects(ids: UInt8) -> list[int]:
    return [int(v) for v in np.unique(ids) if v not in (0, IGNORE)]
