"""Track a folder of sequences and say how well it went: figures of each, their mean, and the time a frame took."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from siammask import __version__
from siammask.engines import cpu_features
from siammask.errors import InputError
from siammask.evaluate.honesty import Honesty, honesty
from siammask.evaluate.overlap import Float64, box_iou
from siammask.evaluate.protocols import (
    Given,
    OnePassScores,
    Statistics,
    Trajectory,
    davis,
    one_pass,
    one_pass_scores,
)
from siammask.evaluate.sequences import Sequence, find_sequences
from siammask.tracker import Tracker

Progress = Callable[[str, int, int], None]  # name of the sequence, frames done in all, frames in all

# what makes one processor several times as fast as another on the same network
CPU_FEATURES = frozenset(
    {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "asimddp", "bf16"}
)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median with the 10 % and 90 % points."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> Spread | None:
        """None where there are no values."""
        if len(values) == 0:
            return None
        low, median, high = np.percentile(values, [10, 50, 90])
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True, slots=True)
class SequenceReport:
    """Figures of one sequence; shares in [0, 1]."""

    name: str
    frames: int  # from the first true box on
    region: Statistics | None  # J; None without true masks
    contour: Statistics | None  # F
    boxes: OnePassScores
    growth: float | None  # median of log(size / true size) after the first frame; None where no box meets its true one
    ms: Spread | None  # of every frame but the first; None where there is only one


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of several sequences, and what they were measured with. Means count each sequence the same."""

    sequences: tuple[SequenceReport, ...]
    ms: Spread | None  # over the frames of all sequences, but the first of each
    honesty: Honesty | None  # of their scores; None where there is only one frame each
    model: str
    engine: str
    precision: str
    cpu: tuple[str, ...]  # what the processor can do, as far as the engines care
    versions: dict[str, str]

    @property
    def means(self) -> dict[str, float]:
        """Mean over sequences by name of the figure; J, F and J&F over those with masks, and absent without any.

        Those of the score are over all frames together.
        """
        with_masks = [(s.region, s.contour) for s in self.sequences if s.region is not None and s.contour is not None]
        figures: dict[str, float] = {}
        if with_masks:
            for name in ("mean", "recall", "decay"):
                suffix = "" if name == "mean" else f"_{name}"
                figures[f"J{suffix}"] = float(np.mean([getattr(j, name) for j, _ in with_masks]))
                figures[f"F{suffix}"] = float(np.mean([getattr(f, name) for _, f in with_masks]))
            figures["J&F"] = (figures["J"] + figures["F"]) / 2
        for name in OnePassScores.__slots__:
            figures[name] = float(np.mean([getattr(s.boxes, name) for s in self.sequences]))
        grown = [s.growth for s in self.sequences if s.growth is not None]
        if grown:
            figures["growth"] = float(np.mean(grown))
        if self.honesty is not None:
            figures["score_bias"], figures["score_error"] = self.honesty.bias, self.honesty.error
            if self.honesty.tells is not None:
                figures["score_tells"] = self.honesty.tells
        return figures

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dump`."""
        return {"mean": self.means, "sequences_with_masks": sum(s.region is not None for s in self.sequences)} | asdict(
            self
        )

    def table(self) -> Table:
        """One row for each sequence and one for the mean, for the terminal."""
        table = Table(title=f"{self.model}, {self.engine} {self.precision}", box=SIMPLE, pad_edge=False)
        table.add_column("sequence", overflow="fold")
        for heading in ("frames", "J", "F", "AUC", "prec.", "ms"):
            table.add_column(heading, justify="right", no_wrap=True)
        for s in self.sequences:
            j, f = (None if figure is None else figure.mean for figure in (s.region, s.contour))
            table.add_row(
                s.name,
                str(s.frames),
                *(_digits(v) for v in (j, f, s.boxes.success_auc, s.boxes.precision)),
                _spread(s.ms),
            )
        table.add_section()
        means, frames = self.means, sum(s.frames for s in self.sequences)
        figures = (_digits(means.get(name)) for name in ("J", "F", "success_auc", "precision"))
        table.add_row("mean", str(frames), *figures, _spread(self.ms), style="bold")
        table.caption = "J, F without first, last frame; AUC of success; precision at 20 px; ms: median (10-90 %)"
        if self.honesty is not None:
            table.caption += f"\nscore - overlap: {self.honesty.bias:+.3f}, calibration error {self.honesty.error:.3f}"
        return table


def evaluate_folder(
    folder: str | Path,
    tracker: Tracker,
    progress: Progress | None = None,
    sequences: Collection[str] | None = None,
    given: Given = "box",
) -> Report:
    """Track every sequence of `folder` (or those named in `sequences`, by full or last name) and score it.

    Raises MediaError for a folder without usable sequences, InputError for a name that it does not hold.
    """
    found = find_sequences(folder)
    if sequences is not None:
        names = {name: {s.name for s in found if name in (s.name, s.name.rpartition("/")[2])} for name in sequences}
        for name, hits in names.items():
            if not hits:
                raise InputError(f"{folder} holds no sequence {name!r}; it holds: {', '.join(s.name for s in found)}.")
        wanted = set().union(*names.values())
        found = tuple(s for s in found if s.name in wanted)
    return evaluate_sequences(found, tracker, progress, given)


def evaluate_sequences(
    sequences: Iterable[Sequence], tracker: Tracker, progress: Progress | None = None, given: Given = "box"
) -> Report:
    """Track and score these sequences with any tracker; training validates with it too.

    Raises InputError where there are none, or where a true box cannot be tracked, naming the sequence.
    """
    chosen = tuple(sequences)
    if not chosen:
        raise InputError("There is no sequence to evaluate; give at least one.")
    total = sum(len(s) - s.first for s in chosen)
    done = 0
    reports: list[SequenceReport] = []
    times: list[np.ndarray] = []
    scores, overlaps = [], []
    for sequence in chosen:

        def each(number: int, sequence: Sequence = sequence, before: int = done) -> None:
            if progress is not None:
                progress(sequence.name, before + number - sequence.first + 1, total)

        try:
            trajectory = one_pass(tracker, sequence, each, given)
        except InputError as error:
            raise InputError(f"Sequence {sequence.name}: {error}") from error
        done += len(trajectory.boxes)
        times.append(trajectory.ms[1:])
        scores.append(trajectory.scores[1:])
        overlaps.append(true_overlaps(sequence, trajectory)[1:])
        reports.append(score(sequence, trajectory))
    return Report(
        tuple(reports),
        Spread.of(np.concatenate(times)),
        honesty(np.concatenate(scores), np.concatenate(overlaps)),
        tracker.variant.name,
        tracker.engine.name,
        tracker.engine.precision,
        tuple(sorted(cpu_features() & CPU_FEATURES)),
        versions(tracker.engine.name),
    )


def score(sequence: Sequence, trajectory: Trajectory) -> SequenceReport:
    """What a trajectory is worth against the truth of its sequence."""
    truth = sequence.boxes[trajectory.first :]
    return SequenceReport(
        sequence.name,
        len(trajectory.boxes),
        None if trajectory.region is None else davis(trajectory.region),
        None if trajectory.contour is None else davis(trajectory.contour),
        one_pass_scores(truth, trajectory.boxes),
        growth(truth[1:], trajectory.boxes[1:]),
        Spread.of(trajectory.ms[1:]),
    )


def true_overlaps(sequence: Sequence, trajectory: Trajectory) -> Float64:
    """What the scores estimate (n,): IoU of the masks, without true ones of the boxes; 0 where nothing is to be seen.

    So two empty masks, whose J is 1, count 0: there a score is to be low.
    """
    boxes = box_iou(sequence.boxes[trajectory.first :], trajectory.boxes)
    if trajectory.region is None:
        return boxes
    return np.where((sequence.boxes[trajectory.first :, 2:] > 0).all(axis=1), trajectory.region, 0.0)


def growth(truth: np.ndarray, predicted: np.ndarray) -> float | None:
    """Median of log(size / true size), size = sqrt(w h), of the boxes (N, 4) that overlap the true ones at all.

    Given the last true place, this is what a tracker swells or shrinks by in one step; None where nothing overlaps.
    """
    meets = box_iou(truth, predicted) > 0
    if not meets.any():
        return None
    return float(np.median(np.log(predicted[meets, 2:] / truth[meets, 2:]).sum(axis=1) / 2))


def versions(engine: str) -> dict[str, str]:
    """Versions of what figures depend on; the runtime's is left out where it is no installed package."""
    found = {"siammask": __version__, "python": platform.python_version(), "numpy": np.__version__}
    found["opencv"] = cv2.__version__
    try:
        found[engine] = version(engine)
    except PackageNotFoundError:  # an engine of the caller's own
        return found
    return found


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _spread(ms: Spread | None) -> str:
    return "-" if ms is None else f"{ms.median:.1f} ({ms.low:.1f}-{ms.high:.1f})"
