"""Objects followed through one source, every frame handed to the writers: what `siammask track` and the demo do.

Reading, tracking and each writer have a thread of their own, so a run takes little longer than its slowest part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from siammask.errors import InputError
from siammask.formats import Format, Row, Writer
from siammask.formats.base import make_folder
from siammask.geometry import Box
from siammask.media import Frame, Source, TruncatedError
from siammask.multi import MultiTracker
from siammask.pipeline import Ahead, Behind
from siammask.tracker import Tracker, TrackResult

Each = Callable[[Frame, Sequence[Row]], None]  # called with every frame that is done
_Done = tuple[Frame, Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of a run."""

    first: int  # index of the first tracked frame
    last: int  # index of the last one
    frames: int  # that were tracked and written
    dropped: int  # that a live source gave while the tracker was busy
    objects: int
    score: float  # mean over frames and objects, in [0, 1]
    step_ms: float  # mean time from decoded frame to masks and rotated boxes, without the first frame and its start-up
    seconds: float  # the whole run: reading, tracking and writing
    paths: tuple[Path, ...]  # what was written
    broken: TruncatedError | None  # why the source ended early
    interrupted: bool  # by Ctrl-C

    @property
    def fps(self) -> float:
        """Frames a second from decoded frame to all masks and rotated boxes."""
        return 1000 / self.step_ms if self.step_ms else 0.0


@dataclass(slots=True)
class _Tally:
    """What has been handed to the writers so far."""

    frames: int = 0
    last: int = -1
    score: float = 0.0  # sums, a frame's score being the mean of its objects'
    ms: float = 0.0  # without the first frame

    def add(self, frame: Frame, rows: Sequence[Row]) -> None:
        self.ms += sum(row.ms for row in rows) if self.frames else 0.0
        self.score += sum(row.score for row in rows) / len(rows)
        self.last = frame.index
        self.frames += 1


def track(
    tracker: Tracker,
    source: Source,
    targets: Sequence[Box | np.ndarray],
    out: Path,
    formats: Sequence[Format],
    *,
    start: int = 0,
    each: Each | None = None,
) -> Summary:
    """Follow targets from frame `start` to the end of the source and write the results below `out`, frame by frame.

    Their object ids are 1, 2, ... in the order in which they are given.

    The tracker runs in the caller's thread, and so does `each`. A live source is not made to wait: the tracker gets its
    newest frame, and those between are dropped and counted.
    Nothing is written before the tracker has accepted the first frame. Where the source breaks, or on Ctrl-C, the
    writers finish what they have and the summary says so. Raises InputError (box, mask, start), MediaError (a source
    that gives nothing, results that cannot be written; what was written before that is finished too).
    """
    if not targets:
        raise InputError("There is nothing to track; give at least one box or mask.")
    begin = perf_counter()
    tally, many = _Tally(), MultiTracker(tracker)
    stopped: TruncatedError | KeyboardInterrupt | None = None
    writers: list[Writer] = []
    with ExitStack() as stack:
        frames = stack.enter_context(closing(Ahead(source.frames(start), newest=source.live)))
        lanes: list[Behind[_Done]] = []

        def hand_over(done: _Done) -> None:
            """To every writer or, in a thread that Ctrl-C does not reach, to none."""
            for lane in lanes:
                lane.put(done)
            tally.add(*done)

        try:
            for frame in frames:
                clock = perf_counter()
                if not many.results:
                    for target in targets:
                        many.add(frame.pixels, target)
                    rows = _rows(many.results, clock)
                    _clear(out, formats)
                    for form in formats:
                        writers.append(form.open(out / form.path, source))
                        lanes.append(stack.enter_context(closing(_lane(writers[-1]))))
                    results = stack.enter_context(closing(Behind(hand_over)))
                else:
                    rows = _rows(many.step(frame.pixels), clock)
                results.put((frame, rows))
                if each is not None:
                    each(frame, rows)
        except (TruncatedError, KeyboardInterrupt) as error:
            stopped = error
    if stopped is not None and not tally.frames:
        raise stopped
    return Summary(
        start,
        tally.last,
        tally.frames,
        frames.dropped,
        len(targets),
        tally.score / tally.frames,
        tally.ms / max(1, tally.frames - 1),
        perf_counter() - begin,
        tuple(writer.path for writer in writers),
        stopped if isinstance(stopped, TruncatedError) else None,
        isinstance(stopped, KeyboardInterrupt),
    )


def _lane(writer: Writer) -> Behind[_Done]:
    """A writer that works in its own thread, and is closed there."""
    return Behind(lambda done: writer.write(*done), writer.close)


def _rows(results: Mapping[int, TrackResult], clock: float) -> list[Row]:
    """The rows of results that have been worked on since `clock`; each took its share of that time."""
    drawn = [(result.mask, result.rotated_box) for result in results.values()]
    ms = (perf_counter() - clock) * 1e3 / len(results)
    return [
        Row(target, result.box, rotated, mask, result.score, ms)
        for (target, result), (mask, rotated) in zip(results.items(), drawn, strict=True)
    ]


def _clear(out: Path, formats: Sequence[Format]) -> None:
    """Make the folder; take away the numbered masks of an earlier run, which would otherwise mix with the new ones.

    Only where an earlier `track.csv` or `overlay.mp4` shows that the masks are such results.
    """
    make_folder(out)
    if any(f.name == "masks" for f in formats) and any((out / name).is_file() for name in ("track.csv", "overlay.mp4")):
        for old in (out / "masks").glob("[0-9][0-9][0-9][0-9][0-9]*.png"):
            old.unlink()
