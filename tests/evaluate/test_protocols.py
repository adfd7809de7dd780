"""Protocols against the numbers of the official toolkits (tests/golden/davis, tests/golden/ope)."""

import json
from pathlib import Path

import numpy as np
import pytest

from siammask.errors import InputError
from siammask.evaluate.overlap import box_iou, contour_accuracy, region_similarity
from siammask.evaluate.protocols import (
    centre_error,
    davis,
    got10k,
    got10k_overlaps,
    one_pass_scores,
    precision_curve,
    success_curve,
)

GOLDEN = Path(__file__).parents[1] / "golden"
DAVIS = json.loads((GOLDEN / "davis" / "expected.json").read_text())
OPE = json.loads((GOLDEN / "ope" / "expected.json").read_text())
BOXES = json.loads((GOLDEN / "ope" / "boxes.json").read_text())
EXACT = 1e-9


@pytest.mark.parametrize("predicted", ["drift", "mixed"])
@pytest.mark.parametrize("sequence", ["dog", "bmx-trees"])
def test_davis_is_the_official_code(sequence, predicted):
    packed = np.load(GOLDEN / "davis" / "masks.npz")
    t, h, w = (int(v) for v in packed[f"{sequence}/shape"])
    truth, drawn = (
        np.unpackbits(packed[f"{sequence}/{name}"], axis=1)[:, : h * w].reshape(t, h, w).astype(bool)
        for name in ("ground_truth", predicted)
    )
    expected = DAVIS["sequences"][sequence]["predictions"][predicted]
    for name, measure in (("J", region_similarity), ("F", contour_accuracy)):
        values = np.array([measure(a, b) for a, b in zip(truth, drawn, strict=True)])
        np.testing.assert_allclose(values[1:-1], expected[f"{name}_per_frame"], rtol=0, atol=EXACT)
        statistics = davis(values)
        for figure in ("mean", "recall", "decay"):
            assert getattr(statistics, figure) == pytest.approx(expected[name][figure], abs=EXACT), (name, figure)


def test_davis_of_very_short_clips():
    assert davis(np.array([1.0, 0.0])) is None  # nothing between first and last
    one = davis(np.array([1.0, 0.6, 0.0]))
    assert (one.mean, one.recall, one.decay) == (0.6, 1.0, 0.0)
    assert davis(np.array([1, 0.5, 0.5, 0])).recall == 0  # strictly above one half


def _boxes(name):
    return np.array(BOXES[name]["ground_truth"], float), np.array(BOXES[name]["prediction"], float)


@pytest.mark.parametrize("name", list(OPE["per_sequence"]))
def test_one_pass_is_pysot_and_got10k(name):
    truth, predicted = _boxes(name)
    expected = OPE["per_sequence"][name]
    scores = one_pass_scores(truth, predicted)
    for ours, theirs in (
        (scores.success_auc, "success_auc"),
        (scores.precision, "precision_20px"),
        (scores.norm_precision, "norm_precision_0.20"),
        (scores.norm_precision_auc, "norm_precision_auc_0_to_0.5"),
    ):
        assert ours == pytest.approx(expected["pysot"][theirs], abs=EXACT), theirs
    np.testing.assert_allclose(success_curve(truth, predicted), expected["pysot"]["success_curve"], atol=EXACT, rtol=0)
    size = (BOXES[name]["width"], BOXES[name]["height"])
    for bound, suffix in ((size, ""), (None, "_unbounded")):
        figures = got10k(got10k_overlaps(truth, predicted, bound))
        for ours, theirs in ((figures.ao, "ao"), (figures.sr_50, "sr_0.5"), (figures.sr_75, "sr_0.75")):
            assert ours == pytest.approx(expected["got10k"][theirs + suffix], abs=EXACT), theirs + suffix


@pytest.mark.parametrize("name", [name for name, row in OPE["per_sequence"].items() if row["in_overall"]])
def test_frames_of_ordinary_sequences(name):
    truth, predicted = _boxes(name)
    expected = OPE["per_sequence"][name]
    np.testing.assert_allclose(box_iou(truth, predicted), expected["iou_per_frame"], atol=EXACT, rtol=0)
    error = expected["centre_error_per_frame"]  # stored with 6 decimals
    np.testing.assert_allclose(centre_error(truth, predicted), error, atol=5.1e-7, rtol=0)


def test_overall_is_the_mean_of_sequences_and_got10k_the_pool():
    names = [name for name, row in OPE["per_sequence"].items() if row["in_overall"]]
    scores = [one_pass_scores(*_boxes(name)) for name in names]
    expected = OPE["overall"]
    assert np.mean([s.success_auc for s in scores]) == pytest.approx(expected["otb"]["success_auc"], abs=EXACT)
    assert np.mean([s.precision for s in scores]) == pytest.approx(expected["otb"]["precision_20px"], abs=EXACT)
    curves = [precision_curve(centre_error(*_boxes(name)), np.arange(51.0)) for name in names]
    np.testing.assert_allclose(np.mean(curves, axis=0), expected["otb"]["precision_curve_0_to_50px"], atol=EXACT)
    overlaps = [got10k_overlaps(*_boxes(name), (BOXES[name]["width"], BOXES[name]["height"])) for name in names]
    pooled = got10k(np.concatenate(overlaps))
    assert (pooled.ao, pooled.sr_50, pooled.sr_75) == pytest.approx(
        (expected["got10k"]["ao"], expected["got10k"]["sr_0.5"], expected["got10k"]["sr_0.75"]), abs=EXACT
    )


def test_what_is_not_visible_counts_as_pysot_counts():
    truth = np.array([[10.0, 10, 20, 20], [0, 0, 0, 0]])
    scores = one_pass_scores(truth, truth)
    assert scores.success_auc == pytest.approx(20 / 21 / 2)  # never a success
    assert scores.precision == 1  # always a hit
    assert got10k(got10k_overlaps(truth, truth)) is None  # left out, as is the first frame


def test_boxes_that_do_not_pair_are_refused():
    with pytest.raises(InputError, match=r"\(3, 4\) and \(2, 4\)"):
        one_pass_scores(np.ones((3, 4)), np.ones((2, 4)))
