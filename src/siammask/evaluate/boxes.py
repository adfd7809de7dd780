"""Which rotated box suits a mask best: the table of SiamMask's section 4.1, on the true masks and on a tracker's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from siammask.boxes import STRATEGIES, Strategy, box_of, rotated_box_of
from siammask.errors import InputError
from siammask.evaluate.sequences import find_sequences
from siammask.geometry import RotatedBox
from siammask.opt import box_mask_iou
from siammask.tracker import Tracker

ORACLE = "true masks"
Progress = Callable[[str, int, int], None]  # name of the sequence, frames done in all, frames in all


@dataclass(frozen=True, slots=True)
class BoxRow:
    """How well the rotated boxes that one strategy makes of some masks cover the true masks; shares in [0, 1]."""

    masks: str  # ORACLE, or the model that drew them
    strategy: Strategy
    iou: float  # mean overlap of box and true mask, each sequence counting the same
    over_50: float  # share of frames with an overlap above 0.5
    over_70: float
    ms: float  # median time of one box


@dataclass(frozen=True, slots=True)
class BoxReport:
    rows: tuple[BoxRow, ...]
    sequences: tuple[str, ...]
    frames: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dump`."""
        return asdict(self)

    def table(self) -> Table:
        table = Table(title="rotated box and true mask", box=SIMPLE, pad_edge=False)
        for heading in ("masks", "box"):
            table.add_column(heading)
        for heading in ("mean IoU", "IoU > 0.5", "IoU > 0.7", "ms"):
            table.add_column(heading, justify="right")
        for row in self.rows:
            shares = (f"{100 * share:.2f}" for share in (row.iou, row.over_50, row.over_70))
            table.add_row(row.masks, row.strategy, *shares, f"{row.ms:.2f}")
        table.caption = f"per cent; {len(self.sequences)} sequences, {self.frames} frames after each first"
        return table


def compare_boxes(folder: str | Path, tracker: Tracker | None = None, progress: Progress | None = None) -> BoxReport:
    """Make all four boxes on every frame after the first true one that shows the object, and overlap them with it.

    Of the true masks, and of those of `tracker` (started with the first true box) where one is given. Raises MediaError
    for a folder without sequences, InputError where none of them has masks.
    """
    chosen = tuple(sequence for sequence in find_sequences(folder) if sequence.masks is not None)
    if not chosen:
        raise InputError(f"{folder} holds no sequence with masks, and boxes are compared with masks.")
    names = [ORACLE] if tracker is None else [ORACLE, tracker.variant.name]
    total, done, frames = sum(len(s) - s.first for s in chosen), 0, 0
    overlaps: dict[tuple[str, Strategy], list[np.ndarray]] = {(n, s): [] for n in names for s in STRATEGIES}
    times: dict[tuple[str, Strategy], list[float]] = {key: [] for key in overlaps}
    for sequence in chosen:
        here: dict[tuple[str, Strategy], list[float]] = {key: [] for key in overlaps}
        state, target = None, sequence.box(sequence.first)
        assert target is not None  # `first` is the first with a box
        for number in range(sequence.first, len(sequence)):
            truth = sequence.read_mask(number)
            makers: dict[str, Callable[[Strategy], RotatedBox | None]] = {
                ORACLE: lambda strategy, mask=truth: box_of(mask, strategy)  # type: ignore[misc]
            }
            if tracker is not None:
                frame = sequence.read_frame(number)
                state, result = tracker.start(frame, target) if state is None else tracker.step(state, frame)
                makers[tracker.variant.name] = lambda strategy, r=result: rotated_box_of(  # type: ignore[misc]
                    r.patch, r.threshold, r.size, r.box, strategy
                )
            if number > sequence.first and truth.any():
                frames += 1
                found = {}
                for name, strategy in overlaps:
                    clock = perf_counter()
                    found[name, strategy] = makers[name](strategy)
                    times[name, strategy].append((perf_counter() - clock) * 1e3)
                for key, box in found.items():  # afterwards: it takes so much memory that boxes would slow down
                    here[key].append(0.0 if box is None else box_mask_iou(box, truth))
            done += 1
            if progress is not None:
                progress(sequence.name, done, total)
        for key, values in here.items():
            if values:
                overlaps[key].append(np.array(values))
    return BoxReport(
        tuple(_row(*key, overlaps[key], times[key]) for key in overlaps), tuple(s.name for s in chosen), frames
    )


def _row(name: str, strategy: Strategy, overlaps: list[np.ndarray], ms: list[float]) -> BoxRow:
    of_each = [(o.mean(), (o > 0.5).mean(), (o > 0.7).mean()) for o in overlaps]
    iou, over_50, over_70 = (float(share) for share in np.mean(of_each, axis=0))
    return BoxRow(name, strategy, iou, over_50, over_70, float(np.median(ms)))
