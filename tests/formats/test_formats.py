"""One row for each kind of result."""

from __future__ import annotations

import pytest

from siammask.errors import InputError
from siammask.formats import FORMATS, formats


def test_public_names_and_places() -> None:
    assert {name: row.path for name, row in FORMATS.items()} == {
        "overlay": "overlay.mp4",
        "masks": "masks",
        "csv": "track.csv",
    }


def test_list_with_commas() -> None:
    assert [form.name for form in formats("masks, csv,masks")] == ["masks", "csv"]


@pytest.mark.parametrize("names", ["", "overlay,gif", "csv;masks"])
def test_unknown_name(names: str) -> None:
    with pytest.raises(InputError, match="choose from overlay,masks,csv"):
        formats(names)
