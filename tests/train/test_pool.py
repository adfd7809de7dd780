"""The pool holds what the folder holds: ids, boxes, sizes; it is decoded once and shared as a path."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from siammask.errors import InputError, MediaError
from siammask.train import pool as pools
from siammask.train.pool import Clip, Pool

SOURCES = ("blobs", "boxed", "stills")


def named(pool: Pool, source: str, name: str) -> Clip:
    return next(c for c in pool.clips if (c.source, c.name) == (source, name))


def test_every_clip_of_every_source_in_order(pool: Pool) -> None:
    assert [(c.source, c.name, len(c.pictures)) for c in pool.clips] == [
        ("blobs", "back", 8),
        ("blobs", "walk", 8),
        ("boxed", "back", 8),
        ("boxed", "walk", 8),
        ("stills", "two", 1),
        ("stills", "rim", 1),
        ("stills", "large", 1),
    ]
    assert [c.is_video for c in pool.clips] == [True] * 4 + [False] * 3


def test_pixels_are_those_of_the_file(pool: Pool, root: Path) -> None:
    picture = named(pool, "blobs", "walk").pictures[3]
    np.testing.assert_array_equal(
        pool.pixels(picture), cv2.imread(str(root / "blobs" / "walk" / "frames" / "00003.jpg"))
    )


def test_masks_are_ids_with_boxes_and_areas(pool: Pool) -> None:
    clip = named(pool, "stills", "two")
    (picture,) = clip.pictures
    ids = pool.mask(picture)
    assert ids.shape == (120, 160)
    assert set(np.unique(ids)) == {0, 1, 2}
    assert clip.categories == {1: "cat", 2: "cat"}
    for k in (1, 2):
        ys, xs = np.nonzero(ids == k)
        assert picture.areas[k] == len(xs)
        x, y, w, h = picture.boxes[k]
        assert (x, y, x + w, y + h) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_pixels_to_ignore_are_noted_and_are_no_object(pool: Pool) -> None:
    (picture,) = named(pool, "stills", "rim").pictures
    assert picture.ignore
    assert set(picture.boxes) == {1}
    assert not named(pool, "stills", "two").pictures[0].ignore


def test_large_pictures_are_shrunk_with_their_masks(pool: Pool) -> None:
    (picture,) = named(pool, "stills", "large").pictures
    assert (picture.width, picture.height) == (640, 320)
    assert pool.pixels(picture).shape == (320, 640, 3)
    assert picture.boxes[1][2] == pytest.approx(300 * 0.8, rel=0.1)
    assert picture.areas[1] == pytest.approx(np.pi * 150 * 100 * 0.64, rel=0.02)


def test_a_source_with_boxes_has_no_masks(pool: Pool) -> None:
    first, *_, last = named(pool, "boxed", "walk").pictures
    assert not first.mask
    assert first.boxes[1] == tuple(float(v) for v in named(pool, "blobs", "walk").pictures[0].boxes[1])
    assert last.boxes == {}  # 0,0,0,0: not visible
    with pytest.raises(InputError, match="no mask"):
        pool.mask(first)


def test_workers_map_the_same_file(pool: Pool) -> None:
    data = pickle.dumps(pool)
    assert len(data) < 1000  # a path, not the pictures
    copy = pickle.loads(data)
    assert copy.file == pool.file
    assert copy.clips == pool.clips
    picture = pool.clips[0].pictures[0]
    np.testing.assert_array_equal(copy.pixels(picture), pool.pixels(picture))


def test_the_file_is_decoded_once(root: Path, tmp_path: Path) -> None:
    file = pools.build(root, tmp_path, ("boxed",)).file
    before = file.stat().st_mtime_ns
    assert pools.build(root, tmp_path, ("boxed",)).file == file
    assert file.stat().st_mtime_ns == before
    other = pools.build(root, tmp_path, ("boxed",), ["boxed/walk"])
    assert other.file != file
    assert [c.name for c in other.clips] == ["back"]
    assert not list(tmp_path.glob("*.part"))


def test_listing_names_the_files_that_are_read(root: Path) -> None:
    found = {(s, n): files for s, n, files, _ in pools.listing(root, SOURCES, ["blobs/back", "stills/two"])}
    assert set(found) == {
        ("blobs", "walk"),
        ("boxed", "back"),
        ("boxed", "walk"),
        ("stills", "rim"),
        ("stills", "large"),
    }
    image, mask, box = found["blobs", "walk"][2]
    assert image == root / "blobs" / "walk" / "frames" / "00002.jpg"
    assert mask == root / "blobs" / "walk" / "masks" / "00002.png"
    assert box is None


def test_a_source_may_lie_in_a_further_pool(root: Path, tmp_path: Path) -> None:
    """The first pool that has it gives it; what is known of the others does not change their file."""
    shutil.copytree(root / "stills", tmp_path / "more/drawn")
    shutil.copytree(root / "stills", tmp_path / "more/stills")
    (tmp_path / "more/stills/images/two.jpg").unlink()  # not the one that is read
    more = (tmp_path / "none", tmp_path / "more")
    (tmp_path / "more/manifest.json").write_text('{"sources": [{"name": "drawn", "kind": "cutouts"}]}')
    made = pools.build(root, tmp_path / "cache", ("stills", "drawn"), ["drawn/rim"], more)
    assert [(c.source, c.name) for c in made.clips] == [
        ("stills", "two"),
        ("stills", "rim"),
        ("stills", "large"),
        ("drawn", "two"),
        ("drawn", "large"),
    ]
    assert [c.cutout for c in made.clips] == [False] * 3 + [True] * 2
    assert pickle.loads(pickle.dumps(made)).clips == made.clips
    with pytest.raises(MediaError, match=r"drawn or .*none/drawn is missing; check `data\.root`, `data\.more` and"):
        pools.build(root, tmp_path / "cache", ("drawn",), more=more[:1])


def test_cutouts_of_old(root: Path, tmp_path: Path) -> None:
    """One source is known to hold them, also where the decoded file does not say it."""
    shutil.copytree(root / "stills", tmp_path / "eth80")
    made = pools.build(tmp_path, tmp_path / "cache", ("eth80",))
    assert all(clip.cutout for clip in made.clips)
    index = made.file.with_suffix(".json")
    index.write_text(index.read_text().replace(', "cutout": true', ""))
    assert Pool(made.file).clips == made.clips


@pytest.mark.parametrize("text", ["{", "[]", '{"sources": [{"kind": "cutouts"}]}', '{"name": "an app"}'])
def test_a_manifest_of_something_else(tmp_path: Path, text: str) -> None:
    assert pools.manifest(tmp_path) == {}
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(MediaError, match=r"manifest\.json is no manifest of a training pool"):
        pools.manifest(tmp_path)


def test_a_missing_source_is_said_before_anything_is_decoded(root: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"nowhere is missing; check `data\.root`, `data\.more` and"):
        pools.build(root, tmp_path, ("blobs", "nowhere"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("boxes.txt", "has neither masks/ nor boxes.txt"),
        ("frames/00004.jpg", "7 frames but 8 boxes"),
        ("frames/*", r"holds no \*\.jpg picture"),
    ],
)
def test_damaged_sequences(root: Path, tmp_path: Path, damage: str, says: str) -> None:
    shutil.copytree(root / "boxed", tmp_path / "boxed")
    for path in (tmp_path / "boxed" / "walk").glob(damage):
        path.unlink()
    with pytest.raises(MediaError, match=says):
        pools.build(tmp_path, tmp_path / "cache", ("boxed",))


def test_a_picture_that_is_none(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "boxed", tmp_path / "boxed")
    (tmp_path / "boxed" / "walk" / "frames" / "00002.jpg").write_bytes(b"not a picture")
    with pytest.raises(MediaError, match=r"00002\.jpg cannot be read as a picture"):
        pools.build(tmp_path, tmp_path / "cache", ("boxed",))
