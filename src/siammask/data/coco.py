"""COCO: `annotations/instances_*.json` beside the folders of pictures; or any export in that format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from siammask.data.clips import Clip, Finder, Found, Picture, Thing, flat
from siammask.data.report import Problem
from siammask.data.shapes import coco as segmentation
from siammask.errors import InputError


def read(folder: Path) -> Found:
    """Every `instances_<split>.json`; pictures in `<split>/`, `images/<split>/` or `images/`. Stills."""
    yield from _read(folder, sorted(folder.rglob("instances_*.json")))


def read_own(folder: Path) -> Found:
    """Every *.json that holds images and annotations (as CVAT, Label Studio, Roboflow write them). Stills."""
    yield from _read(folder, sorted(folder.rglob("*.json")))


def _read(folder: Path, files: Iterable[Path]) -> Found:
    finder = Finder(folder)
    for file in files:
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            yield Problem(file, f"It cannot be read as JSON ({error}).")
            continue
        if isinstance(data, dict) and "images" in data and "annotations" in data:
            try:
                yield from _file(file, data, finder, folder)
            except (KeyError, TypeError, ValueError) as error:
                yield Problem(file, f"It is not as COCO's format wants it; what follows is left out ({error!r}).")


def _file(file: Path, data: Mapping[str, Any], finder: Finder, folder: Path) -> Found:
    split = file.stem.removeprefix("instances_")
    categories = {row["id"]: str(row["name"]) for row in data.get("categories", [])}
    images: dict[Any, Mapping[str, Any]] = {}
    for image in data["images"]:
        if image["id"] in images:
            yield Problem(file, f"Image id {image['id']} stands twice; the second, {image['file_name']}, is left out.")
        images.setdefault(image["id"], image)
    things: dict[Any, list[Thing]] = {}
    seen = set()
    for row in data["annotations"]:
        name = f"Annotation {row.get('id')}"
        if row.get("id") in seen:
            yield Problem(file, f"{name} stands twice; objects are numbered anew.", fatal=False)
        seen.add(row.get("id"))
        if row.get("image_id") not in images:
            yield Problem(file, f"{name} is of image {row.get('image_id')}, which is not listed.")
            continue
        if row.get("category_id") not in categories and categories:
            yield Problem(file, f"{name} has the unknown category {row.get('category_id')}.", fatal=False)
        group = things.setdefault(row["image_id"], [])
        try:
            draw = segmentation(row.get("segmentation"))
        except (InputError, KeyError) as error:
            yield Problem(file, f"{name}: {error}")
            continue
        box = row.get("bbox")
        box = tuple(map(float, box)) if box else None
        category = categories.get(row.get("category_id"), "")
        group.append(Thing(len(group), box, draw, category, bool(row.get("iscrowd"))))
    near = (file.parent, file.parent.parent / split, folder / split, folder / "images" / split)
    for key, image in images.items():
        place = finder.find(image["file_name"], *near)
        if place is None:
            yield Problem(file, f"Picture {image['file_name']} is missing.")
        elif key in things:
            size = (int(image["width"]), int(image["height"])) if "width" in image and "height" in image else None
            name = flat(image["file_name"]) if split == file.stem else f"{split}_{flat(image['file_name'])}"
            yield Clip(name, (Picture(place, tuple(things[key]), size=size),), False)
