"""How fast a frame goes from decoded to mask and rotated box, measured in turns: what `siammask bench` does.

Every row follows the same object through the same decoded frames, a block of frames at a time in turns (A B B A), so
that whatever else the machine does falls on all of them alike. The first block of each is not counted. Beside that: how
far each row of a model is from its first one in f32, a frame's time by stage, a file tracked into a file, and what a
start costs in a fresh process, with its peak memory.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np

import siammask
from siammask import demo, run
from siammask import weights as shipped
from siammask.boxes import rotated_box_of
from siammask.cache import VARIABLE as CACHE
from siammask.engines import cpu_features
from siammask.errors import InputError, MediaError, MissingExtra
from siammask.evaluate.parity import parity
from siammask.evaluate.report import CPU_FEATURES, Spread, versions
from siammask.evaluate.sequences import find_sequences
from siammask.formats import FORMATS
from siammask.geometry import Box, UInt8
from siammask.media import VideoWriter, open_source
from siammask.media.draw import paint
from siammask.tracker import Tracker
from siammask.variants import DEFAULT

Step = Callable[[UInt8], None]
Start = Callable[[UInt8, Box], Step]  # begins on a frame and gives what is timed on every later one

PEERS = {"csrt": "TrackerCSRT", "kcf": "TrackerKCF", "mil": "TrackerMIL"}  # OpenCV's, where it is built with them
NANO = ("nanotrack_v2_backbone.onnx", "nanotrack_v2_head.onnx")

# Stages of a frame in their order; "remember" is a guided model's memory encoder, "paste" the mask at frame size.
STAGES = ("read", "crop", "network", "locate", "refine", "remember", "paste", "box", "draw", "write")
_STAGE_OF = {"memorise": "remember", "refine": "refine", "vector": "refine"}  # by graph; the others are the network
LONG = 250  # frames of the file that is tracked into a file: ten seconds
# What runs in one thread each when a file is tracked; see siammask.run.
_THREADS = (("read",), STAGES[1:8], ("draw",), ("write",))


@dataclass(frozen=True, slots=True)
class Setup:
    """What to measure."""

    clip: Path | None = None  # None: the bundled one, 640x360
    box: Box | None = None  # on the first frame of `clip`, where that is no annotated sequence
    size: tuple[int, int] | None = None  # (W, H) to bring the frames to
    models: tuple[str, ...] = (DEFAULT,)
    engines: tuple[str, ...] = ("openvino",)
    precisions: tuple[str | None, ...] = (None,)  # None: the model's default; "int8": exported so for the row
    eager: bool = False  # each model first as plain torch: f32, channels first, no graph
    threads: tuple[int, ...] = (2,)
    targets: tuple[int, ...] = (1,)  # objects in the frame, all batched; each number is a row
    weights: Path | None = None  # a folder; or a checkpoint, from which graphs are exported for the rows
    keep: Path | None = None  # folder for what is exported, taken from there the next time; None: not kept
    peers: tuple[str, ...] = ()  # of PEERS
    nano_dir: Path | None = None  # folder with NANO
    repeat: int = 10  # turns that are counted
    block: int = 30  # frames in one turn
    frames: int = 300  # to decode at most
    parts: tuple[str, ...] = ("accuracy", "profile", "start")  # what to measure beside the turns


@dataclass(frozen=True, slots=True)
class Clip:
    """Decoded frames (H, W, 3) of one size, and the target on the first."""

    name: str
    frames: tuple[UInt8, ...]
    target: Box


@dataclass(frozen=True, slots=True)
class Contestant:
    """One row: something that follows a target on a number of threads."""

    name: str
    threads: int
    start: Start
    tracker: Tracker | None = None  # with one target; None: a peer, or more
    weights: Path | None = None  # that the tracker was loaded with
    int8: bool = False  # those weights are

    def prepare(self) -> None:
        """Before its turn: the numbers of threads that are settings of the whole process."""
        cv2.setNumThreads(self.threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self.threads)


def bench(setup: Setup, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """All figures, as plain values for `json.dump`; `say` is told what is being measured.

    Raises InputError, MediaError and WeightsError for what cannot be measured; a peer that this machine lacks is left
    out, and the report says why.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return _bench(setup, setup.keep or Path(scratch), say)


def _bench(setup: Setup, made: Path, say: Callable[[str], None]) -> dict[str, Any]:
    clip = decode(setup.clip, setup.box, setup.frames, setup.size)
    rows, left_out = contestants(setup, made)
    say(f"{len(rows)} rows in turns")
    blocks = race(rows, clip, setup.block, setup.repeat)
    firsts = {row.threads: blocks[row.name] for row in reversed(rows)}  # the first of each number of threads
    ours = [row for row in rows if row.tracker is not None]
    report: dict[str, Any] = {
        "clip": clip.name,
        "size": [clip.frames[0].shape[1], clip.frames[0].shape[0]],
        "frames_a_block": setup.block,
        "rounds": setup.repeat,
        "machine": machine(),
        "versions": {name: v for engine in setup.engines for name, v in versions(engine).items()},
        "rows": [
            {"name": row.name, "threads": row.threads, **figures(blocks[row.name], firsts[row.threads])} for row in rows
        ],
        "left_out": left_out,
    }
    if "accuracy" in setup.parts:
        for row, said in zip(rows, report["rows"], strict=True):
            if (source := exact(ours, row)) is not None:
                say(f"accuracy of {row.name}")
                said["accuracy"] = accuracy(source, row, clip, setup.block)
    if "profile" in setup.parts:
        report["profile"] = {}
        for row in ours:
            say(f"stages of {row.name}")
            report["profile"][row.name] = profile(row, clip, setup.block * 2)
    if "start" in setup.parts:
        report["start"] = {}
        for row in ours:
            say(f"starts of {row.name}")
            report["start"][row.name] = starts(row, clip)
    return report


# What is measured


def decode(source: Path | None, box: Box | None, most: int, size: tuple[int, int] | None = None) -> Clip:
    """At most `most` frames of a video, a folder of pictures, an annotated sequence, or (None) the bundled clip."""
    if source is None:
        name, target = demo.BUNNY.name, demo.BUNNY_BOX
        frames = [frame.pixels for frame in islice(demo.bunny(), most)]
    elif (source / "frames").is_dir():
        sequence = find_sequences(source)[0]
        numbers = range(sequence.first, min(len(sequence), sequence.first + most))
        name, target = sequence.name, Box.from_xywh(*(float(v) for v in sequence.boxes[sequence.first]))
        frames = [sequence.read_frame(i) for i in numbers]
    elif box is None:
        raise InputError(f"{source} comes without a box; give --box X,Y,W,H on its first frame.")
    else:
        name, target = source.name, box
        frames = [frame.pixels for frame in islice(open_source(source), most)]
    if len(frames) < 2:
        raise InputError(f"The clip has {len(frames)} frames; at least 2 are needed.")
    if size is not None:
        sx, sy = size[0] / frames[0].shape[1], size[1] / frames[0].shape[0]
        frames = [np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR), np.uint8) for frame in frames]
        target = Box(target.cx * sx, target.cy * sy, target.w * sx, target.h * sy)
    return Clip(name, tuple(frames), target)


def contestants(setup: Setup, made: Path) -> tuple[list[Contestant], dict[str, str]]:
    """The rows, and why peers that were asked for are none; graphs that must be exported go into the folder `made`."""
    rows: list[Contestant] = []
    left_out: dict[str, str] = {}
    for threads in setup.threads:
        number = f"{threads} thread{'s' if threads > 1 else ''}"
        for model in setup.models:
            if setup.eager:
                tracker = _eager(model, threads, setup.weights)
                name = f"{model} {tracker.engine.name} {tracker.engine.precision} eager, {number}"
                rows.append(Contestant(name, threads, ours(tracker), tracker, setup.weights))
            for engine in setup.engines:
                for precision in setup.precisions:
                    int8 = precision == "int8" and engine != "torch"
                    weights = _weights(setup, model, engine, int8, made)
                    tracker = _load(model, engine, None if int8 else precision, threads, weights)
                    for targets in setup.targets:
                        what = f"{model} {tracker.engine.name} {'int8+' if int8 else ''}{tracker.engine.precision}"
                        name = f"{what}{f' {targets} targets' if targets > 1 else ''}, {number}"
                        one = tracker if targets == 1 else None
                        rows.append(Contestant(name, threads, ours(tracker, targets), one, weights, int8))
        for peer in (*setup.peers, *(("nano",) if setup.nano_dir is not None else ())):
            try:
                start = nano(setup.nano_dir) if peer == "nano" and setup.nano_dir else opencv(peer)
            except InputError as error:
                left_out[peer] = str(error)
                continue
            name = PEERS.get(peer, "TrackerNano")
            rows.append(Contestant(f"OpenCV {name}, {number}", threads, start))
    if gpu() is not None:
        for model in setup.models:
            for asked in ("f32", "f16") if setup.precisions == (None,) else setup.precisions:
                tracker = _load(model, "torch", asked, setup.threads[0], setup.weights, device="cuda")
                name = f"{model} torch {tracker.engine.precision} on CUDA"
                rows.append(Contestant(name, setup.threads[0], ours(tracker)))
    return rows, left_out


def _load(
    model: str, engine: str, precision: str | None, threads: int, weights: Path | None, device: str = "cpu"
) -> Tracker:
    """`siammask.load` of options that are still words of the user; it says which of them it does not know."""
    options: dict[str, Any] = {"engine": engine, "precision": precision, "threads": threads, "device": device}
    return siammask.load(model, weights=weights, **options)


def _eager(model: str, threads: int, weights: Path | None) -> Tracker:
    """The model's network as it is written, in plain torch."""
    tracker = _load(model, "torch", "f32", threads, weights)
    engine: Any = tracker.engine
    return replace(tracker, engine=replace(engine, graphs=engine.graphs.planar()))


def _weights(setup: Setup, model: str, engine: str, int8: bool, made: Path) -> Path | None:
    """The weights of a row: those given, or graphs exported into `made` where those are none, or not in int8."""
    if engine not in _FORM_OF or not (int8 or (setup.weights is not None and setup.weights.is_file())):
        return setup.weights
    digest = hashlib.sha256(shipped.checkpoint(model, setup.weights).read_bytes()).hexdigest()
    to, kept = _FORM_OF[engine], "int8" if int8 else "f32"
    folder = made / f"{model}-{to}-{kept}-{digest[:8]}"
    if not (folder / shipped.CERTIFICATE).is_file():
        try:
            certify = importlib.import_module("siammask.network.certify")
        except ImportError as error:
            raise MissingExtra("A row that must be exported first", "train") from error
        certify.export_model(model, to, kept, folder, setup.weights, frames=2, threads=1)
    return folder


_FORM_OF = {"openvino": "openvino", "onnxruntime": "onnx"}  # what is exported for an engine


def gpu() -> str | None:
    """The GPU that torch computes on; None where there is none, or no torch. Only with an NVIDIA driver is it asked."""
    if shutil.which("nvidia-smi") is None or importlib.util.find_spec("torch") is None:
        return None
    torch = importlib.import_module("torch")
    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def ours(tracker: Tracker, targets: int = 1) -> Start:
    """Timed: one step of all targets, their masks at frame size, and their rotated boxes."""

    def start(frame: UInt8, target: Box) -> Step:
        states = [tracker.start(frame, target)[0]] * targets  # steps are pure: the same target does as well as others

        def step(frame: UInt8) -> None:
            nonlocal states
            done = tracker.step_many(states, frame)
            states = [state for state, _ in done]
            _ = [(result.mask, result.rotated_box) for _, result in done]

        return step

    return start


def opencv(peer: str) -> Start:
    """Timed: `update` of one of PEERS, which gives a box. Raises InputError where this OpenCV does not have it."""
    if peer not in PEERS:
        raise InputError(f"No peer is called {peer!r}; choose from {','.join(PEERS)}, or give --nano-dir.")
    create = getattr(cv2, f"{PEERS[peer]}_create", None)
    if create is None:
        raise InputError(f"OpenCV {cv2.__version__} as installed here has no {PEERS[peer]}.")
    return _follow(create)


def nano(folder: Path) -> Start:
    """Timed: `update` of TrackerNano with the two files of NanoTrack v2 in `folder`.

    Raises InputError where this OpenCV has no TrackerNano, or the files are missing or of no use to it.
    """
    if not hasattr(cv2, "TrackerNano_create"):
        raise InputError(f"OpenCV {cv2.__version__} as installed here has no TrackerNano.")
    for file in NANO:
        if not (folder / file).is_file():
            raise InputError(f"{folder / file} is missing.")
    parameters = cv2.TrackerNano_Params()  # type: ignore[attr-defined]
    parameters.backbone, parameters.neckhead = (str(folder / file) for file in NANO)

    def create() -> Any:
        return cv2.TrackerNano_create(parameters)  # type: ignore[attr-defined]

    try:
        create()
    except cv2.error as error:
        raise InputError(f"OpenCV {cv2.__version__} cannot open the files in {folder} ({error.err}).") from error
    return _follow(create)


def _follow(create: Callable[[], Any]) -> Start:
    """OpenCV's trackers: `init`, then `update`."""

    def start(frame: UInt8, target: Box) -> Step:
        tracker = create()
        tracker.init(frame, tuple(round(v) for v in target.xywh))
        return lambda frame: tracker.update(frame) and None

    return start


# How it is measured


def race(rows: Sequence[Contestant], clip: Clip, block: int, rounds: int) -> dict[str, list[np.ndarray]]:
    """Milliseconds of every frame, (block,) for each round and row; each begins anew where the clip ends."""
    steps: dict[str, Step] = {}
    places = {row.name: len(clip.frames) for row in rows}
    ms: dict[str, list[np.ndarray]] = {row.name: [] for row in rows}
    for turn in range(rounds + 1):
        # who goes first changes from turn to turn
        for row in rows[:: 1 if turn % 2 == 0 else -1]:
            row.prepare()
            taken = np.empty(block)
            for i in range(block):
                if places[row.name] == len(clip.frames):
                    steps[row.name], places[row.name] = row.start(clip.frames[0], clip.target), 1
                frame = clip.frames[places[row.name]]
                begin = perf_counter()
                steps[row.name](frame)
                taken[i] = (perf_counter() - begin) * 1e3
                places[row.name] += 1
            if turn > 0:  # the first turn warms up
                ms[row.name].append(taken)
    return ms


def figures(ms: Sequence[np.ndarray], first: Sequence[np.ndarray]) -> dict[str, Any]:
    """Per frame over all rounds; and how many times the first row's time a frame takes, by rounds."""
    rounds = np.array([np.median(m) for m in ms])
    ratio = rounds / np.array([np.median(m) for m in first])
    return {
        "ms": _plain(np.concatenate(ms)),
        "fps_of_rounds": _plain(1000 / np.array([m.mean() for m in ms])),
        "times_the_first": _plain(ratio),
    }


def exact(rows: Sequence[Contestant], row: Contestant) -> Contestant | None:
    """The row that this one's answers are held against: the first of its model in f32; None where it is that itself."""
    if row.tracker is None:
        return None
    name = row.tracker.variant.name
    alike = (one for one in rows if one.tracker is not None and one.tracker.variant.name == name and not one.int8)
    source = next((one for one in alike if one.tracker and one.tracker.engine.precision == "f32"), row)
    return None if source is row else source


def accuracy(source: Contestant, row: Contestant, clip: Clip, most: int) -> dict[str, Any]:
    """How far single steps differ from the source's over at most `most` frames; see `siammask.evaluate.parity`."""
    if source.tracker is None or row.tracker is None:
        raise InputError(f"{row.name} cannot be held against {source.name}.")
    row.prepare()
    found = parity(source.tracker, row.tracker, clip.frames[: most + 1], clip.target, together=True)
    return {"to": source.name, **{key: found[key] for key in ("mask_iou", "mask", "score")}}


class _Timed:
    """The graphs of an engine, with the time they take added to `spent` by stage."""

    def __init__(self, graphs: Any, spent: dict[str, float]) -> None:
        self._graphs, self._spent = graphs, spent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._graphs, name)

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        begin = perf_counter()
        out: dict[str, np.ndarray] = self._graphs.run(graph, inputs)
        stage = _STAGE_OF.get(graph, "network")
        self._spent[stage] = self._spent.get(stage, 0.0) + (perf_counter() - begin) * 1e3
        return out


def profile(row: Contestant, clip: Clip, most: int) -> dict[str, Any]:
    """Milliseconds of a frame by stage, one after another, over at most `most` frames; then a file into a file.

    That file is the frames forth and back until they are LONG, so that beginning and ending do not weigh more than in
    a clip as people have them.

    "read" decodes H.264, as "write" encodes. "locate" is what is left of a step: choosing the place, drawing the last
    mask into the next crop, second looks. "outside" is crop, locate, paste and box: not in the network's graphs.
    """
    if row.tracker is None:
        raise InputError(f"{row.name} has no stages that can be told apart.")
    row.prepare()
    spent: dict[str, float] = {}
    engine: Any = row.tracker.engine
    if hasattr(engine, "graphs"):
        engine = replace(engine, graphs=_Timed(engine.graphs, spent))
    tracker = replace(row.tracker, engine=engine)
    stages: dict[str, list[float]] = {stage: [] for stage in STAGES}
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "clip.mp4"
        frames = clip.frames[: most + 1]
        with VideoWriter(video) as writer:
            for index, frame in enumerate(islice(cycle(frames + frames[-2:0:-1]), max(LONG, len(frames)))):
                writer.write(frame, index / 25)
        decoded, state = iter(open_source(video)), None
        with VideoWriter(Path(folder) / "painted.mp4") as writer:
            for index, frame in enumerate(frames):
                begin = perf_counter()
                read = next(decoded, None)
                clock = [begin, perf_counter()]
                if state is None or read is None:
                    state, result = tracker.start(frame, clip.target)
                    continue
                for crop in tracker.locator.crops(state):
                    crop.read(frame, state.fill)
                clock.append(perf_counter())
                spent.clear()
                state, result = tracker.step(state, frame)
                clock.append(perf_counter())
                mask = result.mask
                clock.append(perf_counter())
                again = result.patch and replace(result.patch)  # not yet drawn: what the box, and the mask, are made of
                rotated = rotated_box_of(again, result.threshold, result.size, result.box)
                clock.append(perf_counter())
                painted = paint(frame, mask, box=result.box, rotated=rotated, label=f"1  {result.score:.2f}")
                clock.append(perf_counter())
                writer.write(painted, index / 25)
                clock.append(perf_counter())
                names = ("read", "crop", "step", "paste", "box", "draw", "write")
                times = dict(zip(names, np.diff(clock) * 1e3, strict=True)) | spent
                rest = times.pop("step") - times["crop"] - times["box"] - sum(spent.values())
                times["locate"] = max(0.0, rest)  # the crop was read twice, once for the clock
                for stage in STAGES:
                    stages[stage].append(float(times.get(stage, 0.0)))
        begin = perf_counter()
        summary = run.track(row.tracker, open_source(video), [clip.target], Path(folder) / "out", [FORMATS["overlay"]])
        seconds = perf_counter() - begin
    by_stage = {stage: np.array(ms) for stage, ms in stages.items()}
    outside = sum((by_stage[stage] for stage in ("crop", "locate", "paste", "box")), np.zeros(1))
    slowest = max(_THREADS, key=lambda group: sum(float(by_stage[stage].mean()) for stage in group))
    alone = 1000 / sum(float(by_stage[stage].mean()) for stage in slowest)
    return {
        "ms": {stage: _plain(ms) for stage, ms in by_stage.items()},
        "outside": _plain(outside),
        "file_to_file": {
            "fps": summary.frames / seconds,
            "slowest_stage": slowest[0] if len(slowest) == 1 else "track",
            "slowest_stage_fps": alone,
            "share": summary.frames / seconds / alone,
        },
    }


# Runs in a fresh process: what a start costs, from the first import to the second frame's mask; and the peak memory.
_FRESH = """
import json, sys, time
clock = [time.perf_counter()]
import numpy as np, siammask
clock.append(time.perf_counter())
options = json.loads(sys.argv[1])
tracker = siammask.load(**options["load"])
clock.append(time.perf_counter())
frames = np.load(options["frames"])
reading = time.perf_counter() - clock[-1]
state, result = tracker.start(frames[0], siammask.Box(*options["box"]))
result.mask
clock.append(time.perf_counter() - reading)
cpu = time.process_time()
for frame in frames[1:]:
    state, result = tracker.step(state, frame)
    result.mask, result.rotated_box
try:
    lines = open("/proc/self/status").read().splitlines()
    peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
except (OSError, StopIteration):
    try:
        import resource
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**(20 if sys.platform == "darwin" else 10)
    except ImportError:
        peak = None
print(json.dumps({"ms": [1e3 * (b - a) for a, b in zip(clock, clock[1:])], "cpu": 1e3 * cpu, "peak_mb": peak}))
"""


def starts(row: Contestant, clip: Clip, again: int = 3) -> dict[str, Any]:
    """First start (nothing compiled yet) and later ones (median of `again`), in milliseconds, each a fresh process.

    "import" is numpy, OpenCV and this package; "load" the runtime and the network; "frame" the first frame to its mask.
    "process" is the whole process, a few more frames and the interpreter's own start included; "cpu" the processor's
    time up to the first mask, over all cores, which other work on the machine does not lengthen.
    "peak_mb" is the most memory that a process had in use.
    """
    if row.tracker is None:
        raise InputError(f"{row.name} is no model of this package.")
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "frames.npy", np.stack(clip.frames[:5]))
        engine = row.tracker.engine
        load: dict[str, Any] = {"name": row.tracker.variant.name, "engine": engine.name, "precision": engine.precision}
        load |= {"threads": row.threads, "weights": None if row.weights is None else str(row.weights)}
        options = {"load": load, "frames": str(Path(folder) / "frames.npy"), "box": list(asdict(clip.target).values())}
        package = str(Path(siammask.__file__).parents[1])
        environment = os.environ | {CACHE: str(Path(folder) / "cache"), "PYTHONPATH": package}
        taken = []
        for _ in range(again + 1):
            begin = perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", _FRESH, json.dumps(options)], env=environment, capture_output=True, text=True
            )
            whole = (perf_counter() - begin) * 1e3
            if done.returncode != 0:
                raise MediaError(f"A fresh start of {row.name} failed: {done.stderr.strip().splitlines()[-1:]}.")
            told = json.loads(done.stdout)
            parts = dict(zip(("import", "load", "frame"), told["ms"], strict=True))
            taken.append(
                {
                    **parts,
                    "start": sum(parts.values()),
                    "process": whole,
                    "cpu": told["cpu"],
                    "peak_mb": told["peak_mb"],
                }
            )
    later = {name: float(np.median([one[name] for one in taken[1:]])) for name in taken[0] if name != "peak_mb"}
    return {"first": taken[0], "later": later | {"peak_mb": taken[-1]["peak_mb"]}}


def machine() -> dict[str, Any]:
    """The processor, what it can do as far as the engines care, and the GPU where torch sees one."""
    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "features": sorted(cpu_features() & CPU_FEATURES),
        "gpu": gpu(),
    }
    try:
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        found["cpu"] = next((value.strip() for key, _, value in lines if key.strip() == "model name"), found["cpu"])
    except OSError:  # not Linux
        return found
    return found


def _plain(values: np.ndarray) -> dict[str, float]:
    spread = Spread.of(values)
    if spread is None:
        raise InputError("Nothing was measured; give more frames.")
    return {"median": spread.median, "10%": spread.low, "90%": spread.high}
