"""Compare weights and settings by the same sequences, with the error of the difference.

python -m siammask.train.compare configs/guided_settings.toml configs/guided_firm.toml FOLDER FOLDER:window_factor=1.2

FOLDER holds weights of the first config's variant; settings after a colon are those of `siammask.train.tune`. The
sequences are those that validate the configs, harder versions of them, and of the harder ones again every third frame.
Differences are to the first of what is compared; their errors take sequences of one video for one thing. "Held out" are
the videos that validate the last config. --keep=FILE.json keeps what was measured and takes it from there;
--precision=f32 (bf16 where nothing is said) says how the network runs; --processes=2.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections import defaultdict
from collections.abc import Sequence as Several
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from siammask.engines import open_engine
from siammask.errors import InputError
from siammask.evaluate.report import evaluate_sequences
from siammask.evaluate.sequences import Sequence
from siammask.tracker import Tracker
from siammask.train import config, tune
from siammask.train.config import TrainConfig
from siammask.train.harder import harder, named, thinned
from siammask.train.loop import validation_sequences
from siammask.variants import variant

Figures = dict[str, tuple[float | None, float]]  # by sequence: J (None without true masks) and success AUC


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two candidates, over the sequences that both were tracked on."""

    mean: float
    error: float  # standard error; sequences of one video count as one thing


def main(arguments: list[str]) -> None:
    """Track what is not kept yet, and print a line for each candidate."""
    options = dict(a[2:].partition("=")[::2] for a in arguments if a.startswith("--"))
    if unknown := sorted(set(options) - {"keep", "precision", "processes"}):
        raise InputError(f"'--{unknown[0]}' is unknown; give --keep=FILE.json, --precision=f32 or --processes=2.")
    words = [a for a in arguments if not a.startswith("--")]
    configs = [config.read(Path(word)) for word in words if word.endswith(".toml")]
    candidates = [word for word in words if not word.endswith(".toml")]
    if not configs or not candidates:
        raise InputError("Give at least one config (*.toml) and one folder with weights.")
    if not (count := options.get("processes", "1")).isdigit() or count == "0":
        raise InputError(f"'--processes={count}' is no number of processes; give at least 1.")
    precision = options.get("precision", "bf16")
    keep = Path(options["keep"]) if "keep" in options else None
    done: dict[str, Figures] = json.loads(keep.read_text()) if keep is not None and keep.exists() else {}
    sequences = listed(configs)
    console = Console()
    for text in candidates:
        if text not in done:
            done[text] = measured(configs[0].variant, text, sequences, precision, int(count))
            if keep is not None:
                keep.write_text(json.dumps(done))
    console.print(table(done, candidates, held_out(configs)))


def listed(configs: Several[TrainConfig]) -> dict[str, Sequence]:
    """The sequences of all configs, by name: their validation, harder versions of it, and of those each third frame."""
    found: dict[str, Sequence] = {}
    for c in configs:
        folder = Path(c.data.cache) / "harder"
        given = validation_sequences(c)
        made = harder(given, folder)
        found |= {f"whole/{named(s)}": s for s in given}
        found |= {s.name: s for s in chain(made, thinned(made, folder))}
    return found


def held_out(configs: Several[TrainConfig]) -> frozenset[str]:
    """Videos that validate the last config: the weights have not learned from them."""
    return frozenset(named(s) for s in validation_sequences(configs[-1]))


def measured(name: str, candidate: str, sequences: dict[str, Sequence], precision: str, processes: int) -> Figures:
    """Every sequence tracked with a candidate, on one thread each process."""
    longest = sorted(sequences, key=lambda n: -len(sequences[n]))
    parts = [{n: sequences[n] for n in longest[i::processes]} for i in range(processes)]
    jobs = [(name, candidate, part, precision) for part in parts if part]
    if len(jobs) == 1:
        return _tracked(*jobs[0])
    with multiprocessing.get_context("spawn").Pool(len(jobs)) as pool:
        return dict(chain.from_iterable(figures.items() for figures in pool.starmap(_tracked, jobs)))


def _tracked(name: str, candidate: str, sequences: dict[str, Sequence], precision: str) -> Figures:
    folder, _, settings = candidate.partition(":")
    (change,) = tune.parse(settings) if settings else [{}]
    row = variant(name)
    engine = open_engine(row, tune.options(["--threads=1", f"--precision={precision}"]), Path(folder))
    report = evaluate_sequences(tuple(sequences.values()), Tracker(row.searching(**change), engine))
    return {
        n: (None if one.region is None else one.region.mean, one.boxes.success_auc)
        for n, one in zip(sequences, report.sequences, strict=True)
    }


def difference(ours: Several[float], theirs: Several[float], videos: Several[str]) -> Difference:
    """Mean of the differences of sequences, and its standard error where those of one video are no independent ones.

    The cluster-robust variance of a mean: sums of a video's deviations are squared, not each (Liang and Zeger, 1986).

    >>> difference([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], ["a", "a", "b", "b"])
    Difference(mean=0.5, error=0.5)
    """
    gaps = np.subtract(ours, theirs)
    mean = float(gaps.mean())
    sums: dict[str, float] = defaultdict(float)
    for video, gap in zip(videos, gaps, strict=True):
        sums[video] += float(gap) - mean
    count = len(sums)
    if count < 2:
        return Difference(mean, float("nan"))
    squares = sum(value**2 for value in sums.values()) * count / (count - 1)
    return Difference(mean, float(np.sqrt(squares)) / len(gaps))


def table(done: dict[str, Figures], candidates: Several[str], unseen: frozenset[str]) -> Table:
    """Means, differences to the first candidate over all sequences and over videos held out, J by kind."""
    first = done[candidates[0]]
    shown = Table("", *candidates, title=f"{len(first)} sequences of {len({video_of(n) for n in first})} videos")
    for which, heading in enumerate(("J", "AUC")):
        shown.add_row(heading, *(_mean(done[text], which, first) for text in candidates))
    for where, names in (("", list(first)), (", held out", [n for n in first if video_of(n) in unseen])):
        for which, heading in enumerate(("J", "AUC")):
            cells = (_difference(done[text], first, which, names) for text in candidates[1:])
            shown.add_row(f"{heading}, difference{where}", "", *cells)
    for kind in dict.fromkeys(n.rpartition("/")[0] for n in first):
        names = [n for n in first if n.rpartition("/")[0] == kind]
        shown.add_row(f"J, {kind}", *(_mean(done[text], 0, names) for text in candidates))
    return shown


def _difference(ours: Figures, theirs: Figures, which: int, names: Several[str]) -> str:
    both = [(ours[n][which], theirs[n][which], video_of(n)) for n in names]
    known = [(a, b, video) for a, b, video in both if a is not None and b is not None]
    if not known:
        return ""
    found = difference(*zip(*known, strict=True))
    return f"{found.mean:+.4f} ± {found.error:.4f}"


def video_of(name: str) -> str:
    """The video that a sequence was made of: what comes after its kind.

    >>> video_of("fast/upper/davis2016_train-bear")
    'davis2016_train-bear'
    """
    return name.rpartition("/")[2]


def _mean(figures: Figures, which: int, names: Several[str] | Figures) -> str:
    values = [value for n in names if (value := figures[n][which]) is not None]
    return f"{np.mean(values):.4f}" if values else ""


if __name__ == "__main__":
    main(sys.argv[1:])
