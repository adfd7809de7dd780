"""ImageNet VID and DET: one XML file a picture below `Annotations`, pictures in the same place below `Data`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

from siammask.data.clips import Clip, Found, Picture, Thing, flat
from siammask.data.report import Problem
from siammask.media.read import PICTURES

_SKIP = {"VID", "DET", "train", "val"}  # folders that say nothing of a sequence


def read(folder: Path) -> Found:
    """A folder of XML files whose objects have a `trackid` is a video; other pictures are stills. Boxes only."""
    root = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    for parent, files in groupby(sorted(root.rglob("*.xml")), key=lambda path: path.parent):
        pictures, video = [], False
        for file in files:
            try:
                picture, tracked = _picture(file, folder)
            except (ElementTree.ParseError, OSError, ValueError, TypeError) as error:
                yield Problem(file, f"It cannot be read as an annotation ({error}).")
                continue
            if picture is None:
                yield Problem(file, "Its picture is missing.")
                continue
            pictures.append(picture)
            video |= tracked
        name = "_".join(part for part in parent.relative_to(root).parts if part not in _SKIP)
        if video:
            yield Clip(name or parent.name, tuple(pictures), True)
        else:
            for picture in pictures:
                if picture.things:
                    yield Clip(flat(Path(name) / picture.file.name), (picture,), False)


def _picture(file: Path, folder: Path) -> tuple[Picture | None, bool]:
    """The picture of an annotation, None where it is missing; and whether its objects have track ids."""
    root = ElementTree.parse(file).getroot()
    place = file.relative_to(folder).with_suffix("")
    at = folder / Path(*("Data" if part == "Annotations" else part for part in place.parts))
    candidates = (at.with_name(at.name + ending) for ending in (".JPEG", *sorted(PICTURES)))
    picture = next((path for path in candidates if path.is_file()), None)
    if picture is None:
        return None, False
    things, tracked = [], False
    for number, row in enumerate(root.iter("object")):
        x0, y0, x1, y1 = (float(row.findtext(f"bndbox/{name}") or "") for name in ("xmin", "ymin", "xmax", "ymax"))
        track = row.findtext("trackid")
        tracked |= track is not None
        key = number if track is None else int(track)
        things.append(Thing(key, (x0, y0, x1 - x0, y1 - y0), category=row.findtext("name") or ""))
    width, height = root.findtext("size/width"), root.findtext("size/height")
    size = (int(width), int(height)) if width and height else None
    return Picture(picture, tuple(things), size=size), tracked
