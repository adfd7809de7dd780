"""Mask pictures hold object ids, bit for bit, as other programs read them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siammask.errors import InputError, MediaError
from siammask.evaluate.sequences import read_indexed_png
from siammask.formats import Row
from siammask.formats.masks import MaskWriter, encode_indexed, merge
from siammask.geometry import Box, RotatedBox
from siammask.media import Frame
from siammask.media.draw import palette

PIXELS = np.zeros((48, 64, 3), np.uint8)


def row(mask: np.ndarray, object_id: int = 1, score: float = 0.9) -> Row:
    return Row(object_id, Box(5, 5, 4, 4), RotatedBox(5, 5, 4, 4, 0), mask, score, 1.0)


def block(y: int, x: int) -> np.ndarray:
    mask = np.zeros((48, 64), bool)
    mask[y : y + 10, x : x + 10] = True
    return mask


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_ids_survive(tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int) -> None:
    ids = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    path = tmp_path_factory.getbasetemp() / "ids.png"
    path.write_bytes(encode_indexed(ids))
    np.testing.assert_array_equal(read_indexed_png(path), ids)


def test_other_programs_see_the_colours_of_davis() -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    seen = cv2.imdecode(np.frombuffer(encode_indexed(ids), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(seen[..., ::-1], palette()[ids])


def test_files_are_numbered_by_source_frame(tmp_path: Path) -> None:
    writer = MaskWriter(tmp_path / "masks")
    for index in (3, 4, 100000):
        writer.write(Frame(index, 0.0, PIXELS), [row(block(index % 30, 5))])
    writer.close()
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["00003.png", "00004.png", "100000.png"]
    np.testing.assert_array_equal(read_indexed_png(tmp_path / "masks" / "00004.png"), block(4, 5).astype(np.uint8))


def test_several_objects_in_one_mask() -> None:
    ids = merge([row(block(0, 0), 1, 0.9), row(block(5, 5), 2, 0.6), row(block(30, 30), 7)], (48, 64))
    assert set(np.unique(ids)) == {0, 1, 2, 7}
    assert ids[7, 7] == 1  # both claim it; the surer one has it
    assert ids[12, 12] == 2


def test_no_object_is_an_empty_mask() -> None:
    assert not merge([], (48, 64)).any()


@pytest.mark.parametrize("object_id", [0, -1, 256])
def test_ids_that_do_not_fit(object_id: int) -> None:
    with pytest.raises(InputError, match=f"Object id is {object_id}"):
        merge([row(block(0, 0), object_id)], (48, 64))


def test_unwritable(tmp_path: Path) -> None:
    (tmp_path / "masks").write_text("in the way")
    with pytest.raises(MediaError, match="masks cannot be made"):
        MaskWriter(tmp_path / "masks")
    (tmp_path / "good" / "00001.png").mkdir(parents=True)
    with pytest.raises(MediaError, match=r"00001\.png cannot be written"):
        MaskWriter(tmp_path / "good").write(Frame(1, 0.0, PIXELS), [])
    assert [path.name for path in (tmp_path / "good").iterdir()] == ["00001.png"]
