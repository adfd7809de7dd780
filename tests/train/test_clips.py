"""Clips are chosen and drawn from a seed alone, and the mask of a clip covers what was drawn."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from siammask.errors import InputError
from siammask.network.guided import CROP, MASK
from siammask.train import clips
from siammask.train import pool as pools
from siammask.train.clips import (
    FIRST,
    FRAMES,
    SHOWN,
    A,
    B,
    Chooser,
    ClipSettings,
    Look,
    P,
    Plan,
    Rendered,
    Spoiling,
    plan,
    render,
    spoil,
    spoiling,
)
from siammask.train.pool import Pool

QUIET = ClipSettings(absent=0, part=0, video_part=0, lookalike=0, occluder=0, elastic=0, start=0)
VIDEO = {"blobs": 1.0, "boxed": 0.0, "stills": 0.0}
STILLS = {"blobs": 0.0, "boxed": 0.0, "stills": 1.0}
BOXED = {"blobs": 0.0, "boxed": 1.0, "stills": 0.0}


def plans(pool: Pool, settings: ClipSettings, count: int, seed: int = 0) -> Iterator[tuple[Plan, Rendered]]:
    rng = np.random.default_rng(seed)
    chooser = Chooser.make(pool, settings)
    while count:
        made = plan(rng, pool, chooser, settings)
        drawn = render(pool, made) if made is not None else None
        if made is not None and drawn is not None:
            yield made, drawn
            count -= 1


def plain(made: Plan) -> Plan:
    """The same plan without any change of colour."""
    layers = tuple(replace(layer, colour=Look().colour) for layer in made.layers)
    return replace(made, layers=layers, looks=(Look(),) * FRAMES)


def render_plain(pool: Pool, made: Plan) -> Rendered:
    """A plan that can be drawn, drawn without any change of colour."""
    drawn = render(pool, plain(made))
    assert drawn is not None
    return drawn


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def bright(pixels: np.ndarray) -> np.ndarray:
    """Where a drawn thing is, on the grid of masks: skins are brighter than 150, grounds darker than 110."""
    return np.asarray(cv2.resize(pixels.mean(2), (MASK, MASK), interpolation=cv2.INTER_AREA) > 130)


def test_a_seed_gives_the_same_clips(pool: Pool) -> None:
    settings = ClipSettings()
    once, again, other = (list(plans(pool, settings, 6, seed)) for seed in (3, 3, 4))
    for (_, a), (_, b) in zip(once, again, strict=True):
        for name in ("pixels", "masks", "before", "crops", "box"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert any((a.pixels != b.pixels).any() for (_, a), (_, b) in zip(once, other, strict=True))


def test_shapes_and_ranges(pool: Pool) -> None:
    for _, drawn in plans(pool, ClipSettings(), 12):
        assert drawn.pixels.shape == (4, CROP, CROP, 3)
        assert drawn.masks.shape == (4, MASK, MASK)
        assert drawn.before.shape == drawn.box.shape == (MASK, MASK)
        assert {a.dtype for a in (drawn.pixels, drawn.masks, drawn.before, drawn.box)} == {np.dtype(np.uint8)}
        assert drawn.crops.shape == (4, 3)
        assert (drawn.crops[:, 2] >= 16).all()
        assert drawn.masks[0].any()


@pytest.mark.parametrize("source", [VIDEO, STILLS], ids=["video", "stills"])
def test_the_mask_covers_the_drawn_object(pool: Pool, source: dict[str, float]) -> None:
    rng = np.random.default_rng(0)
    chooser = Chooser.make(pool, replace(QUIET, weights=source))
    seen = 0
    while seen < 12:
        made = plan(rng, pool, chooser, replace(QUIET, weights=source, paste=0.0))
        if made is None or made.layers[0].pictures[0].ignore or len(made.layers[0].pictures[0].areas) > 1:
            continue  # the rim of unknown pixels is drawn bright too, and so is the other object
        drawn = render(pool, replace(plain(made), fill=(40, 40, 40)))
        if drawn is None:
            continue
        seen += 1
        for pixels, mask in zip(drawn.pixels, drawn.masks, strict=True):
            if mask.any():
                assert overlap(mask > 127, bright(pixels)) > 0.93


def test_the_first_box_is_the_masks_box(pool: Pool) -> None:
    for _, drawn in plans(pool, QUIET, 8):
        exact = np.zeros((MASK, MASK), bool)
        ys, xs = np.nonzero(drawn.masks[0] > 127)
        exact[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] = True
        assert overlap(drawn.box > 127, exact) > 0.75  # it has the error of a person's box


def test_the_target_keeps_near_the_middle(pool: Pool) -> None:
    """Crop a is taken around where the target was just before, at 1.45 times its size with context."""
    for made, drawn in plans(pool, replace(QUIET, fast=0.0), 12):
        first = drawn.masks[0] > 127
        ys, xs = np.nonzero(first)
        assert abs(xs.mean() - MASK / 2) < 16
        assert abs(ys.mean() - MASK / 2) < 16
        np.testing.assert_allclose(drawn.crops, np.array([made.crops[i] for i in SHOWN]), rtol=1e-6)
        assert overlap(drawn.before > 127, drawn.masks[1] > 127) > 0.3


def test_the_first_crop_may_be_wider_than_the_others(pool: Pool) -> None:
    alike, wider = (replace(QUIET, usual_window=1.0, first_window=factor) for factor in (0.0, 1.5))
    for seed in range(5):
        (a, b) = (next(plans(pool, settings, 1, seed))[0] for settings in (alike, wider))
        assert b.crops[FIRST][2] == pytest.approx(1.5 * a.crops[FIRST][2])
        assert b.crops[A] == a.crops[A]


def test_start_clips_search_the_first_frame_itself(pool: Pool) -> None:
    for made, drawn in plans(pool, replace(ClipSettings(), start=1.0), 6):
        assert drawn.start
        assert made.crops[A] == made.crops[FIRST]
        np.testing.assert_array_equal(drawn.pixels[0], drawn.pixels[1])
        np.testing.assert_array_equal(drawn.masks[0], drawn.masks[1])
        np.testing.assert_array_equal(drawn.masks[0], drawn.before)
        assert (drawn.pixels[1] != drawn.pixels[2]).any()


def test_absent_clips_do_not_show_the_target_in_b_or_c(pool: Pool) -> None:
    shares, which = [], set()
    for made, drawn in plans(pool, replace(QUIET, absent=1.0, fast=0.0), 16):
        (u, v, _) = made.crops[A]
        away = [math.hypot(x - u, y - v) / side for x, y, side in made.crops[B:]]
        far = int(np.argmax(away))
        which.add(far)
        assert away[far] > 0.5
        assert (drawn.masks[1] > 127).any()
        shares.append((drawn.masks[2 + far] > 127).mean() / (drawn.masks[1] > 127).mean())
    assert which == {0, 1}
    assert np.mean(np.array(shares) < 0.05) > 0.8  # of a long thing a corner may be seen


def test_seeking_clips_show_the_target_anywhere_in_wide_windows(pool: Pool) -> None:
    places, wide = [], []
    for made, drawn in plans(pool, replace(QUIET, seek=1.0, fast=0.0), 16):
        for crop, mask in zip(made.crops[B:], drawn.masks[2:], strict=True):
            wide.append(crop[2] / made.crops[A][2])
            assert (mask > 127).any()  # but it is there
            rows, columns = np.nonzero(mask > 127)
            places += [columns.mean() / 128, rows.mean() / 128]
    assert np.median(wide) > 1.4
    assert min(places) < 0.3
    assert max(places) > 0.7


@pytest.mark.parametrize("source", [VIDEO, STILLS], ids=["video", "stills"])
def test_small_parts(pool: Pool, source: dict[str, float]) -> None:
    settings = replace(QUIET, part=1.0, video_part=1.0, weights=source)
    (usual, small) = (
        np.mean([(d.masks[0] > 127).sum() * (m.crops[FIRST][2] / 128) ** 2 for m, d in plans(pool, c, 12)])
        for c in (settings, replace(settings, small=1.0))
    )
    assert small < 0.7 * usual


def test_things_of_a_video_move_over_another_picture(pool: Pool) -> None:
    settings = replace(QUIET, video_paste=1.0, weights=VIDEO, dressed=0.0)
    for made, drawn in plans(pool, settings, 8):
        ground, thing = made.layers
        assert ground.target is None
        assert ground.pictures[0].offset != thing.pictures[0].offset
        assert thing.object_id == thing.target
        assert len({picture.offset for picture in thing.pictures}) > 2  # its own motion
        for pixels, mask in zip(render_plain(pool, made).pixels, drawn.masks, strict=True):
            if (mask > 127).any():
                assert bright(pixels)[mask > 127].mean() > 0.9


def test_stretched_videos_keep_their_masks(pool: Pool) -> None:
    ratios = []
    for made, drawn in plans(pool, replace(QUIET, stretch=0.3, weights=VIDEO), 24):
        m = made.layers[0].places[0][:, :2]
        ratios.append(float(np.linalg.cond(m)))
        assert bright(render_plain(pool, made).pixels[0])[drawn.masks[0] > 127].mean() > 0.9
    assert min(ratios) < 1.001  # most are as they were
    assert max(ratios) > 1.2


def test_colours_are_turned_in_all_frames_alike(pool: Pool) -> None:
    for made, _ in plans(pool, replace(QUIET, turned=1.0), 4):
        assert len({look.turned for look in made.looks}) == 1
        assert made.looks[0].turned is not None
    for made, _ in plans(pool, QUIET, 2):
        assert made.looks[0].turned is None


def test_a_camera_without_faults_sees_all_frames_alike(pool: Pool) -> None:
    def faults(camera: float) -> list[bool]:
        made = [made for made, _ in plans(pool, replace(QUIET, camera=camera), 12)]
        seen = [(look.low, look.motion, look.jpeg, look.gamma) for one in made for look in one.looks]
        return [any(v is not None for v in look) for look in seen] + [len(set(one.looks)) > 1 for one in made]

    assert not any(faults(0.0))
    assert any(faults(1.0))


def test_a_tracker_without_error_looks_about_the_middle_of_the_box(pool: Pool) -> None:
    def off(error: float) -> float:
        """How far at most the target's middle at p is from that of the window of a, in sides of it."""
        settings = replace(QUIET, error=error, weights=BOXED)
        far = [0.0]
        for made, _ in plans(pool, settings, 10):
            layer = made.layers[0]
            box = clips.moved(layer.pictures[clips.P].boxes[layer.target or 0], layer.places[clips.P])
            assert box is not None
            x, y, side = made.crops[clips.A]
            far += [abs(box[i] + box[i + 2] / 2 - at - side / 2) / box[i + 2] for i, at in enumerate((x, y))]
        return max(far)

    assert off(0.0) < 1e-6 < 0.05 < off(0.08)


def test_turning_keeps_greys_and_moves_a_third_of_a_turn_to_the_next_channel() -> None:
    np.testing.assert_allclose(clips.turning(1.0, 0.7) @ np.full(3, 90.0), 90.0, rtol=1e-5)
    np.testing.assert_allclose(clips.turning(2 * math.pi / 3, 1.0) @ [200, 50, 10], [10, 200, 50], atol=1e-3)
    np.testing.assert_allclose(clips.turning(0.4, 0.0), 1 / 3, rtol=1e-5)


@pytest.mark.parametrize("source", [VIDEO, STILLS], ids=["video", "stills"])
def test_a_part_is_a_piece_of_the_thing(pool: Pool, source: dict[str, float]) -> None:
    settings = replace(QUIET, part=1.0, video_part=1.0, weights=source)
    for made, drawn in plans(pool, settings, 8):
        layer = next(la for la in made.layers if la.target is not None)
        assert layer.cuts is not None
        whole = render(pool, replace(made, layers=tuple(replace(la, cuts=None) for la in made.layers)))
        assert whole is not None
        for part, thing in zip(drawn.masks, whole.masks, strict=True):
            assert (part <= thing).all()
        assert 0.15 < (drawn.masks[0] > 127).sum() / (whole.masks[0] > 127).sum() < 0.9
        np.testing.assert_array_equal(drawn.pixels, whole.pixels)  # the rest of the thing is still shown


@pytest.mark.parametrize("source", [VIDEO, STILLS], ids=["video", "stills"])
def test_of_a_drifted_part_more_was_drawn(pool: Pool, source: dict[str, float]) -> None:
    """The last masks reach over the rest of the object, the truth does not."""
    settings = replace(QUIET, part=1.0, video_part=1.0, part_drift=1.0, weights=source, fast=0.0)
    larger = []
    for made, drawn in plans(pool, settings, 12):
        assert drawn.drifted
        (wrong,) = made.drift
        assert wrong.target is not None
        true = render(pool, replace(made, drift=()))
        assert true is not None
        assert not true.drifted
        np.testing.assert_array_equal(drawn.masks, true.masks)
        for part, more in ((true.before, drawn.before), (drawn.masks[1], drawn.after)):
            assert (part.astype(int) <= more.astype(int) + 128).all()  # the rims of two warps may differ
            larger.append((more > 127).sum() / max(1, (part > 127).sum()))
    assert np.median(larger) > 1.2


@pytest.mark.parametrize("source", [VIDEO, STILLS], ids=["video", "stills"])
def test_a_drifted_whole_is_less_or_something_else(pool: Pool, source: dict[str, float]) -> None:
    settings = replace(QUIET, drift=1.0, lookalike=1.0, dressed=1.0, weights=source, fast=0.0)
    together = pieces = 0
    for made, drawn in plans(pool, settings, 24):
        assert drawn.drifted
        true = render(pool, replace(made, drift=()))
        assert true is not None
        before, wrong = true.before > 127, drawn.before > 127
        if len(made.drift) == 2:
            together += 1
            assert not (before & ~wrong).any()
        elif made.drift[0].cuts is not None:
            pieces += 1
            assert (wrong & ~before).mean() < 0.01
            assert wrong.sum() < before.sum()
        else:  # never its own double: nothing says which of two is meant
            assert made.drift[0].pictures[0] is not made.layers[0].pictures[0]
    assert together > 3
    assert pieces > 3


def test_the_search_is_where_the_wrong_mask_is(pool: Pool) -> None:
    settings = replace(QUIET, drift=1.0, weights=STILLS, fast=0.0)
    for made, drawn in plans(pool, settings, 8):
        ys, xs = np.nonzero(drawn.before > 127)
        if len(ys) and len(made.drift) == 1:
            assert abs((xs.min() + xs.max()) / 2 - MASK / 2) < 24
            assert abs((ys.min() + ys.max()) / 2 - MASK / 2) < 24


def test_unknown_pixels_are_half_true(pool: Pool) -> None:
    rim = next(c for c in pool.clips if c.name == "rim").pictures[0]
    alpha = clips._alpha(pool, rim, 1, soft=True)
    assert set(np.unique(alpha)) == {0, 127, 255}
    assert ((alpha == 127) <= (pool.mask(rim) == 255)).all()
    assert set(np.unique(clips._alpha(pool, rim, 1))) == {0, 255}


@pytest.mark.parametrize("passing", [0.0, 1.0])
@pytest.mark.parametrize("source", [VIDEO, STILLS], ids=["video", "stills"])
def test_an_occluder_hides_the_target(pool: Pool, source: dict[str, float], passing: float) -> None:
    settings = replace(QUIET, occluder=1.0, dressed=1.0, passing=passing, weights=source)
    for made, drawn in plans(pool, settings, 8):
        bare = render(pool, replace(made, layers=tuple(la for la in made.layers if la.target or la.object_id is None)))
        assert bare is not None
        assert len(made.layers) in (2, 3)
        assert (drawn.masks <= bare.masks).all()


@pytest.mark.parametrize("source", [VIDEO, STILLS], ids=["video", "stills"])
def test_lookalikes_are_no_target(pool: Pool, source: dict[str, float]) -> None:
    hidden = 0
    for made, drawn in plans(pool, replace(QUIET, lookalike=1.0, dressed=1.0, weights=source), 8):
        bare = render(pool, replace(made, layers=tuple(la for la in made.layers if la.target or la.object_id is None)))
        assert bare is not None
        assert sum(la.object_id is not None and la.target is None for la in made.layers) in (1, 2)
        assert (drawn.masks <= bare.masks).all()
        hidden += int((drawn.pixels != bare.pixels).any())
    assert hidden > 0


def test_elastic_things_bend_after_the_first_frame(pool: Pool) -> None:
    for made, drawn in plans(pool, replace(QUIET, elastic=1.0, weights=STILLS), 4):
        layers = tuple(replace(la, bend=None) for la in made.layers)
        stiff = render(pool, replace(made, layers=layers))
        assert stiff is not None
        np.testing.assert_array_equal(drawn.masks[0], stiff.masks[0])
        assert (drawn.masks[1] != stiff.masks[1]).any()
        assert overlap(drawn.masks[1] > 127, stiff.masks[1] > 127) > 0.7


def test_looks_change_pixels_and_keep_masks(pool: Pool) -> None:
    ((made, _),) = plans(pool, QUIET, 1)
    made = plain(made)
    as_is = render(pool, made)
    assert as_is is not None
    looks = (Look(gray=True), Look(low=80), Look(motion=(9, 0.4)), Look(jpeg=20), Look(gamma=2.0), Look((1.2, 1, 1, 5)))
    for look in (*looks, Look(turned=(1.0, 0.8))):
        changed = render(pool, replace(made, looks=(look,) * FRAMES))
        assert changed is not None
        assert (changed.pixels != as_is.pixels).any(), look
        np.testing.assert_array_equal(changed.masks, as_is.masks)


def test_small_pictures_are_read_for_small_views() -> None:
    """Seen from afar a picture is shrunk first; index 0 of the small copy lies in the middle of its first pixels."""
    for zoom, factor in ((1.0, 1), (0.15, 2), (0.08, 4)):
        place = np.array([[zoom, 0, 3.0], [0, zoom, 5.0]])
        matrix, found = clips.view(place, (10.0, 20.0, 128.0))
        assert found == factor
        middle = (factor - 1) / 2 + 0.5  # of the small copy's pixel 0, from the picture's corner
        np.testing.assert_allclose(matrix[:, 2] + 0.5, 2 * (zoom * middle + np.array([3.0 - 10, 5.0 - 20])))


@pytest.mark.parametrize("strength", [0.3, 0.7, 1.0])
def test_spoiled_masks(strength: float) -> None:
    mask = np.zeros((MASK, MASK), np.uint8)
    cv2.ellipse(mask, (70, 60), (30, 20), 10, 0, 360, 255, -1)
    rng = np.random.default_rng(1)
    spoiled = [spoil(mask, spoiling(rng, strength)) for _ in range(120)]
    assert all(s.shape == mask.shape and s.dtype == np.uint8 for s in spoiled)
    assert np.mean([(s != mask).any() for s in spoiled]) > 0.6
    assert 0.02 * strength < np.mean([not s.any() for s in spoiled]) < 0.25 * strength
    found = np.array([overlap(s > 127, mask > 127) for s in spoiled if s.any()])
    assert 0.5 < found.mean() < 0.97
    assert mask.any()
    assert not spoil(np.zeros_like(mask), Spoiling(grow=0.05)).any()


def test_spoiling_leaves_its_input_alone() -> None:
    mask = np.zeros((MASK, MASK), np.uint8)
    mask[40:90, 50:80] = 255
    before = mask.copy()
    for seed in range(30):
        spoil(mask, spoiling(np.random.default_rng(seed)))
    np.testing.assert_array_equal(mask, before)


def test_weights_choose_sources(pool: Pool) -> None:
    assert {made.source for made, _ in plans(pool, replace(QUIET, weights=VIDEO), 5)} == {"blobs"}
    assert {made.source for made, _ in plans(pool, replace(QUIET, weights=STILLS), 5)} == {"stills"}


def test_a_weight_of_no_source(pool: Pool) -> None:
    with pytest.raises(InputError, match=r"names 'davis', which has no clip to train on; there are blobs, boxed"):
        Chooser.make(pool, ClipSettings(weights={"davis": 1.0}))


@pytest.fixture
def with_cutouts(root: Path, tmp_path: Path) -> Pool:
    """The drawn stills, and the same as cut-outs."""
    shutil.copytree(root / "stills", tmp_path / "more/cut")
    (tmp_path / "more/manifest.json").write_text('{"sources": [{"name": "cut", "kind": "cutouts"}]}')
    return pools.build(root, tmp_path / "cache", ("stills", "cut"), more=(tmp_path / "more",))


def test_cutouts_are_shown_on_other_pictures(with_cutouts: Pool) -> None:
    """Even where nothing else is pasted; they are what is pasted, but never what is pasted on."""
    settings = replace(QUIET, paste=0.0, lookalike=1.0)
    made = [p for p, _ in plans(with_cutouts, settings, 30)]
    cut = {picture.offset for clip in with_cutouts.clips if clip.cutout for picture in clip.pictures}
    assert {p.source for p in made} == {"stills", "cut"}
    for p in made:
        assert p.layers[0].pictures[0].offset not in cut
        assert (p.layers[0].target is None) == (p.source == "cut")
    assert any(layer.pictures[0].offset in cut for p in made for layer in p.layers if layer.target is None)


def test_cutouts_need_other_pictures(with_cutouts: Pool) -> None:
    with_cutouts.clips = tuple(clip for clip in with_cutouts.clips if clip.cutout)
    with pytest.raises(InputError, match="cut-outs but no still to paste them on; add a source"):
        Chooser.make(with_cutouts, QUIET)


def test_plans_do_not_read_pixels(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices are values: another renderer may draw them."""
    monkeypatch.setattr(Pool, "pixels", None)
    monkeypatch.setattr(Pool, "mask", None)
    rng = _rng()
    chooser = Chooser.make(pool, ClipSettings())
    made = [plan(rng, pool, chooser, ClipSettings()) for _ in range(20)]
    usable = [m for m in made if m is not None]
    assert usable
    for m in usable:
        assert len(m.crops) == len(m.looks) == FRAMES
        assert all(len(layer.pictures) == len(layer.places) == FRAMES for layer in m.layers)
        assert m.layers[0].object_id is None
        assert sum(layer.target is not None for layer in m.layers) == 1
        assert all(layer.places[P].shape == (2, 3) for layer in m.layers)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_clips_with_boxes_only_have_filled_boxes_for_masks(pool: Pool) -> None:
    for made, drawn in plans(pool, replace(QUIET, weights=BOXED), 6):
        assert made.boxed
        assert drawn.boxed
        seen = drawn.masks[0] > 127
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        assert seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.9
