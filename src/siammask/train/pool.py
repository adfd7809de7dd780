"""The training pool, decoded once into one flat file that every process maps: pictures, masks, what is known of them.

Reads the layout of the pool's README: `<source>/<sequence>/frames, masks, boxes.txt` for video and
`<source>/images, masks, items.json` for stills; in masks the value is the object's id, 0 background, 255 ignore.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from siammask.errors import InputError, MediaError
from siammask.evaluate.sequences import read_indexed_png
from siammask.geometry import UInt8

LONG_SIDE = 640  # larger pictures are shrunk to this
IGNORE = 255
MANIFEST = "manifest.json"  # in a pool's folder: kind, licence, ... of each source
CUTOUTS = "cutouts"  # the kind of a source whose pictures have no ground of their own
_OLD_CUTOUTS = ("eth80",)  # such a source, of a pool whose manifest does not say so
_VERSION = 3


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded picture and where its bytes lie in the file."""

    offset: int
    width: int
    height: int
    mask: bool
    ignore: bool  # some pixels of the mask are of no known object
    boxes: dict[int, tuple[float, float, float, float]]  # object id -> x, y, w, h in stored pixels
    areas: dict[int, int]  # object id -> pixels; empty where there are only boxes


@dataclass(frozen=True, slots=True)
class Clip:
    """A video sequence (pictures in time order) or a still (one picture)."""

    source: str
    name: str
    pictures: tuple[Picture, ...]
    categories: dict[int, str]
    cutout: bool = False  # a still without a ground of its own, to be shown on another picture

    @property
    def is_video(self) -> bool:
        return len(self.pictures) > 1


class Pool:
    """All clips of the chosen sources, mapped read-only. Pickles as its path, so workers map the file themselves."""

    def __init__(self, file: Path) -> None:
        self.file = file
        index = json.loads(file.with_suffix(".json").read_text())
        self.clips = tuple(_clip(c) for c in index["clips"])
        self.bytes = np.memmap(file, np.uint8, "r")

    def __reduce__(self) -> tuple[type[Pool], tuple[Path]]:
        return Pool, (self.file,)

    def pixels(self, picture: Picture) -> UInt8:
        """(H, W, 3) BGR, a view into the file."""
        size = picture.width * picture.height * 3
        return self.bytes[picture.offset : picture.offset + size].reshape(picture.height, picture.width, 3)

    def mask(self, picture: Picture) -> UInt8:
        """(H, W) object ids, a view into the file. Raises InputError for a picture that has only boxes."""
        if not picture.mask:
            raise InputError("This picture has boxes but no mask.")
        start = picture.offset + picture.width * picture.height * 3
        return self.bytes[start : start + picture.width * picture.height].reshape(picture.height, picture.width)


def build(
    root: Path, cache: Path, sources: Iterable[str], without: Iterable[str] = (), more: Sequence[Path] = ()
) -> Pool:
    """Decode `sources` of the pools `root` and `more`, except the clips named `source/name` in `without`.

    The file is reused where it exists. Raises MediaError for what is missing or cannot be read.
    """
    roots, sources, without = (root, *more), tuple(sources), frozenset(without)
    first, *rest = (str(folder.resolve()) for folder in roots)
    key = zlib.crc32(json.dumps([first, sources, sorted(without), LONG_SIDE, _VERSION, *rest]).encode())
    file = cache / f"pool-{key:08x}.bin"
    if file.exists() and file.with_suffix(".json").exists():
        return Pool(file)
    found = tuple(listing(root, sources, without, more))  # what is missing is said before the first picture is decoded
    cutouts = {name for folder in roots for name, row in manifest(folder).items() if row.get("kind") == CUTOUTS}
    cutouts.update(_OLD_CUTOUTS)
    cache.mkdir(parents=True, exist_ok=True)
    clips = []
    part = file.with_suffix(".part")
    with part.open("wb") as out:
        for source, name, files, categories in found:
            pictures = tuple(_write(out, *f) for f in files)
            clips.append(Clip(source, name, pictures, categories, source in cutouts))
    file.with_suffix(".json").write_text(json.dumps({"clips": [asdict(c) for c in clips]}))
    part.rename(file)
    return Pool(file)


def manifest(root: Path) -> dict[str, dict[str, Any]]:
    """What the manifest of a pool says of each source, by name; nothing where there is none.

    Raises MediaError where it cannot be read as a list of sources.
    """
    file = root / MANIFEST
    if not file.exists():
        return {}
    try:
        return {str(row["name"]): dict(row) for row in json.loads(file.read_text(encoding="utf-8"))["sources"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MediaError(f"{file} is no manifest of a training pool ({error!r}).") from error


Files = list[tuple[Path, Path | None, tuple[float, float, float, float] | None]]  # picture, mask, box


def listing(
    root: Path, sources: Iterable[str], without: Iterable[str] = (), more: Sequence[Path] = ()
) -> Iterator[tuple[str, str, Files, dict[int, str]]]:
    """Every clip that `build` reads: source, name, its files in time order, and categories by object.

    A source is looked for in `root`, then in each of `more`. Raises MediaError for a source or a part of it that is
    missing.
    """
    roots, without = (root, *more), frozenset(without)
    for source in sources:
        folder = next((place / source for place in roots if (place / source).is_dir()), None)
        if folder is None:
            places = " or ".join(str(place / source) for place in roots)
            raise MediaError(f"Training source {places} is missing; check `data.root`, `data.more` and `data.sources`.")
        found = _stills(folder) if (folder / "items.json").exists() else _videos(folder)
        for name, files, categories in found:
            if f"{source}/{name}" not in without:
                yield source, name, files, categories


def _videos(folder: Path) -> Iterable[tuple[str, Files, dict[int, str]]]:
    for sequence in sorted(p for p in folder.iterdir() if (p / "frames").is_dir()):
        frames = sorted((sequence / "frames").glob("*.jpg"))
        if not frames:
            raise MediaError(f"{sequence / 'frames'} holds no *.jpg picture.")
        masks = sequence / "masks"
        if masks.is_dir():
            yield sequence.name, [(f, masks / f"{f.stem}.png", None) for f in frames], {}
        else:
            if not (sequence / "boxes.txt").exists():
                raise MediaError(f"{sequence} has neither masks/ nor boxes.txt.")
            rows = np.loadtxt(sequence / "boxes.txt", delimiter=",", ndmin=2)
            if len(rows) != len(frames):
                raise MediaError(f"{sequence}: {len(frames)} frames but {len(rows)} boxes.")
            yield sequence.name, [(f, None, tuple(map(float, r))) for f, r in zip(frames, rows, strict=True)], {}


def _stills(folder: Path) -> Iterable[tuple[str, Files, dict[int, str]]]:
    for item in json.loads((folder / "items.json").read_text()):
        categories = {int(o["id"]): str(o["category"]) for o in item["objects"] if o.get("category")}
        yield Path(item["image"]).stem, [(folder / item["image"], folder / item["mask"], None)], categories


def _write(out, image: Path, mask: Path | None, box) -> Picture:  # type: ignore[no-untyped-def]
    pixels = cv2.imread(str(image), cv2.IMREAD_COLOR)
    if pixels is None:
        raise MediaError(f"{image} cannot be read as a picture.")
    height, width = pixels.shape[:2]
    scale = min(1.0, LONG_SIDE / max(height, width))
    if scale < 1.0:
        pixels = cv2.resize(pixels, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    height, width = pixels.shape[:2]
    offset = out.tell()
    out.write(np.ascontiguousarray(pixels).tobytes())
    if mask is None:
        x, y, w, h = (v * scale for v in box)
        return Picture(offset, width, height, False, False, {1: (x, y, w, h)} if w > 0 and h > 0 else {}, {})
    ids = read_indexed_png(mask)
    if ids.shape != (height, width):
        ids = cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST)
    out.write(np.ascontiguousarray(ids).tobytes())
    boxes, areas = {}, {}
    for i in (int(v) for v in np.unique(ids)):
        if i in (0, IGNORE):
            continue
        where = ids == i
        x, y, w, h = cv2.boundingRect(where.astype(np.uint8))
        boxes[i], areas[i] = (float(x), float(y), float(w), float(h)), int(where.sum())
    return Picture(offset, width, height, True, bool((ids == IGNORE).any()), boxes, areas)


def _clip(row: dict) -> Clip:  # type: ignore[type-arg]
    pictures = tuple(
        Picture(
            p["offset"],
            p["width"],
            p["height"],
            p["mask"],
            p["ignore"],
            {int(k): tuple(v) for k, v in p["boxes"].items()},
            {int(k): v for k, v in p["areas"].items()},
        )
        for p in row["pictures"]
    )
    categories = {int(k): v for k, v in row["categories"].items()}
    cutout = row.get("cutout", row["source"] in _OLD_CUTOUTS)  # not in files written before there were others
    return Clip(row["source"], row["name"], pictures, categories, cutout)
