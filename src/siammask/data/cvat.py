"""CVAT's own XML (1.1), for images and for video, as exported with the pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from siammask.data.clips import Clip, Draw, Finder, Found, Picture, Thing, flat, pictures
from siammask.data.report import Problem
from siammask.data.shapes import points, polygons
from siammask.errors import InputError
from siammask.regions import Mask, from_run_lengths

_SHAPES = ("box", "polygon", "mask")


def read(folder: Path) -> Found:
    """Every *.xml with `<image>` (stills) or `<track>` elements (video: frame numbers count the pictures)."""
    finder = Finder(folder)
    for file in sorted(folder.rglob("*.xml")):
        try:
            root = ElementTree.parse(file).getroot()
        except (ElementTree.ParseError, OSError) as error:
            yield Problem(file, f"It cannot be read as XML ({error}).")
            continue
        try:
            if root.find("image") is not None:
                yield from _images(file, root, finder)
            if root.find("track") is not None:
                yield from _video(file, root, folder)
        except ValueError as error:
            yield Problem(file, f"It is not as CVAT writes it; what follows is left out ({error}).")


def _images(file: Path, root: ElementTree.Element, finder: Finder) -> Found:
    seen = set()
    for image in root.iter("image"):
        name = str(image.get("name"))
        if name in seen:
            yield Problem(file, f"Image {name} stands twice; the second is left out.")
            continue
        seen.add(name)
        place = finder.find(name, file.parent)
        if place is None:
            yield Problem(file, f"Picture {name} is missing; export with the pictures.")
            continue
        things: list[Thing] = []
        for number, shape in enumerate(image):
            thing = _thing(shape, number, shape.get("label", ""))
            if isinstance(thing, str):
                yield Problem(file, f"Image {name}: {thing}", fatal="no area" not in thing)
            else:
                things.append(thing)
        if things:
            size = (int(image.get("width", 0)), int(image.get("height", 0)))
            yield Clip(flat(name), (Picture(place, tuple(things), size=size),), False)


def _video(file: Path, root: ElementTree.Element, folder: Path) -> Found:
    frames = pictures(file.parent, deep=True) or pictures(folder, deep=True)
    numbers = [int(found[-1]) if (found := re.findall(r"\d+", frame.stem)) else -1 for frame in frames]
    by_number = dict(zip(numbers, frames, strict=True))
    if len(by_number) < len(frames):  # names without numbers count in their order
        by_number = dict(enumerate(frames))
    at: dict[int, list[Thing]] = {}
    for track in root.iter("track"):
        key, label = int(track.get("id", 0)), track.get("label", "")
        for shape in track:
            number = int(shape.get("frame", -1))
            if shape.get("outside") == "1":
                continue
            thing = _thing(shape, key, label)
            if isinstance(thing, str):
                yield Problem(file, f"Track {key}, frame {number}: {thing}", fatal="no area" not in thing)
            else:
                at.setdefault(number, []).append(thing)
    for number in sorted(at.keys() - by_number.keys()):
        yield Problem(file, f"The picture of frame {number} is missing; export with the pictures.")
    width, height = (root.findtext(f".//original_size/{name}") for name in ("width", "height"))
    size = (int(width), int(height)) if width and height else None
    shown = [Picture(frame, tuple(at.get(number, [])), size=size) for number, frame in sorted(by_number.items())]
    if shown and at:
        name = root.findtext(".//task/name") or file.stem
        yield Clip(re.sub(r"\W+", "_", Path(name).stem), tuple(shown), True)


def _thing(shape: ElementTree.Element, key: int, label: str) -> Thing | str:
    """A shape as an object, or the sentence that says why it is none."""
    get: Any = shape.get
    layer = int(get("z_order", 0))
    if shape.tag not in _SHAPES:
        return f"A {shape.tag} has no area and is left out."
    try:
        if shape.tag == "box":
            x0, y0, x1, y1 = (float(get(name)) for name in ("xtl", "ytl", "xbr", "ybr"))
            return Thing(key, (x0, y0, x1 - x0, y1 - y0), category=label, layer=layer)
        if shape.tag == "polygon":
            corners = points([float(value) for pair in get("points").split(";") for value in pair.split(",")])
            return Thing(key, None, polygons([corners]), label, layer=layer)
        runs = [int(run) for run in get("rle").split(",")]
        left, top, width, height = (int(get(name)) for name in ("left", "top", "width", "height"))
        return Thing(key, None, _pasted(from_run_lengths(runs, width, height), left, top), label, layer=layer)
    except (InputError, TypeError, ValueError, AttributeError) as error:
        return f"A {shape.tag} cannot be read ({error})."


def _pasted(part: Mask, left: int, top: int) -> Draw:
    """Draws a mask that lies at a place of the frame; what reaches beyond the frame is cut off."""

    def draw(height: int, width: int) -> Mask:
        mask = np.zeros((height, width), np.bool_)
        x0, y0 = max(0, left), max(0, top)
        inner = part[y0 - top : max(0, height - top), x0 - left : max(0, width - left)]
        mask[y0 : y0 + inner.shape[0], x0 : x0 + inner.shape[1]] = inner
        return mask

    return draw
