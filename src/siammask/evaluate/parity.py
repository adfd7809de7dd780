"""How near one tracker is to another on the same frames: masks, boxes, scores, and time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from siammask.evaluate.overlap import region_similarity
from siammask.geometry import Box, UInt8
from siammask.tracker import Tracker, TrackResult


def parity(
    source: Tracker, ours: Tracker, frames: Iterable[UInt8], target: Box, together: bool = False
) -> dict[str, Any]:
    """Both track the same frames, in turns: how far apart, and how fast.

    Each goes on from its own results, or, `together`, ours begins each step where the source is, with its own memories:
    then the difference is that of single steps, and does not grow with them.

    Over all frames after the first: IoU of the two masks, differences of the boxes (x, y, w, h in pixels), of the
    scores, and of the masks' probabilities (over the pixels that either draws on); medians of the step's milliseconds,
    and how many times as fast as the source ours is.
    """
    frames = iter(frames)
    first = next(frames)
    states = [tracker.start(first, target)[0] for tracker in (source, ours)]
    exemplar = states[1].first
    ms: list[list[float]] = [[], []]
    found: dict[str, list[float]] = {"iou": [], "box": [], "score": [], "mask": [], "mask_max": []}
    for number, frame in enumerate(frames):
        if together:
            states[1] = replace(states[0], first=exemplar, last=states[1].last)
        results = []
        for i in (0, 1) if number % 2 else (1, 0):
            clock = perf_counter()
            states[i], result = (source, ours)[i].step(states[i], frame)
            ms[i].append((perf_counter() - clock) * 1e3)
            results.append(result)
        a, b = results
        found["iou"].append(region_similarity(a.mask, b.mask))
        found["box"].append(max(abs(v - w) for v, w in zip(a.box.xywh, b.box.xywh, strict=True)))
        found["score"].append(abs(a.score - b.score))
        apart = _apart(a, b)
        found["mask"].append(float(apart.mean()))
        found["mask_max"].append(float(apart.max()))
    slow, fast = (float(np.median(values)) for values in ms)
    mean = {name: float(np.mean(values)) for name, values in found.items()}
    return {
        "mask_iou": {"mean": mean["iou"], "min": min(found["iou"])},
        "box_px": {"mean": mean["box"], "max": max(found["box"])},
        "score": {"mean": mean["score"], "max": max(found["score"])},
        "mask": {"mean": mean["mask"], "max": max(found["mask_max"])},
        "step_ms": {"source": slow, "exported": fast, "times_as_fast": slow / fast},
    }


def _apart(a: TrackResult, b: TrackResult) -> np.ndarray:
    """Difference of two masks' probabilities at the pixels where either has any, (N,); one 0 where there are none."""
    pasted = [np.zeros(a.size[::-1], np.float32) if r.patch is None else r.patch.paste(*r.size) for r in (a, b)]
    somewhere = np.maximum(*pasted) > 0
    return np.abs(pasted[0] - pasted[1])[somewhere] if somewhere.any() else np.zeros(1, np.float32)
