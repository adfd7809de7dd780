"""YOLO segmentation: `labels/**/NAME.txt` for `images/**/NAME.jpg`; a line is a class and a polygon in shares."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from siammask.data.clips import Clip, Draw, Found, Picture, Thing, flat, pictures
from siammask.data.report import Problem
from siammask.data.shapes import inside, points
from siammask.errors import InputError
from siammask.regions import Mask


def read(folder: Path) -> Found:
    """Every picture below a folder `images` with a label file in its place below `labels`. Stills."""
    names = _names(folder)
    used = set()
    for picture in pictures(folder, deep=True):
        parts = list(picture.relative_to(folder).parts)
        if "images" not in parts[:-1]:
            continue
        at = len(parts) - 2 - parts[-2::-1].index("images")
        label = (folder / Path(*parts[:at], "labels", *parts[at + 1 :])).with_suffix(".txt")
        used.add(label)
        if not label.is_file():
            yield Problem(picture, "It has no label file and is left out.", fatal=False)
            continue
        things: list[Thing] = []
        for number, line in enumerate(label.read_text().splitlines(), 1):
            if not line.strip():
                continue
            try:
                kind, *values = (float(word) for word in line.split())
                category = names.get(int(kind), str(int(kind)))
                if len(values) == 4:
                    cx, cy, w, h = values
                    things.append(Thing(len(things), (cx - w / 2, cy - h / 2, w, h), category=category))
                    corners = np.array([[cx - w / 2, cy - h / 2], [cx + w / 2, cy + h / 2]])
                else:
                    corners = points(values)
                    things.append(Thing(len(things), None, _scaled(corners), category))
            except (InputError, ValueError) as error:
                yield Problem(label, f"Line {number} is no class with a polygon ({error}).")
                continue
            if corners.min() < -1e-3 or corners.max() > 1 + 1e-3:
                yield Problem(label, f"Line {number} has coordinates outside of 0 to 1.")
        if things:
            name = flat(Path(*(part for part in parts if part != "images")))
            yield Clip(name, (Picture(picture, tuple(things), relative=True),), False)
    for label in sorted(folder.rglob("labels/**/*.txt")):
        if label not in used:
            yield Problem(label, "There is no picture for it.")


def _scaled(corners: np.ndarray) -> Draw:
    def draw(height: int, width: int) -> Mask:
        return inside(corners * (width, height), height, width)

    return draw


def _names(folder: Path) -> dict[int, str]:
    """Names of the classes in `data.yaml`: a list in brackets, or a line for each (with its number or a dash)."""
    for file in sorted(folder.glob("*.y*ml")):
        text = file.read_text(encoding="utf-8")
        listed = re.search(r"^names:\s*\[(.*?)\]", text, re.MULTILINE | re.DOTALL)
        if listed:
            return {i: name.strip().strip("'\"") for i, name in enumerate(listed[1].split(","))}
        block = re.search(r"^names:\s*\n((?:[ \t]*(?:-|\d+:).*\n?)+)", text, re.MULTILINE)
        if block:
            rows = (re.sub(r"^(-|\d+:)", "", line.strip()).strip().strip("'\"") for line in block[1].splitlines())
            return dict(enumerate(rows))
    return {}
