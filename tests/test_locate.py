"""Which crop is looked at next, and which box the response says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siammask import anchors, locate
from siammask.geometry import Box, Crop, Patch, context_side
from siammask.locate import (
    AnchorLocator,
    Found,
    GuidedLocator,
    PeakLocator,
    choose_part,
    limit_step,
    locator_for,
    settle_on_mask,
)
from siammask.tracker import TrackerState
from siammask.variants import SearchSettings, variant

SIZE = (640, 480)
GUIDED = variant("guided").search
BOX = Box(300, 200, 60, 40)


def state_of(box: Box = BOX, **more: object) -> TrackerState:
    return replace(TrackerState(box, SIZE, (0, 0, 0), None), **more)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Answer:
    """A response with the given arrays."""

    score: np.ndarray
    delta: np.ndarray | None = None
    confidence: float | None = None
    box: Box | None = None

    def mask(self, row: int, col: int) -> Patch | None:
        return None

    def remember(self, patch: Patch) -> None:
        return None


def drawing(*parts: tuple[slice, slice], place: Box | None = None) -> Patch:
    """A (128, 128) patch, 1 in the given parts; by default each cell is a pixel."""
    values = np.zeros((128, 128), np.float32)
    for part in parts:
        values[part] = 1
    return Patch(values, place or Box.from_xywh(0, 0, 128, 128))


# The guided locator


def test_guided_crop_is_the_box_with_its_context() -> None:
    locator = GuidedLocator(GUIDED)
    (crop,) = locator.crops(state_of())
    assert crop.side == round(GUIDED.window_factor * context_side(BOX))
    assert abs(crop.place.cx - BOX.cx) <= 0.5
    (tiny,) = locator.crops(state_of(box=Box(5, 5, 2, 2)))
    assert tiny.side == 16


def test_guided_exemplar_shows_more_than_a_search_or_as_much() -> None:
    wide = GuidedLocator(replace(GUIDED, window_factor=1.0, exemplar_factor=1.5)).exemplar(BOX)
    assert wide.side == round(1.5 * context_side(BOX))
    alike = GuidedLocator(replace(GUIDED, window_factor=1.1, exemplar_factor=0.0))
    assert alike.crops(state_of()) == (alike.exemplar(BOX),)


def test_guided_crop_widens_while_the_target_is_not_seen_up_to_a_limit() -> None:
    sides = [GuidedLocator(GUIDED).crops(state_of(unsure=n))[0].side for n in (0, 1, 5, 7, 8, 1000)]
    assert sides == sorted(sides)
    assert sides[1] == pytest.approx(sides[0] * 1.08, abs=1)
    assert sides[-1] == sides[-2] == pytest.approx(sides[0] * 1.6, abs=1)


def test_guided_crop_widens_with_speed_where_the_settings_ask() -> None:
    hurried = GuidedLocator(replace(GUIDED, speed_gain=0.5))
    side = hurried.crops(state_of())[0].side
    steady = GuidedLocator(replace(GUIDED, speed_gain=0.0))
    assert steady.crops(state_of(velocity=(30.0, 0.0)))[0].side == side
    own_size = (BOX.area**0.5, 0.0)
    assert hurried.crops(state_of(velocity=own_size))[0].side == pytest.approx(1.5 * side, abs=1)
    assert hurried.crops(state_of(velocity=(1e4, 0.0)))[0].side == pytest.approx(1.5 * side, abs=1)  # no more than that


def test_a_second_look_is_wider_and_moves_over_the_frame_while_the_target_is_lost() -> None:
    locator = GuidedLocator(replace(GUIDED, second_score=0.6, second_factor=2.0, patience=2, places=1))
    (close,) = locator.crops(state_of())
    assert locator.wider(state_of(), Found(BOX, 0.6, 0, 0)) == ()
    weak = Found(BOX, 0.5, 0, 0)
    (wide,) = locator.wider(state_of(unsure=1), weak)
    assert wide.side == pytest.approx(2 * close.side, abs=1)
    assert (wide.place.cx, wide.place.cy) == pytest.approx((BOX.cx, BOX.cy), abs=1)
    places = [locator.wider(state_of(unsure=n), weak)[0].place for n in range(2, 60)]
    distances = [np.hypot(p.cx - BOX.cx, p.cy - BOX.cy) for p in places]
    assert distances[0] == min(distances)
    for x, y in ((1, 1), (639, 1), (1, 479), (639, 479)):  # every corner is looked at
        assert any(abs(p.cx - x) <= p.w / 2 and abs(p.cy - y) <= p.h / 2 for p in places)
    several = GuidedLocator(replace(locator.settings, places=3))
    assert [c.place for n in range(2, 12) for c in several.wider(state_of(unsure=n), weak)] == places[:30]


def test_guided_find_takes_the_best_cell_and_the_networks_own_estimate() -> None:
    score = np.zeros((1, 16, 16), np.float32)
    score[0, 3, 12] = 0.7
    crop = Crop(100, 50, 160, 256)
    locator = GuidedLocator(GUIDED)
    found = locator.find(state_of(), (crop,), (Answer(score),))
    assert (found.row, found.col, found.box, found.visible) == (3, 12, BOX, True)
    assert found.score == pytest.approx(0.7)
    assert found.peak == (100 + 125, 50 + 35)
    unsure = locator.find(state_of(), (crop,), (Answer(score, confidence=0.2),))
    assert unsure.score == 0.2
    assert not unsure.visible


def test_the_box_is_finer_than_a_cell() -> None:
    """A soft disc of any radius, drawn on cells 4 pixels wide, gives its width to a small part of a cell."""
    y, x = np.mgrid[:128, :128] + 0.5
    place = Box.from_xywh(10, 20, 512, 512)
    for radius in np.linspace(20, 22, 9):
        values = (1 / (1 + np.exp(2 * (np.hypot(x - 60.3, y - 70.8) - radius)))).astype(np.float32)
        chosen = choose_part(Patch(values, place), None, None, GUIDED)
        assert chosen is not None
        box = chosen[1]
        assert (box.w, box.h) == pytest.approx((8 * radius, 8 * radius), abs=0.8)
        assert (box.cx, box.cy) == pytest.approx((10 + 4 * 60.3, 20 + 4 * 70.8), abs=0.5)


def test_a_hard_mask_has_its_edges_between_cells() -> None:
    chosen = choose_part(drawing((slice(30, 50), slice(10, 80))), None, None, GUIDED)
    assert chosen is not None
    assert chosen[1].xywh == pytest.approx((10, 30, 70, 20))


def test_a_mask_that_fills_the_patch_ends_at_its_rim() -> None:
    chosen = choose_part(drawing((slice(None), slice(None))), None, None, GUIDED)
    assert chosen is not None
    assert chosen[1] == Box.from_xywh(0, 0, 128, 128)


STRICT = replace(GUIDED, part_area=0.1, part_gap=0.25, part_certainty=0.85)
SMALL, LARGE = (slice(10, 30), slice(10, 30)), (slice(60, 110), slice(60, 110))


@pytest.mark.parametrize(
    ("last", "peak", "chosen", "why"),
    [
        (None, None, LARGE, "nothing else is known: the largest"),
        (drawing(SMALL), None, SMALL, "it is where the last mask was"),
        (drawing(LARGE), (20.0, 20.0), LARGE, "the last mask outweighs the peak of a much smaller part"),
        (None, (500.0, 20.0), LARGE, "a peak outside the patch says nothing"),
    ],
)
def test_which_part_is_the_target(
    last: Patch | None, peak: tuple[float, float] | None, chosen: tuple[slice, slice], why: str
) -> None:
    got = choose_part(drawing(SMALL, LARGE), last, peak, STRICT)
    assert got is not None
    np.testing.assert_array_equal(got[0].values, drawing(chosen).values, err_msg=why)


def test_of_two_alike_the_score_peak_decides() -> None:
    left, right = (slice(50, 70), slice(10, 30)), (slice(50, 70), slice(90, 110))
    for peak, part in (((20.0, 60.0), left), ((100.0, 60.0), right)):
        got = choose_part(drawing(left, right), None, peak, STRICT)
        assert got is not None
        np.testing.assert_array_equal(got[0].values, drawing(part).values)


@pytest.mark.parametrize(
    ("other", "kept", "why"),
    [
        ((slice(46, 66), slice(20, 60)), True, "half as large, a few cells away: behind a bar"),
        ((slice(42, 46), slice(20, 30)), False, "near, but a speck"),
        ((slice(100, 120), slice(80, 120)), False, "large, but far"),
    ],
)
def test_parts_of_an_object_that_is_split(other: tuple[slice, slice], kept: bool, why: str) -> None:
    body = (slice(0, 40), slice(20, 60))
    got = choose_part(drawing(body, other), drawing(body), None, STRICT)
    assert got is not None
    patch, box = got
    assert bool(patch.values[other].any()) is kept, why
    assert (box.h > 45) is kept


def test_a_part_stays_only_where_it_is_about_as_probable_as_the_chosen_one() -> None:
    body, other = (slice(0, 40), slice(20, 60)), (slice(46, 66), slice(20, 60))
    for share, kept in ((0.9, True), (0.8, False)):
        values = drawing(body).values + np.float32(share) * drawing(other).values
        got = choose_part(replace(drawing(body), values=values), None, None, STRICT)
        assert got is not None
        assert bool(got[0].values[other].any()) is kept


def test_choosing_leaves_the_drawing_as_it_was() -> None:
    patch = drawing(SMALL, LARGE)
    before = patch.values.copy()
    choose_part(patch, None, None, GUIDED)
    np.testing.assert_array_equal(patch.values, before)


@given(
    st.builds(Box, st.floats(0, 640), st.floats(0, 480), st.floats(1, 600), st.floats(1, 400)),
    st.floats(1.01, 3),
)
def test_a_side_changes_by_the_factor_at_most(new: Box, factor: float) -> None:
    box = limit_step(BOX, new, factor)
    for now, last, asked in ((box.w, BOX.w, new.w), (box.h, BOX.h, new.h)):
        assert last / factor - 1e-9 <= now <= last * factor + 1e-9
        assert now == asked or now in (last * factor, last / factor)
    assert (box.cx, box.cy) == (new.cx, new.cy)


FOUND = Found(BOX, 0.9, 0, 0)


def test_settle_takes_the_mask_s_box_and_keeps_its_centre_on_the_frame() -> None:
    locator = GuidedLocator(GUIDED)
    place = Box.from_xywh(600, 100, 128, 128)  # half of the patch lies right of the frame
    found, patch = locator.settle(state_of(), FOUND, drawing((slice(40, 80), slice(60, 120)), place=place))
    assert found.visible
    assert found.box.cx == SIZE[0]
    assert (found.box.w, found.box.h) == pytest.approx((60, 40))
    assert patch is not None


def test_a_mask_that_fills_every_crop_does_not_make_the_next_one_larger_for_ever() -> None:
    state, s = (
        replace(TrackerState(Box(40, 50, 20, 20), (200, 100), (0, 0, 0), None)),
        variant("siammask_2b_light").search,
    )
    for _ in range(40):
        crop = Crop.around(state.box.cx, state.box.cy, 4 * max(state.box.w, state.box.h), 256)
        found, _ = settle_on_mask(
            state, Found(state.box, 0.9, 0, 0), Patch(np.ones((127, 127), np.float32), crop.place), s
        )
        state = replace(state, box=found.box)
        assert found.shown is not None
        assert found.shown.w <= 200
        assert found.shown.h <= 100
    assert (state.box.w, state.box.h) == (200, 100)


def said_state() -> tuple[TrackerState, Found, Patch]:
    """A mask of 40 x 20 whose right half the network's own box leaves out."""
    values = np.zeros((100, 100), np.float32)
    values[40:60, 30:70] = 1.0
    state = TrackerState(Box(40, 50, 20, 20), (200, 200), (0, 0, 0), None)
    return state, Found(state.box, 0.9, 0, 0, said=Box(40, 50, 20, 20)), Patch(values, Box(50, 50, 100, 100))


@pytest.mark.parametrize(("share", "width"), [(0.0, 40.0), (0.5, 30.0), (1.0, 20.0)])
def test_the_box_is_in_a_share_the_one_the_network_says(share: float, width: float) -> None:
    state, found, patch = said_state()
    settled, part = settle_on_mask(state, found, patch, SearchSettings(box_share=share))
    assert settled.shown is not None
    assert (settled.shown.w, settled.shown.h) == pytest.approx((width, 20), abs=0.5)
    assert part is not None
    assert part.values.sum() == patch.values.sum()  # the mask stays whole


@pytest.mark.parametrize("patch", [None, drawing()], ids=["no mask", "empty mask"])
def test_settle_without_a_mask_keeps_the_box_and_says_so(patch: Patch | None) -> None:
    found, kept = GuidedLocator(GUIDED).settle(state_of(), FOUND, patch)
    assert found.box == BOX
    assert not found.visible
    assert kept is patch


def test_settle_with_a_low_score_keeps_the_box() -> None:
    unseen = replace(FOUND, score=0.1, visible=False)
    found, _ = GuidedLocator(GUIDED).settle(state_of(), unseen, drawing(LARGE))
    assert found.box == BOX
    assert not found.visible


# The released step


def rpn_answer(truth: Box, n: int = 25) -> Answer:
    """The answer of a network that sees `truth` (crop pixels about the crop's centre)."""
    grid = anchors.AnchorGrid(cells=n)
    return Answer(anchors.overlap(truth, grid).astype(np.float32), anchors.encode(truth, grid))


def test_anchor_crops_are_the_released_ones() -> None:
    locator = AnchorLocator(variant("siammask").search)
    exemplar, (search,) = locator.exemplar(BOX), locator.crops(state_of())
    assert (exemplar.side, exemplar.size) == (round(context_side(BOX)), 127)
    assert (search.side, search.size) == (round(context_side(BOX) * 255 / 127), 255)


def test_anchor_step_moves_all_the_way_and_grows_by_the_rate() -> None:
    settings = variant("siammask").search
    locator = AnchorLocator(settings)
    scale = 127 / context_side(BOX)
    truth = Box(16 * scale, -8 * scale, BOX.w * scale * 1.1, BOX.h * scale * 1.1)
    found = locator.find(state_of(), locator.crops(state_of()), (rpn_answer(truth),))
    assert (found.box.cx, found.box.cy) == pytest.approx((BOX.cx + 16, BOX.cy - 8), abs=1e-3)
    penalty = np.exp(-(1.1 * 1 - 1) * settings.penalty_k)
    assert found.box.w == pytest.approx(BOX.w * (1 + 0.1 * penalty * found.score * settings.lr), rel=1e-4)


def test_penalty_is_one_for_no_change_and_falls_with_it() -> None:
    one = locate.change_penalty(np.array([50.0]), np.array([20.0]), 50.0, 20.0, 0.1)
    double = locate.change_penalty(np.array([100.0, 25.0]), np.array([40.0, 10.0]), 50.0, 20.0, 0.1)
    assert one == pytest.approx(1)
    assert double == pytest.approx(np.exp(-0.1))


@pytest.mark.parametrize(
    ("box", "expected", "why"),
    [
        (Box(-5, 500, 50, 50), Box(0, 480, 50, 50), "the centre stays on the frame"),
        (Box(50, 50, 3, 700), Box(50, 50, 10, 480), "sides between 10 pixels and the frame's"),
        (Box(50, 50, 30, 20), Box(50, 50, 30, 20), "nothing to do"),
    ],
)
def test_anchor_settle_cuts_as_released(box: Box, expected: Box, why: str) -> None:
    found, _ = AnchorLocator(variant("siammask").search).settle(state_of(), replace(FOUND, box=box), None)
    assert found.box == expected, why


# Score maps


def bump(row: float, col: float, height: float = 1.0, n: int = 25) -> Answer:
    y, x = np.mgrid[:n, :n]
    return Answer((height * np.exp(-((x - col) ** 2 + (y - row) ** 2) / 8))[None].astype(np.float32))


def test_peak_lies_between_cells() -> None:
    locator = PeakLocator(variant("siamfc").searching(window=0.0, scales=(1.0,)).search)
    crops = locator.crops(state_of())
    found = locator.find(state_of(), crops, (bump(10.3, 13.4),))
    assert (found.row, found.col) == (10, 13)
    cell = 8 / crops[0].scale
    assert found.box.cx - BOX.cx == pytest.approx(1.4 * cell, abs=0.05 * cell)
    assert found.box.cy - BOX.cy == pytest.approx(-1.7 * cell, abs=0.05 * cell)


def test_a_peak_at_the_rim_has_no_neighbour_to_lean_on() -> None:
    locator = PeakLocator(variant("siamfc").searching(window=0.0, scales=(1.0,)).search)
    found = locator.find(state_of(), locator.crops(state_of()), (bump(0, 24),))
    assert (found.row, found.col) == (0, 24)


@pytest.mark.parametrize(
    ("heights", "index", "why"),
    [
        ((0.5, 0.5, 0.5), 1, "a change of scale is penalised"),
        ((0.5, 0.505, 0.52), 2, "yet taken where it is clearly better"),
    ],
)
def test_scale_is_that_of_the_best_response(heights: tuple[float, ...], index: int, why: str) -> None:
    settings = variant("siamfc").search
    locator = PeakLocator(settings)
    crops = locator.crops(state_of())
    assert [c.side for c in crops] == sorted(c.side for c in crops)
    found = locator.find(state_of(), crops, tuple(bump(12, 12, h) for h in heights))
    assert found.index == index, why
    assert found.box.w == pytest.approx(BOX.w * (1 + settings.lr * (settings.scales[index] - 1)))


def test_two_branches_follow_the_mask() -> None:
    locator = locator_for(variant("siammask_2b"))
    found, _ = locator.settle(
        state_of(), FOUND, drawing((slice(50, 90), slice(40, 100)), place=Box.from_xywh(250, 150, 128, 128))
    )
    assert found.box.xywh == pytest.approx((290, 200, 60, 40), abs=0.5)
