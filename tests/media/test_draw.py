"""Painting changes what it should and nothing else; the palette is that of DAVIS."""

from __future__ import annotations

import numpy as np
import pytest

from siammask.geometry import Box, RotatedBox
from siammask.media.draw import colour_of, paint, palette

FRAME = np.full((120, 160, 3), 90, np.uint8)


@pytest.mark.parametrize(
    ("index", "colour"),
    [
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),
        (2, (0, 128, 0)),
        (3, (128, 128, 0)),
        (4, (0, 0, 128)),
        (8, (64, 0, 0)),
        (20, (0, 64, 128)),
        (255, (224, 224, 192)),
    ],
)
def test_palette_of_davis(index: int, colour: tuple[int, int, int]) -> None:
    assert tuple(palette()[index].tolist()) == colour


def test_palette_tells_all_objects_apart() -> None:
    assert palette().shape == (256, 3)
    assert len(np.unique(palette(), axis=0)) == 256


def test_mask_is_tinted_and_the_rest_is_left() -> None:
    mask = np.zeros((120, 160), bool)
    mask[40:80, 50:100] = True
    out = paint(FRAME, mask)
    inner, outer = out[50:70, 60:90], np.ones((120, 160), bool)
    outer[34:86, 44:106] = False
    assert (inner[..., 2] > 150).all()  # red, as object 1
    assert (inner[..., 0] < 60).all()
    np.testing.assert_array_equal(out[outer], FRAME[outer])
    assert (FRAME == 90).all()


def test_outline_is_brighter_than_the_tint() -> None:
    mask = np.zeros((120, 160), bool)
    mask[40:80, 50:100] = True
    out = paint(FRAME, mask)
    assert out[40, 75].astype(int).sum() > out[60, 75].astype(int).sum() + 50


def test_boxes_lie_where_they_are_said_to() -> None:
    nothing = np.zeros((120, 160), bool)
    out = paint(FRAME, nothing, box=Box.from_xywh(40, 30, 60, 50))
    rows, columns = np.nonzero((out != FRAME).any(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((30, 80, 40, 100), abs=2)
    turned = paint(FRAME, nothing, rotated=RotatedBox(80, 60, 60, 20, 90))
    rows, columns = np.nonzero((turned != FRAME).any(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((30, 90, 70, 90), abs=4)


@pytest.mark.parametrize(
    "box", [None, Box(80, 60, 40, 30), Box(2, 2, 30, 30), Box(158, 118, 30, 30), Box(-500, 900, 9, 9)]
)
def test_label_stays_inside_the_frame(box: Box | None) -> None:
    out = paint(FRAME, np.zeros((120, 160), bool), label="1  0.93", box=box)
    plate = (out == np.array(colour_of(1), np.uint8)).all(axis=2)
    assert plate.sum() > 200


def test_empty_mask_and_no_label_change_nothing() -> None:
    out = paint(FRAME, np.zeros((120, 160), bool))
    np.testing.assert_array_equal(out, FRAME)
    assert out is not FRAME


def test_objects_have_their_own_colours() -> None:
    assert len({colour_of(index) for index in range(1, 8)}) == 7
    mask = np.ones((120, 160), bool)
    assert not np.array_equal(paint(FRAME, mask, object_id=1), paint(FRAME, mask, object_id=2))
