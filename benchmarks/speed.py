"""Frames per second from decoded frame to mask and rotated box, measured in turns: A B A B.

    python benchmarks/speed.py                                     the default model, bundled 640x360 clip, 2 threads
    python benchmarks/speed.py --precision f32 --precision bf16    two precisions against each other
    python benchmarks/speed.py --nano-dir FOLDER                   against OpenCV's TrackerNano (box only)

FOLDER holds nanotrack_v2_backbone.onnx and nanotrack_v2_head.onnx. Every contestant follows the object through the same
frames, block by block in turns, so that what else the machine does falls on all of them alike. All frames are decoded
before. The first block of each is not counted.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import siammask
from siammask import demo
from siammask.engines import cpu_features
from siammask.errors import InputError, SiamMaskError
from siammask.evaluate.report import CPU_FEATURES, Spread, versions
from siammask.evaluate.sequences import find_sequences
from siammask.geometry import Box, UInt8
from siammask.media import open_source
from siammask.variants import DEFAULT

Step = Callable[[UInt8], None]
Start = Callable[[UInt8, Box], Step]  # begins on a frame and gives what is timed on every later one


def main(
    source: Annotated[
        Path | None, typer.Argument(help="Video, folder of pictures, or sequence with boxes.txt; the bundled clip.")
    ] = None,
    box: Annotated[str | None, typer.Option(metavar="X,Y,W,H", help="On the first frame of SOURCE.")] = None,
    model: str = DEFAULT,
    weights: Annotated[Path | None, typer.Option(help="Instead of those in the package.")] = None,
    engine: str = "openvino",
    precision: Annotated[list[str] | None, typer.Option(help="May be given twice; the model's default.")] = None,
    threads: int = 2,
    nano_dir: Annotated[Path | None, typer.Option(help="Folder with the two files of NanoTrack v2.")] = None,
    block: Annotated[int, typer.Option(min=1, help="Frames in one turn.")] = 30,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each that are counted.")] = 10,
    most: Annotated[int, typer.Option("--frames", help="Decode at most so many frames.")] = 300,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too.")] = None,
) -> None:
    """Time the tracker, in turns with others where asked."""
    console = Console()
    frames, target = decode(source, box, most)
    cv2.setNumThreads(threads)
    contestants: dict[str, Start] = {}
    for asked in precision or [None]:  # type: ignore[list-item]
        tracker = siammask.load(model, engine=engine, precision=asked, threads=threads, weights=weights)  # type: ignore[arg-type]
        contestants[f"{model} {tracker.engine.name} {tracker.engine.precision}"] = ours(tracker)
    if nano_dir is not None:
        try:
            contestants["OpenCV TrackerNano"] = nano(nano_dir)
        except SiamMaskError as error:
            console.print(f"Without TrackerNano: {error}")
    blocks = race(contestants, frames, target, block, rounds)
    report: dict[str, Any] = {
        "clip": str(source or demo.BUNNY.name),
        "size": [frames[0].shape[1], frames[0].shape[0]],
        "frames_a_block": block,
        "rounds": rounds,
        "threads": threads,
        "cpu": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "features": sorted(cpu_features() & CPU_FEATURES),
        },
        "versions": versions(engine),
        "contestants": {name: figures(ms, blocks[next(iter(blocks))]) for name, ms in blocks.items()},
    }
    show(report, console)
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n")


def decode(source: Path | None, box: str | None, most: int) -> tuple[list[UInt8], Box]:
    """Frames (H, W, 3), decoded, and the target on the first."""
    if source is None:
        return [frame.pixels for frame in demo.bunny()][:most], demo.BUNNY_BOX
    if (source / "frames").is_dir():
        sequence = find_sequences(source)[0]
        numbers = range(sequence.first, min(len(sequence), sequence.first + most))
        return [sequence.read_frame(i) for i in numbers], Box.from_xywh(*sequence.boxes[sequence.first])
    if box is None:
        raise InputError(f"{source} comes without a box; give --box X,Y,W,H on its first frame.")
    try:
        x, y, w, h = (float(value) for value in box.split(","))
    except ValueError as error:
        raise InputError(f"Box is {box!r}; expected X,Y,W,H in pixels.") from error
    frames = [frame.pixels for _, frame in zip(range(most), open_source(source), strict=False)]
    return frames, Box.from_xywh(x, y, w, h)


def ours(tracker: siammask.Tracker) -> Start:
    """Timed: one step, the mask at frame size, and its rotated box."""

    def start(frame: UInt8, target: Box) -> Step:
        state, _ = tracker.start(frame, target)

        def step(frame: UInt8) -> None:
            nonlocal state
            state, result = tracker.step(state, frame)
            _ = result.mask, result.rotated_box

        return step

    return start


def nano(folder: Path) -> Start:
    """Timed: `update`, which gives a box. Raises where this OpenCV has no TrackerNano, or the files are missing."""
    if not hasattr(cv2, "TrackerNano_create"):
        raise InputError(f"OpenCV {cv2.__version__} as built here has no TrackerNano.")
    files = [folder / name for name in ("nanotrack_v2_backbone.onnx", "nanotrack_v2_head.onnx")]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} is missing.")
    parameters = cv2.TrackerNano_Params()  # type: ignore[attr-defined]
    parameters.backbone, parameters.neckhead = (str(file) for file in files)
    try:
        tracker = cv2.TrackerNano_create(parameters)
    except cv2.error as error:
        raise InputError(f"OpenCV {cv2.__version__} cannot open the files in {folder} ({error.err}).") from error

    def start(frame: UInt8, target: Box) -> Step:
        tracker.init(frame, tuple(round(v) for v in target.xywh))
        return lambda frame: tracker.update(frame) and None

    return start


def race(
    contestants: dict[str, Start], frames: list[UInt8], target: Box, block: int, rounds: int
) -> dict[str, list[np.ndarray]]:
    """Milliseconds of every frame, (block,) for each round and contestant; each begins anew where the clip ends."""
    if len(frames) < 2:
        raise InputError(f"The clip has {len(frames)} frames; at least 2 are needed.")
    steps: dict[str, Step] = {}
    places = dict.fromkeys(contestants, len(frames))
    ms: dict[str, list[np.ndarray]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        # who goes first changes from turn to turn
        for name in list(contestants)[:: 1 if turn % 2 == 0 else -1]:
            taken = np.empty(block)
            for i in range(block):
                if places[name] == len(frames):
                    steps[name], places[name] = contestants[name](frames[0], target), 1
                frame = frames[places[name]]
                begin = perf_counter()
                steps[name](frame)
                taken[i] = (perf_counter() - begin) * 1e3
                places[name] += 1
            if turn > 0:  # the first turn warms up
                ms[name].append(taken)
    return ms


def figures(ms: list[np.ndarray], first: list[np.ndarray]) -> dict[str, Any]:
    """Per frame over all rounds; and how many times the first contestant's time a frame takes, by rounds."""
    a_frame = Spread.of(np.concatenate(ms))
    rounds = np.array([np.median(m) for m in ms])
    ratio = Spread.of(rounds / np.array([np.median(m) for m in first]))
    fps = Spread.of(1000 / np.array([m.mean() for m in ms]))
    return {"ms": _plain(a_frame), "fps_of_rounds": _plain(fps), "times_the_first": _plain(ratio)}


def _plain(spread: Spread | None) -> dict[str, float]:
    if spread is None:
        raise InputError("Nothing was measured.")
    return {"median": spread.median, "10%": spread.low, "90%": spread.high}


def show(report: dict[str, Any], console: Console) -> None:
    cpu = report["cpu"]
    console.print(
        f"{report['clip']}, {'x'.join(map(str, report['size']))}; {report['threads']} threads of {cpu['cores']} cores, "
        f"{cpu['machine']}: {', '.join(cpu['features']) or 'features unknown'}"
    )
    table = Table(
        box=SIMPLE, caption=f"median (10-90 %) over {report['rounds']} turns of {report['frames_a_block']} frames"
    )
    table.add_column("", overflow="fold")
    for heading in ("ms a frame", "frames/s", "times the first"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in report["contestants"].items():
        table.add_row(
            name,
            *(
                f"{row[key]['median']:.{digits}f} ({row[key]['10%']:.{digits}f}-{row[key]['90%']:.{digits}f})"
                for key, digits in (("ms", 2), ("fps_of_rounds", 1), ("times_the_first", 2))
            ),
        )
    console.print(table)


if __name__ == "__main__":
    try:
        typer.run(main)
    except SiamMaskError as error:
        raise SystemExit(str(error)) from error
