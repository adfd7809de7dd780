"""The ablation of the SiamMask paper as a table: one row for each way to build and run a tracker, on one data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from siammask import weights
from siammask.boxes import STRATEGIES
from siammask.engines import EngineOptions, open_engine
from siammask.engines.base import Engine
from siammask.evaluate.boxes import ORACLE, compare_boxes
from siammask.evaluate.report import evaluate_sequences
from siammask.evaluate.sequences import find_sequences
from siammask.tracker import Tracker
from siammask.variants import Variant, variant

Open = Callable[[Variant, Path | None], Engine]
Progress = Callable[[str, int, int], None]  # row and sequence, frames done and frames in all of that row

_FC = variant("siamfc_light").search
_PEAK = {name: getattr(_FC, name) for name in ("follow", "scales", "scale_penalty", "lr", "window")}
_BOXES = {"follow": "box"}


@dataclass(frozen=True, slots=True)
class Row:
    """One tracker: the weights of run `run`, of the variant `model`, searched with some other settings."""

    question: str  # what its neighbours of the same name are compared about
    label: str
    model: str
    run: str
    boxes: bool = False  # only what the scores say: no mask is drawn, and the filled box stands for it
    search: dict[str, Any] = field(default_factory=dict)
    paper: dict[str, float] = field(default_factory=dict)  # what the paper says, in per cent, by figure

    @property
    def variant(self) -> Variant:
        row = variant(self.model).searching(**self.search)
        return replace(row, mask="none") if self.boxes else row


ROWS = (
    Row("score", "SiamFC", "siamfc_light", "siamfc_light"),
    Row("score", "two branches, boxes of the score", "siammask_2b_light", "siammask_2b_light", True, _PEAK),
    Row("box", "SiamRPN", "siamrpn_light", "siamrpn_light"),
    Row("box", "three branches, boxes of the anchors", "siammask_base_light", "siammask_base_light", True, _BOXES),
    # without its mask loss the network of SiamMask is SiamRPN's: score and box branch are the same, nothing else learns
    Row("mask loss", "off (SiamRPN)", "siamrpn_light", "siamrpn_light"),
    Row("mask loss", "on, boxes of the anchors", "siammask_light", "siammask_light", True, _BOXES),
    Row("branches", "two", "siammask_2b_light", "siammask_2b_light"),
    Row("branches", "three", "siammask_base_light", "siammask_base_light"),
    Row("refinement, two branches", "without", "siammask_2b_light", "siammask_2b_light"),
    Row("refinement, two branches", "with", "siammask_2b_refined_light", "siammask_2b_refined_light"),
    Row("refinement", "without", "siammask_base_light", "siammask_base_light"),
    Row("refinement", "with", "siammask_light", "siammask_light", paper={"J": 71.7, "F": 67.8}),  # on DAVIS-2016
    Row("next search region", "box of the anchor", "siammask_light", "siammask_light", search=_BOXES),
    Row("next search region", "box of the mask", "siammask_light", "siammask_light"),
)
STRATEGY_MODEL = "siammask_light"
PAPER_STRATEGIES = {"min_max": 65.05, "mbr": 67.15, "opt": 71.68}  # mean IoU on VOT2016, section 4.1

FIGURES = {"J": "J", "F": "F", "success_auc": "AUC", "precision": "precision"}


@dataclass(frozen=True, slots=True)
class Tracked:
    """What was found of a row: figures in [0, 1] of each seed of its run; none where there are no weights."""

    row: Row
    seeds: tuple[dict[str, float], ...] = ()

    @property
    def figures(self) -> dict[str, float] | None:
        """Their mean over the seeds."""
        if not self.seeds:
            return None
        return {name: sum(one[name] for one in self.seeds) / len(self.seeds) for name in self.seeds[0]}

    def shown(self, name: str) -> str:
        """A figure in per cent, with the lowest and the highest where there are several seeds."""
        values = [100 * one[name] for one in self.seeds if name in one]
        if not values:
            return "-"
        spread = f" ({min(values):.1f}-{max(values):.1f})" if len(values) > 1 else ""
        return f"{sum(values) / len(values):.1f}{spread}"


@dataclass(frozen=True, slots=True)
class Ablation:
    """The figures of every row."""

    sequences: tuple[str, ...]
    rows: tuple[Tracked, ...]
    strategies: dict[str, dict[str, float]]  # masks (true, or a model's) -> way to a box -> mean IoU with the true mask

    @property
    def missing(self) -> tuple[str, ...]:
        """Runs whose weights were not found."""
        return tuple(dict.fromkeys(tracked.row.run for tracked in self.rows if not tracked.seeds))

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dump`."""
        rows = [asdict(t.row) | {"figures": t.figures, "seeds": list(t.seeds)} for t in self.rows]
        return {
            "sequences": self.sequences,
            "rows": rows,
            "not_trained": self.missing,
            "strategies": self.strategies,
            "paper_strategies": {name: value / 100 for name, value in PAPER_STRATEGIES.items()},
        }

    def markdown(self) -> str:
        """The tables in per cent, with what the paper says (on its data, with ResNet-50) beside what we found."""
        lines = [
            f"{len(self.sequences)} sequences; per cent, of several seeds the mean (lowest-highest); beside them the "
            "paper's (ResNet-50, its own data sets).",
            "",
            "| what | | " + " | ".join(FIGURES.values()) + " | paper |",
            "|---|---|" + "--:|" * len(FIGURES) + "---|",
        ]
        for tracked in self.rows:
            row = tracked.row
            shown = [tracked.shown(name) for name in FIGURES]
            if not tracked.seeds:
                shown = ["not trained", *[""] * (len(FIGURES) - 1)]
            paper = ", ".join(f"{name} {value:.1f}" for name, value in row.paper.items())
            lines.append(f"| {row.question} | {row.label} | {' | '.join(shown)} | {paper} |")
        if self.strategies:
            names = tuple(self.strategies)
            lines += ["", f"| box of a mask | {' | '.join(names)} | paper (VOT2016) |"]
            lines += ["|---|" + "--:|" * (len(names) + 1)]
            for strategy in STRATEGIES:
                ious = " | ".join(f"{100 * self.strategies[name][strategy]:.2f}" for name in names)
                paper = f"{PAPER_STRATEGIES[strategy]:.2f}" if strategy in PAPER_STRATEGIES else ""
                lines.append(f"| {strategy} | {ious} | {paper} |")
        if self.missing:
            lines += ["", f"Not trained: {', '.join(self.missing)}."]
        return "\n".join(lines) + "\n"


def ablate(
    folder: str | Path,
    runs: Path | None = None,
    options: EngineOptions | None = None,
    progress: Progress | None = None,
    opener: Open | None = None,
) -> Ablation:
    """Track `folder` with every row of the table whose weights are in `runs` or in the package (see `find_weights`),
    and with those of its other seeds, `runs`/RUN-seedN.

    Raises MediaError for a folder without sequences, WeightsError for weights that do not fit their row.
    """
    sequences = find_sequences(folder)
    opened = opener or (lambda row, path: _open(row, path, options or EngineOptions()))
    rows: list[Tracked] = []
    done: dict[str, dict[str, float]] = {}  # some rows stand in two comparisons
    for row in ROWS:
        seeds = []
        for run in (row.run, *other_seeds(row.run, runs)):
            there, path = find_weights(row.model, run, runs)
            key = repr((run, row.variant))
            if there and key not in done:
                tracker = _tracker(row, opened(variant(row.model), path))
                report = evaluate_sequences(sequences, tracker, _named(row.label, progress))
                done[key] = {name: value for name, value in report.means.items() if name in FIGURES}
            seeds += [done[key]] if there else []
        rows.append(Tracked(row, tuple(seeds)))
    return Ablation(tuple(s.name for s in sequences), tuple(rows), _strategies(folder, runs, opened, progress))


def other_seeds(run: str, runs: Path | None) -> tuple[str, ...]:
    """The runs of the same config with other seeds (`siammask train CONFIG --seed N`) that there are."""
    return () if runs is None else tuple(sorted(folder.name for folder in runs.glob(f"{run}-seed*")))


def find_weights(model: str, run: str, runs: Path | None) -> tuple[bool, Path | None]:
    """Whether there are weights of a run, and where: `best.safetensors` or exported graphs in `runs`/`run`.

    Else those in the package, for the run that bears its model's name, whose path is None.
    """
    if runs is not None:
        for path in (runs / run / "best.safetensors", runs / run):
            if path.is_file() or any(path.glob("*.xml")):
                return True, path
    return (run == model and model in weights.shipped()), None


def _open(row: Variant, path: Path | None, options: EngineOptions) -> Engine:
    """Checkpoints of training run in torch, exported graphs in whatever is asked for."""
    if path is not None and path.is_file():
        options = replace(options, engine="torch")
    return open_engine(row, options, path)


def _tracker(row: Row, engine: Any) -> Tracker:
    """The row's tracker; an engine that was opened with its mask branch is told not to draw where boxes are asked."""
    return Tracker(row.variant, replace(engine, variant=row.variant) if row.boxes else engine)


def _strategies(
    folder: str | Path, runs: Path | None, opened: Open, progress: Progress | None
) -> dict[str, dict[str, float]]:
    """Mean IoU of every kind of rotated box with the true mask; empty where no sequence has masks."""
    if all(sequence.masks is None for sequence in find_sequences(folder)):
        return {}
    there, path = find_weights(STRATEGY_MODEL, STRATEGY_MODEL, runs)
    row = variant(STRATEGY_MODEL)
    tracker = Tracker(row, opened(row, path)) if there else None
    report = compare_boxes(folder, tracker, _named("boxes", progress))
    names = [ORACLE] + ([row.name] if there else [])
    return {name: {r.strategy: r.iou for r in report.rows if r.masks == name} for name in names}


def _named(label: str, progress: Progress | None) -> Progress | None:
    return None if progress is None else lambda name, done, total: progress(f"{label}: {name}", done, total)
