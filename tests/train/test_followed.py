"""Followed clips: they show where the tracker looked and what it drew there."""

from __future__ import annotations

import copy
from itertools import islice

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train'")
from test_harder import SIZE, clouds, video

from siammask.engines import EngineOptions, open_engine
from siammask.errors import InputError
from siammask.geometry import Box
from siammask.tracker import Tracker
from siammask.train import followed
from siammask.train.batches import Clips
from siammask.train.clips import Chooser, ClipSettings, Rendered
from siammask.train.followed import Scene
from siammask.train.pool import Pool
from siammask.variants import variant

COUNT = 8  # frames
SPEED = 6  # pixels a frame


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return Tracker(variant("guided_small"), open_engine(variant("guided_small"), EngineOptions(threads=1)))


def scene(hidden: range = range(0)) -> Scene:
    """A bright ellipse that walks to the right over a dark ground; in the frames `hidden` it is not there."""
    _, masks = video(COUNT, SPEED, (26, 20))
    masks = [mask & (i not in hidden) for i, mask in enumerate(masks)]
    ground, skin = clouds(1, 20, 90), clouds(2, 110, 250)
    frames = [np.where(m[..., None], np.roll(skin, SPEED * i, 1), ground) for i, m in enumerate(masks)]
    box = Box.from_mask(masks[0])
    assert box is not None
    return Scene(frames, masks, box)


def lived(tracker: Tracker, given: Scene, seed: int = 0, tries: int = 12) -> list[Rendered]:
    """Clips of a few lives, as what goes well is mostly left out."""
    rng = np.random.default_rng(seed)
    return [clip for _ in range(tries) for clip in followed.lived(rng, given, tracker, ClipSettings())]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a > 127) & (b > 127)).sum() / ((a > 127) | (b > 127)).sum())


def test_a_target_that_is_held(tracker: Tracker) -> None:
    clips = lived(tracker, scene())
    assert clips
    assert len(clips) < 2 * 12
    for clip in clips:
        assert clip.pixels.shape == (4, 256, 256, 3)
        assert clip.masks.shape == (
            4,
            128,
            128,
        )
        assert clip.followed
        assert not clip.drifted
        assert not clip.start
        assert overlap(clip.masks[1], clip.after) > 0.8  # what it drew at a lies on the truth
        assert overlap(clip.masks[0], clip.box) > 0.6  # the drawing of the first frame, in its box
        assert (clip.crops[1:, 2] > 2 * 26).all()  # the crops show all of it


def test_it_is_seen_where_the_crops_say(tracker: Tracker) -> None:
    for clip in lived(tracker, scene()):
        places = []
        for mask, (x, y, side) in zip(clip.masks[1:], clip.crops[1:], strict=True):
            seen = Box.from_mask(mask > 127)
            assert seen is not None
            places.append((x + seen.cx * side / 128, y + seen.cy * side / 128))
        (ax, ay), (_, by), (cx, _) = places
        assert abs(ay - 60) < 2
        assert abs(by - 60) < 2
        assert abs(abs(cx - ax) - 2 * SPEED) < 2  # to the right, or in a mirror to the left
        start = 25 + SPEED if cx > ax else SIZE[0] - 25 - SPEED
        assert abs(ax - start) < SPEED * COUNT


def test_a_target_that_is_gone(tracker: Tracker) -> None:
    clips = lived(tracker, scene(range(4, COUNT)), tries=20)
    gone = [clip for clip in clips if not (clip.masks[1:] > 127).any()]
    assert gone
    assert all(clip.drifted for clip in gone)


def test_parts_lie_within_their_object() -> None:
    given = scene()
    rng = np.random.default_rng(1)
    for _ in range(12):
        piece = followed.part(rng, given.frames[0], given.masks[0], ClipSettings(small=0.5))
        assert piece is not None
        assert piece.any()
        assert not (piece & ~given.masks[0]).any()
        assert piece.sum() < given.masks[0].sum()
    assert followed.part(rng, given.frames[0], np.zeros_like(given.masks[0]), ClipSettings()) is None


def test_a_part_of_one_colour_has_the_border_of_the_colour() -> None:
    y, x = np.mgrid[:90, :120]
    mask = (x > 20) & (x < 100) & (y > 20) & (y < 70)
    head = mask & (x < 45)
    frame = np.where(head[..., None], (40, 60, 200), np.where(mask[..., None], (160, 120, 40), (90, 90, 90)))
    rng = np.random.default_rng(0)
    found = [followed.of_one_colour(rng, frame.astype(np.uint8), mask) for _ in range(20)]
    assert all(piece is not None and not (piece & ~mask).any() for piece in found)
    alike = [overlap(np.uint8(255) * piece, np.uint8(255) * head) for piece in found if piece is not None]
    assert max(alike) > 0.9


def test_a_target_too_small_for_colours() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[10:13, 10:13] = True
    assert followed.of_one_colour(np.random.default_rng(0), np.zeros((40, 40, 3), np.uint8), mask) is None


def test_a_part_is_trusted_until_it_runs_over_or_is_lost() -> None:
    whole = np.ones((20, 20), np.bool_)
    some, most, none = (np.arange(400).reshape(20, 20) < n for n in (100, 300, 0))
    hidden = np.zeros_like(whole)
    assert followed.trusted([some] * 4, [whole] * 4) == 4
    assert followed.trusted([some, some, most], [whole] * 3) == 2
    assert followed.trusted([some, none, some], [whole] * 3) == 1
    assert followed.trusted([some, hidden, some], [whole, hidden, whole]) == 3  # all of it was out of sight


def test_scenes_of_videos_and_stills(pool: Pool) -> None:
    settings = ClipSettings()
    chooser, rng = Chooser.make(pool, settings), np.random.default_rng(0)
    found = [s for s in (followed.scene(rng, pool, chooser, settings) for _ in range(60)) if s is not None]
    assert len(found) > 10
    for s in found:
        assert len(s.frames) == len(s.masks)
        assert len(s.frames) >= followed.LEAST
        truth = Box.from_mask(s.masks[0])
        assert truth is not None
        assert truth.iou(s.box) > 0.6


def test_batches_of_them(pool: Pool) -> None:
    settings = ClipSettings(followed=1.0)
    (batch,) = islice(Clips(pool, settings, 2, 0, 0, follow=("guided_small", None)), 1)
    assert batch["pixels"].shape == (8, 256, 256, 3)
    assert batch["drawn"].all()
    assert not batch["start"].any()
    assert (batch["first"] == batch["masks"][:, 0]).all()  # as it was drawn: nothing is spoiled


def test_a_pool_with_nothing_to_follow(pool: Pool, tracker: Tracker) -> None:
    chooser = Chooser.make(pool, ClipSettings())
    pool = copy.copy(pool)
    pool.clips = tuple(clip for clip in pool.clips if not clip.pictures[0].mask)
    with pytest.raises(InputError, match=r"followed is 0\.5.*give 0"):
        next(followed.clips(np.random.default_rng(0), pool, chooser, ClipSettings(followed=0.5), tracker))
