"""Weights are found in the package, or where the user says; otherwise the message names the path and the cure."""

from __future__ import annotations

import pytest

from siammask import weights
from siammask.errors import WeightsError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that ships one model."""
    home = tmp_path / "weights"
    (home / "walker").mkdir(parents=True)
    (home / "walker" / weights.CERTIFICATE).write_text("{}")
    (home / "walker" / weights.CHECKPOINT).write_bytes(b"")
    (home / "empty").mkdir()
    monkeypatch.setattr(weights, "SHIPPED", home)
    return home


def test_what_ships(package):
    assert weights.shipped() == ("walker",)
    assert weights.folder("walker") == package / "walker"
    assert weights.checkpoint("walker") == package / "walker" / "weights.safetensors"


def test_what_the_user_gives_comes_first(package, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / weights.CHECKPOINT).write_bytes(b"")
    (mine / "epoch9.safetensors").write_bytes(b"")
    assert weights.folder("walker", mine) == mine
    assert weights.checkpoint("walker", mine) == mine / "weights.safetensors"
    assert weights.checkpoint("walker", mine / "epoch9.safetensors") == mine / "epoch9.safetensors"


def test_what_is_missing_is_named_with_the_cure(package, tmp_path):
    with pytest.raises(
        WeightsError, match=r"no weights of 'runner'.*runner.*shipped with weights: walker.*give the path"
    ):
        weights.folder("runner")
    with pytest.raises(WeightsError, match=r"no weights of 'empty'.*weights\.safetensors.*give the path"):
        weights.checkpoint("empty")
    with pytest.raises(WeightsError, match=r"No weights of 'walker' at .*lost.*folder with exported graphs"):
        weights.folder("walker", tmp_path / "lost")
    with pytest.raises(WeightsError, match=r"No weights of 'walker' at .*lost\.pth.*checkpoint"):
        weights.checkpoint("walker", tmp_path / "lost.pth")
