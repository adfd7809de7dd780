"""The benchmark: turns are fair, every figure has its spread, and what is missing on this machine is said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import clips
import cv2
import numpy as np
import pytest
from fakes import RED, FakeEngine, scene

import siammask
from siammask import bench, cli, weights
from siammask.bench import Clip, Contestant, Setup
from siammask.errors import InputError
from siammask.geometry import Box
from siammask.tracker import Tracker
from siammask.variants import DEFAULT, VARIANTS

VARIANT = VARIANTS[DEFAULT]
GUIDED = Tracker(VARIANT, FakeEngine(VARIANT))
WALK = Clip(
    "walk",
    tuple(scene((Box(100 + 4 * i, 100, 40, 30), RED)) for i in range(7)),
    Box(100, 100, 40, 30),
)


def plain(count: int) -> Clip:
    return Clip("plain", tuple(np.full((2, 2, 3), i, np.uint8) for i in range(count)), Box(1, 1, 1, 1))


def test_turns_alternate_and_begin_anew_where_the_clip_ends() -> None:
    seen: list[tuple[str, str, int]] = []

    def contestant(name: str) -> Contestant:
        def start(frame, target):  # type: ignore[no-untyped-def]
            seen.append((name, "start", int(frame[0, 0, 0])))
            return lambda frame: seen.append((name, "step", int(frame[0, 0, 0])))

        return Contestant(name, 1, start)

    ms = bench.race([contestant("a"), contestant("b")], plain(4), block=2, rounds=3)
    assert {name: [m.shape for m in rounds] for name, rounds in ms.items()} == {"a": [(2,)] * 3, "b": [(2,)] * 3}
    assert "".join(name for name, what, _ in seen if what == "step") == "aabb" + "bbaa" + "aabb" + "bbaa"
    for name in "ab":
        assert [number for who, what, number in seen if (who, what) == (name, "step")] == [1, 2, 3, 1, 2, 3, 1, 2]
        assert (name, "start", 0) in seen


def test_figures_compare_round_by_round() -> None:
    twice = bench.figures(
        [np.array([4.0, 4, 4]), np.array([6.0, 6, 6])], [np.array([2.0, 2, 2]), np.array([3.0, 3, 3])]
    )
    assert twice["times_the_first"] == {"median": 2, "10%": 2, "90%": 2}
    assert twice["ms"]["median"] == 5


@pytest.mark.parametrize("targets", [1, 3])
def test_our_step_is_timed_as_a_whole(targets: int) -> None:
    GUIDED.engine.calls.clear()  # type: ignore[attr-defined]
    ms = bench.race([Contestant("ours", 1, bench.ours(GUIDED, targets))], WALK, block=3, rounds=1)
    assert (ms["ours"][0] > 0).all()
    searches = sum(call[0] == "search" for call in GUIDED.engine.calls)  # type: ignore[attr-defined]
    assert searches >= 6 * targets  # two turns of three frames


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake network in place of the real ones."""
    monkeypatch.setattr(siammask, "load", lambda name, **options: GUIDED)


def test_rows_and_their_names(fake: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(cv2, "TrackerCSRT_create", raising=False)
    monkeypatch.setattr(cv2, "TrackerKCF_create", lambda: None, raising=False)
    setup = Setup(threads=(2, 1), targets=(1, 8), peers=("csrt", "kcf"))
    rows, left_out = bench.contestants(setup, tmp_path)
    assert [row.name for row in rows] == [
        "guided fake f32, 2 threads",
        "guided fake f32 8 targets, 2 threads",
        "OpenCV TrackerKCF, 2 threads",
        "guided fake f32, 1 thread",
        "guided fake f32 8 targets, 1 thread",
        "OpenCV TrackerKCF, 1 thread",
    ]
    assert left_out.keys() == {"csrt"}
    assert "has no TrackerCSRT" in left_out["csrt"]


def test_rows_of_a_gpu_where_there_is_one(fake: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def load(name: str, **options: Any) -> Tracker:
        asked.append(options)
        return GUIDED

    monkeypatch.setattr(siammask, "load", load)
    assert len(bench.contestants(Setup(threads=(2, 1)), tmp_path)[0]) == 2 + (0 if bench.gpu() is None else 2)
    asked.clear()
    monkeypatch.setattr(bench, "gpu", lambda: "a GPU")
    rows, _ = bench.contestants(Setup(threads=(2, 1)), tmp_path)
    assert [row.name for row in rows[2:]] == ["guided torch f32 on CUDA"] * 2  # the fake's precision
    assert [(one["engine"], one["precision"], one["device"]) for one in asked[2:]] == [
        ("torch", "f32", "cuda"),
        ("torch", "f16", "cuda"),
    ]


def test_rows_that_must_be_exported_first(fake: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A checkpoint gives torch itself and the engine its graphs; int8 is exported too; what is kept is taken again."""
    certify = pytest.importorskip("siammask.network.certify", reason="exporting needs the extra 'train'")
    file, asked, exported = tmp_path / "weights.safetensors", [], []
    file.write_bytes(b"weights")

    def load(name: str, **options: Any) -> Tracker:
        asked.append((options["engine"], options["precision"], options["weights"]))
        return replace(GUIDED, engine=Layered(VARIANT))

    def export_model(name: str, to: str, kept: str, out: Path, given: Path | None, **rest: Any) -> None:
        exported.append((name, to, kept, given))
        out.mkdir(parents=True)
        (out / weights.CERTIFICATE).write_text("{}")

    monkeypatch.setattr(siammask, "load", load)
    monkeypatch.setattr(certify, "export_model", export_model)
    setup = Setup(eager=True, weights=file, precisions=("f32", "int8"), engines=("openvino", "onnxruntime"))
    for _ in range(2):
        rows, _ = bench.contestants(setup, tmp_path / "kept")
    assert [row.name for row in rows] == [
        "guided fake f32 eager, 2 threads",
        "guided fake f32, 2 threads",
        "guided fake int8+f32, 2 threads",
        "guided fake f32, 2 threads",
        "guided fake int8+f32, 2 threads",
    ]
    forms = [(to, kept) for to in ("openvino", "onnx") for kept in ("f32", "int8")]
    assert exported == [("guided", *form, file) for form in forms]
    assert asked[0] == ("torch", "f32", file)
    folders = [tmp_path / "kept" / f"guided-{to}-{kept}-9a129038" for to, kept in forms]
    expected = zip(("openvino",) * 2 + ("onnxruntime",) * 2, ("f32", None) * 2, folders, strict=True)
    assert asked[1:5] == list(expected)
    assert [row.weights for row in rows] == [file, *folders]


def test_answers_are_held_against_the_first_row_in_f32() -> None:
    rows = [Contestant(name, 2, bench.ours(GUIDED), GUIDED, int8=name == "int8") for name in ("int8", "a", "b")]
    assert [bench.exact(rows, row) for row in rows] == [rows[1], None, rows[1]]
    assert bench.exact(rows, Contestant("a peer", 2, bench.ours(GUIDED))) is None
    found = bench.accuracy(rows[1], rows[0], WALK, 3)
    assert found == {
        "to": "a",
        "mask_iou": {"mean": 1, "min": 1},
        "mask": {"mean": 0, "max": 0},
        "score": {"mean": 0, "max": 0},
    }


def test_a_peer_that_is_unknown_or_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No peer is called 'boost'"):
        bench.opencv("boost")
    if not hasattr(cv2, "TrackerNano_create"):
        pytest.skip("This OpenCV has no TrackerNano.")
    with pytest.raises(InputError, match=r"nanotrack_v2_backbone\.onnx is missing"):
        bench.nano(tmp_path)


def test_what_opencv_follows() -> None:
    if not hasattr(cv2, "TrackerMIL_create"):
        pytest.skip("This OpenCV has no TrackerMIL.")
    ms = bench.race([Contestant("mil", 1, bench.opencv("mil"))], WALK, block=2, rounds=1)
    assert (ms["mil"][0] > 0).all()


def test_what_to_decode(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="comes without a box"):
        bench.decode(tmp_path, None, 5)
    video = clips.write_video(tmp_path / "a.mp4", clips.numbered(4))
    with pytest.raises(InputError, match="has 1 frames"):
        bench.decode(video, Box(10, 10, 4, 4), 1)
    clip = bench.decode(video, Box(10, 12, 4, 6), 3, (128, 48))
    assert len(clip.frames) == 3
    assert clip.frames[0].shape == (48, 128, 3)
    assert clip.target == Box(20, 12, 8, 6)
    assert bench.decode(None, None, 2).frames[0].shape == (360, 640, 3)


@dataclass(frozen=True)
class Graphs:
    """Every graph gives nothing, and takes its name down."""

    name: str = "none"
    asked: list[str] = field(default_factory=list)

    def planar(self) -> Graphs:
        return self

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.asked.append(graph)
        return {}


@dataclass(frozen=True, slots=True)
class Layered(FakeEngine):
    """A fake that calls graphs as real engines do."""

    graphs: Any = field(default_factory=Graphs)

    def search(self, *args: Any) -> Any:
        self.graphs.run("search", {})
        self.graphs.run("memorise", {})
        return FakeEngine.search(self, *args)


def test_a_profile_names_every_stage() -> None:
    row = Contestant("ours", 1, bench.ours(GUIDED), replace(GUIDED, engine=Layered(VARIANT)))
    found = bench.profile(row, WALK, 6)
    assert tuple(found["ms"]) == bench.STAGES
    for stage in bench.STAGES:
        assert (found["ms"][stage]["median"] > 0) == (stage != "refine"), stage
    assert found["outside"]["median"] >= found["ms"]["paste"]["median"]
    assert found["file_to_file"]["fps"] > 0
    assert found["file_to_file"]["slowest_stage"] in ("read", "track", "draw", "write")


def test_the_command(fake: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.svg")]
    options = ["--repeat", "2", "--block", "2", "--frames", "5", "--threads", "2,1", "--parts", "profile"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "--size", "320x180", *options, *files])
    assert not ended.value.code
    found = json.loads((tmp_path / "a.json").read_text())
    assert [row["threads"] for row in found["rows"]] == [2, 1]
    assert all(row["times_the_first"]["median"] == 1 for row in found["rows"])
    assert found["size"] == [320, 180]
    assert set(found["profile"]) == {"guided fake f32, 2 threads", "guided fake f32, 1 thread"}
    assert "start" not in found
    assert (tmp_path / "a.svg").exists()
    assert "file to file" in capsys.readouterr().out
    for wrong in (["--threads", "two"], ["--size", "640"], ["--targets", "0"], ["--box", "1,2"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["bench", *wrong])
        assert ended.value.code == 2


def test_starts_of_fresh_processes() -> None:
    if DEFAULT not in weights.shipped():
        pytest.skip("The package holds no weights of the default model yet.")
    pytest.importorskip("openvino")
    tracker = siammask.load(threads=1, precision="f32")
    clip = bench.decode(None, None, 2)
    found = bench.starts(Contestant("ours", 1, bench.ours(tracker), tracker), clip, again=1)
    assert set(found) == {"first", "later"}
    for parts in found.values():
        assert parts["start"] == pytest.approx(parts["import"] + parts["load"] + parts["frame"])
        assert parts["process"] > parts["start"]
        assert parts["peak_mb"] > 50
