"""Harder versions of drawn videos: what is cut, covered and doubled, and what is written once and read again."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train'")
from lively import guided_network
from rich.console import Console
from safetensors.torch import save_file

from siammask.errors import InputError, MediaError
from siammask.evaluate.sequences import Sequence, find_sequences
from siammask.formats.masks import encode_indexed
from siammask.geometry import Box, UInt8
from siammask.regions import Mask
from siammask.train import harder, loop, tune
from siammask.train.config import DataConfig, OptimConfig, TrainConfig

SIZE = (200, 120)  # width, height


def clouds(seed: int, low: int, high: int) -> UInt8:
    """Coloured clouds (H, W, 3) with values in low..high."""
    coarse = np.random.default_rng(seed).uniform(low, high, (SIZE[1] // 10, SIZE[0] // 10, 3))
    return cv2.resize(coarse, SIZE).astype(np.uint8)


def video(count: int, speed: float, axes: tuple[int, int] = (18, 14)) -> tuple[list[UInt8], list[Mask]]:
    """A bright ellipse that walks to the right over a dark ground; with speed 0 it stays in the middle."""
    ground, skin = clouds(1, 20, 90), clouds(2, 160, 240)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    starts = 100 if speed == 0 else 25
    masks = [((x - starts - speed * i) / axes[0]) ** 2 + ((y - 60) / axes[1]) ** 2 <= 1 for i in range(count)]
    return [np.where(mask[..., None], skin, ground) for mask in masks], masks


def write(folder: Path, count: int, speed: float = 5, axes: tuple[int, int] = (18, 14)) -> Sequence:
    """Such a video on disk; its target is not there yet on the first frame."""
    frames, masks = video(count, speed, axes)
    for kind in ("frames", "masks"):
        (folder / kind).mkdir(parents=True)
    for i, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
        cv2.imwrite(str(folder / "frames" / f"{i:03d}.png"), frame)
        (folder / "masks" / f"{i:03d}.png").write_bytes(encode_indexed((mask & (i > 0)).astype(np.uint8)))
    return find_sequences(folder)[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Sequence, ...], tuple[Sequence, ...]]:
    """The folder of harder ones, the given sequences (long, short, boxes only), and what became of them."""
    root = tmp_path_factory.mktemp("videos")
    long, short = write(root / "a" / "long", 26), write(root / "a" / "short", 10, 0)
    boxed = replace(long, name="boxed", masks=None)
    given = (long, short, boxed)
    return root / "harder", given, harder.harder(given, root / "harder")


@pytest.mark.parametrize(
    ("share", "rows", "columns"),
    [((0, 0, 1, 0.42), (0, 0.42), (0, 1)), ((0, 0.5, 1, 1), (0.5, 1), (0, 1)), ((0.4, 0, 1, 0.6), (0, 0.6), (0.4, 1))],
)
def test_a_part_is_that_share_of_the_box_on_every_frame(
    share: harder.Share, rows: tuple[float, float], columns: tuple[float, float]
) -> None:
    _, masks = video(5, 9)
    cut = harder.part(masks, share)
    assert cut is not None
    for mask, piece in zip(masks, cut, strict=True):
        box, inner = Box.from_mask(mask), Box.from_mask(piece)
        assert box is not None
        assert inner is not None
        assert not (piece & ~mask).any()
        limits = (box.x + columns[0] * box.w, box.y + rows[0] * box.h, columns[1] * box.w, rows[1] * box.h)
        assert inner.y >= limits[1] - 1
        assert inner.y + inner.h <= box.y + limits[3] + 1
        assert inner.x >= limits[0] - 1
        assert inner.x + inner.w <= box.x + limits[2] + 1
        assert piece.sum() > 0.2 * mask.sum()


def test_harder_ones_are_thinned_where_they_are_long_enough(
    made: tuple[Path, tuple[Sequence, ...], tuple[Sequence, ...]],
) -> None:
    """Every third frame of each with masks but those that are thinned already; made once."""
    folder, _, hard = made
    thin = {s.name: s for s in harder.thinned(hard, folder)}
    source = {f"fast/{s.name}": s for s in hard if not s.name.startswith("fast") and len(s) - s.first >= 24}
    assert thin.keys() == source.keys() != set()
    for name, one in thin.items():
        whole = source[name]
        assert len(one) == -(-(len(whole) - whole.first) // 3)
        np.testing.assert_array_equal(one.boxes[1], whole.boxes[whole.first + 3])
        np.testing.assert_array_equal(one.read_mask(1), whole.read_mask(whole.first + 3))
    before = {file: file.stat().st_mtime_ns for file in (folder / "fast").rglob("boxes.txt")}
    harder.thinned(hard, folder)
    assert {file: file.stat().st_mtime_ns for file in (folder / "fast").rglob("boxes.txt")} == before


def test_a_held_part_goes_with_what_it_shows() -> None:
    """Half of an ellipse stays that half, also where more of it comes into sight."""
    _, masks = video(9, 4, (30, 24))
    ground, skin = clouds(1, 20, 90), clouds(2, 110, 250)
    frames = [np.where(mask[..., None], np.roll(skin, 4 * i, 1), ground) for i, mask in enumerate(masks)]
    left = masks[0] & (np.arange(SIZE[0]) < 25)
    for i, (piece, mask) in enumerate(zip(harder.held(frames, masks, left), masks, strict=True)):
        true = np.roll(left, 4 * i, 1) & mask
        assert not (piece & ~mask).any()
        assert (piece & true).sum() / (piece | true).sum() > 0.85
    assert not harder.held(frames, [*masks[:-1], np.zeros_like(left)], left)[-1].any()


def test_no_part_that_is_thin_or_not_there() -> None:
    _, masks = video(3, 5, (18, 8))  # 20 px high or less
    assert harder.part(masks, (0, 0, 1, 0.42)) is None
    assert harder.part([np.zeros_like(masks[0]), *masks], (0, 0, 1, 1)) is None
    later = harder.part([*masks, np.zeros_like(masks[0])], (0, 0, 1, 1))
    assert later is not None
    assert not later[-1].any()


@pytest.mark.parametrize("speed", [5, 0], ids=["it moves", "it stays"])
def test_poles_cover_and_are_clear_of_the_first_frame(speed: float) -> None:
    frames, masks = video(26, speed)
    skin = clouds(9, 0, 255)
    for seed in range(8):
        found = harder.poles(frames, masks, skin, np.random.default_rng(seed))
        assert found is not None
        pictures, shown = found
        assert (shown[0] == masks[0]).all()
        covered = np.array([1 - s.sum() / m.sum() for s, m in zip(shown, masks, strict=True)])
        assert covered.max() > 0.15
        assert (covered == 0).sum() > 3
        for frame, picture, mask, left in zip(frames, pictures, masks, shown, strict=True):
            assert not (left & ~mask).any()
            assert (picture[left] == frame[left]).all()  # what is still seen is as it was
            if (hidden := mask & ~left).any():
                assert np.abs(picture[hidden].astype(int) - frame[hidden]).mean() > 5
    assert (frames[20] == video(26, speed)[0][20]).all()  # the pictures that were given stay as they are


def test_poles_stand_or_pass() -> None:
    """Where the target moves they are the same on all frames; where it stays, one is over it for about 8 frames."""
    frames, masks = video(26, 5)
    found = harder.poles(frames, masks, clouds(9, 0, 255), np.random.default_rng(0))
    assert found is not None
    empty = ~np.any(masks, axis=0)
    pictures = np.stack(found[0])
    assert (pictures[:, empty] == pictures[0, empty]).all()
    _, masks = video(10, 0)
    found = harder.poles(video(10, 0)[0], masks, clouds(9, 0, 255), np.random.default_rng(0))
    assert found is not None
    over = [s.sum() < m.sum() for s, m in zip(found[1], masks, strict=True)]
    assert 6 <= sum(over) <= 9


def test_a_video_too_short_for_a_pole_to_pass() -> None:
    frames, masks = video(3, 0)
    assert harder.poles(frames, masks, frames[0], np.random.default_rng(0)) is None


@pytest.mark.parametrize("speed", [4, 0])
def test_the_double_is_beside_the_target_and_never_over_it(speed: float) -> None:
    frames, masks = video(30, speed)
    pictures = harder.double(frames, masks)
    assert all((p == f).all() for p, f in zip(pictures[:3], frames[:3], strict=True))
    seen = 0
    for frame, picture, mask in zip(frames[3:], pictures[3:], masks[3:], strict=True):
        assert (picture[mask] == frame[mask]).all()
        bright = (picture.mean(2) > 140) & ~mask
        seen += bright.sum() > 0.7 * mask.sum()
        y, x = np.nonzero(bright)
        box = Box.from_mask(mask)
        assert box is not None
        far = np.hypot((x.mean() - box.cx) / box.w, (y.mean() - box.cy) / box.h)
        assert 0.9 < far < 1.8
    assert seen >= 20


def test_kinds_by_length_and_masks(made: tuple[Path, tuple[Sequence, ...], tuple[Sequence, ...]]) -> None:
    _, (long, short, boxed), _ = made
    assert harder.kinds_of(long) == ("fast", "upper", "lower", "piece", "poles", "double")
    assert harder.kinds_of(short) == ("poles",)
    assert harder.kinds_of(boxed) == ("fast",)


def test_what_is_written_is_read_as_video(made: tuple[Path, tuple[Sequence, ...], tuple[Sequence, ...]]) -> None:
    folder, (long, *_), found = made
    by_name = {s.name: s for s in found}
    assert set(by_name) == {
        *(f"{kind}/a-long" for kind in ("fast", "upper", "lower", "piece", "poles", "double")),
        "poles/a-short",
        "fast/a-boxed",
    }
    assert {s.name: len(s) for s in find_sequences(folder)} == {name: len(s) for name, s in by_name.items()}
    fast = by_name["fast/a-long"]
    assert len(fast) == 9  # frames 1, 4, ... 25
    assert (fast.read_frame(2) == long.read_frame(7)).all()
    assert (fast.read_mask(2) == long.read_mask(7)).all()
    assert (by_name["fast/a-boxed"].boxes == fast.boxes).all()
    for s in found:
        assert s.first == 0
        assert (s.masks is None) == (s.name == "fast/a-boxed")
        for i in range(len(s) if s.masks else 0):
            assert s.box(i) == Box.from_mask(s.read_mask(i))
    for kind in ("poles", "double"):
        assert by_name[f"{kind}/a-long"].boxes[0].tolist() == long.boxes[1].tolist()


def test_no_longer_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harder, "LENGTH", 6)
    boxed = replace(write(tmp_path / "a" / "long", 26), masks=None)
    assert [len(s) for s in harder.harder((boxed,), tmp_path / "harder")] == [6]


def test_the_same_again_and_only_what_is_missing(
    made: tuple[Path, tuple[Sequence, ...], tuple[Sequence, ...]], tmp_path: Path
) -> None:
    folder, given, found = made
    harder.harder(given, tmp_path)
    for s in found:
        for path in (*s.frames, *(s.masks or ())):
            assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    (tmp_path / "poles" / "a-long" / "boxes.txt").unlink()  # as one that was broken off
    (tmp_path / "poles" / "a-long" / "frames" / "99999.jpg").touch()
    assert [s.name for s in harder.harder(given, tmp_path)] == [s.name for s in found]
    again = {path for path in tmp_path.rglob("*.*") if path.stat().st_mtime_ns != times.get(path)}
    assert again
    assert {path.parts[len(tmp_path.parts)] for path in again} == {"poles"}
    assert {path.parts[len(tmp_path.parts) + 1] for path in again} == {"a-long"}
    assert not (tmp_path / "poles" / "a-long" / "frames" / "99999.jpg").exists()


def test_a_mask_that_is_empty_where_its_box_is_not(tmp_path: Path) -> None:
    s = write(tmp_path / "a" / "long", 20)
    bad = replace(s, boxes=np.tile([10.0, 10, 20, 20], (20, 1)))
    with pytest.raises(MediaError, match=r"000\.png is empty where boxes\.txt is not"):
        harder.harder((bad,), tmp_path / "harder")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    s = write(tmp_path / "a" / "long", 12)
    (tmp_path / "harder").touch()
    with pytest.raises(MediaError, match="cannot be written"):
        harder.harder((s,), tmp_path / "harder")


@pytest.fixture(scope="module")
def config(root: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """One step on the drawn pool, tracked on a held-out sequence and its harder versions."""
    folder = tmp_path_factory.mktemp("run")
    save_file(guided_network().state_dict(), folder / "start.safetensors")
    data = DataConfig(str(root), ("blobs",), str(folder / "cache"), ("blobs/walk",), harder=True, workers=0)
    start = str(folder / "start.safetensors")
    return TrainConfig("guided", str(folder / "out"), data, init=start, optim=OptimConfig(steps=1, batch=1))


def test_the_loop_tracks_both_lists(config: TrainConfig) -> None:
    assert [s.name for s in loop.harder_sequences(config)] == ["poles/blobs-walk"]
    assert loop.harder_sequences(replace(config, data=replace(config.data, harder=False))) == ()
    loop.run(config, console=Console(file=io.StringIO()))
    (line,) = (Path(config.output) / "validation.jsonl").read_text().splitlines()
    figures = json.loads(line)
    assert list(figures) == ["step", "J", "F", "AUC", "hard_J", "hard_F", "hard_AUC", "mean"]
    usual, hard = (sum(figures[prefix + name] for name in ("J", "F", "AUC")) / 3 for prefix in ("", "hard_"))
    assert figures["mean"] == pytest.approx((usual + hard) / 2)


def test_tune_reads_combinations_and_options() -> None:
    assert tune.parse("lr=0.2,0.3") == [{"lr": 0.2}, {"lr": 0.3}]
    assert tune.parse("lr=2e+1+window_factor=1,2") == [{"lr": 20, "window_factor": 1}, {"lr": 20, "window_factor": 2}]
    assert tune.options([]).precision == "f32"
    both = tune.options(["--precision=bf16", "--threads=2"])
    assert (both.precision, both.threads) == ("bf16", 2)
    for wrong in ("--threads=two", "--threads=0", "--precision", "--fast"):
        with pytest.raises(InputError, match=r"is unknown; give --precision"):
            tune.options([wrong])
