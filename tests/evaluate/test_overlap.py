"""Overlaps against the official DAVIS code's numbers and against definitions written out slowly."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siammask.errors import InputError
from siammask.evaluate.overlap import boundary, box_iou, centres, contour_accuracy, region_similarity
from siammask.geometry import Box

GOLDEN = Path(__file__).parents[1] / "golden" / "davis"


def _masks(packed, name, pixels):
    _, height, width = (int(v) for v in packed[f"{pixels}/shape"])
    flat = np.unpackbits(packed[f"{pixels}/{name}"], axis=1)[:, : height * width]
    return flat.reshape(-1, height, width).astype(bool)


def test_edge_cases_of_the_official_code():
    packed = np.load(GOLDEN / "masks.npz")
    truth, predicted = _masks(packed, "ground_truth", "edge_cases"), _masks(packed, "prediction", "edge_cases")
    cases = json.loads((GOLDEN / "expected.json").read_text())["edge_cases"]
    assert len(cases) == len(truth) == len(predicted) > 20
    for case, t, p in zip(cases, truth, predicted, strict=True):
        assert region_similarity(t, p) == pytest.approx(case["J"], abs=1e-9), case["case"]
        assert contour_accuracy(t, p) == pytest.approx(case["F"], abs=1e-9), case["case"]


def _slow_f(truth, predicted):
    """F by looking at every pair of boundary pixels of the whole frame."""
    reach = math.ceil(0.008 * math.hypot(*truth.shape))
    t, p = np.argwhere(boundary(truth)), np.argwhere(boundary(predicted))
    if len(t) == 0 or len(p) == 0:
        return float(len(t) == len(p))
    near = ((t[:, None] - p[None]) ** 2).sum(-1) <= reach**2
    precision, recall = near.any(0).mean(), near.any(1).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(30, 40), (150, 200), (300, 240)]))
def test_f_is_the_definition(seed, shape):
    rng = np.random.default_rng(seed)
    pair = np.zeros((2, *shape), bool)
    for mask in pair:
        for _ in range(rng.integers(0, 3)):  # some boxes, often on the border
            y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
            mask[y : y + rng.integers(1, 20), x : x + rng.integers(1, 20)] = True
    assert contour_accuracy(*pair) == pytest.approx(_slow_f(*pair), abs=1e-12)


def test_boundary_lies_on_both_sides_and_not_on_the_border():
    mask = np.zeros((4, 5), bool)
    mask[:, 2:] = True
    expected = np.zeros((4, 5), bool)
    expected[:, 1] = True
    np.testing.assert_array_equal(boundary(mask), expected)
    assert not boundary(np.ones((4, 5), bool)).any()


def test_masks_of_two_sizes_are_refused():
    with pytest.raises(InputError, match=r"\(3, 4\) bool and \(4, 3\) bool"):
        region_similarity(np.zeros((3, 4), bool), np.zeros((4, 3), bool))
    with pytest.raises(InputError, match="uint8"):
        contour_accuracy(np.zeros((3, 4), bool), np.zeros((3, 4), np.uint8))


def test_box_iou():
    a = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 0, 0], [0.1, 0.2, 0.7, 0.3]])
    b = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [10, 0, 5, 5], [2, 2, 0, 5], [0, 0, 0, 0], [0.1, 0.2, 0.7, 0.3]])
    np.testing.assert_allclose(box_iou(a, b), [1, 1 / 3, 0, 0, 0, 1], atol=1e-15)
    assert box_iou(a, b).max() <= 1  # else "overlap above 1" would be a success


@given(st.lists(st.floats(-50, 50), min_size=4, max_size=4), st.lists(st.floats(0.1, 60), min_size=4, max_size=4))
def test_box_iou_is_that_of_the_box(corners, sizes):
    a, b = (*corners[:2], *sizes[:2]), (*corners[2:], *sizes[2:])
    both = box_iou(np.array([a, b]), np.array([b, a]))
    assert both[0] == both[1] == pytest.approx(Box.from_xywh(*a).iou(Box.from_xywh(*b)), abs=1e-9)


def test_centres_count_pixels():
    np.testing.assert_array_equal(centres(np.array([[0.0, 0, 1, 1], [2, 3, 5, 9]])), [[0, 0], [4, 7]])
