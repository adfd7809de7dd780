"""What `siammask bench` measured, as tables for the terminal and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from siammask.errors import InputError, MediaError


def show(report: Mapping[str, Any], console: Console) -> None:
    """The figures as tables."""
    here = report["machine"]
    console.print(
        f"{report['clip']}, {'x'.join(map(str, report['size']))}; {here['cpu']}, {here['cores']} cores, "
        f"{' '.join(here['features']) or 'features unknown'}; {here['gpu'] or 'no GPU'}; "
        + ", ".join(f"{name} {value}" for name, value in report["versions"].items())
    )
    for peer, why in report["left_out"].items():
        console.print(f"Without {peer}: {why}")
    compared = any("accuracy" in row for row in report["rows"])
    further = ("mask IoU to f32", "mask apart", "score apart") if compared else ()
    table = _table(("ms a frame", "frames/s", "times the first", *further))
    table.caption = (
        f"median (10-90 %) over {report['rounds']} turns of {report['frames_a_block']} frames; "
        "the first: of the same threads"
    )
    if compared:
        table.caption += "; single steps against the model's first row in f32: mean (worst)"
    for row in report["rows"]:
        cells = ((row["ms"], 2), (row["fps_of_rounds"], 1), (row["times_the_first"], 2))
        table.add_row(row["name"], *(_cell(figure, digits) for figure, digits in cells), *_apart(row, further))
    console.print(table)
    if "profile" in report:
        table = _table(tuple(report["profile"]))
        table.caption = "ms a frame by stage, one after another, median (10-90 %); outside: of the network's graphs"
        for stage in next(iter(report["profile"].values()))["ms"]:
            table.add_row(stage, *(_cell(one["ms"][stage], 2) for one in report["profile"].values()))
        table.add_row("outside", *(_cell(one["outside"], 2) for one in report["profile"].values()))
        files = [one["file_to_file"] for one in report["profile"].values()]
        table.add_row("file to file, frames/s", *(f"{file['fps']:.1f}" for file in files))
        table.add_row("share of slowest stage", *(f"{file['share']:.2f} of {file['slowest_stage']}" for file in files))
        console.print(table)
    if "start" in report:
        table = _table(("import", "load", "first frame", "start", "cpu", "process", "peak MB"))
        table.caption = "ms in a fresh process; later: with the compiled network kept"
        for name, one in report["start"].items():
            for which, parts in one.items():
                figures = (parts[key] for key in ("import", "load", "frame", "start", "cpu", "process", "peak_mb"))
                table.add_row(f"{name}: {which}", *("-" if value is None else f"{value:.0f}" for value in figures))
        console.print(table)


def _table(headings: Sequence[str]) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def _apart(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    if "accuracy" not in row:
        return ["-" for _ in columns]
    keys = (("mask_iou", "min"), ("mask", "max"), ("score", "max"))
    return [f"{row['accuracy'][key]['mean']:.4f} ({row['accuracy'][key][worst]:.4f})" for key, worst in keys]


def _cell(figure: Mapping[str, float], digits: int) -> str:
    return f"{figure['median']:.{digits}f} ({figure['10%']:.{digits}f}-{figure['90%']:.{digits}f})"


def plot(report: Mapping[str, Any], file: Path) -> None:
    """Bars of the rows' medians with their 10-90 %, as SVG or PNG by the file's ending.

    Raises InputError for another ending, MediaError where the file cannot be written.
    """
    if file.suffix.lower() not in (".svg", ".png"):
        raise InputError(f"Plot {file} is neither .svg nor .png.")
    data = _svg(report).encode() if file.suffix.lower() == ".svg" else _png(report)
    try:
        file.write_bytes(data)
    except OSError as error:
        raise MediaError(f"{file} cannot be written ({error.strerror}).") from error


_LEFT, _RIGHT, _WIDE, _HIGH, _TOP = 300, 170, 900, 30, 44  # pixels: labels, figures, all, a row, the title


def _bars(report: Mapping[str, Any]) -> tuple[str, list[tuple[str, int, int, int, int, str]]]:
    """Title; and of each row its name, y, and x of median, 10 % and 90 %, and its figures in words."""
    here = report["machine"]
    title = f"ms a frame, {report['clip']} {'x'.join(map(str, report['size']))}, {here['cpu']}"
    most = max(row["ms"]["90%"] for row in report["rows"])
    rows = []
    for number, row in enumerate(report["rows"]):
        x, low, high = (
            round(_LEFT + (_WIDE - _LEFT - _RIGHT) * row["ms"][key] / most) for key in ("median", "10%", "90%")
        )
        rows.append((row["name"], _TOP + number * _HIGH, x, low, high, _cell(row["ms"], 1)))
    return title, rows


def _svg(report: Mapping[str, Any]) -> str:
    title, rows = _bars(report)
    height = _TOP + len(rows) * _HIGH + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDE}" height="{height}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{_WIDE}" height="{height}" fill="white"/>',
        f'<text x="10" y="24" font-size="15">{escape(title)}</text>',
    ]
    for name, y, x, low, high, words in rows:
        middle = y + _HIGH // 2
        parts += [
            f'<text x="{_LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LEFT}" y="{y + 5}" width="{x - _LEFT}" height="{_HIGH - 10}" fill="#4a90c2"/>',
            f'<line x1="{low}" y1="{middle}" x2="{high}" y2="{middle}" stroke="#222" stroke-width="2"/>',
            f'<text x="{max(x, high) + 8}" y="{middle + 4}">{escape(words)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _png(report: Mapping[str, Any]) -> bytes:
    title, rows = _bars(report)
    canvas = np.full((_TOP + len(rows) * _HIGH + 10, _WIDE, 3), 255, np.uint8)

    def write(text: str, x: int, y: int, right: bool = False) -> None:
        (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)
        at = (x - wide if right else x, y)
        cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)

    write(title, 10, 24)
    for name, y, x, low, high, words in rows:
        middle = y + _HIGH // 2
        write(name, _LEFT - 8, middle + 4, right=True)
        cv2.rectangle(canvas, (_LEFT, y + 5), (x, y + _HIGH - 5), (194, 144, 74), cv2.FILLED)
        cv2.line(canvas, (low, middle), (high, middle), (34, 34, 34), 2)
        write(words, max(x, high) + 8, middle + 4)
    good, data = cv2.imencode(".png", canvas)
    if not good:
        raise MediaError("OpenCV could not write the plot as PNG.")
    return data.tobytes()
