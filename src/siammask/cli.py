"""The command line. Heavy imports stay inside the commands, so that `siammask --help` is quick."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from siammask.errors import MediaError, MissingExtra, SiamMaskError

if TYPE_CHECKING:
    from siammask.data import Report
    from siammask.geometry import Box
    from siammask.run import Summary
    from siammask.tracker import Tracker

INTERRUPTED = 130  # 128 + SIGINT, as shells count it

app = typer.Typer(
    help="One box in, a pixel mask, a rotated box and a score in every later frame out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

data_app = typer.Typer(help="Bring data into the layout of the training pool, and check it.", no_args_is_help=True)
app.add_typer(data_app, name="data")


# the words that options take
EngineName = Literal["openvino", "onnxruntime", "torch"]
DeviceName = Literal["cpu", "cuda"]
PrecisionName = Literal["f32", "bf16", "f16"]
KeptName = Literal["f32", "bf16", "int8"]
FormName = Literal["onnx", "openvino", "torchscript"]
RotatedName = Literal["min_max", "mbr", "ellipse", "opt"]
PresetName = Literal["default", "vot", "vot18_ld", "davis"]
GivenName = Literal["box", "mask", "place", "state"]

Model = Annotated[
    str | None, typer.Option(help="Model to run, as `siammask models` lists them.", show_default="guided")
]
Weights = Annotated[
    Path | None, typer.Option(help="Folder with the weights of that model.", show_default="those in the package")
]
Engine = Annotated[EngineName, typer.Option(help="What runs the network.")]
Precision = Annotated[
    PrecisionName | None,
    typer.Option(help="Numbers to compute in.", show_default="bf16 where the CPU has it, else f32"),
]
Device = Annotated[DeviceName, typer.Option(help="Where the network runs; cuda: engines torch and onnxruntime.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of the network.", show_default="all cores")]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line. Exit status: 0 done; 1 an error, told in one sentence; 2 wrong usage; 130 interrupted."""
    try:
        app(args=None if argv is None else list(argv), prog_name="siammask")
    except SiamMaskError as error:
        print(f"siammask: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("siammask: Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(0)


@app.command()
def track(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Video, folder of pictures, glob, camera number or URL.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    box: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y,W,H",
            help="Left, top, width and height of the object, in pixels; once for each object (ids 1, 2, ...).",
        ),
    ] = None,
    init_mask: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png", help="Mask of the object (non-zero pixels), of the frame's size; goes before --box."
        ),
    ] = None,
    start: Annotated[int, typer.Option(min=0, help="Index of the frame that the box or mask belongs to.")] = 0,
    save: Annotated[str, typer.Option(metavar="LIST", help="What to write.")] = "overlay,masks,csv",
    rotated: Annotated[RotatedName, typer.Option(help="How a mask becomes a rotated box.")] = "mbr",
    model: Model = None,
    weights: Weights = None,
    engine: Engine = "openvino",
    precision: Precision = None,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """Follow one or more objects through a video; write an overlay video, masks and a table."""
    from siammask import run
    from siammask.errors import InputError
    from siammask.formats import formats
    from siammask.media import open_source

    _quiet()
    if not box and init_mask is None:
        raise typer.BadParameter("give --box X,Y,W,H or --init-mask FILE.png, or both.")
    places = [_parse_box(text) for text in box or ()]
    try:
        kinds = formats(save)
    except InputError as error:
        raise typer.BadParameter(str(error), param_hint="'--save'") from error
    frames = open_source(source)
    targets: list[Any] = places if init_mask is None else [_read_mask(init_mask, frames.size)]
    loaded = _load(model, weights, engine, precision, threads, device, beside=len(targets) == 1)
    tracker = replace(loaded, rotated=rotated)
    total = None if frames.length is None else max(0, frames.length - start)
    with _progress(f"tracking {Path(frames.name).name}", total) as advance:
        summary = run.track(tracker, frames, targets, out, kinds, start=start, each=lambda *_: advance(1))
    _tell(summary)
    if summary.interrupted:
        print(f"siammask: Interrupted. {_kept(summary)}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    if summary.broken is not None:
        raise MediaError(f"{summary.broken} {_kept(summary)}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo-result"),
    model: Model = None,
    weights: Weights = None,
    engine: Engine = "openvino",
    precision: Precision = None,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """Track two clips that come with the package: a film scene, and a drawn one whose true masks are known."""
    from siammask import demo as clips
    from siammask import run
    from siammask.evaluate.overlap import region_similarity
    from siammask.formats import FORMATS

    _quiet()
    tracker = _load(model, weights, engine, precision, threads, device, beside=True)
    kinds = tuple(FORMATS.values())
    overlaps: list[float] = []

    def compare(frame: Any, rows: Any) -> None:
        if frame.index > 0:
            overlaps.append(float(region_similarity(clips.draw_frame(frame.index)[1], rows[0].mask)))

    summaries = []
    for name, source, target, each in (
        ("bunny", clips.bunny(), clips.BUNNY_BOX, None),
        ("drawn", clips.drawn(), clips.drawn_box(), compare),
    ):
        with _progress(f"tracking {name}", source.length) as advance:

            def done(frame: Any, rows: Any, each: Any = each, advance: Any = advance) -> None:
                if each is not None:
                    each(frame, rows)
                advance(1)

            summaries.append(run.track(tracker, source, [target], out / name, kinds, each=done))
        _tell(summaries[-1])
        if summaries[-1].interrupted:
            raise typer.Exit(INTERRUPTED)
    mean = sum(overlaps) / len(overlaps)
    print(f"Drawn clip: mean overlap with the true masks (J) {mean:.3f} over {len(overlaps)} frames after the first.")
    print(f"Watch {out / 'bunny' / 'overlay.mp4'} and {out / 'drawn' / 'overlay.mp4'}.")


@app.command()
def models() -> None:
    """List the models: what each is made of, and whether its weights come with the package."""
    from siammask.variants import DEFAULT, VARIANTS
    from siammask.weights import shipped

    here = shipped()
    table = Table()
    for heading in ("model", "backbone", "locate", "mask", "weights", "paper"):
        table.add_column(heading)
    for row in VARIANTS.values():
        name = f"{row.name} (default)" if row.name == DEFAULT else row.name
        table.add_row(name, row.backbone, row.locate, row.mask, "shipped" if row.name in here else "-", row.paper)
    Console().print(table)


@app.command()
def evaluate(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of sequences: <sequence>/frames with masks or boxes.txt.")
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures here too.")
    ] = None,
    given: Annotated[
        GivenName,
        typer.Option(
            help="What the tracker is told, to see where mistakes begin: the first true box; the first true mask; also "
            "where the target was on each last frame; or its true mask there too."
        ),
    ] = "box",
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A sequence to run; may be repeated.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A search setting to change; may be repeated."),
    ] = None,
    model: Model = None,
    weights: Weights = None,
    engine: Engine = "openvino",
    precision: Precision = None,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """Track every sequence of a folder from its first true box; score J, F, success AUC, precision and time."""
    from siammask.evaluate.report import evaluate_folder
    from siammask.variants import parse_setting

    _quiet()
    if json_file is not None:
        _check_writable(json_file)
    tracker = _load(model, weights, engine, precision, threads, device)
    changes = dict(parse_setting(text) for text in setting or ())
    tracker = replace(tracker, variant=tracker.variant.searching(**changes))
    with _progress("evaluating", None) as advance:

        def progress(name: str, done: int, total: int) -> None:
            advance(done, total, name, absolute=True)

        report = evaluate_folder(folder, tracker, progress, only, given)
    Console().print(report.table())
    if json_file is not None:
        _write_whole(json_file, json.dumps(report.to_json(), indent=2) + "\n")
        print(f"Wrote {json_file}.")


@app.command()
def bench(
    clip: Annotated[
        Path | None,
        typer.Argument(metavar="CLIP", help="Video, folder of pictures, or sequence with boxes.txt; the bundled clip."),
    ] = None,
    box: Annotated[str | None, typer.Option(metavar="X,Y,W,H", help="The object on the first frame of CLIP.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Bring the frames to this size first.")] = None,
    models: Annotated[
        str, typer.Option(metavar="LIST", help="Models; the first row is what others are compared with.")
    ] = "guided",
    engines: Annotated[str, typer.Option(metavar="LIST", help="What runs the networks.")] = "openvino",
    precisions: Annotated[
        str | None, typer.Option(metavar="LIST", help="f32, bf16, int8 (exported for it); the model's default.")
    ] = None,
    eager: Annotated[
        bool, typer.Option("--eager", help="First each model as plain torch: f32, channels first, no graph.")
    ] = False,
    threads: Annotated[str, typer.Option(metavar="LIST", help="CPU threads; each row once for each number.")] = "2",
    targets: Annotated[
        str, typer.Option(metavar="LIST", help="Objects at a time; each row once for each number.")
    ] = "1",
    weights: Annotated[
        Path | None,
        typer.Option(help="Folder of weights, or a checkpoint, from which graphs are exported for the rows."),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep what is exported here, and take it the next time.")
    ] = None,
    peers: Annotated[str, typer.Option(metavar="LIST", help="Trackers of OpenCV: csrt, kcf, mil.")] = "",
    nano_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Holds the two files of NanoTrack v2 for OpenCV's TrackerNano."),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Turns of each row that are counted.")] = 10,
    block: Annotated[int, typer.Option(min=1, help="Frames in one turn.")] = 30,
    frames: Annotated[int, typer.Option(min=2, help="Decode at most so many frames.")] = 300,
    parts: Annotated[
        str, typer.Option(metavar="LIST", help="Measured beside the turns; empty for nothing.")
    ] = "accuracy,profile,start",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures here too.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the rows: .svg or .png.")] = None,
) -> None:
    """Measure speed in turns, on a clip: models, precisions, threads and peers, by stage, and what a start costs."""
    from siammask import bench as benches
    from siammask import bench_report

    _quiet()
    for file in (json_file, plot):
        if file is not None:
            _check_writable(file)
    setup = benches.Setup(
        clip=clip,
        box=None if box is None else _parse_box(box),
        size=None if size is None else _numbers(size, "x", 2, "--size"),  # type: ignore[arg-type]
        models=_names(models),
        engines=_names(engines),
        precisions=(None,) if precisions is None else _names(precisions),
        threads=_numbers(threads, ",", None, "--threads"),
        targets=_numbers(targets, ",", None, "--targets"),
        eager=eager,
        weights=weights,
        keep=keep,
        peers=_names(peers),
        nano_dir=nano_dir,
        repeat=repeat,
        block=block,
        frames=frames,
        parts=_names(parts),
    )
    report = benches.bench(setup, lambda text: print(f"measuring {text}", file=sys.stderr))
    bench_report.show(report, Console())
    if json_file is not None:
        _write_whole(json_file, json.dumps(report, indent=2) + "\n")
    if plot is not None:
        bench_report.plot(report, plot)
    for file in (json_file, plot):
        if file is not None:
            print(f"Wrote {file}.")


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="NAME", help="Model, as `siammask models` lists them.")],
    to: Annotated[FormName, typer.Option(help="What kind of files to write.")],
    precision: Annotated[KeptName, typer.Option(help="Numbers to compute in.")] = "f32",
    out: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="NAME-KIND-PRECISION")] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Checkpoint, or folder that holds one.", show_default="the one in the package"),
    ] = None,
    frames: Annotated[int, typer.Option(min=2, help="Frames of the bundled clip to compare on.")] = 30,
    threads: Threads = None,
) -> None:
    """Write a model for other runtimes, with a certificate of how near it tracks to its source, and how fast."""
    try:
        import torch  # noqa: F401 (only asked whether it is there)
    except ImportError as error:
        raise MissingExtra("Export", "train") from error
    from siammask.network.certify import export_model

    _quiet()
    folder = out or Path(f"{model}-{to}-{precision}")
    said = export_model(model, to, precision, folder, weights, frames, threads)
    found = said["parity"]
    print(
        f"{model} as {to} in {precision}, beside torch in f32 over {found['frames']} frames: mask IoU "
        f"{found['mask_iou']['mean']:.4f} (lowest {found['mask_iou']['min']:.4f}), boxes within "
        f"{found['box_px']['max']:.2f} pixels, {found['step_ms']['times_as_fast']:.2f} times as fast."
    )
    for name in (*said["files"], "certificate.json"):
        print(f"  {folder / name}")


@app.command("boxes")
def compare_boxes(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of sequences: <sequence>/frames and masks.")],
    tracked: Annotated[bool, typer.Option("--tracked", help="Also of the masks that a model draws.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here too.")
    ] = None,
    model: Model = None,
    weights: Weights = None,
    engine: Engine = "openvino",
    precision: Precision = None,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """Compare the ways from a mask to a rotated box: mean overlap of the boxes with the true masks."""
    from siammask.evaluate.boxes import compare_boxes

    _quiet()
    if json_file is not None:
        _check_writable(json_file)
    tracker = _load(model, weights, engine, precision, threads, device) if tracked else None
    with _progress("comparing", None) as advance:

        def progress(name: str, done: int, total: int) -> None:
            advance(done, total, name, absolute=True)

        report = compare_boxes(folder, tracker, progress)
    Console().print(report.table())
    if json_file is not None:
        _write_whole(json_file, json.dumps(report.to_json(), indent=2) + "\n")
        print(f"Wrote {json_file}.")


@app.command()
def ablate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of sequences, as `evaluate` takes it.")],
    runs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Holds RUN/best.safetensors (from `train`; needs torch) or RUN/ with exported graphs, for each run; "
            "with RUN-seedN beside it, the mean of its seeds is told.",
            show_default="weights in the package only",
        ),
    ] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the tables here too.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here too.")
    ] = None,
    engine: Engine = "openvino",
    precision: Precision = None,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """Compare the published family's parts one by one, as the SiamMask paper does; print the tables in Markdown."""
    from siammask.engines import EngineOptions
    from siammask.evaluate.ablation import ablate

    _quiet()
    for file in (markdown, json_file):
        if file is not None:
            _check_writable(file)
    with _progress("tracking", None) as advance:

        def progress(name: str, done: int, total: int) -> None:
            advance(done, total, name, absolute=True)

        found = ablate(folder, runs, EngineOptions(engine, precision, threads, device), progress)
    print(found.markdown(), end="")
    for file, text in ((markdown, found.markdown()), (json_file, json.dumps(found.to_json(), indent=2) + "\n")):
        if file is not None:
            _write_whole(file, text)
            print(f"Wrote {file}.")


@app.command("import")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(metavar="FILE.pth", help="The authors' checkpoint, or PySOT's.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model it is of: siammask, siammask_base, siamrpn.")],
    preset: Annotated[
        PresetName | None, typer.Option(help="Search settings.", show_default="those that belong to the file's name")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the weights.", show_default="the file's name")] = None,
) -> None:
    """Turn a released checkpoint into a weights folder that runs without torch."""
    try:
        import torch  # noqa: F401 (only asked whether it is there)
    except ImportError as error:
        raise MissingExtra("Importing", "train") from error
    from siammask.network import importing

    done = importing.import_checkpoint(file, name, out or Path(file.stem), preset)
    print(f"Imported {done.tensors} tensors as {name}, searched with preset {done.preset}.")
    print(f"Run it: siammask track VIDEO --box X,Y,W,H --out FOLDER --model {name} --weights {done.folder}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file of the run.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    stages: Annotated[
        bool, typer.Option("--stages", help="First run the configs beside it whose weights this one begins with.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Run it once more with this seed, into OUTPUT-seedN.", min=0)
    ] = None,
) -> None:
    """Train a model as a TOML file says."""
    try:
        import torch  # noqa: F401 (only asked whether it is there)
    except ImportError as error:
        raise MissingExtra("Training", "train") from error
    from siammask.train.loop import main as loop

    loop(config, resume, stages, seed)


@data_app.command("check")
def check_data(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A pool, one of its sources, or one sequence.")],
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report here too.")] = None,
) -> None:
    """Read every file of training data and list all that is wrong with it; status 1 where something cannot be used."""
    from siammask.data import check_folder

    _quiet()
    with _progress("checking", None) as advance:
        report = check_folder(folder, lambda name: advance(1, name=name))
    _tell_data(report, json_file)


@data_app.command("import")
def import_data(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Data as they were downloaded or exported.")],
    kind: Annotated[
        str,
        typer.Option(
            metavar="KIND", help="Layout: coco, vid, ytvos, davis, got10k, lasot, cvat, yolo-seg, cutouts, coco-own."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="POOL/SOURCE", help="New folder for the source in the training pool.")],
    only: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Names of the clips to take, one a line (ImageSets of DAVIS, say)."),
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Names of clips not to take, with * ? [a-c]; may be given again."),
    ] = None,
    distinct: Annotated[
        float, typer.Option(metavar="SHARE", help="Of cut-outs that differ by less (0.05, say), keep the first.")
    ] = 0.0,
    licence: Annotated[str, typer.Option(metavar="TEXT", help="The data's licence, for the pool's manifest.")] = "",
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report here too.")] = None,
) -> None:
    """Bring data in a known layout into that of the training pool; list what could not be used."""
    from siammask.data import import_folder

    _quiet()
    names = None
    if only is not None:
        try:
            names = {line.split()[0] for line in only.read_text(encoding="utf-8").splitlines() if line.strip()}
        except (OSError, UnicodeDecodeError) as error:
            raise MediaError(f"{only} cannot be read ({error}).") from error
    with _progress("importing", None) as advance:
        report = import_folder(
            folder,
            kind,
            out,
            names,
            lambda name: advance(1, name=name),
            leave_out=leave_out or (),
            distinct=distinct,
            licence=licence,
        )
    print(f"  {out}")
    _tell_data(report, json_file)


# What the commands share


def _load(
    model: str | None,
    weights: Path | None,
    engine: EngineName,
    precision: PrecisionName | None,
    threads: int | None,
    device: DeviceName,
    *,
    beside: bool = False,
) -> Tracker:
    """The tracker of these options; `beside`: of one target, while frames are read and written beside it."""
    import siammask
    from siammask.engines import threads_beside
    from siammask.variants import DEFAULT, variant

    name = model or DEFAULT
    if beside:
        threads = threads or threads_beside(variant(name), engine, precision)
    return siammask.load(
        name,
        weights=weights,
        engine=engine,
        precision=precision,
        threads=threads,
        device=device,
    )


def _parse_box(text: str) -> Box:
    """A box of "X,Y,W,H"; wrong usage where that is not four numbers."""
    from siammask.geometry import Box

    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not X,Y,W,H (four numbers, with commas).", param_hint="'--box'"
        ) from error
    return Box.from_xywh(x, y, w, h)


def _names(text: str) -> tuple[str, ...]:
    """The words of a list with commas."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _numbers(text: str, between: str, count: int | None, option: str) -> tuple[int, ...]:
    """Whole numbers above 0, `count` of them (None: any); wrong usage where it is something else."""
    parts = text.split(between)
    if any(not part.strip().isdecimal() or int(part) < 1 for part in parts) or count not in (None, len(parts)):
        example = between.join(["640", "360"] if count == 2 else ["2", "1"])
        raise typer.BadParameter(f"{text!r} is not like {example}.", param_hint=f"'{option}'")
    return tuple(int(part) for part in parts)


def _read_mask(path: Path, size: tuple[int, int]) -> Any:
    """(H, W) bool: the pixels of a mask picture that are not 0, whether indexed, grey or in colour."""
    from siammask.errors import InputError
    from siammask.media.read import read_picture

    if not path.is_file():
        raise MediaError(f"There is no mask {path}.")
    try:
        from siammask.evaluate.sequences import read_indexed_png

        mask = read_indexed_png(path) != 0
    except MediaError:  # in colour
        mask = read_picture(path).any(axis=2)
    if mask.shape != (size[1], size[0]):
        raise InputError(f"Mask {path} is {mask.shape[1]}x{mask.shape[0]}, but the frames are {size[0]}x{size[1]}.")
    return mask


@contextmanager
def _progress(title: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A bar on standard error with frames, frames a second and time left; gives a function that moves it on."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, rate="")

        def advance(frames: int, total: int | None = None, name: str | None = None, absolute: bool = False) -> None:
            state = bar.tasks[0]
            rate = f"{state.speed:.1f} fps" if state.speed else ""
            known = state.total if total is None else total
            done = frames if absolute else state.completed + frames
            bar.update(task, completed=done, total=known, rate=rate, description=name or title)

        yield advance


def _tell(summary: Summary) -> None:
    """What was done and where it lies, on standard output."""
    objects = f" of {summary.objects} objects" if summary.objects > 1 else ""
    print(
        f"Tracked {summary.frames} frames{objects} ({summary.first} to {summary.last}), "
        f"mean score {summary.score:.3f}; "
        f"{summary.fps:.1f} frames/s from frame to mask and rotated box, "
        f"{summary.frames / summary.seconds:.1f} with reading and writing."
    )
    if summary.dropped:
        print(f"  {summary.dropped} frames came while the tracker was busy and were dropped.")
    for path in summary.paths:
        print(f"  {path}")


def _tell_data(report: Report, json_file: Path | None) -> None:
    """Problems by file, the sum, and status 1 where one is fatal."""
    for problem in report.problems:
        print(problem)
    print(report)
    if json_file is not None:
        _write_whole(json_file, json.dumps(report.to_json(), indent=2) + "\n")
    if report.fatal:
        raise typer.Exit(1)


def _kept(summary: Summary) -> str:
    return f"What was tracked is kept: frames {summary.first} to {summary.last}."


def _check_writable(path: Path) -> None:
    """Raise MediaError now rather than after the work."""
    if path.is_dir():
        raise MediaError(f"{path} cannot be written: it is a folder.")
    _write_whole(path.with_name(f".{path.name}.check"), "", keep=False)


def _write_whole(path: Path, text: str, keep: bool = True) -> None:
    """Write a file that bears its name only when it is whole."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        if keep:
            os.replace(part, path)
        else:
            part.unlink()
    except OSError as error:
        raise MediaError(f"{path} cannot be written ({error.strerror}).") from error


def _quiet() -> None:
    """Keep OpenCV's own log lines off the terminal; what goes wrong is told by our errors."""
    import cv2

    silence: Any = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # 4.x has the one, 5.x the other
    silence(0)
