"""Draw the figure of `how-it-works.md`: one frame of the bundled clip on its way through the default model.

    python docs/make_figures.py

Pictures are those of the tracking loop itself; nothing is drawn by hand but outlines and words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

import siammask
from siammask import demo
from siammask.errors import InputError, MediaError
from siammask.geometry import Box, Crop, Float32, UInt8, mean_colour
from siammask.media.draw import colour_of, paint
from siammask.tracker import Tracker, TrackerState, TrackResult

OUT = Path(__file__).with_name("images") / "how-it-works.jpg"
HEIGHT, GAP, TITLE = 288, 12, 30  # pixels of the figure
PAPER, INK = (255, 255, 255), (30, 30, 30)


def main(
    frame: Annotated[int, typer.Option(min=1, help="Number of the frame of the bundled clip.")] = 45,
    weights: Annotated[Path | None, typer.Option(help="Instead of those in the package.")] = None,
    out: Path = OUT,
) -> None:
    """Draw the figure."""
    tracker = siammask.load(weights=weights, threads=2)
    frames = [f.pixels for f, _ in zip(demo.bunny(), range(frame + 1), strict=False)]
    if len(frames) <= frame:
        raise InputError(f"The clip has {len(frames)} frames; choose a frame below {len(frames)}.")
    state, first = tracker.start(frames[0], demo.BUNNY_BOX)
    for pixels in frames[1:-1]:
        state, _ = tracker.step(state, pixels)
    _, result = tracker.step(state, frames[-1])
    figure = stack(panels(tracker, state, frames, first, result))
    out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(out), figure, [cv2.IMWRITE_JPEG_QUALITY, 88]):
        raise MediaError(f"{out} cannot be written.")
    print(f"Wrote {out}: frame {frame}, score {result.score:.2f}.")


def panels(
    tracker: Tracker, state: TrackerState, frames: list[UInt8], first: TrackResult, result: TrackResult
) -> list[list[UInt8]]:
    """Two rows: what goes into the network, what comes out."""
    frame, fill = frames[-1], mean_colour(frames[0])
    (crop,) = tracker.locator.crops(state)
    exemplar = tracker.locator.exemplar(demo.BUNNY_BOX)
    pixels, mask = crop.read(frame, fill), seen(state, crop, tracker.locator.settings.guide_size)
    memory = (state.first, state.first if state.last is None else state.last)
    score = tracker.engine.search(memory, pixels, mask).score.max(axis=0)
    remembered = "memory 2 from now on" if result.score >= tracker.locator.settings.remember_score else "not remembered"
    return [
        [
            panel(window(frame, state.box, crop, fill), "frame: last box, search window"),
            panel(pixels, f"crop, {crop.size} x {crop.size}"),
            panel(grey(mask), "last mask, as the crop sees it"),
            panel(tinted(exemplar.read(frames[0], fill), first, exemplar), "memory 1: first frame, its mask"),
        ],
        [
            panel(paint(frame, result.mask, box=result.box, rotated=result.rotated_box), "result: mask and boxes"),
            panel(grey(drawn(result)), "patch, 128 x 128"),
            panel(grey(score), f"score, {score.shape[1]} x {score.shape[0]}"),
            panel(tinted(pixels, result, crop), remembered),
        ],
    ]


def seen(state: TrackerState, crop: Crop, size: int) -> Float32:
    """The last mask on the grid of this crop."""
    return np.zeros((size, size), np.float32) if state.patch is None else state.patch.seen_by(crop, size)


def drawn(result: TrackResult) -> Float32:
    if result.patch is None:
        raise InputError("This model draws no mask; the figure is about one that does.")
    return result.patch.values


def tinted(pixels: UInt8, result: TrackResult, crop: Crop) -> UInt8:
    """A crop with the mask that a result draws on it."""
    if result.patch is None:
        return pixels
    return paint(pixels, result.patch.seen_by(crop, crop.size) > result.threshold)


def window(frame: UInt8, box: Box, crop: Crop, fill: tuple[int, int, int]) -> UInt8:
    """The frame, as much larger as the search window needs, with the last box (green) and the window (yellow)."""
    height, width = frame.shape[:2]
    left, top = max(0, -crop.x) + 2, max(0, -crop.y) + 4
    right, bottom = max(0, crop.x + crop.side - width) + 4, max(0, crop.y + crop.side - height) + 4
    out = cv2.copyMakeBorder(frame, top, bottom, left, right, cv2.BORDER_CONSTANT, value=fill)
    for place, colour in ((box, colour_of(2)), (crop.place, colour_of(3))):
        x, y, w, h = (round(v) for v in place.xywh)
        for wide, ink in ((5, (0, 0, 0)), (3, colour)):
            cv2.rectangle(out, (x + left, y + top), (x + left + w - 1, y + top + h - 1), ink, wide)
    return out  # type: ignore[return-value]


def grey(values: Float32) -> UInt8:
    return cv2.cvtColor((values * 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)  # type: ignore[return-value]


def panel(picture: UInt8, title: str) -> UInt8:
    """The picture at the figure's height under its title."""
    width = round(picture.shape[1] * HEIGHT / picture.shape[0])
    smooth = cv2.INTER_AREA if picture.shape[0] > HEIGHT else cv2.INTER_NEAREST  # cells stay visible
    scaled = cv2.resize(picture, (width, HEIGHT), interpolation=smooth)
    out = np.full((HEIGHT + TITLE, width, 3), PAPER, np.uint8)
    out[TITLE:] = scaled
    cv2.putText(out, title, (0, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
    return out


def stack(rows: list[list[UInt8]]) -> UInt8:
    """Rows of panels of one height, with gaps between."""
    lines = [cv2.hconcat([p for q in row for p in (q, gap(q.shape[0], GAP))][:-1]) for row in rows]
    widest = max(line.shape[1] for line in lines)
    padded = [cv2.hconcat([line, gap(line.shape[0], widest - line.shape[1])]) for line in lines]
    return cv2.vconcat([p for q in padded for p in (q, gap(GAP, widest))][:-1])  # type: ignore[return-value]


def gap(height: int, width: int) -> UInt8:
    return np.full((height, width, 3), PAPER, np.uint8)


if __name__ == "__main__":
    typer.run(main)
