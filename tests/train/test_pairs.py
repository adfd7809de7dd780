"""Pairs: where the object lies in both crops, that neither is larger than the other, and what each cell is taught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from siammask.engines.siamese import SiameseResponse
from siammask.geometry import Box, Patch, context_side
from siammask.network.light import Light
from siammask.network.siamese import LightTop
from siammask.train import clips, pairs
from siammask.train.batches import Frozen
from siammask.train.clips import Chooser, ClipSettings
from siammask.train.pairs import Pair, PairGrid, Pairs, PairSettings, View
from siammask.train.pool import Pool
from siammask.variants import variant

STRAIGHT = PairSettings(negative=0.0, shift=0.0, scale=0.0, exemplar_shift=0.0, exemplar_scale=0.0)


def grid_of(name: str, cells: int = 25) -> PairGrid:
    row = variant(name)
    return PairGrid(row.search, row.search.search_size, cells, row.locate == "rpn")


LIGHT = grid_of("siammask_light")


def drawn(pool: Pool, clip: ClipSettings, settings: PairSettings, count: int, seed: int = 0) -> list[Pair]:
    rng, chooser = np.random.default_rng(seed), Chooser.make(pool, clip)
    return [pairs.pair(rng, pool, chooser, clip, settings, LIGHT) for _ in range(count)]


def test_objects_lie_where_the_settings_say(pool: Pool) -> None:
    """Straight crops have the object in the middle, and the exemplar's side is its box with context."""
    for made in drawn(pool, ClipSettings(occluder=0.0, elastic=0.0), STRAIGHT, 8):
        for view, size in ((made.exemplar, 128), (made.search, 256)):
            assert view.pixels.shape == (size, size, 3)
            assert view.mask.shape == (size, size)
            assert abs(view.box.cx) < 2.5
            assert abs(view.box.cy) < 2.5
            assert context_side(view.box) == pytest.approx(128, rel=0.04)


def test_shift_and_scale_of_the_search(pool: Pool) -> None:
    made = drawn(pool, ClipSettings(occluder=0.0), PairSettings(negative=0.0), 24)
    off = np.array([(m.search.box.cx, m.search.box.cy) for m in made])
    assert 40 < np.abs(off).max() < 72
    sizes = np.log([context_side(m.search.box) / 128 for m in made])
    assert 0.1 < np.abs(sizes).max() < 0.25
    assert np.abs([m.exemplar.box.cx for m in made]).max() < 7


@pytest.mark.parametrize("source", ["blobs", "boxed", "stills"])
def test_boxes_are_no_larger_in_the_search(pool: Pool, source: str) -> None:
    """Boxes that are larger by a hundredth in every step make a tracker swell. (Bends scatter sizes by a tenth.)"""
    others = dict.fromkeys({"blobs", "boxed", "stills"} - {source}, 0.0)
    made = drawn(pool, ClipSettings(weights=others, elastic=0.0, occluder=0.5, part=0.2), STRAIGHT, 40)
    ratio = np.log([m.search.box.area / m.exemplar.box.area for m in made]) / 2
    assert abs(ratio.mean()) < 0.01


def test_another_object_is_asked_for_nothing_but_background(pool: Pool) -> None:
    rng = np.random.default_rng(0)
    (made,) = drawn(pool, ClipSettings(), replace(STRAIGHT, negative=1.0), 1)
    assert made.negative
    for name in ("siammask_light", "siammask_2b_light"):
        told = pairs.sample(rng, made, STRAIGHT, grid_of(name))
        assert (told["kind"] == 0).any()
        assert not (told["kind"] == 1).any()
        assert (told["at"] == -1).all()


def test_a_filled_box_teaches_no_mask(pool: Pool) -> None:
    made = drawn(pool, ClipSettings(weights={"blobs": 0.0, "stills": 0.0}), STRAIGHT, 1)[0]
    assert made.boxed
    told = pairs.sample(np.random.default_rng(0), made, STRAIGHT, LIGHT)
    assert (told["kind"] == 1).any()
    assert (told["at"] == -1).all()


def test_stills_pair_with_themselves(pool: Pool) -> None:
    rng, clip = np.random.default_rng(0), ClipSettings(weights={"blobs": 0.0, "boxed": 0.0}, start=0.0)
    plan = None
    while plan is None:
        plan = clips.plan(rng, pool, Chooser.make(pool, clip), clip)
    assert pairs.frames(rng, replace(STRAIGHT, still=True), plan) == (clips.A, clips.A)
    found = {frozenset(pairs.frames(rng, replace(STRAIGHT, near=0.0), plan)) for _ in range(30)}
    assert found == {frozenset((clips.FIRST, other)) for other in (clips.A, clips.B, clips.C)}
    found = {frozenset(pairs.frames(rng, replace(STRAIGHT, near=1.0), plan)) for _ in range(30)}
    assert found == {frozenset(f) for f in ((clips.A, clips.B), (clips.A, clips.C), (clips.B, clips.C))}


class _Blank:
    """Graphs whose masks are empty: only their place counts."""

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"mask": np.zeros((1, 63, 63), np.float32)}


@pytest.mark.parametrize("name", ["siammask_base", "siammask_base_light"])
@pytest.mark.parametrize("cell", [(12, 12), (0, 24), (20, 3)])
def test_masks_are_taught_where_the_engine_pastes_them(name: str, cell: tuple[int, int]) -> None:
    seen = {"correlation": np.zeros((1, 1, 25, 25), np.float32)}
    patch = SiameseResponse(_Blank(), variant(name), seen).mask(*cell)
    assert patch is not None
    assert grid_of(name).window(*cell) == (patch.place.x, patch.place.y)


def test_a_true_mask_pasted_is_the_mask(pool: Pool) -> None:
    """Off the middle, so that some windows leave the crop."""
    made = drawn(pool, ClipSettings(occluder=0.0), replace(STRAIGHT, shift=60.0), 1, 3)[0]
    told = pairs.sample(np.random.default_rng(0), made, STRAIGHT, LIGHT)
    for at, truth in zip(told["at"], told["truth"], strict=True):
        assert at >= 0
        left, top = LIGHT.window(*divmod(int(at), 25))
        pasted = Patch((truth > 0).astype(np.float32), Box.from_xywh(left, top, 128, 128)).paste(256, 256)
        x0, y0, x1, y1 = max(0, left), max(0, top), min(256, left + 128), min(256, top + 128)
        np.testing.assert_array_equal(pasted[y0:y1, x0:x1] > 0.5, made.search.mask[y0:y1, x0:x1] > 127)
        assert (pasted > 0.5).sum() > 0.5 * (made.search.mask > 127).sum()


def test_cells_of_the_centre() -> None:
    near = pairs.centre_cells(Box(8, -16, 50, 50), 25, 8, 16.0)  # column 13, row 10
    assert near.shape == (25, 25)
    assert near[10, 13] == near[12, 13] == near[10, 11] == 1
    assert near[13, 13] == near[12, 15] == -1
    assert (near == 1).sum() == 13  # of a disc of two cells
    far = pairs.centre_cells(Box(3.9, 3.9, 9, 9), 25, 8, 1.0)
    assert (far == 1).sum() == 1  # never none


def test_only_the_middle_is_taught_in_the_refinement_stage(pool: Pool) -> None:
    view = View(np.zeros((144, 144, 3), np.uint8), np.full((144, 144), 255, np.uint8), Box(0, 0, 64, 64))
    grid = PairGrid(LIGHT.search, 144, 11, True)
    told = pairs.sample(np.random.default_rng(0), Pair(view, view, False, False), PairSettings(reach=1, rows=64), grid)
    found = told["at"][told["at"] >= 0]
    assert set(found // 11) <= {4, 5, 6}
    assert set(found % 11) <= {4, 5, 6}
    assert 0 < len(found) <= 9
    assert grid.window(5, 5) == (8, 8)


@pytest.mark.parametrize("skips", [True, False])
def test_features_are_those_of_the_network(pool: Pool, skips: bool) -> None:
    """The frozen part in the data process, to the precision of bfloat16; what is not needed is left out."""
    torch.manual_seed(0)
    light = Light().eval()
    arguments = (pool, ClipSettings(), PairSettings(), LIGHT, 1, 0, 0)
    plain = next(iter(Pairs(*arguments, None, skips)))
    batch = next(iter(Pairs(*arguments, Frozen(light, 11), skips)))
    assert {n for n in batch if "_f" in n} == {"exemplar_f8", "exemplar_f16", "search_f8", "search_f16"} | (
        {"search_f2", "search_f4"} if skips else set()
    )
    with torch.inference_mode():
        for name in ("exemplar", "search"):
            features = light(plain[name].permute(0, 3, 1, 2).float())
            _, top = LightTop(light)((None, None, *features[2:]))
            torch.testing.assert_close(top, LightTop(light)(plain[name].permute(0, 3, 1, 2).float())[1])
            for stride, expected in zip(("f2", "f4", "f8", "f16"), features, strict=True):
                if f"{name}_{stride}" in batch:
                    found = batch[f"{name}_{stride}"].permute(0, 3, 1, 2).float()
                    assert (found - expected).abs().mean() < 0.02 * expected.abs().mean()


def test_the_same_seed_gives_the_same_pairs(pool: Pool) -> None:
    a, b, c = (next(iter(Pairs(pool, ClipSettings(), PairSettings(), LIGHT, 2, s, 0, None, True))) for s in (1, 1, 2))
    for name in set(a) - {"seconds"}:
        assert torch.equal(a[name], b[name]), name
    assert not torch.equal(a["search"], c["search"])
