"""The table of variants: every row can be searched with, and a misspelt setting is said."""

from __future__ import annotations

import pytest

from siammask.errors import InputError
from siammask.locate import AnchorLocator, GuidedLocator, PeakLocator, locator_for
from siammask.variants import DEFAULT, PRESETS, VARIANTS, parse_setting, variant


@pytest.mark.parametrize("name", VARIANTS)
def test_every_row_has_its_locator_and_its_name(name: str) -> None:
    row = variant(name)
    kind = {"rpn": AnchorLocator, "score": PeakLocator, "guided": GuidedLocator}[row.locate]
    assert row.name == name
    assert type(locator_for(row)) is kind
    assert row.backbone in str(row)


def test_the_default_is_guided_and_the_light_twins_have_the_light_backbone() -> None:
    assert VARIANTS[DEFAULT].mask == "guided"
    assert VARIANTS["siammask_light"].search.penalty_k == VARIANTS["siammask"].search.penalty_k
    assert VARIANTS["siammask_light"].backbone == "light"


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_search_settings(preset: str) -> None:
    row = variant("siammask").searching(**PRESETS[preset])
    for key, value in PRESETS[preset].items():
        assert getattr(row.search, key) == value
    assert row.name == "siammask"


def test_the_default_preset_is_the_default() -> None:
    assert variant("siammask").searching(**PRESETS["default"]) == variant("siammask")


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'siamask'.*siammask_2b"):
        variant("siamask")
    with pytest.raises(InputError, match=r"'penalty'.*penalty_k"):
        variant("siammask").searching(penalty=0.1)


def test_settings_as_they_are_written() -> None:
    assert parse_setting("lr=0.25") == ("lr", 0.25)
    assert parse_setting("patience=5") == ("patience", 5)
    assert isinstance(parse_setting("redraw_first=0")[1], bool)
    with pytest.raises(InputError, match=r"no search setting that takes a value is called 'lrr'; try .*lr"):
        parse_setting("lrr=1")
    with pytest.raises(InputError, match=r"'lr=fast': 'fast' is no number"):
        parse_setting("lr=fast")
    assert parse_setting("alignment=released") == ("alignment", "released")
    with pytest.raises(InputError, match=r"'follow=it': follow takes box or mask or peak"):
        parse_setting("follow=it")
