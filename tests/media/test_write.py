"""What is written can be read again: frames, times, sizes; and a file bears its name only when it is whole."""

from __future__ import annotations

from pathlib import Path

import av
import clips
import numpy as np
import pytest

from siammask.errors import MediaError
from siammask.media import VideoWriter, open_source


@pytest.mark.parametrize(
    "times",
    [
        np.arange(12) / 25,
        np.arange(12) * 1001 / 30000,
        np.array([0, 0.04, 0.3, 0.31, 1.5, 1.54, 1.58, 2, 2.001, 3, 4, 5]),
    ],
)
def test_times_are_kept(tmp_path: Path, times: np.ndarray) -> None:
    with VideoWriter(tmp_path / "a.mp4", 25) as video:
        for pixels, time in zip(clips.numbered(12), times, strict=True):
            video.write(pixels, float(time))
    frames = list(open_source(tmp_path / "a.mp4"))
    assert [clips.number_of(frame.pixels) for frame in frames] == list(range(12))
    assert [frame.time for frame in frames] == pytest.approx(times, abs=1e-4)


def test_first_frame_is_shown_at_once(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4") as video:
        for number, pixels in enumerate(clips.numbered(5)):
            video.write(pixels, 7 + number / 10)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx(np.arange(5) / 10, abs=1e-4)


def test_times_that_stand_still_are_pushed_on(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4") as video:
        for pixels in clips.numbered(4):
            video.write(pixels, 1.0)
    assert len(list(open_source(tmp_path / "a.mp4"))) == 4


@pytest.mark.parametrize(("size", "even"), [((63, 47), (64, 48)), ((64, 47), (64, 48)), ((64, 48), (64, 48))])
def test_odd_sizes_are_made_even(tmp_path: Path, size: tuple[int, int], even: tuple[int, int]) -> None:
    with VideoWriter(tmp_path / "a.mp4") as video:
        for number, pixels in enumerate(clips.numbered(3, size)):
            video.write(pixels, number / 25)
    source = open_source(tmp_path / "a.mp4")
    assert source.size == even
    last = list(source)[-1].pixels
    assert abs(int(last[-1, -1, 0]) - int(last[-3, -3, 0])) < 8  # no black seam


def test_without_x264(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with VideoWriter(tmp_path / "a.mp4", 30) as video:
        for number, pixels in enumerate(clips.numbered(8)):
            video.write(pixels, number / 30)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    frames = list(open_source(tmp_path / "a.mp4"))
    assert [clips.number_of(frame.pixels) for frame in frames] == list(range(8))
    assert [frame.time for frame in frames] == pytest.approx(np.arange(8) / 30, abs=1e-3)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_file_is_finished(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with VideoWriter(tmp_path / "a.mp4") as video:
            for number, pixels in enumerate(clips.numbered(9)):
                if number == 6:
                    raise error
                video.write(pixels, number / 25)

    with pytest.raises(error):
        interrupted()
    assert [clips.number_of(frame.pixels) for frame in open_source(tmp_path / "a.mp4")] == list(range(6))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    with VideoWriter(path):
        pass
    assert path.read_bytes() == b"older"
    with VideoWriter(path) as video:
        video.write(clips.numbered(1)[0], 0.0)
        assert path.read_bytes() == b"older"
    assert open_source(path).length == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_close_twice(tmp_path: Path) -> None:
    video = VideoWriter(tmp_path / "a.mp4")
    video.write(clips.numbered(1)[0], 0.0)
    video.close()
    video.close()
    assert open_source(tmp_path / "a.mp4").length == 1


def test_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(MediaError, match="cannot be written"):
        VideoWriter(tmp_path / "file" / "a.mp4")
    with pytest.raises(MediaError, match="it is a folder"):
        VideoWriter(tmp_path / "folder.mp4")
    with pytest.raises(MediaError, match="cannot be written"):
        VideoWriter(tmp_path / "none" / "a.mp4")
