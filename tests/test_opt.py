"""Opt against brute force, and the areas it is judged by against counted points."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siammask import opt
from siammask.boxes import box_of
from siammask.evaluate.sequences import read_indexed_png
from siammask.geometry import RotatedBox

GOLDEN = Path(__file__).parent / "golden"
EVAL = Path(__file__).parents[2] / "shared" / "data" / "eval" / "davis2016_val"

Random = np.random.Generator


def blobs(rng: Random, n: int) -> np.ndarray:
    """Up to three ellipses, one over another or apart."""
    mask, middle = np.zeros((n, n), np.uint8), n / 2
    for _ in range(rng.integers(1, 4)):
        centre = tuple(int(middle + v) for v in rng.normal(size=2) * n / 10)
        axes = tuple(int(v) for v in 1 + rng.uniform(0.08, 0.3, 2) * n)
        cv2.ellipse(mask, centre, axes, rng.uniform(0, 180), 0, 360, 1, -1)
    return mask.astype(bool)


def polygon(rng: Random, n: int) -> np.ndarray:
    mask = np.zeros((n, n), np.uint8)
    cv2.fillPoly(mask, [(n * (0.1 + 0.8 * rng.random((rng.integers(3, 8), 2)))).astype(np.int32)], 1)
    return mask.astype(bool)


def cloud(rng: Random, n: int) -> np.ndarray:
    """Smooth noise, cut: ragged, often in several parts, with holes."""
    y, x = np.mgrid[:n, :n] - n / 2
    noise = cv2.GaussianBlur(rng.standard_normal((n, n)), (0, 0), n / 10)
    return noise / noise.std() + 1.5 - 13 * (x * x + y * y) / n**2 > 0


def bar(rng: Random, n: int) -> np.ndarray:
    """A turned rectangle: next to nothing is left to pay, so the box must fit closely."""
    mask = np.zeros((n, n), np.uint8)
    w, h = rng.uniform(0.2, 0.8) * n, rng.uniform(0.1, 0.5) * n
    corners = RotatedBox(n / 2, n / 2, w, h, rng.uniform(-45, 45)).corners
    cv2.fillConvexPoly(mask, np.round(corners).astype(np.int32), 1)
    return mask.astype(bool)


def tracked(at_most: int = 60) -> list[np.ndarray]:
    """What a real network drew on a real clip (the released step's golden masks), at most `at_most` pixels wide."""
    with np.load(GOLDEN / "steps.npz") as steps:
        packed = [steps[f"{i}/out_mask_packed"] for i in range(24)]
    masks = [np.unpackbits(bits, count=854 * 480).reshape(480, 854) for bits in packed]
    return [smaller(mask, at_most) for mask in masks if mask.any()]


def smaller(mask: np.ndarray, at_most: int) -> np.ndarray:
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    part, factor = mask[y : y + h, x : x + w].astype(np.float32), min(1.0, at_most / max(w, h))
    size = (max(1, round(w * factor)), max(1, round(h * factor)))
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA) > 0.4) if factor < 1 else part > 0


def brute_force(mask: np.ndarray, alpha: float = opt.ALPHA) -> float:
    """The least cost over every rectangle of whole pixels at many angles, then by steps of every side and the angle."""
    return min(walked_down(mask, box, alpha) for box in best_rectangles(mask, alpha))


def brute_force_on_large(mask: np.ndarray, alpha: float = opt.ALPHA) -> float:
    """So too for a mask that touches all sides of its array: rectangles of its small picture, steps on the mask."""
    small = smaller(mask, 60)
    k = max(mask.shape) / max(small.shape)
    starts = [
        replace(box, cx=k * box.cx, cy=k * box.cy, w=k * box.w, h=k * box.h) for box in best_rectangles(small, alpha)
    ]
    return min(walked_down(mask, box, alpha, (k / 2, 1.0, 0.5, 0.25, 0.1)) for box in starts)


def best_rectangles(mask: np.ndarray, alpha: float) -> list[RotatedBox]:
    tried = [every_rectangle(mask, angle, alpha) for angle in np.arange(-45, 45, 3.0)]
    best = max(tried, key=lambda found: found[0])[1].angle
    tried += [every_rectangle(mask, best + turn, alpha) for turn in np.arange(-2.5, 2.6, 0.5)]
    return [box for _, box in sorted(tried, key=lambda found: -found[0])[:2]]


def every_rectangle(mask: np.ndarray, angle: float, alpha: float) -> tuple[float, RotatedBox]:
    """The rectangle of largest weight on the picture turned back by `angle`, and that weight."""
    (h, w), (c, s) = mask.shape, (math.cos(math.radians(angle)), math.sin(math.radians(angle)))
    n = math.ceil(math.hypot(h, w))
    half = (n - 1) / 2
    back = np.array([[c, -s, (w - 1) / 2 - (c - s) * half], [s, c, (h - 1) / 2 - (s + c) * half]])
    seen = cv2.warpAffine(mask.astype(np.float32), back, (n, n), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    (rows,), (columns,) = np.nonzero(seen.any(axis=1)), np.nonzero(seen.any(axis=0))
    seen = seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] * (1 + alpha) - 1
    down = np.vstack((np.zeros(seen.shape[1]), np.cumsum(seen, axis=0)))
    tops, bottoms = np.triu_indices(len(down), 1)
    sums = np.pad(np.cumsum(down[bottoms] - down[tops], axis=1), ((0, 0), (1, 0)))
    held = sums - np.minimum.accumulate(sums, axis=1)
    k, right = np.unravel_index(np.argmax(held), held.shape)
    left = int(np.argmin(sums[k, : right + 1]))
    u, v = (left + right) / 2 + columns[0] - n / 2, (tops[k] + bottoms[k]) / 2 + rows[0] - n / 2
    size = float(right - left), float(bottoms[k] - tops[k])
    return float(held[k, right]), RotatedBox(w / 2 + u * c - v * s, h / 2 + u * s + v * c, *size, float(angle))


def walked_down(
    mask: np.ndarray, box: RotatedBox, alpha: float, steps: tuple[float, ...] = (1.0, 0.5, 0.25, 0.1, 0.04)
) -> float:
    sums, area = opt._Sums.of(mask), np.count_nonzero(mask)

    def costs(boxes: list[RotatedBox]) -> np.ndarray:
        rows = np.array([astuple(b) for b in boxes])
        return alpha * area + rows[:, 2] * rows[:, 3] - (1 + alpha) * opt._covered(rows, sums)

    least = costs([box])[0]
    for step in steps:
        while True:
            c, s = math.cos(math.radians(box.angle)), math.sin(math.radians(box.angle))
            near = [replace(box, angle=box.angle + d) for d in (-step, step)]
            for d in (-step, step):
                for side in (-0.5, 0.5):
                    near.append(replace(box, w=box.w + d, cx=box.cx + side * d * c, cy=box.cy + side * d * s))
                    near.append(replace(box, h=box.h + d, cx=box.cx - side * d * s, cy=box.cy + side * d * c))
            near = [b for b in near if min(b.w, b.h) > 0]
            found = costs(near)
            if found.min() >= least - 1e-9:
                break
            least, box = found.min(), near[int(np.argmin(found))]
    return float(least)


def found_cost(mask: np.ndarray) -> float:
    box = box_of(mask, "opt")
    assert box is not None
    return opt.cost(box, mask)


def check(masks: list[np.ndarray], what: str) -> None:
    """Within 1 % of the brute-force optimum, or a twentieth of a pixel² where there is next to nothing to pay."""
    for i, mask in enumerate(masks):
        best = brute_force(mask)
        assert found_cost(mask) <= max(1.01 * best, best + 0.05), f"{what} {i}"


LONG = bool(os.environ.get("SIAMMASK_LONG_TESTS"))  # all 200 masks; else every fourth


@pytest.mark.parametrize(("draw", "count"), [(blobs, 50), (polygon, 50), (cloud, 40), (bar, 40)])
def test_random_masks_cost_at_most_one_percent_more_than_brute_force(
    draw: Callable[[Random, int], np.ndarray], count: int
) -> None:
    rng = np.random.default_rng(0)
    masks = [smaller(draw(rng, int(rng.integers(20, 48))), 100) for _ in range(count)]
    check(masks if LONG else masks[::4], draw.__name__)


def test_tracked_masks_cost_at_most_one_percent_more_than_brute_force() -> None:
    masks = tracked()
    assert len(masks) >= 20
    check(masks if LONG else masks[::4], "tracked")


def test_true_masks_of_davis_cost_at_most_one_percent_more_than_brute_force() -> None:
    if not EVAL.is_dir():
        pytest.skip("The DAVIS sequences are not beside this repository.")
    if not LONG:
        pytest.skip("Takes half a minute; set SIAMMASK_LONG_TESTS=1 to run it.")
    masks = [read_indexed_png(path) != 0 for path in sorted(EVAL.glob("*/masks/*.png"))[::12]]
    masks = [smaller(mask, 1000) for mask in masks if mask.any()]  # at their own size, cut out
    check([smaller(mask, 60) for mask in masks], "davis, small")
    for i, mask in enumerate(masks):
        assert found_cost(mask) <= 1.01 * brute_force_on_large(mask), f"davis {i}"


def test_a_large_mask_gets_the_box_of_its_small_picture() -> None:
    """What is searched is reduced; what is found is not."""
    for mask in tracked(60)[::3]:
        small, large = box_of(mask, "opt"), box_of(mask.repeat(5, axis=0).repeat(5, axis=1), "opt")
        assert small is not None
        assert large is not None
        large = replace(large, cx=large.cx / 5, cy=large.cy / 5, w=large.w / 5, h=large.h / 5)
        assert opt.cost(large, mask) == pytest.approx(opt.cost(small, mask), rel=0.01)


def test_a_large_full_box_is_its_own_box() -> None:
    """Its sides lie between pixels, not between the cells of the small picture."""
    found = box_of(np.ones((301, 417), bool), "opt")
    assert found == RotatedBox(208.5, 150.5, 417, 301, 0)


def test_dots_that_no_box_is_worth_have_the_one_around_all() -> None:
    mask = np.zeros((3000, 3000), bool)
    mask[0, 0] = mask[-1, -1] = True
    assert box_of(mask, "opt") == RotatedBox(1500, 1500, 3000, 3000, 0)


@pytest.mark.parametrize(
    ("rows", "box", "why"),
    [
        ([(10, 5, 45)] * 10, RotatedBox(25, 5, 40, 10, 0), "a full box is its own box"),
        ([(0, 0, 1)], RotatedBox(0.5, 0.5, 1, 1, 0), "one pixel"),
        ([(0, 3, 50)], RotatedBox(26.5, 0.5, 47, 1, 0), "a line one pixel thin"),
        ([(0, 5, 45)] * 10 + [(0, 20, 22)] * 3, RotatedBox(25, 5, 40, 10, 0), "a thin spur stays out: 2.7 x 2 < 40"),
        ([(0, 5, 45)] * 10 + [(0, 5, 35)] * 3, RotatedBox(25, 6.5, 40, 13, 0), "a wide step goes in: 2.7 x 30 > 40"),
    ],
)
def test_boxes_known_by_reasoning(rows: list[tuple[int, int, int]], box: RotatedBox, why: str) -> None:
    mask = np.zeros((len(rows), 60), bool)
    for y, (_, left, right) in enumerate(rows):
        mask[y, left:right] = True
    found = box_of(mask, "opt")
    assert found is not None
    assert opt.cost(found, mask) <= opt.cost(box, mask) + 0.01 * mask.sum(), why
    assert opt.box_mask_iou(found, mask) == pytest.approx(opt.box_mask_iou(box, mask), abs=0.03)


def test_nothing_is_left_of_chance() -> None:
    mask = cloud(np.random.default_rng(3), 60)
    assert box_of(mask, "opt") == box_of(mask.copy(), "opt")
    shifted = np.zeros((90, 100), bool)
    shifted[20:80, 30:90] = mask
    here, there = box_of(mask, "opt"), box_of(shifted, "opt")
    assert here is not None
    assert there is not None
    assert astuple(there) == pytest.approx((here.cx + 30, here.cy + 20, here.w, here.h, here.angle))


# Areas


@given(
    st.builds(
        RotatedBox, st.floats(-5, 20), st.floats(-5, 20), st.floats(0.1, 25), st.floats(0.1, 25), st.floats(-180, 180)
    ),
    st.integers(0, 1000),
)
def test_areas_are_those_of_counted_points(box: RotatedBox, seed: int) -> None:
    mask, fine = np.random.default_rng(seed).random((12, 16)) > 0.5, 20
    y, x = (np.mgrid[: 12 * fine, : 16 * fine] + 0.5) / fine
    c, s = math.cos(math.radians(box.angle)), math.sin(math.radians(box.angle))
    along, across = (x - box.cx) * c + (y - box.cy) * s, (y - box.cy) * c - (x - box.cx) * s
    inside = (np.abs(along) <= box.w / 2) & (np.abs(across) <= box.h / 2)
    counted = (inside & mask.repeat(fine, axis=0).repeat(fine, axis=1)).sum() / fine**2
    # a side lies between two rows of points: off by half their distance along its length, at most
    assert opt.box_area_on(box, mask) == pytest.approx(counted, abs=1e-3 + 0.5 * (box.w + box.h) * 2 / fine)


def test_cost_and_overlap_by_hand() -> None:
    mask = np.zeros((10, 10), bool)
    mask[2:6, 3:8] = True  # 20 pixels
    box = RotatedBox(5, 4.25, 4, 3.5, 0)  # x 3 to 7, y 2.5 to 6: 14 of them
    assert opt.box_area_on(box, mask) == pytest.approx(14, abs=1e-4)
    assert opt.cost(box, mask) == pytest.approx(2.7 * 6 + 0, abs=1e-3)
    assert opt.cost(replace(box, h=7.5), mask) == pytest.approx(2.7 * 4 + 30 - 16, abs=1e-3)
    assert opt.box_mask_iou(box, mask) == pytest.approx(14 / 20, abs=1e-5)
    assert opt.box_mask_iou(replace(box, angle=90.0, w=3.5, h=4), mask) == pytest.approx(14 / 20, abs=1e-5)
    assert opt.box_mask_iou(box, np.zeros((5, 5), bool)) == 0
