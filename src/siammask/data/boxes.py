"""GOT-10k and LaSOT: one object a sequence, x,y,w,h of every frame in `groundtruth.txt`."""

from __future__ import annotations

import math
import re
from pathlib import Path

from siammask.data.clips import Clip, Found, Picture, Thing, pictures
from siammask.data.report import Problem

# by file: 1 where the object cannot be seen on a frame
_ABSENT = ("absence.label", "full_occlusion.txt", "out_of_view.txt")


def read(folder: Path) -> Found:
    """Every folder with a `groundtruth.txt`; pictures beside it (GOT-10k) or in `img/` (LaSOT)."""
    for truth in sorted(folder.rglob("groundtruth.txt")):
        place = truth.parent
        frames = pictures(place / "img" if (place / "img").is_dir() else place)
        try:
            lines = truth.read_text().split("\n")
            rows = [tuple(map(float, re.split(r"[,\s]+", line.strip()))) for line in lines if line.strip()]
            absent = [_flags(place / name) for name in _ABSENT if (place / name).is_file()]
        except (OSError, ValueError) as error:
            yield Problem(truth, f"It, or a file beside it, cannot be read as numbers ({error}).")
            continue
        if any(len(row) != 4 for row in rows):
            yield Problem(truth, "A line does not hold the four numbers x,y,w,h.")
            continue
        if len({len(frames), len(rows), *map(len, absent)}) > 1:
            counts = "/".join(map(str, map(len, absent))) or "no"
            yield Problem(truth, f"There are {len(frames)} frames, {len(rows)} boxes and {counts} flags of absence.")
            continue
        found = []
        for number, (frame, box) in enumerate(zip(frames, rows, strict=True)):
            hidden = any(flags[number] for flags in absent) or not all(map(math.isfinite, box))
            found.append(Picture(frame, () if hidden else (Thing(1, (box[0], box[1], box[2], box[3])),)))
        yield Clip(place.name, tuple(found), True)


def _flags(file: Path) -> list[bool]:
    return [bool(int(word)) for word in re.split(r"[,\s]+", file.read_text().strip()) if word]
