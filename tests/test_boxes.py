"""From mask to rotated box, in four ways, and from one frame's box to the next."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from fakes import RED, FakeEngine, scene
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from siammask import boxes, regions
from siammask.boxes import STRATEGIES, box_of, nearest_turn
from siammask.errors import InputError
from siammask.geometry import Box, Patch, RotatedBox
from siammask.opt import box_mask_iou
from siammask.tracker import Tracker
from siammask.variants import variant

SIZE = (200, 150)
BOX = Box.from_xywh(20, 30, 40, 50)


def patch_of(mask: np.ndarray, alignment: str = "exact") -> Patch:
    """One value for each pixel of the frame."""
    place = Box.from_xywh(0, 0, mask.shape[1], mask.shape[0])
    return Patch(mask.astype(np.float32), place, alignment)  # type: ignore[arg-type]


def turned(angle: float, w: float = 80, h: float = 40) -> np.ndarray:
    """The pixels of the frame whose centres lie in a turned rectangle."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    a = np.deg2rad(angle)
    along, across = (x - 100) * np.cos(a) + (y - 75) * np.sin(a), (y - 75) * np.cos(a) - (x - 100) * np.sin(a)
    return (np.abs(along) <= w / 2) & (np.abs(across) <= h / 2)


def test_an_upright_mask_gives_its_own_rectangle() -> None:
    box = boxes.rotated_box_of(patch_of(regions.mask_of(None, 0.5, SIZE, BOX)), 0.5, SIZE, BOX)
    assert (box.cx, box.cy, box.w, box.h, box.angle) == pytest.approx((BOX.cx, BOX.cy, BOX.w, BOX.h, 0))


def test_a_released_patch_joins_pixel_indices() -> None:
    """A quirk kept: a pixel shorter each way (and no half pixel added)."""
    contour = regions.largest_contour(regions.mask_of(None, 0.5, SIZE, BOX))
    assert contour is not None
    box = boxes.smallest_box(contour, "released")
    assert (box.cx, box.cy, box.w, box.h) == pytest.approx((39.5, 54.5, 39, 49))


@pytest.mark.parametrize("angle", [-40, -20, -5, 10, 30, 44])
def test_a_turned_mask_gives_its_turned_rectangle(angle: float) -> None:
    mask = turned(angle)
    box = boxes.rotated_box_of(patch_of(mask), 0.5, SIZE, BOX)
    assert (box.cx, box.cy) == pytest.approx((100, 75), abs=0.5)
    assert (box.w, box.h) == pytest.approx((80, 40), abs=1)
    assert box.angle == pytest.approx(angle, abs=1)


@given(arrays.arrays(np.bool_, (30, 40), elements=st.booleans()))
def test_the_rotated_box_holds_the_largest_part(mask: np.ndarray) -> None:
    contour = regions.largest_contour(mask)
    if contour is None:
        assert not mask.any()
        return
    box = boxes.smallest_box(contour)
    corners = box.corners.astype(np.float32).reshape(-1, 1, 2)
    assert abs(box.angle) <= 45
    for x, y in contour[:: max(1, len(contour) // 8)]:
        assert cv2.pointPolygonTest(corners, (x + 0.5, y + 0.5), True) > -1e-2


def test_a_part_too_small_to_trust_gives_the_box() -> None:
    mask = np.zeros((SIZE[1], SIZE[0]), bool)
    mask[10:21, 10:21] = True  # an outline of exactly 10 x 10
    assert boxes.rotated_box_of(patch_of(mask), 0.5, SIZE, BOX).w == BOX.w
    mask[10:21, 10:22] = True
    assert boxes.rotated_box_of(patch_of(mask), 0.5, SIZE, BOX).w == pytest.approx(12)


def test_without_a_patch_or_with_an_empty_one_the_upright_box() -> None:
    upright = RotatedBox(BOX.cx, BOX.cy, BOX.w, BOX.h, 0)
    outside = Patch(np.ones((8, 8), np.float32), Box.from_xywh(500, 500, 50, 50))
    for strategy in STRATEGIES:
        assert boxes.rotated_box_of(None, 0.5, SIZE, BOX, strategy) == upright
        assert boxes.rotated_box_of(outside, 0.5, SIZE, BOX, strategy) == upright
        assert box_of(np.zeros((5, 6), bool), strategy) is None


# One call, four ways


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_mask_and_a_patch_of_it_give_the_same_box(strategy: boxes.Strategy) -> None:
    mask = turned(20)
    box = box_of(mask, strategy)
    assert box == box_of(patch_of(mask), strategy, size=SIZE)
    assert box == boxes.rotated_box_of(patch_of(mask), 0.5, SIZE, BOX, strategy)


@pytest.mark.parametrize(
    ("strategy", "w", "h", "angle", "iou", "why"),
    [
        ("min_max", 89, 65, 0, 0.55, "upright around the turned corners"),
        ("mbr", 81, 41, 20, 0.95, "tight, at the mask's own angle"),
        ("ellipse", 80 * 2 / 3**0.5, 40 * 2 / 3**0.5, 20, 0.74, "4 deviations: a rectangle's side is sqrt(12) of them"),
        ("opt", 80, 40, 20, 0.97, "the mask itself"),
    ],
)
def test_a_turned_rectangle_in_four_ways(
    strategy: boxes.Strategy, w: float, h: float, angle: float, iou: float, why: str
) -> None:
    mask = turned(20)
    box = box_of(mask, strategy)
    assert box is not None
    assert (box.cx, box.cy) == pytest.approx((100, 75), abs=0.5)
    assert (box.w, box.h) == pytest.approx((w, h), abs=1), why
    assert box.angle == pytest.approx(angle, abs=0.7)
    assert box_mask_iou(box, mask) == pytest.approx(iou, abs=0.02)


def test_the_ellipse_of_an_ellipse_is_around_it() -> None:
    mask = np.zeros((120, 160), np.uint8)
    cv2.ellipse(mask, (80, 60), (50, 20), 30, 0, 360, 1, -1)
    box = box_of(mask.astype(bool), "ellipse")
    assert box is not None
    assert (box.cx, box.cy, box.w, box.h) == pytest.approx((80.5, 60.5, 101, 41), abs=0.5)
    assert box.angle == pytest.approx(30, abs=0.5)


def test_which_pixels_count() -> None:
    """The largest part for MBR, as released; every pixel for the others."""
    mask = np.zeros((60, 100), bool)
    mask[10:30, 10:30] = mask[40:50, 80:90] = True
    found = {strategy: box_of(mask, strategy) for strategy in ("min_max", "mbr", "ellipse")}
    assert found["min_max"] == RotatedBox(50, 30, 80, 40, 0)
    assert found["mbr"] == RotatedBox(20, 20, 20, 20, 0)
    assert found["ellipse"] is not None
    assert found["ellipse"].cx == pytest.approx((400 * 20 + 100 * 85) / 500)


@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.sampled_from(STRATEGIES))
def test_any_mask_has_a_box_on_it_or_is_empty(mask: np.ndarray, strategy: boxes.Strategy) -> None:
    box = box_of(mask, strategy)
    if box is None:
        assert not mask.any()
        return
    assert mask.any()
    assert abs(box.angle) <= 45
    assert min(box.w, box.h) > 0
    assert -12 < box.cx < 24
    assert -12 < box.cy < 24
    if strategy == "min_max":
        assert box_mask_iou(box, mask) == pytest.approx(mask.sum() / (box.w * box.h), abs=1e-5)


def test_what_cannot_be_asked() -> None:
    with pytest.raises(InputError, match=r"'mean'; choose from min_max, mbr, ellipse, opt"):
        box_of(turned(0), "mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'mean'; choose"):
        Tracker(variant("guided"), FakeEngine(variant("guided")), "mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs the frame's size"):
        box_of(patch_of(turned(0)))


# From frame to frame

rotated = st.builds(
    RotatedBox, st.floats(0, 50), st.floats(0, 50), st.floats(1, 50), st.floats(1, 50), st.floats(-360, 360)
)


@given(rotated, rotated)
def test_the_nearest_turn_is_the_same_rectangle_at_most_an_eighth_away(box: RotatedBox, last: RotatedBox) -> None:
    found = nearest_turn(box, last)
    assert abs(found.angle - last.angle) <= 45 + 1e-9
    ours, theirs = found.corners, box.corners
    assert min(float(np.abs(np.roll(ours, k, axis=0) - theirs).max()) for k in range(4)) < 1e-6
    assert nearest_turn(found, last) == found
    assert nearest_turn(box, None) == box


@pytest.mark.parametrize("sides", [(80, 40), (60, 57)], ids=["long", "nearly square"])
@pytest.mark.parametrize("strategy", ["mbr", "ellipse", "opt"])
def test_the_angle_of_a_mask_that_turns_never_jumps(strategy: boxes.Strategy, sides: tuple[float, float]) -> None:
    last, angles = None, []
    for angle in range(0, 200, 8):
        last = box_of(turned(angle, *sides), strategy, last=last)
        assert last is not None
        angles.append(last.angle)
    np.testing.assert_allclose(angles, np.arange(0, 200, 8), atol=3 if sides[0] == 80 else 25)
    assert np.abs(np.diff(angles)).max() < (12 if sides[0] == 80 else 45)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_tracker_s_boxes_run_on(strategy: boxes.Strategy) -> None:
    """A bar that turns by half: the tracker's angle does too, and the four corners keep their places on it."""
    frames = []
    for angle in range(0, 190, 10):
        frame, bar = scene(), RotatedBox(160, 120, 90, 30, angle)
        cv2.fillConvexPoly(frame, np.round(bar.corners).astype(np.int32), RED)
        frames.append(frame)
    row = variant("guided")
    results = list(Tracker(row, FakeEngine(row), strategy).follow(frames, Box(160, 120, 90, 30)))
    angles = [result.rotated_box.angle for result in results]
    if strategy == "min_max":
        assert set(angles) == {0.0}
        return
    assert angles[-1] == pytest.approx(180, abs=8)
    corners = np.stack([result.rotated_box.corners for result in results])
    assert np.hypot(*np.moveaxis(np.diff(corners, axis=0), 2, 0)).max() < 16  # corners move 8 in 10 degrees


def test_two_steps_from_one_state_give_the_same_box() -> None:
    row = variant("guided")
    tracker = Tracker(row, FakeEngine(row))
    state, first = tracker.start(scene((BOX, RED)), BOX)
    assert state.rotated_box == first.rotated_box
    state = replace(state, rotated_box=RotatedBox(0, 0, 1, 1, 88.0))
    boxes_seen = [tracker.step(state, scene((BOX, RED)))[1].rotated_box for _ in range(2)]
    assert boxes_seen[0] == boxes_seen[1]
    assert math.isclose(boxes_seen[0].angle, 90, abs_tol=1)
    assert boxes_seen[0].w == pytest.approx(BOX.h, abs=2)


@pytest.mark.parametrize("strategy", ["min_max", "mbr", "ellipse", "opt"])
def test_a_large_mask_is_read_in_larger_pixels(strategy: boxes.Strategy) -> None:
    """Its box is that of the mask as the frame has it, to a few pixels of a window of 1,500."""
    values = np.zeros((128, 128), np.float32)
    cv2.ellipse(values, (60, 66), (40, 18), 25, 0, 360, 1.0, -1)
    patch = Patch(cv2.GaussianBlur(values, (5, 5), 0), Box(800.0, 560.0, 1500.0, 1500.0))
    quick = boxes.box_of(patch, strategy, size=(1920, 1080))
    whole = boxes.box_of(regions.mask_of(patch, 0.5, (1920, 1080), Box(0, 0, 1, 1)), strategy)
    assert quick is not None
    assert whole is not None
    for name in ("cx", "cy", "w", "h"):
        assert getattr(quick, name) == pytest.approx(getattr(whole, name), abs=6.0), name
    assert quick.angle == pytest.approx(whole.angle, abs=1.5)
