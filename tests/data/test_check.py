"""The doctor finds every planted fault, names its file, and finds nothing in sound data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from siammask.data import check_folder
from siammask.errors import MediaError
from siammask.formats.masks import encode_indexed

WIDTH, HEIGHT = 48, 32


def picture(path: Path, width: int = WIDTH) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (HEIGHT, width, 3), np.uint8))


def mask(path: Path, ids: dict[int, int], width: int = WIDTH) -> None:
    """Object i is a square at x = ids[i]."""
    values = np.zeros((HEIGHT, width), np.uint8)
    for number, x in ids.items():
        values[4:12, x : x + 8] = number
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_indexed(values))


def items(pool: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    file = pool / "stills/items.json"
    rows = json.loads(file.read_text())
    change(rows)
    file.write_text(json.dumps(rows))


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A sound pool: `masked/a` and `boxed/b` of three frames, `stills` of two pictures."""
    for n in range(3):
        picture(tmp_path / f"masked/a/frames/{n:05d}.jpg")
        mask(tmp_path / f"masked/a/masks/{n:05d}.png", {1: 2 * n, 2: 30})
        picture(tmp_path / f"boxed/b/frames/{n:05d}.jpg")
    (tmp_path / "boxed/b/boxes.txt").write_text("1,2,8,8\n0,0,0,0\n3,2,8,8\n")
    rows = []
    for name in ("x", "y"):
        picture(tmp_path / f"stills/images/{name}.jpg")
        mask(tmp_path / f"stills/masks/{name}.png", {1: 2, 255: 20})
        objects = [{"id": 1, "bbox": [2, 4, 8, 8], "area": 64}]
        row = {"image": f"images/{name}.jpg", "mask": f"masks/{name}.png", "width": WIDTH, "height": HEIGHT}
        rows.append(row | {"objects": objects})
    (tmp_path / "stills/items.json").write_text(json.dumps(rows))
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "clips", "stills", "pictures", "objects"),
    [(".", 2, 2, 8, 5), ("masked", 1, 0, 3, 2), ("boxed/b", 1, 0, 3, 1), ("stills", 0, 2, 2, 2)],
)
def test_sound_data(pool: Path, folder: str, clips: int, stills: int, pictures: int, objects: int) -> None:
    seen: list[str] = []
    report = check_folder(pool / folder, seen.append)
    assert report.problems == ()
    assert (report.clips, report.stills, report.pictures, report.objects) == (clips, stills, pictures, objects)
    assert seen


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


FAULTS: list[tuple[str, Callable[[Path], object], str, str, bool]] = [
    # what is wrong, how it comes about, the file that is named, words, whether it is fatal
    (
        "cut jpg",
        lambda p: cut(p / "masked/a/frames/00001.jpg"),
        "masked/a/frames/00001.jpg",
        "ends in the middle",
        True,
    ),
    (
        "no picture",
        lambda p: (p / "boxed/b/frames/00001.jpg").write_bytes(b"junk"),
        "boxed/b/frames/00001.jpg",
        "cannot be read",
        True,
    ),
    ("png frame", lambda p: picture(p / "boxed/b/frames/00003.png"), "boxed/b/frames/00003.png", "only *.jpg", True),
    ("size", lambda p: picture(p / "boxed/b/frames/00001.jpg", 40), "boxed/b/frames/00001.jpg", "size differs", False),
    (
        "mask gone",
        lambda p: (p / "masked/a/masks/00001.png").unlink(),
        "masked/a/frames/00001.jpg",
        "no mask of its name",
        True,
    ),
    (
        "mask alone",
        lambda p: mask(p / "masked/a/masks/9.png", {1: 1}),
        "masked/a/masks/9.png",
        "There is no frame",
        True,
    ),
    (
        "colour",
        lambda p: picture(p / "masked/a/masks/00001.png"),
        "masked/a/masks/00001.png",
        "expected one 8-bit",
        True,
    ),
    ("cut mask", lambda p: cut(p / "masked/a/masks/00001.png"), "masked/a/masks/00001.png", "", True),
    ("empty mask", lambda p: mask(p / "masked/a/masks/00001.png", {}), "masked/a/masks/00001.png", "is empty", False),
    (
        "other shape",
        lambda p: mask(p / "masked/a/masks/00001.png", {1: 1}, 32),
        "masked/a/masks/00001.png",
        "The mask is 32x32, its picture 48x32",
        True,
    ),
    (
        "no object",
        lambda p: [mask(p / f"masked/a/masks/{n:05d}.png", {}) for n in range(3)],
        "masked/a/masks",
        "No frame shows an object",
        True,
    ),
    ("counts", lambda p: (p / "boxed/b/boxes.txt").write_text("1,2,8,8\n"), "boxed/b/boxes.txt", "1 boxes for 3", True),
    ("words", lambda p: (p / "boxed/b/boxes.txt").write_text("1,2,8,x\n" * 3), "boxed/b/boxes.txt", "line 1", True),
    (
        "never visible",
        lambda p: (p / "boxed/b/boxes.txt").write_text("0,0,0,0\n" * 3),
        "boxed/b/boxes.txt",
        "visible on no frame",
        True,
    ),
    (
        "outside",
        lambda p: (p / "boxed/b/boxes.txt").write_text("1,2,8,8\n48,2,8,8\n1,2,8,8\n"),
        "boxed/b/boxes.txt",
        "Line 2: the box lies outside of the frame of 48x32",
        True,
    ),
    (
        "beyond",
        lambda p: (p / "boxed/b/boxes.txt").write_text("1,2,8,8\n44,2,8,8\n1,2,8,8\n"),
        "boxed/b/boxes.txt",
        "Line 2: the box reaches beyond",
        False,
    ),
    ("no truth", lambda p: (p / "boxed/b/boxes.txt").unlink(), "boxed/b", "neither masks/ nor boxes.txt", True),
    (
        "still gone",
        lambda p: (p / "stills/images/x.jpg").unlink(),
        "stills/images/x.jpg",
        "It is missing",
        True,
    ),
    ("items", lambda p: (p / "stills/items.json").write_text("{"), "stills/items.json", "cannot be read", True),
    ("a key", lambda p: items(p, lambda rows: rows[0].pop("mask")), "stills/items.json", "'mask'", True),
    (
        "twice",
        lambda p: items(p, lambda rows: rows.append(rows[0])),
        "stills/images/x.jpg",
        "Two items have a picture of this name",
        True,
    ),
    (
        "ids clash",
        lambda p: items(p, lambda rows: rows[0]["objects"].append(rows[0]["objects"][0])),
        "stills/masks/x.png",
        "object ids [1, 1]",
        True,
    ),
    (
        "id 255",
        lambda p: items(p, lambda rows: rows[0]["objects"].append({"id": 255})),
        "stills/masks/x.png",
        "object id 255; expected 1 to 254",
        True,
    ),
    (
        "object without pixels",
        lambda p: items(p, lambda rows: rows[0]["objects"].append({"id": 2})),
        "stills/masks/x.png",
        "mask of object 2 is empty",
        False,
    ),
    ("all empty", lambda p: mask(p / "stills/masks/y.png", {}), "stills/masks/y.png", "The mask is empty", True),
    (
        "not listed",
        lambda p: mask(p / "stills/masks/y.png", {1: 2, 3: 20}),
        "stills/masks/y.png",
        "Object 3 is in the mask, but not in its item",
        False,
    ),
    (
        "box outside",
        lambda p: items(p, lambda rows: rows[0]["objects"][0].update(bbox=[90, 4, 8, 8])),
        "stills/masks/x.png",
        "box of object 1 lies outside",
        True,
    ),
    ("nobody's", lambda p: picture(p / "stills/images/z.jpg"), "stills/images/z.jpg", "No item names it", False),
]


@pytest.mark.parametrize(
    ("fault", "file", "words", "fatal"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS]
)
def test_faults(pool: Path, fault: Callable[[Path], object], file: str, words: str, fatal: bool) -> None:
    fault(pool)
    problems = check_folder(pool).problems
    hits = [problem for problem in problems if problem.file == pool / file and words in problem.what]
    assert hits, problems
    assert hits[0].fatal == fatal


def test_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"neither <sequence>/frames/ nor items\.json"):
        check_folder(tmp_path)
    with pytest.raises(MediaError, match="is not a folder"):
        check_folder(tmp_path / "none")
