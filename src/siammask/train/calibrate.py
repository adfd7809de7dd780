"""What the score of a model's weights must be turned by to be the overlap that its masks have.

python -m siammask.train.calibrate CONFIG WEIGHTS_FOLDER [--precision=bf16] [--threads=1]

Tracks the validation sequences of a run, and the harder ones where its config says so, and prints `score_scale` and
`score_shift` for the model's row in `variants.py`, with the calibration before and after. The two halves of the
sequences judge each other's fit, so that the figure after is not that of the frames it was fitted to.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from siammask.engines import open_engine
from siammask.evaluate.honesty import fit, honesty
from siammask.evaluate.overlap import Float64
from siammask.evaluate.protocols import one_pass
from siammask.evaluate.report import true_overlaps
from siammask.evaluate.sequences import Sequence
from siammask.tracker import Tracker, calibrated
from siammask.train import config
from siammask.train.loop import harder_sequences, validation_sequences
from siammask.train.tune import options
from siammask.variants import variant

Judged = tuple[Float64, Float64]  # scores and true overlaps, (n,) each


def main(arguments: list[str]) -> None:
    """Print the fit; errors as those of `siammask.train.tune`."""
    file, folder, *rest = arguments
    c = config.read(Path(file))
    row = variant(c.variant).searching(score_scale=1.0, score_shift=0.0)
    tracker = Tracker(row, open_engine(row, options(rest), Path(folder)))
    some = [judged(tracker, s) for s in (*validation_sequences(c), *harder_sequences(c))]
    scale, shift = fit(*joined(some))
    print(f"score_scale={scale:.3f} score_shift={shift:.3f}, from {len(joined(some)[0])} frames")
    told = [(turned(a, *fit(*joined(some[1 - i % 2 :: 2]))), b) for i, (a, b) in enumerate(some)]
    for name, values in (("before", some), ("after", told)):
        said = honesty(*joined(values))
        if said is not None:
            print(f"{name}: bias {said.bias:+.3f}, calibration error {said.error:.3f}, tells {said.tells}")


def judged(tracker: Tracker, sequence: Sequence) -> Judged:
    """One pass over a sequence: the scores of all frames but the first, and what they should have been."""
    trajectory = one_pass(tracker, sequence)
    return trajectory.scores[1:], true_overlaps(sequence, trajectory)[1:]


def joined(some: list[Judged]) -> Judged:
    """Frames of several sequences, one after another."""
    scores, overlaps = zip(*some, strict=True)
    return np.concatenate(scores), np.concatenate(overlaps)


def turned(scores: Float64, scale: float, shift: float) -> Float64:
    """Scores (n,) as they would be told with such a fit."""
    settings = variant("guided").searching(score_scale=scale, score_shift=shift).search
    return np.array([calibrated(float(score), settings) for score in scores])


if __name__ == "__main__":
    main(sys.argv[1:])
