"""Track an object through a video file and print where it is.

python examples/track_file.py clip.mp4 145,88,150,205
python examples/track_file.py                             the clip that comes with the package
"""

from __future__ import annotations

import sys

import siammask
from siammask import demo
from siammask.media import open_source


def main(arguments: list[str]) -> None:
    source = open_source(arguments[0]) if arguments else demo.bunny()
    box = siammask.Box.from_xywh(*map(float, arguments[1].split(","))) if arguments else demo.BUNNY_BOX
    tracker = siammask.load()
    for index, result in enumerate(tracker.follow((frame.pixels for frame in source), box)):
        place = result.rotated_box
        print(
            f"frame {index}: {result.mask.sum()} pixels around ({place.cx:.0f}, {place.cy:.0f}), "
            f"turned by {place.angle:.0f} degrees, score {result.score:.2f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
