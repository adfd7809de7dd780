"""Several targets in one clip: each is tracked as if it were alone, and the network is called once a frame for all."""

from __future__ import annotations

import numpy as np

from siammask.errors import InputError
from siammask.geometry import Box, UInt8, check_frame
from siammask.tracker import Tracker, TrackerState, TrackResult


class MultiTracker:
    """Targets that come and go, by id (1, 2, ... in the order in which they were added; none is given twice).

    ```python
    targets = MultiTracker(siammask.load())
    ball = targets.add(first_frame, Box.from_xywh(145, 88, 50, 50))
    dog = targets.add(first_frame, mask_of_the_dog)
    for frame in frames:
        results = targets.step(frame)
        results[ball].rotated_box, results[dog].mask
    ```
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._states: dict[int, TrackerState] = {}
        self._results: dict[int, TrackResult] = {}
        self._added = 0

    @property
    def results(self) -> dict[int, TrackResult]:
        """The newest result of each target there is; for one that was just added, that of the frame it began on."""
        return dict(self._results)

    def add(self, frame: UInt8, target: Box | np.ndarray) -> int:
        """Begin a target on `frame` with a box or a mask (see `Tracker.start`); give its id.

        Add it on the frame that `step` saw last, or on the first one. Raises InputError for what `Tracker.start` cannot
        use, and for a frame that has not the size of the others.
        """
        for state in self._states.values():
            check_frame(frame, state.size)
        state, result = self._tracker.start(frame, target)
        self._added += 1
        self._states[self._added], self._results[self._added] = state, result
        return self._added

    def remove(self, target: int) -> None:
        """Forget a target; raise InputError, naming those there are, where there is none of that id."""
        if target not in self._states:
            there = ", ".join(map(str, self._states)) or "none"
            raise InputError(f"No target has the id {target!r}; there are: {there}.")
        del self._states[target], self._results[target]

    def step(self, frame: UInt8) -> dict[int, TrackResult]:
        """Find every target on the next frame; raise InputError for a frame that has not the size of the first."""
        found = self._tracker.step_many(tuple(self._states.values()), frame)
        for target, (state, result) in zip(tuple(self._states), found, strict=True):
            self._states[target], self._results[target] = state, result
        return self.results
