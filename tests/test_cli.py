"""The command line keeps its contract: what it writes, what it says, and with which exit status it ends."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import clips
import cv2
import numpy as np
import pytest
from fakes import BLUE, RED, FakeEngine, scene

import siammask
from siammask import cli, engines
from siammask.boxes import Strategy
from siammask.engines.base import Device, Precision, Response, Runtime
from siammask.evaluate.protocols import Given
from siammask.evaluate.sequences import read_indexed_png
from siammask.formats.masks import encode_indexed
from siammask.geometry import Box
from siammask.media import open_source
from siammask.network.export import Form, Kept
from siammask.tracker import Tracker
from siammask.variants import PRESETS

COUNT = 8
BOX = "100,80,60,60"


def place(index: int) -> Box:
    return Box.from_xywh(100 + 4 * index, 80 + 2 * index, 60, 60)


def truth(index: int) -> np.ndarray:
    return (scene((place(index), RED)) == np.array(RED, np.uint8)).all(axis=2)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of frames on which a red square walks."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(COUNT):
        cv2.imwrite(str(folder / f"{index:05d}.png"), scene((place(index), RED)))
    return folder


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """A fake network in place of the real ones; the arguments of `siammask.load`."""
    calls = []

    def load(*args: Any, **options: Any) -> Tracker:
        calls.append((args, options))
        variant = siammask.variant(args[0])
        return Tracker(variant, FakeEngine(variant))

    monkeypatch.setattr(siammask, "load", load)
    return calls


def run(*argv: object) -> int:
    """Exit status of `siammask argv...`."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(part) for part in argv])
    code = ended.value.code
    return code if isinstance(code, int) else 0


def table(out: Path) -> list[dict[str, str]]:
    with (out / "track.csv").open() as file:
        return list(csv.DictReader(file))


def test_track_writes_what_it_promises(
    pictures: Path, tmp_path: Path, loaded: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a" / "b"
    assert run("track", pictures, "--box", BOX, "--out", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["masks", "overlay.mp4", "track.csv"]
    assert (out / "track.csv").read_text().splitlines()[0] == (
        "frame,time,object,x,y,w,h,x1,y1,x2,y2,x3,y3,x4,y4,score,ms"
    )
    rows = table(out)
    assert [row["frame"] for row in rows] == [str(i) for i in range(COUNT)]
    assert [float(row["time"]) for row in rows] == pytest.approx(np.arange(COUNT) / 25)
    assert sorted(path.name for path in (out / "masks").iterdir()) == [f"{i:05d}.png" for i in range(COUNT)]
    for index, row in enumerate(rows):
        mask = read_indexed_png(out / "masks" / f"{index:05d}.png")
        assert set(np.unique(mask)) == {0, 1}
        assert (truth(index) & (mask == 1)).sum() / (truth(index) | (mask == 1)).sum() > 0.85
        found = Box.from_xywh(*(float(row[name]) for name in "xywh"))
        assert found.iou(place(index)) > 0.8
        corners = np.array([[float(row[f"{axis}{i}"]) for axis in "xy"] for i in (1, 2, 3, 4)])
        assert corners.mean(axis=0) == pytest.approx((place(index).cx, place(index).cy), abs=3)
        assert 0 <= float(row["score"]) <= 1
        assert float(row["ms"]) > 0
    assert len(list(open_source(out / "overlay.mp4"))) == COUNT
    said = capsys.readouterr().out
    assert f"Tracked {COUNT} frames (0 to {COUNT - 1}), mean score" in said
    assert all(str(out / name) in said for name in ("overlay.mp4", "masks", "track.csv"))


def test_several_boxes_are_several_objects(tmp_path: Path, loaded: list[Any], capsys: Any) -> None:
    """Ids in the order of the boxes, in the table and in the masks; the network is asked once a frame for both."""
    other = Box.from_xywh(230, 20, 40, 40)
    frames = [scene((place(index), RED), (other, BLUE)) for index in range(4)]
    video = clips.write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixel_format="bgr0")
    boxes = ["--box", BOX, "--box", ",".join(str(value) for value in other.xywh)]
    assert run("track", video, *boxes, "--out", tmp_path / "out") == 0
    rows = table(tmp_path / "out")
    assert [(row["frame"], row["object"]) for row in rows] == [(str(i), k) for i in range(4) for k in "12"]
    for row in rows:
        found = Box.from_xywh(*(float(row[name]) for name in "xywh"))
        assert found.iou(other if row["object"] == "2" else place(int(row["frame"]))) > 0.8
    last = read_indexed_png(tmp_path / "out" / "masks" / "00003.png")
    assert set(np.unique(last)) == {0, 1, 2}
    assert last[40, 250] == 2
    assert "Tracked 4 frames of 2 objects" in capsys.readouterr().out


def test_video_keeps_its_times(tmp_path: Path, loaded: list[Any]) -> None:
    times = [0.0, 0.04, 0.3, 0.34, 1.0]
    frames = [scene((place(index), RED)) for index in range(5)]
    video = clips.write_video(tmp_path / "a.mkv", frames, times, codec="ffv1", pixel_format="bgr0")
    assert run("track", video, "--box", BOX, "--out", tmp_path / "out") == 0
    assert [float(row["time"]) for row in table(tmp_path / "out")] == pytest.approx(times, abs=1e-3)
    overlay = open_source(tmp_path / "out" / "overlay.mp4")
    assert [frame.time for frame in overlay] == pytest.approx(times, abs=1e-3)


def test_start_in_the_middle(pictures: Path, tmp_path: Path, loaded: list[Any]) -> None:
    box = ",".join(str(value) for value in place(3).xywh)
    assert run("track", pictures, "--box", box, "--start", 3, "--out", tmp_path / "out") == 0
    assert [row["frame"] for row in table(tmp_path / "out")] == ["3", "4", "5", "6", "7"]
    names = sorted(path.name for path in (tmp_path / "out" / "masks").iterdir())
    assert names == [f"{index:05d}.png" for index in range(3, COUNT)]


def test_only_what_is_asked_for_is_saved(pictures: Path, tmp_path: Path, loaded: list[Any]) -> None:
    assert run("track", pictures, "--box", BOX, "--out", tmp_path / "out", "--save", "csv") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["track.csv"]


def test_options_reach_the_model(
    pictures: Path, tmp_path: Path, loaded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        engines, "threads_beside", lambda variant, engine, precision: 7
    )  # not asked for several objects
    options = ["--engine", "torch", "--precision", "bf16", "--threads", 3, "--weights", tmp_path, "--device", "cuda"]
    common = ["track", pictures, "--box", BOX, "--save", "csv", "--out", tmp_path / "out"]
    assert run(*common, "--model", "siammask_light", *options) == 0
    assert run(*common) == 0
    assert run(*common, "--box", BOX) == 0
    first, second, several = loaded
    assert first == (
        ("siammask_light",),
        {"engine": "torch", "precision": "bf16", "threads": 3, "weights": tmp_path, "device": "cuda"},
    )
    assert second == (
        ("guided",),
        {"engine": "openvino", "precision": None, "threads": 7, "weights": None, "device": "cpu"},
    )
    assert several == (second[0], second[1] | {"threads": None})


@pytest.mark.parametrize("kind", ["indexed", "grey", "colour"])
def test_init_mask(pictures: Path, tmp_path: Path, loaded: list[Any], kind: str) -> None:
    file = tmp_path / "mask.png"
    if kind == "indexed":
        file.write_bytes(encode_indexed(truth(0).astype(np.uint8) * 5))
    else:
        grey = truth(0).astype(np.uint8) * 255
        cv2.imwrite(str(file), grey if kind == "grey" else np.dstack([grey, grey * 0, grey]))
    assert run("track", pictures, "--init-mask", file, "--out", tmp_path / "out") == 0
    mask = read_indexed_png(tmp_path / "out" / "masks" / "00000.png")
    assert (truth(0) & (mask == 1)).sum() / (truth(0) | (mask == 1)).sum() > 0.95


# What goes wrong


def bad_source(kind: str, folder: Path) -> Path:
    """A source of which nothing can be tracked."""
    path = folder / kind
    if kind == "empty folder":
        path.mkdir()
    elif kind == "junk.mp4":
        path.write_bytes(b"junk" * 100)
    elif kind == "empty.mp4":
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize("kind", ["missing.mp4", "junk.mp4", "empty.mp4", "empty folder"])
def test_source_that_gives_nothing(
    tmp_path: Path, loaded: list[Any], capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    source = bad_source(kind, tmp_path)
    assert run("track", source, "--box", BOX, "--out", tmp_path / "out") == 1
    assert one_sentence(capsys, str(source))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--box", "900,900,20,20"], "inside the frame of 320x240"),
        (["--box", "-50,-50,20,20"], "inside the frame of 320x240"),
        (["--box", "10,10,0,20"], "no area"),
        (["--box", "10,10,20,-5"], "no area"),
        (["--box", "nan,10,20,20"], "not finite"),
        (["--box", "10,10,inf,20"], "not finite"),
        (["--box", BOX, "--start", "8"], "ends before frame 8"),
        (["--box", BOX, "--model", "nobody"], "No model is called 'nobody'"),
        (["--init-mask", "missing.png"], "There is no mask missing.png"),
        (["--init-mask", "SMALL"], "is 20x10, but the frames are 320x240"),
        (["--init-mask", "EMPTY"], "mask"),
    ],
)
def test_target_that_cannot_be_used(
    pictures: Path,
    tmp_path: Path,
    loaded: list[Any],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    word: str,
) -> None:
    """Results of an earlier run stay as they were."""
    cv2.imwrite(str(tmp_path / "small.png"), np.full((10, 20), 255, np.uint8))
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((240, 320), np.uint8))
    names = {"SMALL": str(tmp_path / "small.png"), "EMPTY": str(tmp_path / "empty.png")}
    out = tmp_path / "out"
    assert run("track", pictures, "--box", BOX, "--out", out) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert run("track", pictures, *(names.get(part, part) for part in options), "--out", out) == 1
    assert one_sentence(capsys, word)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "options",
    [
        ["--box", "1,2,3"],
        ["--box", "1,2,3,4,5"],
        ["--box", "a,b,c,d"],
        ["--box", BOX, "--save", "gif"],
        ["--box", BOX, "--engine", "steam"],
        ["--box", BOX, "--precision", "f8"],
        ["--box", BOX, "--threads", "0"],
        ["--box", BOX, "--start", "-1"],
        [],
    ],
)
def test_wrong_usage_has_status_2(
    pictures: Path, tmp_path: Path, loaded: list[Any], capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert run("track", pictures, *options, "--out", tmp_path / "out") == 2
    assert "Usage" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_truncated_video_keeps_what_was_tracked(
    tmp_path: Path, loaded: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [scene((place(index), RED)) for index in range(COUNT)]
    video = clips.write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixel_format="bgr0")
    data = video.read_bytes()
    video.write_bytes(data[: int(len(data) * 0.6)])
    assert run("track", video, "--box", BOX, "--out", tmp_path / "out") == 1
    kept = len(table(tmp_path / "out"))
    assert 0 < kept < COUNT
    assert one_sentence(capsys, f"What was tracked is kept: frames 0 to {kept - 1}")
    assert_whole(tmp_path / "out", kept)


def test_picture_of_another_size_keeps_what_was_tracked(
    pictures: Path, tmp_path: Path, loaded: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(pictures / "00005.png"), np.zeros((100, 100, 3), np.uint8))
    assert run("track", pictures, "--box", BOX, "--out", tmp_path / "out") == 1
    assert one_sentence(capsys, "is 100x100 but the first one is 320x240")
    assert_whole(tmp_path / "out", 5)


def test_interrupted_run_keeps_what_was_tracked(
    pictures: Path, tmp_path: Path, loaded: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    search = FakeEngine.search

    def interrupted(self: FakeEngine, *args: Any) -> Response:
        if sum(call[0] == "search" for call in self.calls) == 4:
            raise KeyboardInterrupt
        return search(self, *args)

    monkeypatch.setattr(FakeEngine, "search", interrupted)
    assert run("track", pictures, "--box", BOX, "--out", tmp_path / "out") == 130
    kept = len(table(tmp_path / "out"))
    assert 0 < kept < COUNT
    assert one_sentence(capsys, f"Interrupted. What was tracked is kept: frames 0 to {kept - 1}")
    assert_whole(tmp_path / "out", kept)


def test_masks_of_a_longer_run_before_do_not_stay(pictures: Path, tmp_path: Path, loaded: list[Any]) -> None:
    out = tmp_path / "out"
    assert run("track", pictures, "--box", BOX, "--out", out) == 0
    for index in (6, 7):
        (pictures / f"{index:05d}.png").unlink()
    assert run("track", pictures, "--box", BOX, "--out", out) == 0
    assert_whole(out, 6)


def test_masks_that_are_not_ours_stay(pictures: Path, tmp_path: Path, loaded: list[Any]) -> None:
    (tmp_path / "out" / "masks").mkdir(parents=True)
    (tmp_path / "out" / "masks" / "00099.png").write_bytes(b"somebody's")
    assert run("track", pictures, "--box", BOX, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "masks" / "00099.png").read_bytes() == b"somebody's"


@pytest.mark.parametrize("blocked", ["out", "out/masks", "out/track.csv", "out/overlay.mp4"])
def test_unwritable_results(
    pictures: Path, tmp_path: Path, loaded: list[Any], capsys: pytest.CaptureFixture[str], blocked: str
) -> None:
    """A file stands where a folder should be, or a folder where a file should be."""
    place = tmp_path / blocked
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.suffix:
        place.mkdir()
    else:
        place.write_text("in the way")
    assert run("track", pictures, "--box", BOX, "--out", tmp_path / "out") == 1
    assert one_sentence(capsys, str(place))
    assert place.is_dir() if place.suffix else place.read_text() == "in the way"
    assert not list(tmp_path.rglob("*.part"))


def test_missing_weights(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--weights", tmp_path / "none", "--out", tmp_path / "out"]
    assert run("track", pictures, "--box", BOX, *options) == 1
    assert one_sentence(capsys, str(tmp_path / "none"))
    assert not (tmp_path / "out").exists()


def one_sentence(capsys: pytest.CaptureFixture[str], words: str) -> bool:
    """Whether the error is told in one line that holds `words`, the last on standard error."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert lines[-1].startswith("siammask: "), lines
    assert "Traceback" not in "".join(lines)
    assert words in lines[-1]
    return sum(line.startswith("siammask: ") for line in lines) == 1


def assert_whole(out: Path, count: int) -> None:
    """All three results hold the frames 0 to count - 1 and can be read."""
    assert [row["frame"] for row in table(out)] == [str(index) for index in range(count)]
    masks = sorted((out / "masks").iterdir())
    assert [path.name for path in masks] == [f"{index:05d}.png" for index in range(count)]
    assert all(read_indexed_png(path).shape == (240, 320) for path in masks)
    assert len(list(open_source(out / "overlay.mp4"))) == count
    assert sorted(path.name for path in out.iterdir()) == ["masks", "overlay.mp4", "track.csv"]


# The other commands


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models") == 0
    said = capsys.readouterr().out
    assert "guided" in said
    assert "siammask_light" in said
    assert "resnet50" in said


def test_evaluate(pictures: Path, tmp_path: Path, loaded: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    sequence = tmp_path / "set" / "walk"
    sequence.mkdir(parents=True)
    pictures.rename(sequence / "frames")
    (sequence / "masks").mkdir()
    for index in range(COUNT):
        (sequence / "masks" / f"{index:05d}.png").write_bytes(encode_indexed(truth(index).astype(np.uint8)))
    file = tmp_path / "report.json"
    assert run("evaluate", tmp_path / "set", "--json", file) == 0
    assert json.loads(file.read_text())["mean"]["J"] > 0.8
    said = capsys.readouterr().out
    assert "walk" in said
    assert str(file) in said
    assert run("evaluate", tmp_path / "set", "--given", "mask", "--only", "walk", "--set", "patience=2") == 0
    assert run("evaluate", tmp_path / "set", "--set", "patients=2") == 1
    assert "'patients'" in capsys.readouterr().err


def test_evaluate_finds_out_early_that_it_cannot_write(
    tmp_path: Path, loaded: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", tmp_path, "--json", tmp_path) == 1
    assert one_sentence(capsys, "it is a folder")
    assert run("evaluate", tmp_path, "--json", tmp_path / "none" / "a.json") == 1
    assert one_sentence(capsys, "cannot be written")
    assert not loaded
    assert run("evaluate", tmp_path / "none") == 1
    assert one_sentence(capsys, "not a folder")


def test_export_says_how_near_it_is(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    certify = pytest.importorskip("siammask.network.certify", reason="exporting needs the extra 'train'")
    asked = []

    def export_model(*args: Any) -> dict[str, Any]:
        asked.append(args)
        near = {"mean": 0.99, "min": 0.9}
        parity = {"frames": 9, "mask_iou": near, "box_px": {"max": 1.5}, "step_ms": {"times_as_fast": 2.0}}
        return {"parity": parity, "files": {"search.onnx": "0"}}

    monkeypatch.setattr(certify, "export_model", export_model)
    assert run("export", "guided", "--to", "onnx", "--precision", "int8", "--frames", 9) == 0
    assert asked == [("guided", "onnx", "int8", Path("guided-onnx-int8"), None, 9, None)]
    said = capsys.readouterr().out
    assert "guided as onnx in int8" in said
    assert "mask IoU 0.9900 (lowest 0.9000), boxes within 1.50 pixels, 2.00 times as fast" in said
    assert str(Path("guided-onnx-int8") / "search.onnx") in said
    assert run("export", "guided", "--to", "tflite") == 2


def test_export_without_torch(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run("export", "guided", "--to", "onnx") == 1
    assert one_sentence(capsys, "pip install 'siammask[train]'")


def test_train_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run("train", tmp_path / "run.toml") == 1
    assert one_sentence(capsys, "pip install 'siammask[train]'")


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("track", "demo", "models", "evaluate", "train"))


def test_help_loads_neither_network_nor_video() -> None:
    code = "import sys, siammask.cli; print(sorted({'torch', 'openvino', 'onnxruntime', 'av'} & set(sys.modules)))"
    assert output_of("-c", code).strip() == "[]"


def test_module_is_the_command() -> None:
    assert "guided" in output_of("-m", "siammask", "models")


def output_of(*options: str) -> str:
    """What a fresh Python says on this package, installed or not."""
    environment = os.environ | {"PYTHONPATH": str(Path(siammask.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, *options], capture_output=True, text=True, check=True, env=environment
    ).stdout


def test_the_words_of_options_are_those_of_the_library() -> None:
    """They are written again in `cli.py`, as importing them would make `siammask --help` slow."""
    for said, meant in (
        (cli.EngineName, Runtime),
        (cli.DeviceName, Device),
        (cli.PrecisionName, Precision),
        (cli.FormName, Form),
        (cli.KeptName, Kept),
        (cli.RotatedName, Strategy),
        (cli.GivenName, Given),
    ):
        assert set(get_args(said)) == set(get_args(meant))
    assert set(get_args(cli.PresetName)) == set(PRESETS)
