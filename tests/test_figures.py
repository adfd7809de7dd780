"""The script that makes the figures of the docs runs on a network that needs no weights."""

from itertools import islice

from fakes import FakeEngine

from docs import make_figures
from siammask import demo
from siammask.tracker import Tracker
from siammask.variants import DEFAULT, VARIANTS

GUIDED = Tracker(VARIANTS[DEFAULT], FakeEngine(VARIANTS[DEFAULT]))


def test_the_figure_shows_the_loop_itself():
    frames = [frame.pixels for frame in islice(demo.bunny(), 2)]
    state, first = GUIDED.start(frames[0], demo.BUNNY_BOX)
    _, result = GUIDED.step(state, frames[1])
    rows = make_figures.panels(GUIDED, state, frames, first, result)
    assert [len(row) for row in rows] == [4, 4]
    assert make_figures.stack(rows).ndim == 3
