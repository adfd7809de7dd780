"""Search settings against the validation sequences of a run: one setting at a time, several values each.

python -m siammask.train.tune configs/guided.toml WEIGHTS_FOLDER window_factor=1.3,1.45,1.6 max_widen=1,1.6
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from siammask.engines import EngineOptions, open_engine
from siammask.evaluate.report import Report, evaluate_sequences
from siammask.tracker import Tracker
from siammask.train import config
from siammask.train.loop import validation_sequences
from siammask.variants import parse_setting, variant


def main(arguments: list[str]) -> None:
    """Print J, F, AUC for the settings as they are, then with each change alone."""
    file, folder, *changes = arguments
    c = config.read(Path(file))
    row = variant(c.variant)
    engine = open_engine(row, EngineOptions(precision="f32"), Path(folder))
    sequences = validation_sequences(c)
    table = Table("setting", "J", "F", "AUC", "mean", title=f"{c.variant} on {len(sequences)} validation sequences")
    console = Console()
    for name, value in [("as it is", None), *(pair for change in changes for pair in parse(change))]:
        changed = row if value is None else row.searching(**{name: value})
        report = evaluate_sequences(sequences, Tracker(changed, engine))
        label = name if value is None else f"{name} = {value}"
        table.add_row(label, *figures(report))
        console.print(label, *figures(report))
    console.print(table)


def figures(report: Report) -> tuple[str, ...]:
    """J, F, AUC and their mean, to three places."""
    m = report.means
    three = (m.get("J", 0.0), m.get("F", 0.0), m["success_auc"])
    return tuple(f"{v:.3f}" for v in (*three, sum(three) / 3))


def parse(change: str) -> list[tuple[str, float | int | bool]]:
    """`name=a,b,c` as pairs of name and value. Raises InputError for a setting there is not, or no number."""
    name, _, values = change.partition("=")
    return [parse_setting(f"{name}={value}") for value in values.split(",")]


if __name__ == "__main__":
    main(sys.argv[1:])
