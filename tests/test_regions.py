"""From mask to pixels, outline and runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from siammask import boxes, regions
from siammask.errors import InputError
from siammask.geometry import Box, Patch

SIZE = (200, 150)
BOX = Box.from_xywh(20, 30, 40, 50)


def patch_of(mask: np.ndarray, alignment: str = "exact") -> Patch:
    """One value for each pixel of the frame."""
    place = Box.from_xywh(0, 0, mask.shape[1], mask.shape[0])
    return Patch(mask.astype(np.float32), place, alignment)  # type: ignore[arg-type]


def test_without_a_patch_the_box_stands_for_the_mask() -> None:
    mask = regions.mask_of(None, 0.5, SIZE, BOX)
    assert mask.shape == (150, 200)
    assert Box.from_mask(mask) == BOX
    assert mask.sum() == BOX.area
    assert sorted(map(tuple, regions.polygon_of(None, 0.5, SIZE, BOX))) == [(20, 30), (20, 80), (60, 30), (60, 80)]


def test_a_box_over_the_rim_fills_only_the_frame() -> None:
    assert regions.mask_of(None, 0.5, SIZE, Box.from_xywh(-50, -50, 60, 70)).sum() == 10 * 20
    assert not regions.mask_of(None, 0.5, SIZE, Box.from_xywh(-50, -50, 20, 20)).any()


@given(arrays.arrays(np.bool_, (SIZE[1], SIZE[0]), elements=st.booleans(), fill=st.just(False)))
def test_mask_of_one_value_a_pixel_is_the_mask(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(regions.mask_of(patch_of(mask), 0.5, SIZE, BOX), mask)


def test_the_largest_part_is_taken() -> None:
    mask = np.zeros((SIZE[1], SIZE[0]), bool)
    mask[10:60, 10:60] = mask[100:120, 100:120] = True
    patch = patch_of(mask)
    assert regions.polygon_of(patch, 0.5, SIZE, BOX).max() == 59.5


def test_mask_polygon_and_boxes_share_one_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    windows: list[Patch] = []
    window = Patch.window
    monkeypatch.setattr(Patch, "window", lambda patch, *size: windows.append(patch) or window(patch, *size))
    patch = Patch(np.ones((8, 8), np.float32), BOX)
    mask = regions.mask_of(patch, 0.5, SIZE, BOX)
    regions.polygon_of(patch, 0.5, SIZE, BOX)
    boxes.rotated_box_of(patch, 0.5, SIZE, BOX)
    assert len(windows) == 1
    before = mask.sum()
    mask[:] = False  # the caller's own
    assert regions.mask_of(patch, 0.5, SIZE, BOX).sum() == before > 0
    regions.drawn(patch, 0.6, SIZE)
    assert len(windows) == 2
    with pytest.raises(ValueError, match="read-only"):
        regions.drawn(patch, 0.5, SIZE)[2][:] = False


@given(arrays.arrays(np.bool_, (20, 30), elements=st.booleans(), fill=st.just(False)))
def test_corners_of_an_outline_are_enough_for_its_box(mask: np.ndarray) -> None:
    whole, corners = regions.largest_contour(mask), regions.largest_contour(mask, corners=True)
    if whole is None or corners is None:
        assert whole is corners
        return
    assert len(corners) <= len(whole)
    one, other = boxes.smallest_box(whole), boxes.smallest_box(corners)
    assert one.w * one.h == pytest.approx(other.w * other.h, rel=1e-4)


def test_a_patch_outside_the_frame_is_empty() -> None:
    patch = Patch(np.ones((8, 8), np.float32), Box.from_xywh(500, 500, 50, 50))
    assert not regions.mask_of(patch, 0.5, SIZE, BOX).any()
    assert len(regions.polygon_of(patch, 0.5, SIZE, BOX)) == 4


@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_lengths_there_and_back(mask: np.ndarray) -> None:
    runs = regions.run_lengths(mask)
    assert sum(runs) == mask.size
    assert all(n > 0 for n in runs[1:])
    np.testing.assert_array_equal(regions.from_run_lengths(runs, mask.shape[1], mask.shape[0]), mask)


@pytest.mark.parametrize("runs", [[3, 2], [], [-1, 7]])
def test_runs_that_do_not_fill_the_mask(runs: list[int]) -> None:
    with pytest.raises(InputError, match="mask of 2x3 has 6"):
        regions.from_run_lengths(runs, 2, 3)
