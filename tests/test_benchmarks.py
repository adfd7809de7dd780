"""The scripts beside the package: turns are fair, and both run on a network that needs no weights."""

from itertools import islice

import cv2
import numpy as np
import pytest
from fakes import RED, FakeEngine, scene

from benchmarks import speed
from docs import make_figures
from siammask import demo
from siammask.errors import InputError
from siammask.geometry import Box
from siammask.tracker import Tracker
from siammask.variants import DEFAULT, VARIANTS

GUIDED = Tracker(VARIANTS[DEFAULT], FakeEngine(VARIANTS[DEFAULT]))


def test_turns_alternate_and_begin_anew_where_the_clip_ends():
    seen = []

    def contestant(name):
        def start(frame, target):
            seen.append((name, "start", int(frame[0, 0, 0])))
            return lambda frame: seen.append((name, "step", int(frame[0, 0, 0])))

        return start

    frames = [np.full((2, 2, 3), i, np.uint8) for i in range(4)]
    ms = speed.race({"a": contestant("a"), "b": contestant("b")}, frames, Box(1, 1, 1, 1), block=2, rounds=3)
    assert {name: [m.shape for m in rounds] for name, rounds in ms.items()} == {"a": [(2,)] * 3, "b": [(2,)] * 3}
    assert "".join(name for name, what, _ in seen if what == "step") == "aabb" + "bbaa" + "aabb" + "bbaa"
    for name in "ab":
        assert [number for who, what, number in seen if (who, what) == (name, "step")] == [1, 2, 3, 1, 2, 3, 1, 2]
        assert (name, "start", 0) in seen
    with pytest.raises(InputError, match="1 frames"):
        speed.race({"a": contestant("a")}, frames[:1], Box(1, 1, 1, 1), 2, 1)


def test_figures_compare_round_by_round():
    twice = speed.figures(
        [np.array([4.0, 4, 4]), np.array([6.0, 6, 6])], [np.array([2.0, 2, 2]), np.array([3.0, 3, 3])]
    )
    assert twice["times_the_first"] == {"median": 2, "10%": 2, "90%": 2}
    assert twice["ms"]["median"] == 5


def test_our_step_is_timed_as_a_whole():
    frames = [scene((Box(100 + 4 * i, 100, 40, 30), RED)) for i in range(4)]
    ms = speed.race({"ours": speed.ours(GUIDED)}, frames, Box(100, 100, 40, 30), block=3, rounds=1)
    assert (ms["ours"][0] > 0).all()


def test_a_peer_that_is_not_there_is_said(tmp_path):
    if not hasattr(cv2, "TrackerNano_create"):
        pytest.skip("This OpenCV has no TrackerNano.")
    with pytest.raises(InputError, match=r"nanotrack_v2_backbone\.onnx is missing"):
        speed.nano(tmp_path)


def test_what_to_decode_is_said(tmp_path):
    with pytest.raises(InputError, match="comes without a box"):
        speed.decode(tmp_path, None, 5)
    with pytest.raises(InputError, match="Box is '1,2'"):
        speed.decode(tmp_path, "1,2", 5)


def test_the_figure_shows_the_loop_itself():
    frames = [frame.pixels for frame in islice(demo.bunny(), 2)]
    state, first = GUIDED.start(frames[0], demo.BUNNY_BOX)
    _, result = GUIDED.step(state, frames[1])
    rows = make_figures.panels(GUIDED, state, frames, first, result)
    assert [len(row) for row in rows] == [4, 4]
    assert make_figures.stack(rows).ndim == 3
