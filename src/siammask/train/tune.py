"""Search settings against the validation sequences of a run, and harder ones where its config says so.

python -m siammask.train.tune configs/guided.toml WEIGHTS_FOLDER window_factor=1.3,1.45,1.6 lr=0.9+max_widen=1,1.6

One change at a time, each with several values; settings joined by + change together, in every combination of values.
--precision=bf16 (f32 where nothing is said) and --threads=1 say how the network runs.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Table

from siammask.engines import EngineOptions, open_engine
from siammask.errors import InputError
from siammask.train import config
from siammask.train.loop import harder_sequences, validate, validation_sequences
from siammask.variants import parse_setting, variant

Settings = dict[str, float | int | bool | str]


def main(arguments: list[str]) -> None:
    """Print the figures of validation for the settings as they are, then with each change alone."""
    file, folder, *changes = (a for a in arguments if not a.startswith("--"))
    c = config.read(Path(file))
    row = variant(c.variant)
    engine = open_engine(row, options([a for a in arguments if a.startswith("--")]), Path(folder))
    sequences, hard = validation_sequences(c), harder_sequences(c)
    console, table = Console(), None
    for change in [{}, *(settings for text in changes for settings in parse(text))]:
        figures = validate(row.searching(**change), engine, sequences, hard)
        table = table or Table("setting", *figures, title=f"{c.variant} on {len(sequences)} + {len(hard)} sequences")
        line = [" ".join(f"{n}={v}" for n, v in change.items()) or "as it is", *(f"{v:.3f}" for v in figures.values())]
        table.add_row(*line)
        console.print(*line)
    console.print(table)


def options(arguments: list[str]) -> EngineOptions:
    """How to run the network. Raises InputError for an argument that is none of those named above."""
    how = EngineOptions(precision="f32")
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "--threads" and value.isdigit() and int(value):
            how = replace(how, threads=int(value))
        elif name == "--precision" and value:
            how = replace(how, precision=value)  # checked where the engine is opened
        else:
            raise InputError(f"{argument!r} is unknown; give --precision=f32 (or bf16) or --threads=1 (or more).")
    return how


def parse(change: str) -> list[Settings]:
    """`a=1,2+b=3,4` as every combination of those values. Raises InputError for an unknown setting, or no number.

    >>> parse("lr=0.2,0.3+window_factor=2")
    [{'lr': 0.2, 'window_factor': 2.0}, {'lr': 0.3, 'window_factor': 2.0}]
    """
    settings = (part.partition("=") for part in re.split(r"\+(?=[a-z])", change))  # not the + of 1e+3
    return [
        dict(pairs)
        for pairs in product(
            *([parse_setting(f"{name}={v}") for v in values.split(",")] for name, _, values in settings)
        )
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
