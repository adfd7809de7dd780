"""DAVIS and YouTube-VOS: `JPEGImages` and `Annotations` with a folder for each sequence, masks as indexed pictures."""

from __future__ import annotations

from pathlib import Path

from siammask.data.clips import Clip, Found, Picture, pictures
from siammask.data.report import Problem


def read_davis(folder: Path) -> Found:
    """`JPEGImages/480p/<sequence>/00000.jpg`, `Annotations/480p/<sequence>/00000.png`; every frame has its mask."""
    yield from _read(folder, sparse=False)


def read_youtube(folder: Path) -> Found:
    """`train/JPEGImages/<video>/00000.jpg`, `train/Annotations/<video>/00000.png`; every fifth frame has its mask."""
    yield from _read(folder, sparse=True)


def _read(folder: Path, sparse: bool) -> Found:
    for base in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        masks, frames = base / "Annotations", base / "JPEGImages"
        if not (masks.is_dir() and frames.is_dir()):
            continue
        if (masks / "480p").is_dir():  # DAVIS has more than one resolution
            masks, frames = masks / "480p", frames / "480p"
        for sequence in sorted(path for path in masks.iterdir() if path.is_dir()):
            if (frames / sequence.name).is_dir():
                yield from _sequence(frames / sequence.name, sequence, sparse)
            else:
                yield Problem(frames / sequence.name, "The frames of a sequence that has masks are missing.")


def _sequence(frames: Path, masks: Path, sparse: bool) -> Found:
    by_stem = {path.stem: path for path in pictures(frames)}
    ids = {path.stem: path for path in pictures(masks)}
    for stem in sorted(ids.keys() - by_stem.keys()):
        yield Problem(ids[stem], f"There is no frame {stem} for it.")
    if not sparse:
        for stem in sorted(by_stem.keys() - ids.keys()):
            yield Problem(by_stem[stem], "It has no mask and is left out.", fatal=False)
    both = tuple(Picture(by_stem[stem], ids=ids[stem]) for stem in by_stem if stem in ids)
    if both:
        yield Clip(frames.name, both, True)
