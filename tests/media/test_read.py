"""Every kind of source gives its frames in order, upright, with their times; or says in a sentence what is wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path

import clips
import cv2
import numpy as np
import pytest

from siammask.errors import InputError, MediaError
from siammask.media import TruncatedError, open_source
from siammask.media.read import read_picture


def write_pictures(folder: Path, count: int, pattern: str = "{}.png", size: tuple[int, int] = (64, 48)) -> Path:
    folder.mkdir(exist_ok=True)
    for number, frame in enumerate(clips.numbered(count, size)):
        cv2.imwrite(str(folder / pattern.format(number)), frame)
    return folder


def test_video_gives_all_frames_in_order(tmp_path: Path) -> None:
    source = open_source(clips.write_video(tmp_path / "a.mp4", clips.numbered(20)))
    frames = list(source)
    assert (source.size, source.fps, source.length) == ((64, 48), 25.0, 20)
    assert [frame.index for frame in frames] == list(range(20))
    assert [clips.number_of(frame.pixels) for frame in frames] == list(range(20))
    assert [frame.time for frame in frames] == pytest.approx(np.arange(20) / 25)
    assert all(frame.pixels.dtype == np.uint8 and frame.pixels.shape == (48, 64, 3) for frame in frames)


def test_source_can_be_read_again_and_from_the_middle(tmp_path: Path) -> None:
    source = open_source(clips.write_video(tmp_path / "a.mp4", clips.numbered(10)))
    assert len(list(source)) == len(list(source)) == 10
    later = list(source.frames(7))
    assert [frame.index for frame in later] == [7, 8, 9]
    assert [clips.number_of(frame.pixels) for frame in later] == [7, 8, 9]
    assert later[0].time == pytest.approx(0.28)


@pytest.mark.parametrize("start", [10, 99])
def test_start_after_the_end(tmp_path: Path, start: int) -> None:
    source = open_source(clips.write_video(tmp_path / "a.mp4", clips.numbered(10)))
    with pytest.raises(InputError, match=f"ends before frame {start}"):
        list(source.frames(start))
    with pytest.raises(InputError, match="Start frame is -1"):
        list(source.frames(-1))


def test_uneven_times_are_kept_and_counted_from_the_first_frame(tmp_path: Path) -> None:
    times = [1.0, 1.04, 1.3, 1.31, 2.5, 2.54]
    source = open_source(clips.write_video(tmp_path / "a.mkv", clips.numbered(6), times))
    assert [frame.time for frame in source] == pytest.approx(np.array(times) - 1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("quarters", "size", "corner"),
    [(0, (64, 48), (0, 0)), (1, (48, 64), (0, -1)), (2, (64, 48), (-1, -1)), (3, (48, 64), (-1, 0))],
)
def test_rotation_metadata_is_applied(
    tmp_path: Path, quarters: int, size: tuple[int, int], corner: tuple[int, int]
) -> None:
    """The white block of the upper left corner goes where a clockwise turn takes it."""
    path = clips.turn_mp4(clips.write_video(tmp_path / "a.mp4", clips.numbered(3)), quarters)
    source = open_source(path)
    pixels = next(iter(source)).pixels
    assert source.size == size
    bright = {at: bool(pixels[at].mean() > 200) for at in ((0, 0), (0, -1), (-1, 0), (-1, -1))}
    assert [at for at, white in bright.items() if white] == [corner]


@pytest.mark.parametrize(
    ("codec", "pixel_format", "source_format"),
    [
        ("ffv1", "gray", "gray"),
        ("libx264", "yuv420p10le", "bgr24"),
        ("ffv1", "gray16le", "gray16le"),
        ("ffv1", "yuv444p16le", "bgr24"),
        ("ffv1", "bgra", "bgr24"),
    ],
)
def test_pixel_formats_become_bgr(tmp_path: Path, codec: str, pixel_format: str, source_format: str) -> None:
    frames: list[np.ndarray] = list(clips.numbered(4))
    if source_format == "gray":
        frames = [frame[..., 0] for frame in frames]
    if source_format == "gray16le":
        frames = [frame[..., 0].astype(np.uint16) * 257 for frame in frames]
    path = clips.write_video(
        tmp_path / "a.mkv", frames, codec=codec, pixel_format=pixel_format, source_format=source_format
    )
    out = [frame.pixels for frame in open_source(path)]
    assert [clips.number_of(pixels) for pixels in out] == [0, 1, 2, 3]
    assert out[0].shape == (48, 64, 3)
    assert out[0][:6, :6].min() > 240


def test_odd_size(tmp_path: Path) -> None:
    frames = clips.numbered(3, (63, 47))
    path = clips.write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixel_format="yuv444p")
    source = open_source(path)
    assert source.size == (63, 47)
    assert {frame.pixels.shape for frame in source} == {(47, 63, 3)}


def test_colours_are_bgr(tmp_path: Path) -> None:
    frame = np.empty((48, 64, 3), np.uint8)
    frame[:] = (200, 60, 20)
    path = clips.write_video(tmp_path / "a.mkv", [frame], codec="ffv1", pixel_format="bgr0")
    np.testing.assert_array_equal(next(iter(open_source(path))).pixels, frame)


@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
def test_truncated_video_gives_what_decodes_and_then_says_where_it_broke(tmp_path: Path, share: float) -> None:
    path = clips.write_video(tmp_path / "a.mp4", noisy(30))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    frames, error = until_broken(path)
    assert re.search(r"a\.mp4", str(error))
    assert 0 < len(frames) < 30
    assert frames == list(range(len(frames)))
    assert error.frame == len(frames)
    assert f"frame {len(frames)}" in str(error)


def test_video_cut_between_two_packets_is_noticed(tmp_path: Path) -> None:
    """Nothing in the data is damaged here: only the stated length tells."""
    import av

    path = clips.write_video(tmp_path / "a.mp4", noisy(30))
    with av.open(str(path)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.pos is not None]
    path.write_bytes(path.read_bytes()[: sorted(ends)[14]])
    frames, error = until_broken(path)
    assert re.search(r"before the length it states", str(error))
    assert 10 <= len(frames) <= 15


def test_truncated_matroska_is_noticed(tmp_path: Path) -> None:
    path = clips.write_video(tmp_path / "a.mkv", noisy(30))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(TruncatedError):
        list(open_source(path))


def until_broken(path: Path) -> tuple[list[int], TruncatedError]:
    """Indices of the frames that come before the source breaks, and what it says then."""
    frames = []
    try:
        for frame in open_source(path):
            frames.append(frame.index)
    except TruncatedError as error:
        return frames, error
    pytest.fail(f"{path} was read to the end without an error")


def noisy(count: int) -> list[np.ndarray]:
    """Frames that do not compress, so that any cut of the file falls into pictures."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(count)]


def test_pictures_come_in_natural_order(tmp_path: Path) -> None:
    source = open_source(write_pictures(tmp_path / "p", 12))
    assert source.length == 12
    assert [clips.number_of(frame.pixels) for frame in source] == list(range(12))
    assert [frame.time for frame in source] == pytest.approx(np.arange(12) / 25)
    assert [frame.index for frame in source.frames(9)] == [9, 10, 11]


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG", "webp", "bmp", "tiff"])
def test_picture_formats(tmp_path: Path, ending: str) -> None:
    folder = write_pictures(tmp_path / "p", 3, "frame {}." + ending)
    (folder / "notes.txt").write_text("not a picture")
    assert [clips.number_of(frame.pixels) for frame in open_source(folder)] == [0, 1, 2]


@pytest.mark.parametrize("ending", ["png", "tiff"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_grey_and_16_bit_pictures(tmp_path: Path, ending: str, depth: type) -> None:
    grey = (np.arange(48 * 64).reshape(48, 64) % 256).astype(depth) * (257 if depth is np.uint16 else 1)
    path = tmp_path / f"a.{ending}"
    cv2.imwrite(str(path), grey)
    pixels = read_picture(path)
    assert pixels.shape == (48, 64, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[..., 0], (np.arange(48 * 64).reshape(48, 64) % 256))


def test_alpha_is_left_out(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 8, 4), 90, np.uint8))
    assert read_picture(tmp_path / "a.png").shape == (8, 8, 3)


def test_glob_and_single_picture(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "p", 11, "left{}.png")
    write_pictures(tmp_path / "p", 2, "right{}.png")
    frames = open_source(str(folder / "left*.png"))
    assert [clips.number_of(frame.pixels) for frame in frames] == list(range(11))
    assert open_source(folder / "left3.png").length == 1


def test_folder_with_brackets_in_its_name_is_no_pattern(tmp_path: Path) -> None:
    assert open_source(write_pictures(tmp_path / "p[1]", 2)).length == 2


def test_changed_picture_size_is_an_error_at_that_frame(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "p", 5)
    cv2.imwrite(str(folder / "3.png"), np.zeros((48, 65, 3), np.uint8))
    frames, error = until_broken(folder)
    assert re.search(r"Frame 3 of .* is 65x48 but the first one is 64x48", str(error))
    assert frames == [0, 1, 2]
    assert error.frame == 3


def test_damaged_picture_is_an_error_at_that_frame(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "p", 5)
    (folder / "2.png").write_bytes(b"not a picture")
    frames, error = until_broken(folder)
    assert re.search(r"2\.png cannot be read.* frame 2", str(error))
    assert frames == [0, 1]
    assert error.frame == 2


def make_nothing(path: Path) -> Path:
    return path


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def make_junk(path: Path) -> Path:
    path.write_bytes(b"this is not a video " * 50)
    return path


def make_empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def make_headless(path: Path) -> Path:
    """An mp4 that was cut before its index, as from an interrupted recording."""
    clips.write_video(path, noisy(10))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4] + data[data.index(b"mdat") - 4 :])
    return path


def make_sound(path: Path) -> Path:
    import av

    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("gone.mp4", make_nothing, "There is no file or folder"),
        ("folder", make_folder, "holds no pictures"),
        ("junk.mp4", make_junk, "cannot be opened"),
        ("empty.mp4", make_empty, "cannot be opened"),
        ("headless.mp4", make_headless, "cannot be opened"),
        ("sound.wav", make_sound, "has no video stream"),
        ("notes.txt", make_junk, "has no video stream"),  # FFmpeg would play text
        ("junk.png", make_junk, "damaged or not a picture"),
        ("empty.png", make_empty, "damaged or not a picture"),
        ("none*.png", make_nothing, "No picture .* matches"),
    ],
)
def test_what_cannot_be_opened_is_told_in_one_sentence(tmp_path: Path, name: str, make, sentence: str) -> None:  # type: ignore[no-untyped-def]
    path = make(tmp_path / name)
    with pytest.raises(MediaError, match=sentence) as caught:
        open_source(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_camera_that_is_not_there() -> None:
    with pytest.raises(MediaError, match="Camera 97 cannot be opened"):
        open_source("97")


def test_only_what_goes_on_by_itself_is_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, also one behind a URL, states its length; a camera and a stream do not."""
    video = clips.write_video(tmp_path / "a.mp4", clips.numbered(3))
    assert not open_source(video).live
    assert not open_source(f"file://{video}").live

    class Camera:
        def __init__(self, number: int) -> None:
            pass

        def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
            return True

        def read(self) -> tuple[bool, np.ndarray]:
            return True, clips.numbered(1)[0]

        def get(self, what: int) -> float:
            return 30.0

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    assert open_source("0").live


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc, which only Linux has")
def test_files_are_closed_when_reading_stops_early(tmp_path: Path) -> None:
    source = open_source(clips.write_video(tmp_path / "a.mp4", clips.numbered(20)))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        frames = source.frames()
        next(frames)
        frames.close()
    assert len(os.listdir("/proc/self/fd")) == before
