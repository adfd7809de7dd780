"""Targets that come and go are tracked as they are alone, by a network that is called once a frame for all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes import BLUE, RED, FakeEngine, scene

import siammask
from siammask import demo
from siammask.errors import InputError
from siammask.geometry import Box, UInt8
from siammask.multi import MultiTracker
from siammask.tracker import Tracker
from siammask.variants import variant
from siammask.weights import shipped

LEFT, RIGHT = Box.from_xywh(40, 60, 40, 30), Box.from_xywh(200, 120, 30, 40)


def fake() -> Tracker:
    return Tracker(variant("guided"), FakeEngine(variant("guided")))


def frame(k: int) -> UInt8:
    return scene((replace(LEFT, cx=LEFT.cx + 4 * k), RED), (replace(RIGHT, cy=RIGHT.cy - 3 * k), BLUE))


def test_targets_come_and_go() -> None:
    many = MultiTracker(fake())
    assert many.step(frame(0)) == {}
    left = many.add(frame(0), LEFT)
    assert many.results[left].box == LEFT
    many.step(frame(1))
    mask = (frame(1) == np.array(BLUE, np.uint8)).all(axis=2)
    right = many.add(frame(1), mask)
    np.testing.assert_array_equal(many.results[right].mask, mask)
    seen = many.step(frame(2))
    assert list(seen) == [left, right] == [1, 2]
    assert seen[left].box.iou(replace(LEFT, cx=LEFT.cx + 8)) > 0.9
    assert seen[right].box.iou(replace(RIGHT, cy=RIGHT.cy - 6)) > 0.9
    many.remove(left)
    assert list(many.step(frame(3))) == [right]
    assert many.add(frame(3), replace(LEFT, cx=LEFT.cx + 12)) == 3  # an id is not given twice


def test_what_cannot_be_done_is_said() -> None:
    many = MultiTracker(fake())
    with pytest.raises(InputError, match=r"No target has the id 1; there are: none\."):
        many.remove(1)
    many.add(frame(0), LEFT)
    with pytest.raises(InputError, match="tracking began on 320x240"):
        many.add(scene(size=(100, 100)), Box(50, 50, 20, 20))
    with pytest.raises(InputError, match="no area"):
        many.add(frame(0), Box(50, 50, 0, 20))
    with pytest.raises(InputError, match="tracking began on 320x240"):
        many.step(scene(size=(100, 100)))
    assert list(many.results) == [1]


def test_the_default_model_draws_the_same_for_several_as_for_one() -> None:
    """Three targets of the drawn clip on the real network (batches of two and one), against each alone."""
    if "guided" not in shipped():
        pytest.skip("The package holds no weights of the guided model.")
    tracker = siammask.load("guided", precision="f32", threads=1)
    frames = [demo.draw_frame(index)[0] for index in range(4)]
    boxes = [demo.drawn_box(), Box(100, 100, 60, 50), Box(500, 250, 80, 90)]
    many = MultiTracker(tracker)
    for box in boxes:
        many.add(frames[0], box)
    together = [list(many.step(pixels).values()) for pixels in frames[1:]]
    for i, box in enumerate(boxes):
        for alone, results in zip(list(tracker.follow(frames, box))[1:], together, strict=True):
            np.testing.assert_allclose(results[i].box.xywh, alone.box.xywh, atol=1e-4 * 640)
            assert results[i].score == pytest.approx(alone.score, abs=1e-4)
            assert results[i].patch is not None
            assert alone.patch is not None
            np.testing.assert_allclose(results[i].patch.values, alone.patch.values, atol=1e-4)
