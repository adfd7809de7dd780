"""The clips that come with the package can be read, and the drawn one is what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEngine

import siammask
from siammask import cli, demo
from siammask.geometry import Box
from siammask.tracker import Tracker
from siammask.weights import shipped


def test_bunny_is_all_there() -> None:
    source = demo.bunny()
    assert (source.size, source.fps, source.length) == ((640, 360), 25.0, 90)
    assert len(list(source)) == 90
    assert demo.BUNNY.stat().st_size < 1_000_000
    credit = demo.BUNNY.with_name("CREDITS.md").read_text(encoding="utf-8")
    assert "Blender Foundation" in credit
    assert "creativecommons.org/licenses/by/3.0" in credit


def test_bunny_box_lies_on_the_rabbit() -> None:
    """Its fur is grey, the meadow is not."""
    pixels = next(iter(demo.bunny())).pixels.astype(int)
    middle = pixels[190:230, 170:230]
    assert abs(middle.max(axis=2) - middle.min(axis=2)).mean() < 30
    x, y, w, h = demo.BUNNY_BOX.xywh
    assert min(x, y) >= 0
    assert x + w <= 640
    assert y + h <= 360


def test_drawn_frames_are_the_same_each_time() -> None:
    first, second = demo.draw_frame(11), demo.draw_frame(11)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    frames = list(demo.drawn().frames(70))
    assert [frame.index for frame in frames] == [70, 71, 72, 73, 74]
    np.testing.assert_array_equal(frames[1].pixels, demo.draw_frame(71)[0])


def test_true_masks_cover_the_bluish_thing_and_stay_in_the_frame() -> None:
    for index in range(0, demo.DRAWN_LENGTH, 6):
        pixels, mask = demo.draw_frame(index)
        blue = pixels[..., 0].astype(int) - pixels[..., 2]
        thing = blue > 40
        assert (thing & mask).sum() / (thing | mask).sum() > 0.93
        edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert not edge.any()


def test_drawn_thing_moves_and_changes_its_size() -> None:
    masks = [demo.draw_frame(index)[1] for index in range(0, demo.DRAWN_LENGTH, 5)]
    boxes = [box for mask in masks if (box := Box.from_mask(mask)) is not None]
    areas = [mask.sum() for mask in masks]
    assert boxes[0] == demo.drawn_box()
    assert max(areas) / min(areas) > 3
    assert max(box.cx for box in boxes) - min(box.cx for box in boxes) > 300


def test_demo_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "DRAWN_LENGTH", 6)
    monkeypatch.setattr(demo, "bunny", demo.drawn)
    monkeypatch.setattr(
        siammask, "load", lambda name, **_: Tracker(siammask.variant(name), FakeEngine(siammask.variant(name)))
    )
    with pytest.raises(SystemExit) as ended:
        cli.main(["demo", "--out", str(tmp_path / "out")])
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "(J)" in said
    for name in ("bunny", "drawn"):
        assert str(tmp_path / "out" / name / "overlay.mp4") in said
        assert (tmp_path / "out" / name / "overlay.mp4").is_file()


@pytest.mark.skipif("guided" not in shipped(), reason="the package holds no weights of the default model")
def test_default_model_follows_the_drawn_thing() -> None:
    from siammask.evaluate.overlap import region_similarity

    tracker = siammask.load(threads=1)
    results = tracker.follow((frame.pixels for frame in demo.drawn()), demo.drawn_box())
    overlaps = [region_similarity(demo.draw_frame(i)[1], result.mask) for i, result in enumerate(results)]
    assert len(overlaps) == demo.DRAWN_LENGTH
    assert np.mean(overlaps[1:]) > 0.8
