"""How far two trackers are apart: nothing for one and itself, and as far as one is off otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fakes import RED, FakeEngine, scene

from siammask.evaluate.parity import parity
from siammask.geometry import Box
from siammask.tracker import Tracker
from siammask.variants import variant

GUIDED = variant("guided")
START = Box(100, 100, 40, 30)
FRAMES = [scene((replace(START, cx=100 + 4 * k), RED)) for k in range(6)]


class Off(FakeEngine):
    """Draws everything two cells (4 crop pixels) too far to the right."""

    def search(self, *args):  # type: ignore[no-untyped-def]
        found = super().search(*args)
        return replace(found, seen=np.roll(found.seen, 4, axis=1))


def test_parity_of_a_tracker_with_itself_and_with_another() -> None:
    source = Tracker(GUIDED, FakeEngine(GUIDED))
    same = parity(source, source, FRAMES, START)
    assert same["mask_iou"] == {"mean": 1, "min": 1}
    assert same["box_px"] == {"mean": 0, "max": 0}
    assert same["score"] == same["mask"] == {"mean": 0, "max": 0}
    assert same["step_ms"]["times_as_fast"] > 0
    other = parity(source, Tracker(GUIDED, Off(GUIDED)), FRAMES, START)
    assert other["mask_iou"]["min"] <= other["mask_iou"]["mean"] < 0.99
    assert other["box_px"]["max"] > 0.5
    assert 0 < other["mask"]["mean"] < other["mask"]["max"] <= 1


def test_together_each_step_begins_where_the_source_is() -> None:
    """The mask that a step is guided by is the source's own, though ours draws everything too far to the right."""
    for together in (True, False):
        source, ours = Tracker(GUIDED, FakeEngine(GUIDED)), Tracker(GUIDED, Off(GUIDED))
        parity(source, ours, FRAMES, START, together)
        theirs, mine = ([c[2] for c in t.engine.calls if c[0] == "search"][2:] for t in (source, ours))  # type: ignore[attr-defined]
        assert all(np.array_equal(a, b) for a, b in zip(theirs, mine, strict=True)) is together
