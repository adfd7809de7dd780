"""What the graphs of the released family mean, and that both runtimes say the same through the same tracker."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from fakes import BACKGROUND, RED, scene

from siammask.engines import EngineOptions, open_engine
from siammask.engines.base import Search
from siammask.engines.siamese import SiameseEngine
from siammask.errors import InputError, WeightsError
from siammask.geometry import Box
from siammask.tracker import Tracker
from siammask.variants import Variant, variant

ONNX = importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime")


class Given:
    """Graphs that answer what they are told to, and keep what they were asked."""

    name, precision = "given", "f32"

    def __init__(self, **answers: dict[str, np.ndarray]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, np.ndarray]]] = []

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.asked.append((graph, dict(inputs)))
        return self.answers[graph]


def answers(row: Variant, n: int = 25) -> Given:
    random = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return random.standard_normal((1, *shape)).astype(np.float32)

    rpn = row.locate == "rpn"
    seen = {"score_logits": draw(10 if rpn else 1, n, n), "correlation": draw(8, n, n)}
    if rpn:
        seen["delta"] = draw(20, n, n)
    seen |= {"p0": draw(2, 125, 125), "p1": draw(2, 63, 63), "p2": draw(2, 31, 31)}
    return Given(
        embed={"kernel_score": draw(8, 5, 5)},
        search=seen,
        refine={"mask": draw(127, 127)},
        vector={"mask": draw(63, 63)},
    )


def ask(row: Variant, graphs: Given):
    z, x = row.search.exemplar_size, row.search.search_size
    engine = SiameseEngine(graphs, row)
    memory = engine.embed(np.zeros((z, z, 3), np.uint8), None, False)
    return engine.search((memory,), np.zeros((x, x, 3), np.uint8), None)


def test_score_is_a_softmax_in_the_released_order():
    graphs = answers(variant("siammask"))
    response = ask(variant("siammask"), graphs)
    logits = graphs.answers["search"]["score_logits"].astype(np.float64)
    for anchor, row, col in [(0, 0, 0), (3, 7, 20), (4, 24, 24)]:
        background, target = np.exp(logits[0, [anchor, 5 + anchor], row, col])
        assert response.score[anchor, row, col] == pytest.approx(target / (background + target), rel=1e-5)
        delta = graphs.answers["search"]["delta"][0, 5 * 2 + anchor, row, col]  # released order: coordinate, anchor
        assert response.delta[2, anchor, row, col] == delta
    assert response.score.shape == (5, 25, 25)
    assert response.score.dtype == np.float32
    assert response.confidence is None


def test_score_without_anchors_is_logistic_and_survives_extremes():
    graphs = answers(variant("siammask_2b"))
    logits = graphs.answers["search"]["score_logits"]
    logits[0, 0, 0, :4] = 0, 1000, -1000, 2
    response = ask(variant("siammask_2b"), graphs)
    np.testing.assert_allclose(response.score[0, 0, :4], [0.5, 1, 0, 1 / (1 + np.exp(-2))], rtol=1e-6)
    assert response.delta is None


@pytest.mark.parametrize(
    ("row", "col", "left", "top"),
    [(12, 12, 64, 64), (4, 4, 0, 0), (0, 24, 160, -32)],  # left = (col - 4) * 8
)
@pytest.mark.parametrize(("name", "size"), [("siammask", 127), ("siammask_base", 63)])
def test_masks_lie_where_the_released_code_puts_them(name, size, row, col, left, top):
    graphs = answers(variant(name))
    patch = ask(variant(name), graphs).mask(row, col)
    assert patch.values.shape == (size, size)
    assert patch.place.xywh == (left, top, 127, 127)
    assert patch.alignment == "released"
    asked, inputs = graphs.asked[-1]
    assert asked == ("refine" if name == "siammask" else "vector")
    np.testing.assert_array_equal(inputs["correlation"], graphs.answers["search"]["correlation"][:, :, row, col])


@pytest.mark.parametrize("cell", [(12, 12), (0, 24), (24, 0), (3, 20)])
def test_windows_are_those_of_padded_maps(cell):
    graphs = answers(variant("siammask"))
    ask(variant("siammask"), graphs).mask(*cell)
    _, inputs = graphs.asked[-1]
    for level, (pad, step, size) in enumerate([(16, 4, 61), (8, 2, 31), (4, 1, 15)]):
        padded = np.pad(graphs.answers["search"][f"p{level}"], [(0, 0), (0, 0), (pad, pad), (pad, pad)])
        y, x = step * cell[0], step * cell[1]
        np.testing.assert_array_equal(inputs[f"w{level}"], padded[:, :, y : y + size, x : x + size])


def test_only_the_cell_asked_for_is_drawn():
    graphs = answers(variant("siammask"))
    response = ask(variant("siammask"), graphs)
    assert [name for name, _ in graphs.asked] == ["embed", "search"]
    response.mask(1, 2)
    assert [name for name, _ in graphs.asked] == ["embed", "search", "refine"]


def test_other_crops_place_masks_about_their_own_middle():
    light = variant("siammask_base_light")  # 128 and 256
    assert ask(light, answers(light)).mask(12, 12).place.xywh == (64, 64, 128, 128)
    alexnet = replace(variant("siammask_base"), backbone="alexnet")  # 17 x 17 cells
    assert ask(alexnet, answers(alexnet, 17)).mask(8, 9).place.xywh == (72, 64, 127, 127)


def test_no_mask_and_no_memory_where_the_row_has_none():
    response = ask(variant("siamrpn"), answers(variant("siamrpn")))
    assert response.mask(0, 0) is None
    refined = ask(variant("siammask"), answers(variant("siammask")))
    assert refined.remember(refined.mask(12, 12)) is None


def test_crops_of_another_size_are_refused():
    engine = SiameseEngine(answers(variant("siammask")), variant("siammask"))
    with pytest.raises(InputError, match=r"Exemplar crop is \(255, 255, 3\) uint8; expected \(127, 127, 3\)"):
        engine.embed(np.zeros((255, 255, 3), np.uint8), None, False)
    with pytest.raises(InputError, match=r"Search crop is \(255, 255, 3\) float32"):
        engine.search(({},), np.zeros((255, 255, 3), np.float32), None)


# From here on with real networks and both runtimes.


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Weights folders (graphs and checkpoint) of two networks: the released one as seeded, and a light twin."""
    torch = pytest.importorskip("torch", reason="networks need the extra 'train'")
    import released

    from siammask.network import checkpoint, siamese
    from siammask.network.export import export

    torch.manual_seed(0)
    twin = variant("siammask_base_light")
    made = {"siammask": released.network(), twin.name: siamese.build(twin).eval()}
    found = {}
    for name, network in made.items():
        found[name] = tmp_path_factory.mktemp(name)
        export(siamese.graph_specs(network, variant(name)), found[name])
        checkpoint.save(network, found[name] / "weights.safetensors", {"variant": name})
    if ONNX:
        export(siamese.graph_specs(made[twin.name], twin), found[twin.name], "onnx")
    return found


def opened(folders, name: str, engine: str, precision: str = "f32"):
    options = EngineOptions(engine=engine, precision=precision, threads=1)  # type: ignore[arg-type]
    return open_engine(variant(name), options, folders[name])


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_released_masks_come_out_of_either_runtime(folders, engine):
    import released

    golden = released.golden()
    running = opened(folders, "siammask", engine)
    assert (running.name, running.precision) == (engine, "f32")
    response = running.search((running.embed(golden["exemplar"], None, False),), golden["search"], None)
    # torch has the weights as they are; the exported graphs keep them in float16, which these random ones feel most
    tolerance = 1e-4 if engine == "torch" else 1e-2
    logits = golden["score_logits"].reshape(2, 5, 25, 25)
    np.testing.assert_allclose(response.score, 1 / (1 + np.exp(logits[0] - logits[1])), atol=tolerance)
    np.testing.assert_allclose(response.delta, golden["delta"].reshape(4, 5, 25, 25), atol=tolerance)
    for (row, col), want in zip(golden["cells"], golden["refine_logits"], strict=True):
        np.testing.assert_allclose(response.mask(row, col).values, 1 / (1 + np.exp(-want)), atol=tolerance)


def test_bf16_is_near_f32(folders):
    from siammask.engines import pick_precision

    if pick_precision(None) != "bf16":
        pytest.skip("this CPU does not compute in bf16")
    import released

    golden = released.golden()
    scores = []
    for precision in ("f32", "bf16"):
        engine = opened(folders, "siammask", "openvino", precision)
        memory = engine.embed(golden["exemplar"], None, False)
        scores.append(engine.search((memory,), golden["search"], None).score)
    assert 0 < np.abs(scores[0] - scores[1]).max() < 0.03


@pytest.mark.parametrize(
    ("name", "runtime"),
    [("siammask", "openvino"), ("siammask_base_light", "openvino"), ("siammask_base_light", "onnxruntime")],
)
def test_the_tracker_runs_it_and_the_runtimes_agree(folders, name, runtime):
    if runtime == "onnxruntime" and not ONNX:
        pytest.skip("ONNX needs the extra 'onnx'.")
    frames = [scene((Box(100 + 4 * i, 90, 40, 50), RED)) for i in range(3)]
    runs = []
    for engine in ("torch", runtime):
        tracker = Tracker(variant(name), opened(folders, name, engine))
        runs.append(list(tracker.follow(frames, Box(100, 90, 40, 50))))
    for ours, theirs in zip(*runs, strict=True):
        np.testing.assert_allclose(ours.box.xywh, theirs.box.xywh, atol=0.5)  # pixels
        assert ours.score == pytest.approx(theirs.score, abs=1e-2)
        np.testing.assert_allclose(ours.patch.values, theirs.patch.values, atol=2e-2)
        assert ours.mask.shape == frames[0].shape[:2]


@pytest.mark.parametrize("runtime", ["torch", "openvino", "onnxruntime"])
def test_searches_of_several_targets_are_those_of_each(folders, runtime):
    """Three in one call; the correlation has its batch in the ONNX file, and is run there one by one."""
    if runtime == "onnxruntime" and not ONNX:
        pytest.skip("ONNX needs the extra 'onnx'.")
    engine = opened(folders, "siammask_base_light", runtime)
    draw = np.random.default_rng(0)
    crops = [draw.integers(0, 256, (256, 256, 3), np.uint8) for _ in range(3)]
    memories = [engine.embed(np.ascontiguousarray(crop[64:192, 64:192]), None, False) for crop in crops]
    searches = [Search((memory,), crop, None) for memory, crop in zip(memories, crops, strict=True)]
    for search, found in zip(searches, engine.search_many(searches), strict=True):
        alone = engine.search(search.memory, search.pixels, None)
        np.testing.assert_allclose(found.score, alone.score, atol=1e-4)
        np.testing.assert_allclose(found.delta, alone.delta, atol=1e-3)
        np.testing.assert_allclose(found.mask(12, 12).values, alone.mask(12, 12).values, atol=1e-4)


def test_weights_of_another_model_are_refused(folders):
    with pytest.raises(WeightsError, match=r"another architecture"):
        open_engine(variant("siammask_base"), EngineOptions("torch", "f32"), folders["siammask"])
    engine = open_engine(variant("siammask_base"), EngineOptions("openvino", "f32", 1), folders["siammask"])
    memory = engine.embed(np.zeros((127, 127, 3), np.uint8), None, False)
    with pytest.raises(WeightsError, match=r"no graph 'vector', only embed, refine, search"):
        engine.search((memory,), np.full((255, 255, 3), BACKGROUND, np.uint8), None).mask(1, 1)
