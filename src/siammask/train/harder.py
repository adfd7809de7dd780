"""Harder sequences made of given ones: faster, parts of the target, things before it, its double beside it.

python -m siammask.train.harder configs/guided_tight.toml FOLDER

Each lies in FOLDER/<kind>/<source>-<sequence> as ordinary video with masks or boxes, for `siammask evaluate` too. What
has its boxes.txt, which is written last, is not made again: delete a folder to have it made anew.
"""

from __future__ import annotations

import math
import shutil
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from siammask.errors import MediaError
from siammask.evaluate.sequences import Sequence, find_sequences, visible
from siammask.formats.masks import encode_indexed
from siammask.geometry import Box, UInt8
from siammask.regions import Mask

LENGTH = 45  # frames of a made sequence at most
THIN = 10  # px: narrower parts are no targets
LEAST = {"fast": 24, "upper": 16, "lower": 16, "piece": 16, "poles": 8, "double": 16}  # frames that a kind asks for

Share = tuple[float, float, float, float]  # left, top, right, bottom of a part, of its box
Pictures = list[UInt8]  # (H, W, 3) BGR
Masks = list[Mask]  # (H, W) bool


def main(arguments: list[str]) -> None:
    """Make what is missing of a config's validation sequences, and name what there is."""
    from siammask.train import config, loop  # not above: the loop imports this file

    file, folder = arguments
    made = harder(loop.validation_sequences(config.read(Path(file))), Path(folder))
    for s in made:
        print(f"{s.name}: {len(s)} frames, {visible(s.boxes).sum()} with the target in sight")
    print(f"{len(made)} sequences, {sum(map(len, made))} frames")


def harder(sequences: tuple[Sequence, ...], folder: Path) -> tuple[Sequence, ...]:
    """Those of `sequences`, after making what is missing; MediaError for a file that cannot be read or written."""
    made = []
    for number, sequence in enumerate(sequences):
        name = named(sequence)
        other = sequences[(number + 1) % len(sequences)]  # whose picture the poles wear
        for kind in kinds_of(sequence):
            made += _made(sequence, kind, name, other, folder / kind / name, f"{kind}/{name}")
    return tuple(made)


def named(sequence: Sequence) -> str:
    """Its source and its name, as one word."""
    return f"{sequence.frames[0].absolute().parents[2].name}-{sequence.name}".replace("/", "-")


def thinned(made: tuple[Sequence, ...], folder: Path) -> tuple[Sequence, ...]:
    """Every third frame of harder ones that are not so already and long enough; as `harder`, in FOLDER/fast/<kind>."""
    found = []
    for sequence in made:
        kind, _, name = sequence.name.partition("/")
        if kind != "fast" and "fast" in kinds_of(sequence):
            place = folder / "fast" / kind / name
            found += _made(sequence, "fast", name, sequence, place, f"fast/{kind}/{name}")
    return tuple(found)


def kinds_of(sequence: Sequence) -> tuple[str, ...]:
    """Which harder versions a sequence is long enough for; without masks only a faster one."""
    frames = len(sequence) - sequence.first
    return tuple(k for k, n in LEAST.items() if frames >= n and (k == "fast" or sequence.masks is not None))


def part(masks: Masks, share: Share) -> Masks | None:
    """Each mask cut to a share of its own box; None where that is thin on the first frame."""
    made = [np.zeros_like(mask) for mask in masks]
    for mask, cut, box in zip(masks, made, map(Box.from_mask, masks), strict=True):
        if box is not None:
            x0, x1 = (round(box.x + s * box.w) for s in share[::2])
            y0, y1 = (round(box.y + s * box.h) for s in share[1::2])
            cut[y0:y1, x0:x1] = mask[y0:y1, x0:x1]
    box = Box.from_mask(made[0])
    return made if box is not None and min(box.w, box.h) >= THIN else None


def held(frames: Pictures, masks: Masks, first: Mask) -> Masks:
    """The same piece of a target on every frame: `first`, a piece of masks[0], carried along by optical flow.

    Where a pixel of the target has none before it, it goes with what is around it.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    gray = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames]
    y, x = np.mgrid[: first.shape[0], : first.shape[1]].astype(np.float32)
    made = [first]
    for i in range(1, len(frames)):
        back = flow.calc(gray[i], gray[i - 1], None)  # type: ignore[call-overload]
        before = x + back[..., 0], y + back[..., 1]
        then, piece = (
            cv2.remap(mask.astype(np.float32), *before, cv2.INTER_LINEAR) for mask in (masks[i - 1], made[-1])
        )
        known = (masks[i] & (then > 0.5)).astype(np.float32)
        share = known * piece / np.maximum(then, 0.5)
        near = max(3.0, math.sqrt(masks[i].sum()) / 12)
        around, weight = (cv2.GaussianBlur(v, (0, 0), near) for v in (share, known))
        smooth = around / np.maximum(weight, 1e-6)
        made.append(masks[i] & (np.where(known > 0, 0.5 * (share + smooth), smooth) > 0.5))
    return made


def poles(frames: Pictures, masks: Masks, texture: UInt8, rng: np.random.Generator) -> tuple[Pictures, Masks] | None:
    """Up to three poles before a target, clear of it on the first frame; the masks are what is still to be seen.

    They stand in the way of a target that moves by more than its size, and pass one by one over one that stays. They
    wear pieces of `texture`, a picture of something else. None where no pole finds a place.
    """
    height, width = masks[0].shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    tile = cv2.copyMakeBorder(texture, 0, texture.shape[0], 0, texture.shape[1], cv2.BORDER_REFLECT)  # has no seams
    pictures, shown = [frame.copy() for frame in frames], [mask.copy() for mask in masks]
    for wide, turn, places in _poles(_track(masks), rng):
        across, along = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
        top, left = (int(rng.integers(n)) for n in tile.shape[:2])
        if (masks[0] & (np.abs(across - places[0]) < wide / 2 + 1)).any():
            continue
        for picture, mask, place in zip(pictures, shown, places, strict=True):
            hit = np.abs(across - place) < wide / 2
            u, v = across[hit] - place, along[hit]
            skin = tile[(v + top).astype(int) % tile.shape[0], (u + left).astype(int) % tile.shape[1]]
            picture[hit] = skin * (0.55 + 0.45 * np.sqrt(1 - (2 * u / wide) ** 2))[:, None]  # darker towards its edges
            mask[hit] = False
    return (pictures, shown) if any(map(np.any, map(np.logical_xor, masks, shown))) else None


def double(frames: Pictures, masks: Masks) -> Pictures:
    """From the fourth frame on the target as it was ten frames off, mirrored and brighter, passes by behind it once."""
    height, width = masks[0].shape
    track = _track(masks)
    cx, cy, w, h = np.median(track, axis=0)
    room = {0: (width - cx) / w, 180: cx / w, 90: (height - cy) / h - 1, -90: cy / h - 1}  # rather to the left or right
    side = max(room, key=lambda direction: room[direction])
    smooth = cv2.blur(track, (1, 9), borderType=cv2.BORDER_REPLICATE)
    made = list(frames)
    for i in range(3, len(frames)):
        then, gone = abs(i - 10), (i - 3) / (len(frames) - 4)
        turn, far = math.radians(side + 100 * (gone - 0.5)), 1.1 + 0.5 * abs(2 * gone - 1)
        cx, cy, w, h = smooth[i]
        x, y = cx + far * w * math.cos(turn), cy + far * h * math.sin(turn)
        move = np.array([[-1, 0, x + track[then, 0]], [0, 1, y - track[then, 1]]])
        look = cv2.warpAffine(cv2.convertScaleAbs(frames[then], alpha=1.08, beta=6), move, (width, height))
        shape = cv2.warpAffine(masks[then].astype(np.float32), move, (width, height))
        cover = (cv2.GaussianBlur(shape, (3, 3), 0) * ~masks[i])[..., None]
        made[i] = (frames[i] * (1 - cover) + look * cover).astype(np.uint8)
    return made


def _made(sequence: Sequence, kind: str, name: str, other: Sequence, place: Path, title: str) -> list[Sequence]:
    """One harder version under a title, after making it where it is missing; none where it cannot be made."""
    if not (place / "boxes.txt").exists() and not _make(sequence, kind, name, other, place):
        return []
    return [replace(s, name=title) for s in find_sequences(place)]


def _make(sequence: Sequence, kind: str, name: str, other: Sequence, place: Path) -> bool:
    """Write one harder version; False where the sequence does not lend itself to it."""
    numbers = range(sequence.first, len(sequence), 3 if kind == "fast" else 1)[:LENGTH]
    frames: list[Path] | Pictures = [sequence.frames[i] for i in numbers]
    if sequence.masks is None:
        _write(place, frames, [], [sequence.box(i) for i in numbers])
        return True
    truth = [sequence.read_mask(i) for i in numbers]
    if not truth[0].any():
        raise MediaError(f"{sequence.masks[numbers[0]]} is empty where boxes.txt is not; repair either.")
    masks: Masks | None = truth
    code = zlib.crc32(name.encode())
    left = 0.4 * (code % 2)  # a piece lies on one side or the other
    parts = {"upper": (0, 0, 1, 0.42), "lower": (0, 0.5, 1, 1), "piece": (left, 0, left + 0.6, 0.6)}
    if kind in parts:
        masks = part(truth, parts[kind])
    elif kind != "fast":
        frames = [sequence.read_frame(i) for i in numbers]
        if kind == "double":
            frames = double(frames, truth)
        else:
            made = poles(frames, truth, other.read_frame(other.first), np.random.default_rng(code))
            frames, masks = made or (frames, None)
    if masks is not None:
        _write(place, frames, masks, [Box.from_mask(mask) for mask in masks])
    return masks is not None


def _write(place: Path, frames: list[Path] | Pictures, masks: Masks, boxes: list[Box | None]) -> None:
    """A sequence's folder."""
    try:
        shutil.rmtree(place, ignore_errors=True)  # half of one that was broken off
        (place / "frames").mkdir(parents=True)
        for i, frame in enumerate(frames):
            if isinstance(frame, Path):
                shutil.copyfile(frame, place / "frames" / f"{i:05d}{frame.suffix}")
            else:
                picture = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 93])[1]
                (place / "frames" / f"{i:05d}.jpg").write_bytes(picture.tobytes())
        for i, mask in enumerate(masks):
            (place / "masks").mkdir(exist_ok=True)
            (place / "masks" / f"{i:05d}.png").write_bytes(encode_indexed(mask.astype(np.uint8)))
        rows = ((0, 0, 0, 0) if box is None else box.xywh for box in boxes)
        (place / "boxes.txt").write_text("".join(",".join(f"{v:g}" for v in row) + "\n" for row in rows))
    except OSError as error:
        raise MediaError(f"{place} cannot be written ({error}); give a folder that can.") from error


def _track(masks: Masks) -> NDArray[np.float64]:
    """Boxes (N, 4) cx, cy, w, h of masks, the first of which is not empty; where one is, the box before."""
    rows: list[tuple[float, float, float, float]] = []
    for box in map(Box.from_mask, masks):
        rows.append(rows[-1] if box is None else (box.cx, box.cy, box.w, box.h))
    return np.array(rows)


def _poles(track: NDArray[np.float64], rng: np.random.Generator) -> Iterator[tuple[float, float, NDArray[np.float64]]]:
    """Width, direction across (radians) and place in that direction on each frame (N,) of the poles for a target."""
    count, (w, h) = len(track), np.median(track[:, 2:], axis=0)
    moved = np.abs(track[:, :2] - track[0, :2]).max(axis=0)
    level = moved[1] > max(moved[0], track[0, 3])
    for k in range(3):
        wide = rng.uniform(0.15, 0.4) * math.sqrt(w * h)
        turn = math.radians(90 * level + rng.uniform(-20, 20))
        ways = rng.permutation((-1, 1))
        normal = np.array([math.cos(turn), math.sin(turn)])
        at, half = track[:, :2] @ normal, track[:, 2:] @ np.abs(normal) / 2
        away = np.abs(at - at[0]) > 2 * half[0]
        if away.any():
            yield wide, turn, np.full(count, np.quantile(at[away], (k + 0.5) / 3))
            continue
        for meet, way in product(range(5 + k * max(10, (count - 5) // 3), count), ways):
            places = at[meet] + way * (2 * half[meet] + wide) / 8 * (np.arange(count) - meet)  # over it in 8 frames
            if abs(at[0] - places[0]) > half[0] + wide / 2:
                yield wide, turn, places
                break


if __name__ == "__main__":
    main(sys.argv[1:])
