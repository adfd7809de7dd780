"""Tracking for long must not cost memory: resident size while 3,000 frames go by.

Each case runs as a process of its own (`python tests/test_memory.py CASE` prints the growth in MB): in one that has
freed much before, what leaks would fill the holes unseen.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
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


def growth(tracker: Tracker, frames: Iterator[UInt8], target: Box, keep: bool = False) -> float:
    """MB by which the process grew between frame WARM and the end, the results used and dropped (or kept)."""
    before, state, kept = 0.0, None, []
    for number, frame in enumerate(frames):
        state, result = tracker.start(frame, target) if state is None else tracker.step(state, frame)
        mask, rotated = result.mask, result.rotated_box
        assert mask.shape == frame.shape[:2]
        assert rotated.w > 0
        if keep:
            kept.append(mask)
        if isinstance(tracker.engine, FakeEngine):
            tracker.engine.calls.clear()  # the fake's own diary
        if number == WARM:
            before = resident()
    return resident() - before


def walk() -> Iterator[UInt8]:
    """Small frames of a square that goes round."""
    for i in range(FRAMES):
        yield scene((Box(80 + 40 * np.cos(i / 30), 60 + 30 * np.sin(i / 30), 24, 24), RED), size=(160, 120))


def drawn() -> Iterator[UInt8]:
    """Frames of 640x360: the drawn clip over and over; drawn before, as drawing takes memory of its own."""
    clip = [demo.draw_frame(i)[0] for i in range(demo.DRAWN_LENGTH)]
    return islice(cycle(clip), FRAMES)


def measure(case: str) -> float:
    """Growth in MB of one case: fake, fake-keep (every mask is kept, 19,200 bytes each) or real."""
    if case == "real":
        return growth(siammask.load(threads=2), drawn(), demo.drawn_box())
    search = replace(VARIANTS[DEFAULT].search, exemplar_size=64, search_size=64)  # small crops, for speed
    variant = replace(VARIANTS[DEFAULT], search=search)
    keep = case == "fake-keep"
    frames = islice(walk(), FRAMES // 2 if keep else FRAMES)
    return growth(Tracker(variant, FakeEngine(variant)), frames, Box(120, 60, 24, 24), keep)


def in_a_process(case: str) -> float:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, __file__, case], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_3000_frames():
    assert in_a_process("fake") < ALLOWED


def test_the_measure_sees_masks_that_are_kept():
    assert in_a_process("fake-keep") > ALLOWED


def test_3000_frames_with_the_real_network():
    if not os.environ.get("SIAMMASK_LONG_TESTS"):
        pytest.skip("Takes minutes; set SIAMMASK_LONG_TESTS=1 to run it.")
    if DEFAULT not in weights.shipped():
        pytest.skip("The package holds no weights of the default model yet.")
    assert in_a_process("real") < ALLOWED


if __name__ == "__main__":
    print(measure(sys.argv[1]))
