"""The folder layout: found by shape, read a frame at a time, refused with the file's name."""

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from siammask.errors import MediaError
from siammask.evaluate.sequences import find_sequences, read_indexed_png
from siammask.geometry import Box


def write_png(path, values, palette=True, bits=8):
    """An indexed (or grey) PNG written by hand: the palette's colours are nothing like the values."""
    height, width = values.shape
    rows = np.unpackbits(values[..., None].astype(np.uint8), axis=2)[..., 8 - bits :].reshape(height, -1)
    packed = np.packbits(rows, axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in packed)
    chunks = [(b"IHDR", width.to_bytes(4) + height.to_bytes(4) + bytes([bits, 3 if palette else 0, 0, 0, 0]))]
    if palette:
        chunks.append((b"PLTE", bytes((i * 37 + 11 * c + 200) % 256 for i in range(2**bits) for c in range(3))))
    chunks += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    blocks = (len(d).to_bytes(4) + k + d + zlib.crc32(k + d).to_bytes(4) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(blocks))


def make(folder: Path, masks=(), boxes=None, frames=None, size=(24, 32)):
    """One sequence folder."""
    (folder / "frames").mkdir(parents=True)
    for i in range(len(masks) if frames is None else frames):
        cv2.imwrite(str(folder / "frames" / f"{i:05d}.png"), np.full((*size, 3), i, np.uint8))
    if masks:
        (folder / "masks").mkdir()
        for i, mask in enumerate(masks):
            write_png(folder / "masks" / f"{i:05d}.png", mask)
    if boxes is not None:
        (folder / "boxes.txt").write_text("\n".join(",".join(map(str, box)) for box in boxes) + "\n")
    return folder


def square(x, y, side, value=1, size=(24, 32)):
    mask = np.zeros(size, np.uint8)
    mask[y : y + side, x : x + side] = value
    return mask


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_index_is_read_not_colour(tmp_path, bits):
    values = np.random.default_rng(0).integers(0, 2**bits, (13, 21)).astype(np.uint8)
    write_png(tmp_path / "m.png", values, bits=bits)
    np.testing.assert_array_equal(read_indexed_png(tmp_path / "m.png"), values)


def test_grey_is_read_as_it_is(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (13, 21)).astype(np.uint8)
    write_png(tmp_path / "m.png", values, palette=False)
    np.testing.assert_array_equal(read_indexed_png(tmp_path / "m.png"), values)
    write_png(tmp_path / "bit.png", values > 99, palette=False, bits=1)
    np.testing.assert_array_equal(read_indexed_png(tmp_path / "bit.png"), np.where(values > 99, 255, 0))


def test_bad_masks_are_named(tmp_path):
    cv2.imwrite(str(tmp_path / "colour.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(MediaError, match=r"colour\.png is a rgb24 picture"):
        read_indexed_png(tmp_path / "colour.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(MediaError, match=r"text\.png cannot be read"):
        read_indexed_png(tmp_path / "text.png")
    with pytest.raises(MediaError, match=r"absent\.png cannot be read"):
        read_indexed_png(tmp_path / "absent.png")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200)).astype(np.uint8)
    write_png(tmp_path / "cut.png", noise)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:9000])
    with pytest.raises(MediaError, match=r"cut\.png"):
        read_indexed_png(tmp_path / "cut.png")


def test_one_sequence_one_source_many_sources(tmp_path):
    make(tmp_path / "a" / "walk", [square(1, 2, 5)] * 3)
    make(tmp_path / "a" / "run", frames=2, boxes=[(1, 2, 3, 4)] * 2)
    make(tmp_path / "b" / "sit", [square(1, 2, 5)] * 2)
    (tmp_path / "stills" / "images").mkdir(parents=True)
    assert [s.name for s in find_sequences(tmp_path)] == ["a/run", "a/walk", "b/sit"]
    assert [s.name for s in find_sequences(tmp_path / "a")] == ["run", "walk"]
    (walk,) = find_sequences(str(tmp_path / "a" / "walk"))
    assert (walk.name, len(walk), walk.first) == ("walk", 3, 0)


def test_boxes_and_frames_are_read(tmp_path):
    masks = [square(0, 0, 0), square(3, 4, 6, value=255), square(5, 6, 7)]
    make(tmp_path / "s", masks, boxes=[(0, 0, 0, 0), ("3.0", 4, 6, 6), (5, 6, 7, "7.00")])
    (s,) = find_sequences(tmp_path / "s")
    assert s.first == 1
    assert s.box(0) is None
    assert s.box(1) == Box.from_xywh(3, 4, 6, 6)
    np.testing.assert_array_equal(s.read_frame(2), np.full((24, 32, 3), 2))
    np.testing.assert_array_equal(s.read_mask(1), masks[1] > 0)  # with boxes.txt every value is the object


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    make(tmp_path / "s", frames=11, boxes=[(1, 1, 3, 3)] * 11)
    for path in (tmp_path / "s" / "frames").iterdir():
        path.rename(path.with_stem(str(int(path.stem))))
    (s,) = find_sequences(tmp_path / "s")
    assert [int(s.read_frame(i)[0, 0, 0]) for i in (2, 9, 10)] == [2, 9, 10]


def test_without_boxes_every_object_is_a_sequence(tmp_path):
    masks = [square(2, 3, 5, value=1), square(4, 3, 5, value=1) | square(20, 10, 4, value=6)]
    make(tmp_path / "pair", masks)
    one, six = find_sequences(tmp_path)
    assert (one.name, six.name) == ("pair#1", "pair#6")
    np.testing.assert_array_equal(six.boxes, [[0, 0, 0, 0], [20, 10, 4, 4]])
    assert six.first == 1
    np.testing.assert_array_equal(six.read_mask(1), masks[1] == 6)
    np.testing.assert_array_equal(one.boxes, [[2, 3, 5, 5], [4, 3, 5, 5]])


def test_what_does_not_fit_is_refused(tmp_path):
    cases = {
        "no sequence": tmp_path / "empty",
        "is not a folder": tmp_path / "absent",
        "3 frames but 2 masks": make(tmp_path / "counts", [square(1, 1, 3)] * 2, frames=3),
        "1 boxes for 2 frames": make(tmp_path / "few", frames=2, boxes=[(1, 1, 3, 3)]),
        "line 2 is '1,2,x,4'": make(tmp_path / "word", frames=2, boxes=[(1, 2, 3, 4), (1, 2, "x", 4)]),
        "line 1 is 'nan,2,3,4'": make(tmp_path / "nan", frames=1, boxes=[("nan", 2, 3, 4)]),
        "line 1 is ''": make(tmp_path / "gap", frames=2, boxes=[(), (1, 2, 3, 4)]),
        "holds no picture": make(tmp_path / "bare", frames=0, boxes=[(1, 2, 3, 4)]),
        "neither masks/ nor boxes.txt": make(tmp_path / "alone", frames=1),
    }
    (tmp_path / "empty").mkdir()
    for message, folder in cases.items():
        with pytest.raises(MediaError, match=message.replace("(", r"\(")):
            find_sequences(folder)
    make(tmp_path / "names", [square(1, 1, 3)])
    (tmp_path / "names" / "masks" / "00000.png").rename(tmp_path / "names" / "masks" / "7.png")
    with pytest.raises(MediaError, match=r"00000\.png stands beside mask .*7\.png"):
        find_sequences(tmp_path / "names")


def test_a_broken_frame_and_a_missing_mask_are_named(tmp_path):
    make(tmp_path / "s", frames=2, boxes=[(1, 1, 3, 3)] * 2)
    (tmp_path / "s" / "frames" / "00001.png").write_bytes(b"nothing")
    (s,) = find_sequences(tmp_path / "s")
    with pytest.raises(MediaError, match=r"00001\.png cannot be read"):
        s.read_frame(1)
    with pytest.raises(MediaError, match="boxes but no masks"):
        s.read_mask(0)


def test_a_never_visible_object_is_no_sequence(tmp_path):
    make(tmp_path / "a", frames=1, boxes=[(0, 0, 0, 0)])
    make(tmp_path / "b", frames=1, boxes=[(1, 1, 4, 4)])
    assert [s.name for s in find_sequences(tmp_path)] == ["b"]


def test_the_evaluation_set_where_it_is():
    folder = Path(__file__).parents[3] / "shared" / "data" / "eval"
    if not folder.is_dir():
        pytest.skip("The evaluation set is not beside this clone; only its layout is tested.")
    found = find_sequences(folder)
    assert len(found) == 13
    dog = next(s for s in found if s.name == "davis2016_val/dog")
    assert dog.box(9) == Box.from_mask(dog.read_mask(9))
