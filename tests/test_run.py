"""A run in threads gives what a run in one thread gives, whatever ends it."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import RED, FakeEngine, scene

from siammask import run
from siammask.errors import InputError, MediaError
from siammask.formats import FORMATS, Format, Row
from siammask.geometry import Box
from siammask.media import Frame, Source, TruncatedError, open_source
from siammask.tracker import Tracker
from siammask.variants import DEFAULT, VARIANTS

COUNT = 12
TRACKER = Tracker(VARIANTS[DEFAULT], FakeEngine(VARIANTS[DEFAULT]))
ALL = tuple(FORMATS.values())


def place(index: int) -> Box:
    return Box.from_xywh(60 + 4 * index, 80 + 2 * index, 60, 60)


def walk(count: int = COUNT, breaks: bool = False) -> Source:
    """A red square that walks."""

    def read(start: int) -> Iterator[Frame]:
        for index in range(start, count):
            yield Frame(index, index / 25, scene((place(index), RED)))
        if breaks:
            raise TruncatedError("The source breaks.", count)

    return Source("walk", (320, 240), 25.0, count, read)


def serially(source: Source, out: Path) -> None:
    """The same, one thing after another."""
    state = None
    out.mkdir()
    writers = [form.open(out / form.path, source) for form in ALL]
    for frame in source:
        state, result = TRACKER.start(frame.pixels, place(0)) if state is None else TRACKER.step(state, frame.pixels)
        row = Row(1, result.box, result.rotated_box, result.mask, result.score, 0.0)
        for writer in writers:
            writer.write(frame, [row])
    for writer in writers:
        writer.close()


def written(out: Path) -> dict[str, Any]:
    """What a run left, without the times it took."""
    with (out / "track.csv").open() as file:
        rows = [{key: value for key, value in row.items() if key != "ms"} for row in csv.DictReader(file)]
    masks = {path.name: path.read_bytes() for path in sorted((out / "masks").iterdir())}
    video = [(frame.time, frame.pixels.tobytes()) for frame in open_source(out / "overlay.mp4")]
    return {"rows": rows, "masks": masks, "video": video}


class Slow:
    """A writer that takes its time, and may fail at one frame."""

    def __init__(self, path: Path, wait: float = 0.0, fails: int | None = None) -> None:
        self.path, self.wait, self.fails = path, wait, fails
        self.frames: list[int] = []
        self.closed = 0

    def write(self, frame: Frame, rows: Sequence[Row]) -> None:
        if frame.index == self.fails:
            raise MediaError("The disk is full.")
        time.sleep(self.wait)
        self.frames.append(frame.index)

    def close(self) -> None:
        self.closed += 1


def kind(writer: Slow) -> Format:
    return Format("slow", "slow", lambda path, source: writer)


def test_threads_change_no_result(tmp_path: Path) -> None:
    serially(walk(), tmp_path / "serial")
    seen = []
    summary = run.track(
        TRACKER, walk(), [place(0)], tmp_path / "threads", ALL, each=lambda frame, rows: seen.append(frame.index)
    )
    assert written(tmp_path / "threads") == written(tmp_path / "serial")
    assert seen == list(range(COUNT))
    assert (summary.first, summary.last, summary.frames, summary.dropped) == (0, COUNT - 1, COUNT, 0)
    assert summary.paths == tuple(tmp_path / "threads" / form.path for form in ALL)


def test_stages_overlap(tmp_path: Path) -> None:
    """While frame 0 is being written frame 1 is tracked and frame 2 is read; in one thread that would wait in vain."""
    writing, tracked, read = threading.Event(), threading.Event(), threading.Event()
    waited = []

    def reading(start: int) -> Iterator[Frame]:
        for frame in walk(4).read(start):
            if frame.index == 2:
                waited.append(writing.wait(20))
                read.set()
            yield frame

    class Meeting(Slow):
        def write(self, frame: Frame, rows: Sequence[Row]) -> None:
            if frame.index == 0:
                writing.set()
                waited.extend((read.wait(20), tracked.wait(20)))
            super().write(frame, rows)

    def each(frame: Frame, rows: Sequence[Row]) -> None:
        if frame.index == 1:
            tracked.set()

    writer = Meeting(tmp_path)
    run.track(TRACKER, replace(walk(4), read=reading), [place(0)], tmp_path, [kind(writer)], each=each)
    assert waited == [True] * 3
    assert writer.frames == list(range(4))


def test_a_live_source_is_not_made_to_wait(tmp_path: Path) -> None:
    """Frame 0 is being written until the source is at its end."""
    ended = threading.Event()

    def reading(start: int) -> Iterator[Frame]:
        yield from walk(40).read(start)
        ended.set()

    class Waiting(Slow):
        def write(self, frame: Frame, rows: Sequence[Row]) -> None:
            assert ended.wait(20)
            super().write(frame, rows)

    writer = Waiting(tmp_path)
    summary = run.track(TRACKER, replace(walk(40), read=reading, live=True), [place(0)], tmp_path, [kind(writer)])
    assert writer.frames[0] == 0  # the frame that the box belongs to
    assert writer.frames[-1] == summary.last == 39
    assert writer.frames == sorted(set(writer.frames))
    assert summary.frames == len(writer.frames) < 20
    assert summary.dropped == 40 - summary.frames


def test_an_error_of_a_writer_arrives_as_it_is_and_the_others_finish(tmp_path: Path) -> None:
    broken, good = Slow(tmp_path, fails=3), Slow(tmp_path)
    with pytest.raises(MediaError, match="The disk is full"):
        run.track(TRACKER, walk(200), [place(0)], tmp_path, [kind(broken), kind(good)])
    assert broken.frames == [0, 1, 2]
    assert good.frames == list(range(len(good.frames)))
    assert 3 <= len(good.frames) < 200
    assert broken.closed == good.closed == 1


def test_a_source_that_breaks_keeps_every_frame_before(tmp_path: Path) -> None:
    writer = Slow(tmp_path, wait=0.01)
    summary = run.track(TRACKER, walk(6, breaks=True), [place(0)], tmp_path, [kind(writer)])
    assert str(summary.broken) == "The source breaks."
    assert writer.frames == list(range(6))
    assert summary.frames == 6
    with pytest.raises(TruncatedError, match="breaks"):
        run.track(TRACKER, walk(0, breaks=True), [place(0)], tmp_path, [])


@pytest.mark.parametrize("at", [0, 5])
def test_ctrl_c_finishes_what_was_tracked(tmp_path: Path, at: int) -> None:
    writers = [Slow(tmp_path, wait=0.02), Slow(tmp_path)]

    def each(frame: Frame, rows: Sequence[Row]) -> None:
        if frame.index == at:
            raise KeyboardInterrupt

    summary = run.track(TRACKER, walk(), [place(0)], tmp_path, [kind(writer) for writer in writers], each=each)
    assert summary.interrupted
    assert summary.last == at
    assert [writer.frames for writer in writers] == [list(range(at + 1))] * 2
    assert [writer.closed for writer in writers] == [1, 1]


def test_ctrl_c_before_the_first_result_is_an_interruption(tmp_path: Path) -> None:
    class Interrupted(FakeEngine):
        def embed(self, *args: Any) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.track(replace(TRACKER, engine=Interrupted(TRACKER.variant)), walk(), [place(0)], tmp_path / "out", ALL)
    assert not (tmp_path / "out").exists()


def test_memory_is_bounded_by_the_depth_of_the_lanes(tmp_path: Path) -> None:
    """Frames that are read and not yet written, while the writer is slowest."""
    read = 0

    def counted(start: int) -> Iterator[Frame]:
        nonlocal read
        for frame in walk(60).read(start):
            read += 1
            yield frame

    most = 0

    class Counting(Slow):
        def write(self, frame: Frame, rows: Sequence[Row]) -> None:
            nonlocal most
            super().write(frame, rows)
            most = max(most, read - len(self.frames))

    run.track(TRACKER, replace(walk(), read=counted), [place(0)], tmp_path, [kind(Counting(tmp_path, wait=0.01))])
    assert most < 20


def test_nothing_to_track_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to track"):
        run.track(TRACKER, walk(), [], tmp_path / "out", ALL)
    assert not (tmp_path / "out").exists()


def test_no_thread_stays(tmp_path: Path) -> None:
    run.track(TRACKER, walk(), [place(0)], tmp_path, ALL)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("siammask")]
