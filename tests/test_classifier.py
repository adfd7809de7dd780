"""The target's own classifier."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siammask import classifier

M, C = 200, 6


def scene(seed: int, n: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, M, C) whose first two channels tell the target, and its mask (n, M)."""
    rng = np.random.default_rng(seed)
    mask = (rng.random((n, M)) < 0.3).astype(np.float32)
    features = rng.normal(0, 0.3, (n, M, C)).astype(np.float32)
    features[..., 0] += 2.0 * mask
    features[..., 1] -= 3.0 * mask
    return features, mask


def said(weights: np.ndarray, features: np.ndarray) -> np.ndarray:
    return np.einsum("...mc,...c->...m", features, weights[..., :-1]) + weights[..., None, -1]


@given(st.integers(0, 10_000))
def test_it_tells_the_target_from_what_stands_around(seed: int) -> None:
    features, mask = scene(seed)
    answers = said(classifier.fit(features, mask, 0.1), features)
    assert ((answers > 0) == (mask > 0.5)).mean() > 0.98
    assert answers[mask > 0.5].mean() == pytest.approx(1.0, abs=0.2)
    assert answers[mask < 0.5].mean() == pytest.approx(-1.0, abs=0.2)


@given(st.integers(0, 10_000), st.floats(0.1, 10.0), st.floats(-3.0, 3.0))
def test_neither_a_channels_unit_nor_its_zero_matters(seed: int, unit: float, zero: float) -> None:
    features, mask = scene(seed)
    other = features.copy()
    other[..., 3] = other[..., 3] * np.float32(unit) + np.float32(zero)
    ours, theirs = (said(classifier.fit(x, mask, 0.1), x) for x in (features, other))
    np.testing.assert_allclose(ours, theirs, atol=0.02)


def test_a_small_target_counts_as_much_as_what_is_around_it() -> None:
    features, mask = scene(1)
    few = np.zeros_like(mask)
    few[0, np.flatnonzero(mask[0])[:5]] = 1.0
    kept = (few > 0) | (mask < 0.5)
    weights = classifier.fit(features[kept][None], few[kept][None], 0.1)
    assert (said(weights, features)[few > 0] > 0.5).all()


def test_targets_of_a_batch_do_not_meet() -> None:
    features, mask = scene(2, n=3)
    together = classifier.fit(features, mask, 0.1)
    assert together.shape == (3, C + 1)
    assert together.dtype == np.float32
    for one in range(3):
        np.testing.assert_allclose(together[one], classifier.fit(features[one], mask[one], 0.1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_mask_of_all_or_nothing_gives_its_side_alone(value: float) -> None:
    features, mask = scene(3)
    answers = said(classifier.fit(features, np.full_like(mask, value), 0.1), features)
    np.testing.assert_allclose(answers, 2.0 * value - 1.0, atol=0.02)


def test_the_firmer_the_smaller() -> None:
    features, mask = scene(4)
    sizes = [np.abs(classifier.fit(features, mask, ridge)[..., :-1]).sum() for ridge in (0.01, 0.1, 1.0, 10.0)]
    assert sizes == sorted(sizes, reverse=True)
