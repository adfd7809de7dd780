"""Masks out of annotations, against arithmetic and against what COCO's own tools wrote."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siammask.data import shapes
from siammask.errors import InputError
from siammask.regions import run_lengths

# pycocotools 2.0.11, `mask.encode` of `ring()`
RING = (
    "VZ2=[24L4L4M2N2M4M2O0O2N2N2N2O0O2O0O2O0O2O0O2O0O2O000O2O000O2O00POVO0j0OXO0h0OZO0e00]O0b0O@0`00@0`0O"
    "B0>0B0>OD0<0D0<0D0<0D0<0D0<0D0<0D0<0D0<0D0<0D0<0D0<0D0<0D0<1B0>0B0>1@0`00@0`01^O0c00[O0f01XO0h01VO0j"
    "0P1001N10001N10001N101N101N101N10YOhNMV14jNLV14jNMT14lNMR14nNMP14POMn04ROLn04ROMl04TONh04XOMf04ZOMd0"
    "4\\ON`04@N<4DN84H_1000000000"
)
# the same tools' `frPyObjects` of POLYGON on 120x90
POLYGON = [30.2, 10.6, 80.9, 12.3, 77.1, 60.4, 50.5, 44.0, 20.7, 70.8]
OF_POLYGON = (
    "Tm14`25J6K5K5J7J5J6K5M31O1O1O1O1O100O1O1O1O1O1O1O1O1O100O1O1O1O1001O1O00100O001O001O1O001O1O001O001O"
    "1O001O001O1O001OM3C=C=Df]3"
)


def ring() -> np.ndarray:
    y, x = np.mgrid[:90, :120]
    mask = ((x - 70) / 45) ** 2 + ((y - 40) / 30) ** 2 < 1
    mask &= ((x - 70) / 15) ** 2 + ((y - 40) / 10) ** 2 >= 1
    mask[85:, 100:] = True
    return mask


def compress(counts: list[int]) -> str:
    """COCO's text of run lengths, written the other way round."""
    text = ""
    for place, count in enumerate(counts):
        value = count - (counts[place - 2] if place > 2 else 0)
        while True:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


def test_text_of_coco() -> None:
    np.testing.assert_array_equal(shapes.run_lengths([90, 120], RING)(90, 120), ring())


def test_polygon_agrees_with_coco_but_for_its_edge() -> None:
    """COCO rounds corners to a fifth of a pixel and takes part of the edge in."""
    ours = shapes.coco([POLYGON])(90, 120)  # type: ignore[misc]
    theirs = shapes.run_lengths([90, 120], OF_POLYGON)(90, 120)
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.97
    assert abs(int(ours.sum()) - area(np.reshape(POLYGON, (-1, 2)))) < 10


def area(points: np.ndarray) -> float:
    x, y = points.T
    return abs(float((x * np.roll(y, 1) - y * np.roll(x, 1)).sum())) / 2


@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=40))
def test_text_round_trip(counts: list[int]) -> None:
    assert shapes.decompress(compress(counts)) == counts


def test_numbers_run_down_the_columns() -> None:
    mask = ring()
    counts = run_lengths(mask.T)
    np.testing.assert_array_equal(shapes.run_lengths([90, 120], counts)(90, 120), mask)


def test_pixels_whose_centres_are_inside() -> None:
    square = np.array([[10, 10], [20, 10], [20, 20], [10, 20]], float)
    mask = shapes.inside(square, 40, 40)
    assert mask.sum() == 100
    assert mask[10:20, 10:20].all()
    np.testing.assert_array_equal(shapes.inside(square[::-1] + 0.4, 40, 40), mask)
    assert shapes.inside(square - 15, 40, 40).sum() == 25  # what lies beyond the frame is cut off
    assert shapes.inside(square + 35, 40, 40).sum() == 0


def test_parts_are_joined_though_they_overlap() -> None:
    square = [0, 0, 4, 0, 4, 4, 0, 4]
    shifted = [value + 2 for value in square]
    assert shapes.coco([square, shifted])(10, 10).sum() == 16 + 16 - 4  # type: ignore[misc]


@pytest.mark.parametrize("nothing", [None, [], {}])
def test_no_segmentation(nothing: object) -> None:
    assert shapes.coco(nothing) is None


@pytest.mark.parametrize(
    ("segmentation", "word"),
    [
        ([[1, 2, 3, 4]], "has 4 coordinates"),
        ([[1, 2, 3, 4, 5, 6, 7]], "has 7 coordinates"),
        ([[1, 2, 3, 4, 5, "x"]], "no number"),
        ([[1, 2, 3, 4, 5, float("nan")]], "not finite"),
        ("text", "is a str"),
    ],
)
def test_what_is_no_segmentation(segmentation: object, word: str) -> None:
    with pytest.raises(InputError, match=word):
        shapes.coco(segmentation)


def test_runs_of_another_picture() -> None:
    with pytest.raises(InputError, match="are for 120x90"):
        shapes.run_lengths([90, 120], RING)(10, 10)
    with pytest.raises(InputError, match="add up to 5"):
        shapes.run_lengths([2, 2], [5])(2, 2)
    with pytest.raises(InputError, match="the character"):
        shapes.decompress("\x01")
