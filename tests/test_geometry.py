"""Where frame, crop and patch meet: round trips, borders, and the released roundings one by one."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siammask.errors import InputError
from siammask.geometry import (
    Box,
    Crop,
    Patch,
    RotatedBox,
    check_box,
    check_frame,
    context_side,
    filled,
    mean_colour,
)

places = st.floats(-500, 1500, allow_nan=False)
sides = st.floats(1, 900, allow_nan=False)
boxes = st.builds(Box, places, places, sides, sides)
crops = st.builds(
    Crop,
    st.integers(-800, 800),
    st.integers(-800, 800),
    st.integers(16, 700),
    st.sampled_from([127, 255, 256]),
    st.none() | st.tuples(places, places),
)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@given(boxes, crops)
def test_to_crop_and_to_frame_are_inverse(box: Box, crop: Crop) -> None:
    back = crop.to_frame(crop.to_crop(box))
    for a, b in zip((box.cx, box.cy, box.w, box.h), (back.cx, back.cy, back.w, back.h), strict=True):
        assert a == pytest.approx(b, abs=1e-6)


@given(boxes, crops)
def test_patch_placed_on_the_frame_and_back(box: Box, crop: Crop) -> None:
    patch = Patch(np.zeros((4, 4), np.float32), box)
    assert patch.on_frame(crop).in_crop(crop).place.xywh == pytest.approx(box.xywh, abs=1e-6)


def test_a_patch_is_carried_with_its_box() -> None:
    """What lay in the old box's middle lies in the new one's; both sides grow as the area's root does."""
    patch = Patch(smooth(8, 0), Box(50, 40, 64, 64))
    moved = patch.carried(Box(50, 40, 20, 10), Box(90, 20, 20, 10))
    assert (moved.place, moved.values is patch.values) == (Box(90, 20, 64, 64), True)
    grown = patch.carried(Box(60, 40, 20, 10), Box(60, 40, 40, 20))
    assert grown.place == Box(40, 40, 128, 128)
    assert grown.carried(Box(60, 40, 40, 20), Box(60, 40, 20, 10)).place == patch.place


@given(boxes)
def test_box_knows_its_corner_and_overlaps_itself(box: Box) -> None:
    assert Box.from_xywh(*box.xywh).iou(box) == pytest.approx(1)
    assert box.iou(Box(box.cx + box.w, box.cy, box.w, box.h)) == pytest.approx(0, abs=1e-6)


def test_box_from_mask_holds_whole_pixels() -> None:
    mask = np.zeros((20, 30), bool)
    mask[4:9, 7:8] = True
    assert Box.from_mask(mask) == Box.from_xywh(7, 4, 1, 5)
    assert Box.from_mask(np.zeros((3, 3), bool)) is None


@given(st.floats(-89, 89), sides, sides)
def test_corners_are_those_of_opencv(angle: float, w: float, h: float) -> None:
    ours = RotatedBox(100, 50, w, h, angle).corners
    assert ours == pytest.approx(cv2.boxPoints(((100, 50), (w, h), angle)), abs=1e-2)


# Crop


@given(crops, st.integers(1, 40), st.integers(1, 40))
def test_reading_equals_a_frame_with_a_wide_border(crop: Crop, width: int, height: int) -> None:
    """Also far outside the frame, where only the fill is left."""
    frame, fill, wide = noise(height, width), (10, 200, 30), 1600
    bordered = cv2.copyMakeBorder(frame, wide, wide, wide, wide, cv2.BORDER_CONSTANT, value=fill)
    window = bordered[wide + crop.y :, wide + crop.x :][: crop.side, : crop.side]
    expected = window if crop.side == crop.size else cv2.resize(window, (crop.size, crop.size))
    seen = crop.read(frame, fill)
    assert seen.shape == (crop.size, crop.size, 3)
    assert seen.dtype == np.uint8
    # a large border is not made, only sampled as if (OpenCV 4 rounds places to 1/32 of a pixel then)
    rounding = 0 if crop.nominal or crop.side <= 3 * crop.size else 1 if cv2.getVersionMajor() >= 5 else 20
    assert cv2.absdiff(seen, expected).max() <= rounding


def test_reading_does_not_touch_the_frame_nor_share_it() -> None:
    frame = noise(64, 64)
    before = frame.copy()
    seen = Crop(0, 0, 32, 32).read(frame, (0, 0, 0))
    seen[:] = 0
    np.testing.assert_array_equal(frame, before)


def test_reading_touches_only_the_window() -> None:
    """A frame far larger than memory, of which only the window's pixels exist: all others are one and the same row."""
    row = noise(1, 2_000_000)
    frame = np.lib.stride_tricks.as_strided(row, (2_000_000, 2_000_000, 3), (0, *row.strides[1:]), writeable=False)
    seen = Crop(1_000_000, 1_999_900, 128, 128).read(frame, (1, 2, 3))
    np.testing.assert_array_equal(seen[:100], np.broadcast_to(row[0, 1_000_000:1_000_128], (100, 128, 3)))
    assert (seen[100:] == (1, 2, 3)).all()


@pytest.mark.parametrize(
    ("centre", "side", "corner", "why"),
    [
        ((50.0, 50.0), 20.0, 40, "even side: 50 - 10.5 = 39.5 goes to the even 40"),
        ((51.0, 51.0), 20.0, 40, "even side: 40.5 goes to the even 40 too"),
        ((50.0, 50.0), 21.0, 39, "odd side: exactly 50 - 11"),
        ((50.4, 50.4), 20.5, 40, "a side of 20.5 is 20 (half to even)"),
    ],
)
def test_released_crop_roundings(centre: tuple[float, float], side: float, corner: int, why: str) -> None:
    crop = Crop.released(*centre, side, 255)
    assert (crop.x, crop.y) == (corner, corner), why
    assert crop.nominal == (centre[0] - crop.side / 2, centre[1] - crop.side / 2)


@given(places, places, st.floats(0, 900))
def test_a_crop_lies_around_its_centre(cx: float, cy: float, side: float) -> None:
    crop = Crop.around(cx, cy, side, 256)
    assert crop.side == max(16, round(side))
    assert abs(crop.place.cx - cx) <= 0.5
    assert abs(crop.place.cy - cy) <= 0.5


def test_context_of_a_square_is_twice_its_side() -> None:
    assert context_side(Box(0, 0, 30, 30)) == pytest.approx(60)
    assert context_side(Box(0, 0, 30, 30), context=0) == pytest.approx(30)


def test_mean_colour_is_cut_not_rounded() -> None:
    frame = np.zeros((1, 2, 3), np.uint8)
    frame[0, 0] = (255, 3, 1)
    assert mean_colour(frame) == (127, 1, 0)


# Patch


def smooth(size: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).random((6, 6)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)


@given(
    st.builds(Box, st.floats(-60, 260), st.floats(-60, 200), st.floats(3, 300), st.floats(3, 300)),
    st.sampled_from(["exact", "released"]),
)
def test_window_is_the_part_of_paste_that_is_not_zero(place: Box, alignment: str) -> None:
    patch = Patch(smooth(32) * 0.9 + 0.1, place, alignment)  # type: ignore[arg-type]
    pasted = patch.paste(200, 150)
    x0, y0, values = patch.window(200, 150)
    assert values.size <= (place.w + 3) * (place.h + 3)
    assert pasted.shape == (150, 200)
    assert pasted.min() >= 0
    pasted[y0 : y0 + values.shape[0], x0 : x0 + values.shape[1]] -= values
    assert not pasted.any()


@given(
    st.integers(0, 2**31),
    st.floats(0.05, 0.95),
    st.builds(Box, st.floats(-60, 260), st.floats(-60, 200), st.floats(20, 300), st.floats(20, 300)),
    st.sampled_from(["exact", "released"]),
)
def test_what_is_above_a_threshold_is_all_in_that_part(seed: int, threshold: float, place: Box, alignment: str) -> None:
    patch = Patch(smooth(32, seed) * smooth(32, seed + 1), place, alignment)  # type: ignore[arg-type]
    whole, part = patch.paste(200, 150) > threshold, patch.above(threshold)
    pasted = np.zeros_like(whole) if part is None else part.paste(200, 150) > threshold
    # equal but at the outline: drawn large, each is met to an eighth of a pixel from a cell of its own, and OpenCV 4
    # rounds map places to 1/32 of a cell
    outline = cv2.morphologyEx(whole.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).astype(bool)
    assert not (whole != pasted)[~outline].any()
    assert (whole != pasted).sum() <= 2 + 0.25 * outline.sum()
    if part is not None:
        assert part.values.size <= patch.values.size


def test_paste_of_one_value_for_each_pixel_is_exact() -> None:
    values = smooth(24)
    pasted = Patch(values, Box.from_xywh(10, 20, 24, 24)).paste(100, 80)
    np.testing.assert_array_equal(pasted[20:44, 10:34], values)
    assert pasted.sum() == pytest.approx(values.sum(), rel=1e-5)


@given(
    st.integers(0, 2**31),
    st.builds(Box, st.floats(-60, 260), st.floats(-60, 200), st.floats(100, 900), st.floats(100, 900)),
)
def test_large_drawing_is_the_formula(seed: int, place: Box) -> None:
    """Cells of some pixels are drawn in another way: bilinear between centres, and half a cell beyond the rim."""
    patch = Patch(smooth(32, seed), place)
    pasted = patch.paste(200, 150)
    values = np.pad(patch.values, 1)
    x, y = (
        np.clip((np.arange(n) + 0.5 - a) * 32 / s - 0.5, -1, 32) + 1
        for n, a, s in ((200, place.x, place.w), (150, place.y, place.h))
    )
    i, j = np.minimum(x.astype(int), 32), np.minimum(y.astype(int), 32)
    fx, fy = x - i, (y - j)[:, None]
    rows = (values[j] * (1 - fy) + values[j + 1] * fy).astype(np.float32)
    expected = rows[:, i] * (1 - fx) + rows[:, i + 1] * fx
    expected[np.abs(y - 16.5) > 16.5 - 0.5] = 0
    expected[:, np.abs(x - 16.5) > 16.5 - 0.5] = 0
    steepest = max(32 / place.w, 32 / place.h)  # of a cell that is drawn in one pixel
    assert np.abs(pasted - expected).max() <= 0.3 * steepest + (1e-3 if cv2.getVersionMajor() >= 5 else 0.06)


def test_exact_paste_keeps_a_step_in_its_place() -> None:
    """The right half of a patch begins at the middle of its place, whatever the scale."""
    values = np.zeros((64, 64), np.float32)
    values[:, 32:] = 1
    for side in (64, 100, 200, 333):
        pasted = Patch(values, Box.from_xywh(7, 3, side, side)).paste(400, 400) > 0.5
        assert abs(np.flatnonzero(pasted[side // 2])[0] - (7 + side / 2)) <= 0.5


def test_released_paste_is_the_released_formula() -> None:
    """The whole frame warped with a map of (out - 1) / size, outside -1, as the released code writes it."""
    values, place, (width, height) = smooth(127), Box.from_xywh(-20.3, 31.7, 150.5, 150.5), (200, 160)
    s = 127 / place.w
    a, b = (width - 1) / (width * s), (height - 1) / (height * s)
    forward = np.array([[a, 0, a * place.x * s], [0, b, b * place.y * s]])
    expected = cv2.warpAffine(values, forward, (width, height), borderMode=cv2.BORDER_CONSTANT, borderValue=-1)
    pasted = Patch(values, place, "released").paste(width, height)
    # OpenCV 4 takes map places to 1/32 of a value only, and a shifted window then differs by as much
    np.testing.assert_allclose(pasted, np.maximum(expected, 0), atol=1e-4 if cv2.getVersionMajor() >= 5 else 0.05)


@given(st.integers(-300, 300), st.integers(-300, 300), st.integers(16, 600), st.sampled_from([64, 128]))
def test_a_crop_sees_its_own_patch_unchanged(x: int, y: int, side: int, size: int) -> None:
    crop = Crop(x, y, side, 256)
    values = smooth(size)
    np.testing.assert_allclose(Patch(values, crop.place).seen_by(crop, size), values, atol=0.02)


def test_another_crop_sees_the_patch_where_it_is() -> None:
    box = Box.from_xywh(40, 30, 20, 10)
    there = Crop(0, 0, 100, 256)
    patch = filled(box, there.place, 128)
    other = Crop(20, 10, 64, 256)
    expected = filled(box, other.place, 128).values
    assert np.abs(patch.seen_by(other, 128) - expected).mean() < 0.01
    assert not patch.seen_by(Crop(300, 300, 64, 256), 128).any()


def test_a_fine_mask_is_averaged_not_stepped_over() -> None:
    """A mask with a value for each pixel, seen on a coarse grid, keeps its area though its lines are thin."""
    values = np.zeros((600, 600), np.float32)
    values[:, ::4] = 1
    seen = Patch(values, Box.from_xywh(0, 0, 600, 600)).seen_by(Crop(0, 0, 600, 256), 128)
    assert seen.mean() == pytest.approx(0.25, abs=0.02)


@given(boxes, crops)
def test_filled_box_has_the_area_of_the_box(box: Box, crop: Crop) -> None:
    patch = filled(box, crop.place, 128)
    x, y, w, h = crop.place.xywh
    across = max(0.0, min(box.x + box.w, x + w) - max(box.x, x))
    down = max(0.0, min(box.y + box.h, y + h) - max(box.y, y))
    area = float(patch.values.mean(dtype=np.float64)) * crop.place.area
    assert area == pytest.approx(across * down, rel=1e-4, abs=1e-3)


def test_cut_to_a_box_leaves_nothing_outside() -> None:
    box = Box.from_xywh(25, 25, 50, 40)
    patch = Patch(np.ones((100, 100), np.float32), Box.from_xywh(0, 0, 100, 100)).cut_to(box)
    assert Box.from_mask(patch.values > 0) == box
    assert patch.values.sum() == box.area


# Checks


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        [[0]],
    ],
    ids=["grey", "one channel", "four channels", "float", "empty", "list"],
)
def test_frames_that_are_not_frames(frame: object) -> None:
    with pytest.raises(InputError, match="expected"):
        check_frame(frame)  # type: ignore[arg-type]


def test_frame_of_another_size_is_named_with_both_sizes() -> None:
    with pytest.raises(InputError, match="5x4 but tracking began on 6x4"):
        check_frame(np.zeros((4, 5, 3), np.uint8), (6, 4))


@pytest.mark.parametrize(
    "box",
    [
        Box(math.nan, 5, 5, 5),
        Box(5, 5, math.inf, 5),
        Box(5, 5, 0, 5),
        Box(5, 5, 5, -1),
        Box(500, 5, 5, 5),
        Box.from_xywh(99, 0, 20, 20),
    ],
    ids=["nan", "infinite", "no width", "negative", "outside", "one column left"],
)
def test_boxes_that_cannot_be_used(box: Box) -> None:
    with pytest.raises(InputError, match="Box"):
        check_box(box, 100, 80)


def test_box_is_cut_to_the_frame() -> None:
    assert check_box(Box.from_xywh(-10, 70, 30, 30), 100, 80) == Box.from_xywh(0, 70, 20, 10)
