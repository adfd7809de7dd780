"""Reading frames, one at a time: `open_source` takes a video, pictures (folder, glob, file), a camera or a URL."""

from __future__ import annotations

import glob
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from siammask.errors import InputError, MediaError
from siammask.geometry import UInt8

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
PICTURE_FPS = 25.0  # pictures carry no times; this rate is what `Frame.time` counts them at

# The display matrix says how far to turn anticlockwise; these are what OpenCV calls the same turns.
_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


class TruncatedError(MediaError):
    """A source that breaks in the middle; the frames before `frame` were good."""

    def __init__(self, message: str, frame: int) -> None:
        super().__init__(message)
        self.frame = frame


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source."""

    index: int  # from 0, in the order in which the source shows them
    time: float  # seconds since frame 0
    pixels: UInt8  # (H, W, 3) BGR, upright


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Something that gives frames, lazily and from the beginning each time it is iterated.

    Iterating holds one frame at a time and closes what it opened. It raises TruncatedError, naming the frame, where the
    source breaks or changes its picture size, after every frame before that has been given.
    """

    name: str
    size: tuple[int, int]  # (W, H) of every frame
    fps: float | None  # mean rate; None where the source does not say
    length: int | None  # number of frames as far as the source tells; None for cameras and streams
    read: Callable[[int], Iterator[Frame]]  # frames from this index on
    live: bool = False  # it goes on whether or not its frames are taken

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def frames(self, start: int = 0) -> Generator[Frame, None, None]:
        """Frames from index `start` on (those before are skipped, not numbered anew).

        Raises InputError where the source ends before `start`.
        """
        if start < 0:
            raise InputError(f"Start frame is {start}; frames are counted from 0.")
        end = 0
        for frame in self.read(start):
            height, width = frame.pixels.shape[:2]
            if (width, height) != self.size:
                raise TruncatedError(
                    f"Frame {frame.index} of {self.name} is {width}x{height} but the first one is "
                    f"{self.size[0]}x{self.size[1]}; all frames must have one size.",
                    frame.index,
                )
            end = frame.index + 1
            yield frame
        if end <= start:
            raise InputError(f"{self.name} ends before frame {start}; choose an earlier start frame.")


def open_source(source: str | Path) -> Source:
    """Open a video file, a folder of pictures, a glob pattern, one picture, a camera ("0") or a URL ("rtsp://...").

    Files are checked by decoding their first frame. Pictures are put in natural order (2.png before 10.png).
    Raises MediaError, in one sentence, for what is missing, empty or unreadable.
    """
    name = str(source)
    path = Path(source)
    if "://" in name:
        return _video(name, name)
    if path.is_dir():
        pictures = _sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
        if not pictures:
            raise MediaError(f"Folder {name} holds no pictures ({_endings()}).")
        return _pictures(pictures, name)
    if path.is_file():
        return _pictures([path], name) if path.suffix.lower() in PICTURES else _video(name, name)
    if name.isascii() and name.isdigit():
        return _camera(int(name))
    if glob.has_magic(name):
        pictures = _sorted(p for p in map(Path, glob.glob(name)) if p.suffix.lower() in PICTURES)
        if not pictures:
            raise MediaError(f"No picture ({_endings()}) matches {name}.")
        return _pictures(pictures, name)
    if path.exists():
        raise MediaError(f"{name} is neither a file nor a folder; give a video or a folder of pictures.")
    raise MediaError(f"There is no file or folder {name}.")


def read_picture(path: Path) -> UInt8:
    """One picture (H, W, 3) uint8 BGR, turned as its EXIF says; grey is spread, 16 bits are scaled to 8, alpha is left.

    Raises MediaError where it cannot be read.
    """
    try:
        data = np.fromfile(path, np.uint8)  # unlike cv2.imread: any file name on any system, and errors that say why
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error) as error:
        raise MediaError(f"Picture {path} cannot be read ({_reason(error)}).") from error
    if pixels is None:
        raise MediaError(f"Picture {path} cannot be read; it is damaged or not a picture.")
    return np.asarray(pixels, np.uint8)


# Pictures


def _pictures(paths: list[Path], name: str) -> Source:
    height, width = read_picture(paths[0]).shape[:2]

    def read(start: int) -> Iterator[Frame]:
        for index, path in enumerate(paths[start:], start):
            try:
                pixels = read_picture(path)
            except MediaError as error:
                raise TruncatedError(f"{error} That is frame {index}.", index) from error
            yield Frame(index, index / PICTURE_FPS, pixels)

    return Source(name, (width, height), PICTURE_FPS, len(paths), read)


def _sorted(paths: Iterable[Path]) -> list[Path]:
    """Natural order: runs of digits count as numbers."""

    def key(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", str(path))]

    return sorted(paths, key=key)


def _endings() -> str:
    return ", ".join(sorted(PICTURES))


# Video


def _video(address: str, name: str) -> Source:
    with closing(_decode(address, name, 0)) as frames:
        first = next(frames, None)
    if first is None:
        raise MediaError(f"Video {name} holds no frame that can be decoded.")
    with _open(address, name) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        length = stream.frames or None
        live = "://" in address and not address.startswith("file:") and container.duration is None
    height, width = first.pixels.shape[:2]
    return Source(
        name, (width, height), float(rate) if rate else None, length, lambda start: _decode(address, name, start), live
    )


def _open(address: str, name: str) -> Any:
    try:
        container = av.open(address)
    except av.FFmpegError as error:
        raise MediaError(
            f"Video {name} cannot be opened ({_reason(error)}); it is damaged, incomplete or not a video."
        ) from error
    if not container.streams.video or container.format.name == "tty":  # FFmpeg "plays" text files as ANSI art
        container.close()
        raise MediaError(f"File {name} has no video stream.")
    return container


def _decode(address: str, name: str, start: int) -> Generator[Frame, None, None]:
    """Frames from `start` on. A frame keeps the time at which the file shows it."""
    reformatter = VideoReformatter()
    index, origin, following, end = 0, None, 0.0, 0.0  # following: when the next frame is due, if it does not say
    with _open(address, name) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        step = float(1 / stream.average_rate) if stream.average_rate else 1 / PICTURE_FPS
        try:
            for packet in container.demux(stream):
                if packet.is_corrupt and packet.size:  # cut in the middle: it would decode to half a picture
                    raise av.error.InvalidDataError(0, "the data end in the middle of a frame")
                if packet.pts is not None and packet.time_base is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                for picture in packet.decode():
                    shown = following if picture.time is None else float(picture.time)
                    origin = shown if origin is None else origin
                    following = shown + step
                    if index >= start:
                        yield Frame(index, shown - origin, _upright(picture, reformatter))
                    index += 1
        except av.FFmpegError as error:
            if index == 0:
                raise MediaError(f"Video {name} cannot be decoded ({_reason(error)}).") from error
            raise TruncatedError(f"Video {name} breaks at frame {index} ({_reason(error)}).", index) from error
        missing = _declared_end(stream) - end
        if index and missing > max(0.1, 2 * step, 0.02 * end):  # a frame or two may fall to edit lists and rounding
            raise TruncatedError(
                f"Video {name} ends at frame {index}, {missing:.1f} s before the length it states; it is incomplete.",
                index,
            )


def _declared_end(stream: Any) -> float:
    """When the stream should end by what the file says of it, in seconds; 0 where it says nothing."""
    if stream.duration is not None and stream.time_base is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    # Matroska writes it as a tag: 00:00:03.600000000
    parts = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return int(parts[1]) * 3600 + int(parts[2]) * 60 + float(parts[3]) if parts else 0.0


def _upright(picture: Any, reformatter: VideoReformatter) -> UInt8:
    """(H, W, 3) BGR of a decoded picture of any pixel format, turned as the file's display matrix says."""
    pixels = np.asarray(reformatter.reformat(picture, format="bgr24").to_ndarray(), np.uint8)
    turn = _TURNS.get(picture.rotation % 360)
    return pixels if turn is None else np.asarray(cv2.rotate(pixels, turn), np.uint8)


# Camera


def _camera(number: int) -> Source:
    capture = _open_camera(number)
    try:
        good, pixels = capture.read()
        rate = capture.get(cv2.CAP_PROP_FPS)
    finally:
        capture.release()
    if not good:
        raise MediaError(f"Camera {number} gives no picture.")

    def read(start: int) -> Iterator[Frame]:
        capture = _open_camera(number)
        try:
            begin, index = time.monotonic(), 0
            while True:
                good, pixels = capture.read()
                if not good:
                    raise TruncatedError(f"Camera {number} stopped at frame {index}.", index)
                if index >= start:
                    yield Frame(index, time.monotonic() - begin, np.asarray(pixels, np.uint8))
                index += 1
        finally:
            capture.release()

    return Source(f"camera {number}", (pixels.shape[1], pixels.shape[0]), rate if rate > 0 else None, None, read, True)


def _open_camera(number: int) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        capture.release()
        raise MediaError(f"Camera {number} cannot be opened, and there is no file of that name.")
    return capture


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")
