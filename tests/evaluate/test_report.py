"""A square that walks, followed by a tracker that looks for its colour: whole figures, end to end."""

import io
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from fakes import FakeEngine
from rich.console import Console

from siammask.errors import InputError, MediaError
from siammask.evaluate.protocols import helped, one_pass
from siammask.evaluate.report import Spread, evaluate_folder, evaluate_sequences, growth, versions
from siammask.evaluate.sequences import find_sequences
from siammask.geometry import Box, RotatedBox, check_box
from siammask.tracker import Tracker, TrackResult
from siammask.variants import DEFAULT, VARIANTS

SIDE = 20


class ColourTracker:
    """Finds the red pixels, `late` pixels too far to the right."""

    variant = SimpleNamespace(name="colour")
    engine = SimpleNamespace(name="eyes", precision="f32")

    def __init__(self, late=0):
        self.late = late

    def start(self, frame, target):
        check_box(target, frame.shape[1], frame.shape[0])
        return self.step(None, frame)

    def step(self, state, frame):
        found = Box.from_mask(frame[..., 2] > 128) or Box.from_xywh(0, 0, 1, 1)
        box = Box.from_xywh(found.x + self.late, found.y, found.w, found.h)
        turned = RotatedBox(box.cx, box.cy, box.w, box.h, 0.0)
        return state, TrackResult(
            box, 0.75, True, None, frame.shape[1::-1], 0.5, turned
        )  # no patch: the box is the mask


@pytest.fixture
def folder(tmp_path):
    """`a/masks`: 7 frames with masks, the square hidden on the first; `a/boxes`: 4 frames with boxes."""
    for name, count in (("masks", 7), ("boxes", 4)):
        for kind in ("frames", "masks"):
            (tmp_path / "a" / name / kind).mkdir(parents=True)
        rows = []
        for i in range(count):
            frame = np.full((90, 120, 3), (90, 60, 30), np.uint8)
            shown = not (name == "masks" and i == 0)
            if shown:
                frame[30 : 30 + SIDE, 10 + 3 * i : 10 + 3 * i + SIDE, 2] = 255
            cv2.imwrite(str(tmp_path / "a" / name / "frames" / f"{i:05d}.png"), frame)
            if name == "masks":
                cv2.imwrite(str(tmp_path / "a" / name / "masks" / f"{i:05d}.png"), (frame[..., 2] > 128) * np.uint8(1))
            rows.append(f"{10 + 3 * i},30,{SIDE},{SIDE}" if shown else "0,0,0,0")
        (tmp_path / "a" / name / "boxes.txt").write_text("\n".join(rows))
    (tmp_path / "a" / "boxes" / "masks").rmdir()
    return tmp_path


def test_a_perfect_tracker(folder):
    calls = []
    report = evaluate_folder(folder, ColourTracker(), progress=lambda *now: calls.append(now))
    assert [(s.name, s.frames) for s in report.sequences] == [("a/boxes", 4), ("a/masks", 6)]
    boxes, masks = report.sequences
    assert boxes.region is None
    assert (masks.region.mean, masks.contour.mean, masks.region.decay) == (1, 1, 0)
    assert report.means["success_auc"] == pytest.approx(20 / 21)
    assert (report.means["J&F"], report.means["precision"], report.means["norm_precision"]) == (1, 1, 1)
    # it says .75 of each of the 3 + 5 frames after the first, and is right on all
    assert report.honesty.bins[0].frames == 8
    assert (report.means["score_bias"], report.means["score_error"]) == pytest.approx((-0.25, 0.25))
    assert "score_tells" not in report.means
    assert (report.model, report.engine, report.precision) == ("colour", "eyes", "f32")
    assert calls == [("a/boxes", i, 10) for i in range(1, 5)] + [("a/masks", i, 10) for i in range(5, 11)]


def test_a_tracker_that_lags_is_told_so(folder):
    report = evaluate_folder(folder, ColourTracker(late=10), sequences=["masks"])
    (masks,) = report.sequences
    assert masks.region.mean == pytest.approx(1 / 3)  # half the square of 20 is shared
    assert masks.contour.mean < 0.6
    steps = np.linspace(0, 1, 21)
    expected = np.mean([(5 * (t < 1 / 3) + (t < 1)) / 6 for t in steps])  # the first frame is the true box
    assert report.means["success_auc"] == pytest.approx(expected)
    assert report.means["precision"] == 1  # 10 pixels are within 20
    assert report.means["norm_precision"] == pytest.approx(1 / 6)  # but not within a fifth of the square


def test_trajectory_starts_where_the_object_is_first_seen(folder):
    (sequence,) = find_sequences(folder / "a" / "masks")
    trajectory = one_pass(ColourTracker(), sequence)
    assert trajectory.first == 1
    np.testing.assert_array_equal(trajectory.boxes, sequence.boxes[1:])
    assert trajectory.region.shape == trajectory.contour.shape == trajectory.ms.shape == (6,)
    assert set(trajectory.scores) == {0.75}
    assert trajectory.visible.all()


def test_report_as_json_and_as_a_table(folder):
    report = evaluate_folder(folder, ColourTracker())
    values = json.loads(json.dumps(report.to_json()))
    assert values["mean"]["J"] == 1
    assert values["sequences_with_masks"] == 1
    assert values["sequences"][1]["contour"]["recall"] == 1
    assert values["sequences"][0]["region"] is None
    assert set(values["ms"]) == {"median", "low", "high"}
    assert values["versions"]["numpy"] == np.__version__
    assert "eyes" not in values["versions"]  # no package of that name
    assert "openvino" in versions("openvino")
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(report.table())
    text = console.export_text()
    assert "a/masks" in text
    assert "0.952" in text


def test_what_cannot_be_evaluated_is_said(folder):
    with pytest.raises(InputError, match="no sequence 'swim'; it holds: a/boxes, a/masks"):
        evaluate_folder(folder, ColourTracker(), sequences=["swim"])
    with pytest.raises(InputError, match="no sequence to evaluate"):
        evaluate_sequences([], ColourTracker())
    (folder / "a" / "boxes" / "boxes.txt").write_text("500,30,20,20\n" * 4)
    with pytest.raises(InputError, match=r"Sequence a/boxes: Box \(500\.0, 30\.0"):
        evaluate_folder(folder, ColourTracker())
    cv2.imwrite(str(folder / "a" / "masks" / "masks" / "00003.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(MediaError, match=r"00003\.png is \(9, 9\) beside a frame of \(90, 120\)"):
        evaluate_folder(folder / "a" / "masks", ColourTracker())


def test_with_the_real_tracker_on_a_network_that_sees_colour(folder):
    variant = VARIANTS[DEFAULT]
    report = evaluate_folder(folder, Tracker(variant, FakeEngine(variant)))
    assert report.means["J"] > 0.8
    assert report.means["success_auc"] > 0.8
    assert (report.model, report.engine) == ("guided", "fake")


def test_spread():
    assert Spread.of(np.arange(11.0)) == Spread(5, 1, 9)
    assert Spread.of(np.zeros(0)) is None


def test_what_may_be_given(folder):
    """Which masks the engine is told of: none, the first, or that of every last frame, for the drawing of the next."""
    row = VARIANTS[DEFAULT]
    told = {}
    for given in ("box", "mask", "place", "state"):
        engine = FakeEngine(row)
        report = evaluate_folder(folder, Tracker(row, engine), sequences=["masks"], given=given)
        assert report.sequences[0].region.mean > 0.7
        told[given] = [drawn for kind, _, *rest in engine.calls if kind == "embed" for drawn in rest]
    assert told == {"box": [False, True], "mask": [True], "place": [False, True], "state": [True] * 6}
    with pytest.raises(MediaError, match="no masks"):
        evaluate_folder(folder, Tracker(row, FakeEngine(row)), sequences=["boxes"], given="state")


def test_the_place_given_is_where_the_search_goes(folder):
    (sequence,) = [s for s in find_sequences(folder) if s.name == "a/masks"]
    row = VARIANTS[DEFAULT]
    tracker = Tracker(row, FakeEngine(row))
    state, _ = tracker.start(sequence.read_frame(1), sequence.box(1))
    moved = helped(tracker, state, sequence, 4, "place")
    assert moved.box == sequence.box(4)
    assert moved.last is state.last
    true = helped(tracker, state, sequence, 4, "state")
    assert true.box == sequence.box(4)
    assert (true.last is not None, true.first is state.first) == (True, True)
    assert helped(tracker, state, sequence, 0, "state") is state  # not seen there


def test_growth_is_the_change_of_size_where_boxes_meet():
    truth = np.array([[10, 10, 20, 40], [10, 10, 20, 40], [10, 10, 20, 40], [0, 0, 0, 0]], np.float64)
    larger = truth * (1, 1, 1.21, 1)
    assert growth(truth, larger) == pytest.approx(np.log(1.1))
    assert growth(truth, truth * (1, 1, 1, 0.81)) == pytest.approx(np.log(0.9))
    far = truth + np.array((500, 0, 0, 0))
    assert growth(truth, far) is None
    far[:1] = larger[:1]
    assert growth(truth, far) == pytest.approx(np.log(1.1))
