"""From a known layout to the pool's: `<sequence>/frames` with `masks` or `boxes.txt`; `images, masks, items.json`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from siammask.data import boxes, coco, cutouts, cvat, paired, voc, yolo
from siammask.data.clips import XYWH, Clip, Picture, Reader, Thing, read_whole
from siammask.data.report import Problem, Progress, Report, by_file
from siammask.errors import InputError, MediaError
from siammask.evaluate.sequences import read_indexed_png
from siammask.formats.masks import encode_indexed
from siammask.geometry import Box, UInt8
from siammask.media.read import read_picture
from siammask.train.pool import CUTOUTS, IGNORE, MANIFEST, manifest

_MOST = IGNORE - 1  # objects that an indexed mask can tell apart


@dataclass(frozen=True, slots=True)
class Kind:
    """One layout that can be imported."""

    read: Reader
    expects: str


KINDS = {
    "coco": Kind(coco.read, "annotations/instances_<split>.json with <split>/ or images/"),
    "vid": Kind(voc.read, "Annotations/ and Data/ with VID/ or DET/"),
    "ytvos": Kind(paired.read_youtube, "JPEGImages/<video>/ and Annotations/<video>/"),
    "davis": Kind(paired.read_davis, "JPEGImages/480p/<sequence>/ and Annotations/480p/<sequence>/"),
    "got10k": Kind(boxes.read, "<sequence>/groundtruth.txt with *.jpg"),
    "lasot": Kind(boxes.read, "<sequence>/groundtruth.txt with img/*.jpg"),
    "cvat": Kind(cvat.read, "*.xml (CVAT 1.1, for images or for video) with the pictures"),
    "yolo-seg": Kind(yolo.read, "images/ and labels/, or <split>/images/ and <split>/labels/"),
    CUTOUTS: Kind(cutouts.read, "*.png or *.webp, in it or below, with alpha and one object each"),
    "coco-own": Kind(coco.read_own, "*.json in the format of COCO with the pictures"),
}


@dataclass(slots=True)
class _Work:
    """An import under way."""

    out: Path
    distinct: float = 0.0
    thumbnails: dict[str, UInt8] = field(default_factory=dict)  # of the cut-outs that are kept
    problems: list[Problem] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)  # stills
    clips: int = 0
    pictures: int = 0
    objects: int = 0

    def note(self, file: Path, what: str, fatal: bool = False) -> None:
        self.problems.append(Problem(file, what, fatal))


def import_folder(
    folder: Path,
    kind: str,
    out: Path,
    only: Collection[str] | None = None,
    progress: Progress = lambda name: None,
    *,
    leave_out: Collection[str] = (),
    distinct: float = 0.0,
    licence: str = "",
) -> Report:
    """Write what `folder` holds in the layout `kind` (one of KINDS) as one source of a pool, to the new folder `out`.

    Stills with masks become images, masks and items.json. Videos with masks become a sequence each; where there are
    only boxes, every object becomes a sequence from its first to its last visible frame. In a mask, what has only a box
    or is a crowd is of no known object (255). `only` names the clips to take, `leave_out` those not to, by patterns
    (`*`, `?`, `[a-c]`). Of cut-outs that differ by less than `distinct` (mean difference of thumbnails, 0 to 1), the
    first is kept. JPEGs are copied as they are. The pool's manifest gets the source, with its kind and `licence`. `out`
    appears when it is whole; what could not be used is in the report.

    Raises InputError (kind; an `out` that is there already; `distinct`), MediaError (nothing to import; `out` or the
    manifest cannot be read or written).
    """
    if kind not in KINDS:
        raise InputError(f"No layout is called {kind!r}; choose from {', '.join(KINDS)}.")
    if not folder.is_dir():
        raise MediaError(f"{folder} is not a folder.")
    if out.exists():
        raise InputError(f"{out} is there already; give a new folder.")
    if not 0 <= distinct < 1 or (distinct and kind != CUTOUTS):
        raise InputError(f"`distinct` is {distinct:g} for {kind}; expected 0 to 1, and above 0 only for {CUTOUTS}.")
    manifest(out.parent)  # one that cannot be read is said before the work
    part = out.with_name(f".{out.name}.part")
    work = _Work(part, distinct)
    clips = [clip for clip in _clips(folder, kind, only, work) if not any(fnmatchcase(clip.name, p) for p in leave_out)]
    if not clips:
        raise _nothing(folder, kind, work)
    masked = any(
        p.ids is not None or p.cutout or any(t.draw is not None for t in p.things) for c in clips for p in c.pictures
    )
    stills = masked and not any(clip.video for clip in clips)
    shutil.rmtree(part, ignore_errors=True)  # of an import that was killed
    try:
        part.mkdir(parents=True)
        for clip in clips:
            if stills:
                _still(clip, work)
            elif masked:
                _with_masks(clip, work)
            else:
                _with_boxes(clip, work)
            progress(clip.name)
        if stills:
            if not work.items:
                raise _nothing(folder, kind, work)
            (part / "items.json").write_text(json.dumps(work.items, separators=(",", ":")) + "\n")
        row = {"name": out.name, "kind": kind, "counts": {"pictures": work.pictures, "objects": work.objects}}
        _put_manifest(row | ({"licence": licence} if licence else {}), out.with_name(MANIFEST))
        os.replace(part, out)
    except OSError as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"{out} cannot be written ({error}).") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Report(work.clips, len(work.items), work.pictures, work.objects, by_file(work.problems))


def _nothing(folder: Path, kind: str, work: _Work) -> MediaError:
    first = f" First problem: {work.problems[0]}" if work.problems else ""
    return MediaError(f"{folder} holds nothing to import as {kind}; expected {KINDS[kind].expects}.{first}")


def _clips(folder: Path, kind: str, only: Collection[str] | None, work: _Work) -> list[Clip]:
    """The clips that are wanted, each name once."""
    by_name: dict[str, Clip] = {}
    for found in KINDS[kind].read(folder):
        if isinstance(found, Problem):
            work.problems.append(found)
        elif only is None or found.name in only:
            if found.name in by_name:
                work.note(found.pictures[0].file, f"{found.name} is there already; this one is left out.", fatal=True)
            by_name.setdefault(found.name, found)
    for name in sorted(set(only or ()) - by_name.keys()):
        work.note(folder, f"{name} is asked for but not there.", fatal=True)
    return list(by_name.values())


# One clip


def _still(clip: Clip, work: _Work) -> None:
    """`images/NAME.jpg`, `masks/NAME.png` and an item."""
    picture = clip.pictures[0]
    numbers: dict[int | str, int] = {}
    if picture.cutout:
        pixels, ids = _cutout(clip, work)
    else:
        pixels = _read(picture, work)
        ids = None if pixels is None else _ids(picture, pixels, work, numbers)
    if pixels is None or ids is None or not _objects(ids):
        if ids is not None:
            work.note(picture.file, "No object is left on it; it is left out.")
        return
    image, mask = f"images/{clip.name}.jpg", f"masks/{clip.name}.png"
    _put_picture(picture, work.out / image, pixels if picture.cutout else None)
    _put_mask(ids, work.out / mask)
    categories = {numbers[thing.key]: thing.category for thing in picture.things if thing.key in numbers}
    if picture.cutout:
        categories = {1: picture.cutout}
    objects = []
    for number in _objects(ids):
        where = ids == number
        box = Box.from_mask(where)
        row: dict[str, Any] = {"components": int(cv2.connectedComponents(where.astype(np.uint8))[0]) - 1, "id": number}
        if categories.get(number):
            row["category"] = categories[number]
        bbox = [] if box is None else [int(v) for v in box.xywh]
        objects.append(row | {"bbox": bbox, "area": int(where.sum())})
    height, width = ids.shape
    work.items.append({"image": image, "mask": mask, "width": width, "height": height, "objects": objects})
    work.pictures += 1
    work.objects += len(objects)


def _with_masks(clip: Clip, work: _Work) -> None:
    """`frames/00000.jpg` and `masks/00000.png`; object ids are the same on all frames."""
    folder = work.out / clip.name
    numbers: dict[int | str, int] = {}
    seen: set[int] = set()
    binary: bool | None = None  # DAVIS 2016 writes its one object as 255
    count = 0
    for picture in clip.pictures:
        pixels = _read(picture, work)
        ids = None if pixels is None else _ids(picture, pixels, work, numbers)
        if pixels is None or ids is None:
            continue
        if picture.ids is not None and binary is None and ids.any():
            binary = set(np.unique(ids).tolist()) <= {0, IGNORE}
        if binary:
            ids = np.where(ids == IGNORE, np.uint8(1), ids)
        _put_picture(picture, folder / "frames" / f"{count:05d}.jpg")
        _put_mask(ids, folder / "masks" / f"{count:05d}.png")
        seen.update(_objects(ids))
        count += 1
    if not seen:
        work.note(clip.pictures[0].file.parent, f"No frame of {clip.name} shows an object; it is left out.", fatal=True)
        shutil.rmtree(folder, ignore_errors=True)
        return
    work.clips += 1
    work.pictures += count
    work.objects += len(seen)


def _with_boxes(clip: Clip, work: _Work) -> None:
    """A sequence for each object: `frames/00000.jpg` and `boxes.txt`."""
    sizes: list[tuple[int, int]] = []
    good: list[Picture] = []
    for picture in clip.pictures:
        pixels = _read(picture, work)
        if pixels is not None:
            sizes.append((pixels.shape[1], pixels.shape[0]))
            good.append(picture)
    tracks: dict[int | str, dict[int, XYWH]] = {}
    beyond = 0
    for number, (picture, size) in enumerate(zip(good, sizes, strict=True)):
        for thing in picture.things:
            box = _box(thing, picture, size)
            if box is None:
                what = f"The box {thing.box} of object {thing.key} lies outside of the frame or has no area."
                work.note(picture.file, what, fatal=True)
                continue
            beyond += box[0] < -1 or box[1] < -1 or box[0] + box[2] > size[0] + 1 or box[1] + box[3] > size[1] + 1
            tracks.setdefault(thing.key, {})[number] = box
    if beyond:
        work.note(clip.pictures[0].file.parent, f"{beyond} boxes of {clip.name} reach beyond the frame.")
    if not tracks:
        work.note(clip.pictures[0].file.parent, f"No frame of {clip.name} shows an object; it is left out.", fatal=True)
    written: dict[int, Path] = {}
    for key, track in tracks.items():
        name = clip.name if len(tracks) == 1 else f"{clip.name}_{key}"
        lines = []
        for place, number in enumerate(range(min(track), max(track) + 1)):
            target = work.out / name / "frames" / f"{place:05d}.jpg"
            if number in written:
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(written[number], target)
            else:
                written[number] = _put_picture(good[number], target)
            lines.append(",".join(f"{v:g}" for v in np.round(track.get(number, (0, 0, 0, 0)), 2)))
        (work.out / name / "boxes.txt").write_text("\n".join(lines) + "\n")
        work.clips += 1
        work.objects += 1
        work.pictures += len(lines)


# One picture


def _read(picture: Picture, work: _Work) -> UInt8 | None:
    """Its pixels; None, and a problem, where it cannot be used."""
    try:
        pixels = read_whole(picture.file)
    except MediaError as error:
        work.problems.append(Problem.of(picture.file, error))
        return None
    size = (pixels.shape[1], pixels.shape[0])
    if picture.size is not None and picture.size != size:
        turned = "; it is turned by its EXIF data" if picture.size == size[::-1] else ""
        what = "x".join(map(str, picture.size))
        work.note(picture.file, f"It is {size[0]}x{size[1]}, but its annotation is for {what}{turned}.", fatal=True)
        return None
    return pixels


def _cutout(clip: Clip, work: _Work) -> tuple[UInt8, UInt8] | tuple[None, None]:
    """Its pixels and ids (H, W); None, and a problem, where it cannot be used or is nearly one that is kept."""
    file = clip.pictures[0].file
    try:
        pixels, mask = cutouts.load(file)
    except MediaError as error:
        work.problems.append(Problem.of(file, error))
        return None, None
    except InputError as error:
        work.note(file, f"{error} It is left out.")
        return None, None
    if work.distinct:
        one = cutouts.thumbnail(pixels, mask)
        for name, other in work.thumbnails.items():
            if cutouts.difference(one, other) < work.distinct:
                work.note(file, f"It is nearly the same as {name} and is left out.")
                return None, None
        work.thumbnails[clip.name] = one
    return pixels, mask.astype(np.uint8)


def _ids(picture: Picture, pixels: UInt8, work: _Work, numbers: dict[int | str, int]) -> UInt8 | None:
    """(H, W) object ids, 255 for what is of no known object; None, and a problem, where there is no usable mask.

    `numbers` holds the ids given so far in this clip, and gets the new ones.
    """
    height, width = pixels.shape[:2]
    if picture.ids is not None:
        try:
            ids = read_indexed_png(picture.ids)
        except MediaError as error:
            work.problems.append(Problem.of(picture.ids, error))
            return None
        if ids.shape != (height, width):
            what = f"The mask is {ids.shape[1]}x{ids.shape[0]}, but its frame is {width}x{height}."
            work.note(picture.ids, what, fatal=True)
            return None
        return ids
    ids, unknown, drawn = np.zeros((height, width), np.uint8), np.zeros((height, width), np.bool_), []
    for thing in picture.things:
        what = f"Object {thing.key}{f' ({thing.category})' if thing.category else ''}"
        try:
            mask = _filled(thing, picture, width, height) if thing.draw is None else thing.draw(height, width)
        except InputError as error:
            work.note(picture.file, f"{what}: {error}", fatal=True)
            continue
        if thing.draw is None or thing.ignore:
            unknown |= mask
        elif mask.any():
            drawn.append((thing.layer, -int(mask.sum()), thing, mask, what))
        else:
            work.note(picture.file, f"{what} has an empty mask.")
    for _, _, thing, mask, what in sorted(drawn, key=lambda row: row[:2]):
        number = numbers.setdefault(thing.key, len(numbers) + 1)
        if number > _MOST:
            work.note(picture.file, f"{what} is one more than the {_MOST} that a mask can tell apart.", fatal=True)
            continue
        ids[mask] = number
    for _, _, thing, _, what in drawn:
        if numbers[thing.key] <= _MOST and not (ids == numbers[thing.key]).any():
            work.note(picture.file, f"{what} lies wholly behind others.")
    ids[unknown & (ids == 0)] = IGNORE
    return ids


def _box(thing: Thing, picture: Picture, size: tuple[int, int]) -> XYWH | None:
    """The box in pixels; None where it has no area within the frame (W, H)."""
    if thing.box is None:
        return None
    sx, sy = size if picture.relative else (1, 1)
    x, y, w, h = (float(v * s) for v, s in zip(thing.box, (sx, sy, sx, sy), strict=True))
    inside = min(x + w, size[0]) - max(x, 0) > 0 and min(y + h, size[1]) - max(y, 0) > 0
    return (x, y, w, h) if inside and w > 0 and h > 0 else None


def _filled(thing: Thing, picture: Picture, width: int, height: int) -> np.ndarray:
    box = _box(thing, picture, (width, height))
    if box is None:
        raise InputError(f"The box {thing.box} lies outside of the frame or has no area.")
    mask = np.zeros((height, width), np.bool_)
    x, y, w, h = box
    mask[max(0, round(y)) : max(0, round(y + h)), max(0, round(x)) : max(0, round(x + w))] = True
    return mask


def _objects(ids: UInt8) -> list[int]:
    return [int(v) for v in np.unique(ids) if v not in (0, IGNORE)]


def _put_picture(picture: Picture, target: Path, pixels: UInt8 | None = None) -> Path:
    """Copy a JPEG as it is, write anything else, or `pixels` in its place, as one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if picture.file.suffix.lower() in (".jpg", ".jpeg"):
        shutil.copyfile(picture.file, target)
        return target
    shown = read_picture(picture.file) if pixels is None else pixels
    good, data = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not good:
        raise MediaError(f"{picture.file} cannot be written as a JPEG.")
    target.write_bytes(data.tobytes())
    return target


def _put_mask(ids: UInt8, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(encode_indexed(ids))


def _link(source: Path, target: Path) -> None:
    """The same picture under a second name, without a second copy where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _put_manifest(row: dict[str, Any], file: Path) -> None:
    """Write what is known of a source into a pool's manifest, beside the other sources."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    others = [source for source in known.get("sources", ()) if source["name"] != row["name"]]
    part = file.with_name(f".{file.name}.part")
    part.write_text(json.dumps(known | {"sources": [*others, row]}, indent=1) + "\n", encoding="utf-8")
    os.replace(part, file)
