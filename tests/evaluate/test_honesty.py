"""Scores beside the overlaps they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from siammask.errors import InputError
from siammask.evaluate.honesty import fit, honesty


def test_perfect_scores() -> None:
    overlaps = np.linspace(0, 1, 101)
    found = honesty(overlaps, overlaps)
    assert found is not None
    assert found.bias == pytest.approx(0)
    assert found.error == pytest.approx(0)
    assert found.tells == 1.0
    assert sum(b.frames for b in found.bins) == 101
    assert len(found.bins) == 10


def test_a_tracker_too_sure_of_itself() -> None:
    found = honesty(np.array([0.95, 0.95, 0.25]), np.array([0.9, 0.0, 0.25]))
    assert found is not None
    assert found.bias == pytest.approx((0.05 + 0.95) / 3)
    assert found.error == pytest.approx(2 / 3 * (0.95 - 0.45))  # the two share a bin; the third is right
    assert [b.frames for b in found.bins] == [1, 2]


@pytest.mark.parametrize(
    ("scores", "tells"),
    [
        ([0.9, 0.8, 0.2, 0.1], 1.0),
        ([0.1, 0.2, 0.8, 0.9], 0.0),
        ([0.5, 0.5, 0.5, 0.5], 0.5),
        ([0.9, 0.3, 0.5, 0.1], 0.75),
    ],
)
def test_how_well_scores_tell_tracked_frames_from_others(scores: list[float], tells: float) -> None:
    found = honesty(np.array(scores), np.array([0.8, 0.7, 0.3, 0.0]))
    assert found is not None
    assert found.tells == pytest.approx(tells)


def test_where_all_frames_are_tracked_there_is_nothing_to_tell() -> None:
    found = honesty(np.array([0.9, 0.2]), np.array([0.8, 0.6]))
    assert found is not None
    assert found.tells is None
    assert honesty(np.array([]), np.array([])) is None


def test_the_fit_finds_how_scores_were_turned() -> None:
    overlaps = np.random.default_rng(0).uniform(0.05, 0.95, 2000)
    logit = np.log(overlaps / (1 - overlaps))
    scores = 1 / (1 + np.exp(-(logit + 0.8) / 0.6))
    assert fit(scores, overlaps) == pytest.approx((0.6, -0.8), abs=0.01)


def test_scores_that_say_nothing_become_the_mean_overlap() -> None:
    scale, shift = fit(np.full(500, 0.9), np.full(500, 0.3))
    told = 1 / (1 + np.exp(-scale * np.log(9) - shift))
    assert told == pytest.approx(0.3, abs=0.01)


def test_a_fit_needs_frames() -> None:
    with pytest.raises(InputError, match="no scores"):
        fit(np.array([]), np.array([]))
