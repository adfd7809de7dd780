"""The guided engine: embed, search and remember, alike on both runtimes; what it cannot use it says."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pytest

pytest.importorskip("torch", reason="the network is made with torch")
from lively import guided_network

from siammask import demo
from siammask.engines.base import Graphs, Search
from siammask.engines.guided import GuidedEngine, GuidedResponse
from siammask.engines.openvino import OpenVinoGraphs
from siammask.engines.torch import TorchGraphs
from siammask.errors import InputError
from siammask.geometry import Box, Float32, UInt8
from siammask.network import guided
from siammask.network.export import convert, to_onnx
from siammask.tracker import Tracker
from siammask.variants import variant

GUIDED = variant("guided")
SIZE = GUIDED.search.search_size
EMPTY = np.zeros((GUIDED.search.guide_size,) * 2, np.float32)


@pytest.fixture(scope="module")
def engines() -> dict[str, GuidedEngine]:
    """The same seeded network in all runtimes that are installed."""
    network = guided_network()
    specs = guided.graph_specs(network)
    models = {name: convert(spec) for name, spec in specs.items()}
    made = {
        "torch": GuidedEngine(TorchGraphs(guided.graphs(network), "f32"), GUIDED),
        "openvino": GuidedEngine(OpenVinoGraphs(models, "f32", threads=1), GUIDED),
    }
    if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime"):
        from siammask.engines.onnxruntime import OnnxGraphs

        files = {name: to_onnx(spec) for name, spec in specs.items()}
        made["onnxruntime"] = GuidedEngine(OnnxGraphs(files, threads=1), GUIDED)
    return made


@pytest.fixture(params=["torch", "openvino", "onnxruntime"])
def engine(request: pytest.FixtureRequest, engines: dict[str, GuidedEngine]) -> GuidedEngine:
    if request.param not in engines:
        pytest.skip("ONNX needs the extra 'onnx'.")
    return engines[request.param]


def crop(shift: int = 0) -> UInt8:
    """A coloured square on a ground with a gradient."""
    ys, xs = np.mgrid[:SIZE, :SIZE]
    pixels = np.stack([xs // 3, ys // 3, (xs + ys) // 6], 2).astype(np.uint8)
    pixels[90:170, 80 + shift : 180 + shift] = (40, 200, 230)
    return pixels


def mask(shift: int = 0) -> Float32:
    made = EMPTY.copy()
    made[45:85, 40 + shift // 2 : 90 + shift // 2] = 1.0
    return made


def test_embed_then_search(engine: GuidedEngine) -> None:
    memory = engine.embed(crop(), mask(), drawn=True)
    found = engine.search((memory, memory), crop(10), mask(10))
    assert found.score.shape == (1, 16, 16)
    assert found.delta is None
    assert 0 <= found.confidence <= 1
    patch = found.mask(3, 5)
    assert patch.values.shape == (128, 128)
    assert patch.place == Box.from_xywh(0, 0, SIZE, SIZE)
    for values in (patch.values, found.score):
        assert values.dtype == np.float32
        assert ((values >= 0) & (values <= 1)).all()
    np.testing.assert_array_equal(patch.values, found.mask(9, 1).values)  # one mask for the whole crop


def test_what_a_search_saw_can_be_remembered(engine: GuidedEngine) -> None:
    """Remembering a search costs no second look: it equals embedding the same crop with the same mask."""
    memory = engine.embed(crop(), mask(), drawn=True)
    found = engine.search((memory, memory), crop(10), mask(10))
    patch = found.mask(0, 0)
    again = engine.embed(crop(10), patch.values, drawn=True)
    for name, value in found.remember(patch).items():
        np.testing.assert_allclose(value, again[name], atol=2e-4, err_msg=name)


def test_runtimes_agree(engine: GuidedEngine, engines: dict[str, GuidedEngine]) -> None:
    """To 1e-3 of a probability in f32, over a chain of embedding, search, memory and search."""
    ours, wanted = seen(engine), seen(engines["torch"])
    np.testing.assert_allclose(ours.mask(0, 0).values, wanted.mask(0, 0).values, atol=1e-3)
    np.testing.assert_allclose(ours.score, wanted.score, atol=1e-3)
    assert ours.confidence == pytest.approx(wanted.confidence, abs=1e-3)


def seen(engine: GuidedEngine) -> GuidedResponse:
    first = engine.embed(crop(), mask(), drawn=False)
    drawn = engine.search((first, first), crop(), mask())
    return engine.search((first, drawn.remember(drawn.mask(0, 0))), crop(20), mask(10))


def test_searches_of_several_targets_are_those_of_each(engine: GuidedEngine) -> None:
    """Nine in one call (openvino: side by side, more than wait at a time), each as if alone."""
    memories = [engine.embed(crop(8 * i), mask(8 * i), drawn=True) for i in range(3)]

    def searches() -> Iterator[Search]:  # whoever takes one is alone to keep its pixels
        for i in range(9):
            yield Search((memories[i % 3], memories[-1]), crop(10 * i).copy(), mask(5 * i).copy())

    for search, found in zip(searches(), list(engine.search_many(searches())), strict=True):
        alone = engine.search(search.memory, search.pixels, search.guide)
        np.testing.assert_allclose(found.mask(0, 0).values, alone.mask(0, 0).values, atol=1e-4)
        np.testing.assert_allclose(found.score, alone.score, atol=1e-4)
        assert found.confidence == pytest.approx(alone.confidence, abs=1e-4)
        for name, value in found.remember(found.mask(0, 0)).items():
            np.testing.assert_allclose(value, alone.remember(found.mask(0, 0))[name], atol=1e-3, err_msg=name)


@dataclass(frozen=True)
class Counted:
    """Graphs that note what they are asked to run, and for how many at once."""

    graphs: Graphs
    asked: list[tuple[str, int]]

    def __getattr__(self, name: str) -> object:
        return getattr(self.graphs, name)

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.asked.append((graph, len(next(iter(inputs.values())))))
        return self.graphs.run(graph, inputs)


def test_a_memory_is_made_once(engines: dict[str, GuidedEngine]) -> None:
    """At the next search, however many targets share it, and like one that is looked at by itself."""
    graphs = Counted(engines["torch"].graphs, [])
    engine = replace(engines["torch"], graphs=graphs)
    one, other = engine.embed(crop(), mask(), drawn=True), engine.embed(crop(40), mask(40), drawn=False)
    assert graphs.asked == [("search", 1)] * 2
    list(engine.search_many([Search((one, other), crop(), mask()), Search((one, one), crop(), mask())]))
    assert graphs.asked[2:] == [("memorise", 1)] * 2  # and a batch of searches, which `Counted` does not see
    engine.search((one, other), crop(), mask())
    assert graphs.asked[4:] == [("search", 1)]
    for name, value in engines["torch"].embed(crop(40), mask(40), drawn=False).items():
        np.testing.assert_allclose(other[name], value, atol=1e-3, err_msg=name)


def test_targets_share_an_engine(engine: GuidedEngine) -> None:
    one, other = engine.embed(crop(), mask(), drawn=True), engine.embed(crop(40), mask(40), drawn=True)
    before = engine.search((one, one), crop(10), mask()).mask(0, 0).values
    engine.search((other, other), crop(30), mask(40))
    np.testing.assert_array_equal(engine.search((one, one), crop(10), mask()).mask(0, 0).values, before)


def test_a_box_is_remembered_otherwise_than_a_drawing(engine: GuidedEngine) -> None:
    drawn, box = (engine.embed(crop(), mask(), drawn=d) for d in (True, False))
    assert (drawn["value"] != box["value"]).any()
    np.testing.assert_array_equal(drawn["key"], box["key"])


def test_name_and_precision_are_the_runtimes(engines: dict[str, GuidedEngine]) -> None:
    assert all((engine.name, engine.precision) == (name, "f32") for name, engine in engines.items())


def test_a_mask_is_needed(engine: GuidedEngine) -> None:
    with pytest.raises(InputError, match="together with a mask; give one, or a filled box"):
        engine.embed(crop(), None, drawn=False)
    memory = engine.embed(crop(), mask(), drawn=True)
    with pytest.raises(InputError, match="searches with the last mask; give an empty one"):
        engine.search((memory, memory), crop(), None)


def test_the_small_sister_tracks_alike_in_both_runtimes() -> None:
    """Other sizes, same engine: what is exported draws what torch draws, its own memory and last mask included."""
    row = variant("guided_small")
    network = guided_network(name=row.name)
    models = {name: convert(spec) for name, spec in guided.graph_specs(network).items()}
    engines = (
        GuidedEngine(TorchGraphs(guided.graphs(network), "f32"), row),
        GuidedEngine(OpenVinoGraphs(models, "f32", threads=1), row),
    )
    frames = [frame.pixels for frame in islice(demo.drawn(), 4)]
    ours, wanted = ([*Tracker(row, engine).follow(frames, demo.drawn_box())] for engine in engines)
    for a, b in zip(ours, wanted, strict=True):
        assert a.patch is not None
        assert b.patch is not None
        assert a.patch.values.shape == (row.shape.mask, row.shape.mask)
        np.testing.assert_allclose(a.patch.values, b.patch.values, atol=5e-3)
        assert a.box.xywh == pytest.approx(b.box.xywh, abs=0.5)
        assert a.score == pytest.approx(b.score, abs=5e-3)
    assert ours[1].patch is not None
    assert ours[1].patch.values.std() > 1e-3  # something is drawn
