"""One object followed through one source, every frame handed to the writers: what `siammask track` and the demo do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from siammask.formats import Format, Row
from siammask.formats.base import make_folder
from siammask.geometry import Box
from siammask.media import Frame, Source, TruncatedError
from siammask.tracker import Tracker, TrackResult

Each = Callable[[Frame, Row], None]  # called with every frame that is done


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of a run."""

    first: int  # index of the first tracked frame
    frames: int
    score: float  # mean over the frames, in [0, 1]
    step_ms: float  # mean time from decoded frame to mask and rotated box, without the first frame and its start-up
    seconds: float  # the whole run: reading, tracking and writing
    paths: tuple[Path, ...]  # what was written
    broken: TruncatedError | None  # why the source ended early
    interrupted: bool  # by Ctrl-C

    @property
    def fps(self) -> float:
        """Frames a second from decoded frame to mask and rotated box."""
        return 1000 / self.step_ms if self.step_ms else 0.0


def track(
    tracker: Tracker,
    source: Source,
    target: Box | np.ndarray,
    out: Path,
    formats: Sequence[Format],
    *,
    start: int = 0,
    object_id: int = 1,
    each: Each | None = None,
) -> Summary:
    """Follow `target` from frame `start` to the end of the source and write the results below `out`, frame by frame.

    Nothing is written before the tracker has accepted the first frame. Where the source breaks, or on Ctrl-C, the
    writers finish what they have and the summary says so. Raises InputError (box, mask, start), MediaError (a source
    that gives nothing, results that cannot be written; what was written before that is finished too).
    """
    begin = perf_counter()
    ms: list[float] = []
    scores: list[float] = []
    broken, interrupted, state = None, False, None
    with ExitStack() as stack:
        writers = []
        frames = stack.enter_context(closing(source.frames(start)))
        try:
            for frame in frames:
                clock = perf_counter()
                state, result = (
                    tracker.start(frame.pixels, target) if state is None else tracker.step(state, frame.pixels)
                )
                row = _row(object_id, result, clock)
                if not ms:
                    _clear(out, formats)
                    for form in formats:
                        writers.append(stack.enter_context(closing(form.open(out / form.path, source))))
                for writer in writers:
                    writer.write(frame, [row])
                ms.append(row.ms)
                scores.append(row.score)
                if each is not None:
                    each(frame, row)
        except TruncatedError as error:
            if not ms:
                raise
            broken = error
        except KeyboardInterrupt:
            if not ms:
                raise
            interrupted = True
    return Summary(
        start,
        len(ms),
        sum(scores) / len(scores),
        sum(ms[1:]) / max(1, len(ms) - 1),
        perf_counter() - begin,
        tuple(writer.path for writer in writers),
        broken,
        interrupted,
    )


def _row(object_id: int, result: TrackResult, clock: float) -> Row:
    """The row of a result that has been worked on since `clock`."""
    mask, rotated = result.mask, result.rotated_box
    return Row(object_id, result.box, rotated, mask, result.score, (perf_counter() - clock) * 1e3)


def _clear(out: Path, formats: Sequence[Format]) -> None:
    """Make the folder; take away the numbered masks of an earlier run, which would otherwise mix with the new ones.

    Only where an earlier `track.csv` or `overlay.mp4` shows that the masks are such results.
    """
    make_folder(out)
    if any(f.name == "masks" for f in formats) and any((out / name).is_file() for name in ("track.csv", "overlay.mp4")):
        for old in (out / "masks").glob("[0-9][0-9][0-9][0-9][0-9]*.png"):
            old.unlink()
