"""Tracking for long must not cost memory: resident size while 3,000 frames go by."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import RED, FakeEngine, scene

import siammask
from siammask import demo, weights
from siammask.geometry import Box, UInt8
from siammask.tracker import Tracker
from siammask.variants import DEFAULT, VARIANTS

STATM = Path("/proc/self/statm")
FRAMES, WARM, ALLOWED = 3000, 100, 20.0  # frames in all, frames before the first look, MB

pytestmark = pytest.mark.skipif(not STATM.exists(), reason="Resident size is read from /proc, which only Linux has.")


def resident() -> float:
    """Resident size of this process in MB."""
    gc.collect()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def growth(tracker: Tracker, frames: Iterator[UInt8], target: Box) -> float:
    """MB by which the process grew between frame WARM and the end, the results used and dropped."""
    before, state = 0.0, None
    for number, frame in enumerate(frames):
        state, result = tracker.start(frame, target) if state is None else tracker.step(state, frame)
        assert result.mask.shape == frame.shape[:2]
        assert result.rotated_box.w > 0
        if isinstance(tracker.engine, FakeEngine):
            tracker.engine.calls.clear()  # the fake's own diary
        if number == WARM:
            before = resident()
    return resident() - before


def walk() -> Iterator[UInt8]:
    """Small frames of a square that goes round."""
    for i in range(FRAMES):
        yield scene((Box(80 + 40 * np.cos(i / 30), 60 + 30 * np.sin(i / 30), 24, 24), RED), size=(160, 120))


def test_3000_frames():
    search = replace(VARIANTS[DEFAULT].search, exemplar_size=64, search_size=64)  # small crops, for speed
    variant = replace(VARIANTS[DEFAULT], search=search)
    grown = growth(Tracker(variant, FakeEngine(variant)), walk(), Box(120, 60, 24, 24))
    assert grown < ALLOWED


def test_the_measure_sees_masks_that_are_kept():
    before = resident()
    kept = [np.ones((120, 160), bool) for _ in range(FRAMES)]  # 19,200 bytes each
    assert resident() - before > ALLOWED
    assert len(kept) == FRAMES


def test_3000_frames_with_the_real_network():
    if not os.environ.get("SIAMMASK_LONG_TESTS"):
        pytest.skip("Takes minutes; set SIAMMASK_LONG_TESTS=1 to run it.")
    if DEFAULT not in weights.shipped():
        pytest.skip("The package holds no weights of the default model yet.")
    frames = (demo.draw_frame(i % demo.DRAWN_LENGTH)[0] for i in range(FRAMES))
    assert growth(siammask.load(threads=2), frames, demo.drawn_box()) < ALLOWED
