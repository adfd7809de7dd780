"""The anchor grid: the released shapes, decode and encode as inverses, labels by overlap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siammask.anchors import AnchorGrid, LabelRule, decode, encode, label, overlap
from siammask.geometry import Box

GRID = AnchorGrid()
truths = st.builds(Box, st.floats(-100, 100), st.floats(-100, 100), st.floats(8, 200), st.floats(8, 200))


def test_shapes_are_the_released_ones() -> None:
    """8 x 8 of ratio .33 .5 1 2 3, cut to whole numbers, times 8."""
    shapes = [tuple(GRID.boxes[2:, k, 0, 0]) for k in range(5)]
    assert shapes == [(104, 32), (88, 44 // 8 * 8), (64, 64), (40, 80), (32, 96)]
    assert GRID.boxes.shape == (4, 5, 25, 25)


def test_cells_run_row_then_column_about_the_centre() -> None:
    assert tuple(GRID.boxes[:2, 2, 12, 12]) == (0, 0)
    assert tuple(GRID.boxes[:2, 2, 12, 13]) == (8, 0)
    assert tuple(GRID.boxes[:2, 2, 0, 12]) == (0, -96)
    assert not GRID.boxes.flags.writeable


@given(truths)
def test_decode_undoes_encode(truth: Box) -> None:
    boxes = decode(encode(truth, GRID), GRID)
    expected = np.array([truth.cx, truth.cy, truth.w, truth.h]).reshape(4, 1, 1, 1)
    np.testing.assert_allclose(boxes, np.broadcast_to(expected, boxes.shape), rtol=1e-4, atol=1e-3)


@given(truths, st.integers(0, 4), st.integers(0, 24), st.integers(0, 24))
def test_overlap_is_that_of_boxes(truth: Box, k: int, row: int, col: int) -> None:
    anchor = Box(*(float(v) for v in GRID.boxes[:, k, row, col]))
    assert overlap(truth, GRID)[k, row, col] == pytest.approx(anchor.iou(truth), abs=1e-9)


def test_labels_of_a_truth_that_is_an_anchor() -> None:
    truth = Box(16, -8, 64, 64)
    labels = label(truth, GRID, np.random.default_rng(0))
    iou = overlap(truth, GRID)
    assert 1 <= (labels.kind == 1).sum() <= 16
    assert (labels.kind >= 0).sum() == 64
    assert iou[labels.kind == 1].min() > 0.6
    assert iou[labels.kind == 0].max() < 0.3
    assert labels.weight.sum() == pytest.approx(1)
    assert ((labels.weight > 0) == (labels.kind == 1)).all()
    assert labels.cell[11, 14] == 1
    assert labels.delta[:, 2, 11, 14] == pytest.approx(0)


def test_labels_are_chosen_anew_by_the_generator() -> None:
    truth = Box(0, 0, 64, 64)
    a, b, c = (label(truth, GRID, np.random.default_rng(seed)).kind for seed in (1, 1, 2))
    assert (a == b).all()
    assert (a != c).any()


def test_a_truth_no_anchor_fits_has_no_positive() -> None:
    labels = label(Box(0, 0, 8, 8), GRID, np.random.default_rng(0))
    assert not (labels.kind == 1).any()
    assert (labels.cell == -1).all()
    assert labels.weight.sum() == 0


def test_negative_pair_takes_negatives_around_the_other_object() -> None:
    labels = label(Box(0, 0, 64, 64), GRID, np.random.default_rng(0), negative_pair=True, rule=LabelRule(reach=3))
    assert (labels.kind == 0).sum() == 16
    assert not (labels.kind == 1).any()
    rows, cols = np.nonzero((labels.kind == 0).any(axis=0))
    assert rows.min() >= 10
    assert cols.max() <= 16
    assert labels.weight.sum() == 0


def test_negative_pair_far_outside_still_has_cells() -> None:
    labels = label(Box(5000, -5000, 64, 64), GRID, np.random.default_rng(0), negative_pair=True)
    assert (labels.kind == 0).sum() == 16


def test_a_truth_without_area_is_refused() -> None:
    with pytest.raises(ValueError, match="no area"):
        label(Box(0, 0, 0, 5), GRID, np.random.default_rng(0))
