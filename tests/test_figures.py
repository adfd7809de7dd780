"""The scripts that make the figures of the docs run, on a network without weights and on the runs that are kept."""

from itertools import islice

from fakes import FakeEngine

from docs import make_curves, make_figures
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


def test_the_curves_are_those_of_the_runs_that_are_kept(tmp_path, monkeypatch):
    found = make_curves.points()
    assert [run for run, *_ in found] == sorted((run for run, *_ in found), key=make_curves.CHAIN.index)
    clips = [seen for _, seen, _ in found]
    assert clips == sorted(clips)
    monkeypatch.setattr(make_curves, "OUT", tmp_path / "curves.svg")
    make_curves.main()
    drawn = (tmp_path / "curves.svg").read_text()
    assert drawn.count("<polyline") == 3
    assert f"{clips[-1]:,}" in drawn
