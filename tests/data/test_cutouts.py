"""A picture with alpha becomes a still whose mask is its alpha; what is no cut-out is named and left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from siammask import cli
from siammask.data import Report, check_folder, cutouts, import_folder
from siammask.errors import InputError, MediaError
from siammask.evaluate.sequences import read_indexed_png
from siammask.regions import Mask
from siammask.train import pool

RED, GREEN = (20, 30, 220), (30, 200, 40)


def disc(width: int = 80, height: int = 60, radius: int = 20, centre: tuple[int, int] = (40, 30)) -> Mask:
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, centre, radius, 1, -1)
    return mask > 0


def cutout(path: Path, mask: Mask, colour: tuple[int, int, int] = RED, wide: bool = False) -> Path:
    """The object in one colour; what is transparent is bright green, which must never be seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels: np.ndarray = np.full((*mask.shape, 4), (0, 255, 0, 0), np.uint8)
    pixels[mask] = (*colour, 255)
    if wide:
        pixels = pixels.astype(np.uint16) * 257
    lossless = [cv2.IMWRITE_WEBP_QUALITY, 101] if path.suffix == ".webp" else []
    good, data = cv2.imencode(path.suffix, pixels, lossless)
    assert good
    path.write_bytes(data.tobytes())
    return path


def imported(folder: Path, out: Path, **options: Any) -> tuple[Report, list[pool.Clip]]:
    report = import_folder(folder, "cutouts", out, **options)
    assert not check_folder(out).problems
    return report, list(pool.build(out.parent, out.parent / "cache", [out.name]).clips)


@pytest.mark.parametrize(("name", "wide"), [("a.png", False), ("a.webp", False), ("a.png", True)])
def test_alpha_is_the_mask(tmp_path: Path, name: str, wide: bool) -> None:
    mask = disc()
    pixels, found = cutouts.load(cutout(tmp_path / name, mask, wide=wide))
    assert pixels.shape == (*found.shape, 3)
    assert found.shape == (41 + 2 * cutouts.MARGIN,) * 2  # cropped to the disc
    inner = found[cutouts.MARGIN : -cutouts.MARGIN, cutouts.MARGIN : -cutouts.MARGIN]
    np.testing.assert_array_equal(inner, mask[10:51, 20:61])
    assert (pixels[found] == RED).all()
    near = cv2.dilate(found.astype(np.uint8), np.ones((3, 3), np.uint8)) > found
    assert np.abs(pixels[near].astype(int) - RED).max() < 8  # no ground of the original at the rim
    assert np.abs(pixels[0, 0].astype(int) - cutouts.NEUTRAL).max() < 8


def test_half_transparent_is_the_border(tmp_path: Path) -> None:
    pixels = np.full((60, 80, 4), (*GREEN, 127), np.uint8)
    pixels[20:40, 20:50] = (*RED, 128)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    shown, found = cutouts.load(tmp_path / "a.png")
    assert found.sum() == 20 * 30
    assert (shown[found] == RED).all()


def test_an_object_that_fills_its_picture_is_whole(tmp_path: Path) -> None:
    """Trimmed cut-outs are usual: training takes what touches the edge of a picture for cut off."""
    cutout(tmp_path / "in/a.png", disc(41, 41, 20, (20, 20)))
    _, (clip,) = imported(tmp_path / "in", tmp_path / "pool/discs")
    (picture,) = clip.pictures
    x, y, w, h = picture.boxes[1]
    assert (x, y) == (cutouts.MARGIN, cutouts.MARGIN)
    assert (x + w, y + h) == (picture.width - cutouts.MARGIN, picture.height - cutouts.MARGIN)


def test_large_ones_are_shrunk(tmp_path: Path) -> None:
    mask = disc(1200, 700, 300, (600, 350))
    pixels, found = cutouts.load(cutout(tmp_path / "a.png", mask))
    assert found.shape == (cutouts.LONGEST + 2 * cutouts.MARGIN,) * 2
    assert found.sum() == pytest.approx(np.pi * (cutouts.LONGEST / 2) ** 2, rel=0.01)
    rim = cv2.dilate(found.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert np.abs(pixels[rim].astype(int) - RED).max() < 8


def test_a_folder_of_them(tmp_path: Path) -> None:
    cutout(tmp_path / "in/ball.png", disc())
    cutout(tmp_path / "in/fruit/apple.webp", disc(radius=24))
    report, clips = imported(tmp_path / "in", tmp_path / "pool/things", licence="CC0")
    assert not report.problems
    assert [(c.name, c.categories, c.cutout) for c in clips] == [
        ("ball", {1: "object"}, True),
        ("fruit_apple", {1: "fruit"}, True),
    ]
    ids = read_indexed_png(tmp_path / "pool/things/masks/ball.png")
    assert int((ids == 1).sum()) == int(disc().sum()) == clips[0].pictures[0].areas[1]
    assert pool.manifest(tmp_path / "pool") == {
        "things": {
            "name": "things",
            "kind": "cutouts",
            "counts": {"pictures": 2, "objects": 2},
            "licence": "CC0",
        }
    }


def test_what_is_no_cutout_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    good = cutout(folder / "good.png", disc())
    cutout(folder / "empty.png", np.zeros((60, 80), bool))
    cutout(folder / "opaque.webp", np.ones((60, 80), bool))
    cutout(folder / "tiny.png", disc(radius=6))
    cutout(folder / "large.png", disc(200, 100))
    cv2.imwrite(str(folder / "flat.png"), np.zeros((60, 80, 3), np.uint8))
    (folder / "cut.png").write_bytes(good.read_bytes()[:-30])
    webp = cutout(folder / "other.webp", disc()).read_bytes()
    (folder / "other.webp").write_bytes(webp[:-30])
    cv2.imwrite(str(folder / "photo.jpg"), np.zeros((60, 80, 3), np.uint8))  # not looked at
    monkeypatch.setattr(cutouts, "MOST_PIXELS", 10_000)
    report, clips = imported(folder, tmp_path / "pool/things")
    assert [clip.name for clip in clips] == ["good"]
    said = {problem.file.name: (problem.fatal, problem.what) for problem in report.problems}
    assert said.keys() == {p.name for p in folder.iterdir()} - {"good.png", "photo.jpg"}
    for name, fatal, what in (
        ("empty.png", False, "It is empty"),
        ("opaque.webp", False, "It "),  # a WebP without a transparent pixel may be written without alpha
        ("tiny.png", False, "only 13x13; expected at least 16"),
        ("large.png", False, "200x100; expected at most 0.01 million"),
        ("flat.png", False, "It has no alpha"),
        ("cut.png", True, "ends in the middle"),
        ("other.webp", True, "ends in the middle"),
    ):
        assert said[name][0] is fatal
        assert what in said[name][1]


@pytest.mark.parametrize("quality", [80, 101])  # lossy and lossless WebP state their size in different places
def test_the_size_is_known_before_decoding(tmp_path: Path, quality: int) -> None:
    pixels = np.dstack([np.zeros((60, 83, 3), np.uint8), 255 * disc(83).astype(np.uint8)])
    for ending in (".png", ".webp"):
        _, data = cv2.imencode(ending, pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])
        assert cutouts.size_of(data.tobytes()) == (83, 60)
    assert cutouts.size_of(b"") == (0, 0)


def test_nothing_but_what_cannot_be_used(tmp_path: Path) -> None:
    cutout(tmp_path / "in/empty.png", np.zeros((60, 80), bool))
    with pytest.raises(MediaError, match=r"nothing to import as cutouts.* First problem: .*empty\.png: It is empty"):
        import_folder(tmp_path / "in", "cutouts", tmp_path / "pool/things")
    assert not (tmp_path / "pool/things").exists()
    assert not pool.manifest(tmp_path / "pool")


def test_some_are_left_out(tmp_path: Path) -> None:
    for name in ("flag-a", "flag-b", "hand", "hand-dark", "hand-pale"):
        cutout(tmp_path / f"in/{name}.png", disc())
    _, clips = imported(tmp_path / "in", tmp_path / "pool/a", leave_out=["flag-*", "*-[a-d]ark"])
    assert [clip.name for clip in clips] == ["hand", "hand-pale"]


def test_one_of_those_that_are_nearly_the_same(tmp_path: Path) -> None:
    cutout(tmp_path / "in/a.png", disc())
    cutout(tmp_path / "in/b.png", disc(radius=22), (30, 40, 210))  # its size does not count
    cutout(tmp_path / "in/c.png", disc(), GREEN)
    square = np.zeros((60, 80), bool)
    square[10:50, 20:60] = True
    cutout(tmp_path / "in/d.png", square)
    report, clips = imported(tmp_path / "in", tmp_path / "pool/a", distinct=0.05)
    assert [clip.name for clip in clips] == ["a", "c", "d"]
    assert [(p.file.name, p.what, p.fatal) for p in report.problems] == [
        ("b.png", "It is nearly the same as a and is left out.", False)
    ]
    _, clips = imported(tmp_path / "in", tmp_path / "pool/all")
    assert len(clips) == 4


@pytest.mark.parametrize(("kind", "distinct"), [("cutouts", -0.1), ("cutouts", 1.0), ("coco", 0.1)])
def test_how_distinct_they_can_be(tmp_path: Path, kind: str, distinct: float) -> None:
    with pytest.raises(InputError, match=f"is {distinct:g} for {kind}; expected 0 to 1"):
        import_folder(tmp_path, kind, tmp_path / "pool/a", distinct=distinct)


def test_the_manifest_keeps_what_others_say(tmp_path: Path) -> None:
    cutout(tmp_path / "in/a.png", disc())
    (tmp_path / "pool").mkdir()
    file = tmp_path / "pool/manifest.json"
    file.write_text(
        json.dumps({"version": 2, "sources": [{"name": "b", "licence": "MIT"}, {"name": "a", "kind": "x"}]})
    )
    import_folder(tmp_path / "in", "cutouts", tmp_path / "pool/a")
    known = json.loads(file.read_text())
    assert known["version"] == 2
    assert [(row["name"], row.get("kind"), row.get("licence")) for row in known["sources"]] == [
        ("b", None, "MIT"),
        ("a", "cutouts", None),
    ]


def test_a_manifest_of_something_else(tmp_path: Path) -> None:
    cutout(tmp_path / "in/a.png", disc())
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(MediaError, match=r"manifest\.json is no manifest of a training pool"):
        import_folder(tmp_path / "in", "cutouts", tmp_path / "pool/a")
    assert [p.name for p in (tmp_path / "pool").iterdir()] == ["manifest.json"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "a-dark", "b"):
        cutout(tmp_path / f"in/{name}.png", disc())
    argv = ["data", "import", str(tmp_path / "in"), "--kind", "cutouts", "--out", str(tmp_path / "pool/things")]
    argv += ["--leave-out", "*-dark", "--leave-out", "c*", "--distinct", "0.05", "--licence", "CC0"]
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert not ended.value.code
    assert "1 stills: 1 pictures, 1 objects; 0 errors, 1 notes." in capsys.readouterr().out
    assert pool.manifest(tmp_path / "pool")["things"]["licence"] == "CC0"
