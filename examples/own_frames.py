"""Track two objects at once on frames that the program already has, here two shapes that it draws itself.

python examples/own_frames.py
"""

from __future__ import annotations

import numpy as np

import siammask
from siammask import demo


def main(count: int = 30) -> None:
    frames = [demo.draw_frame(index)[0] for index in range(count)]
    frames = [np.hstack([frame, frame[::-1]]) for frame in frames]  # the second is the first upside down
    left = demo.drawn_box()
    right = siammask.Box(left.cx + 640, 360 - left.cy, left.w, left.h)

    tracker = siammask.load()
    states = [tracker.start(frames[0], box)[0] for box in (left, right)]  # all that is remembered of each object
    for index, frame in enumerate(frames[1:], 1):
        steps = [tracker.step(state, frame) for state in states]
        states = [state for state, _ in steps]
        places = ", ".join(f"({result.box.cx:.0f}, {result.box.cy:.0f})" for _, result in steps)
        print(f"frame {index}: {places}")


if __name__ == "__main__":
    main()
