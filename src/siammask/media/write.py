"""Writing video: an mp4 that keeps the times of the frames it is given and is whole whenever it bears its name."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np

from siammask.errors import MediaError
from siammask.geometry import UInt8

_CLOCK = 60_000  # ticks a second: whole for 24, 25, 30, 30000/1001 frames a second; MPEG-4 part 2 allows 65535


class VideoWriter:
    """An mp4 under way. Use as a context manager: leaving it, also by an error or Ctrl-C, finishes the file.

    Frames go to a hidden file beside `path`, which takes that name once it is complete; an older file of the name stays
    until then. H.264 where this build of FFmpeg has x264, else MPEG-4 part 2. An odd width or height is made even by
    repeating the last column or row. The first frame written is shown at 0 s; distances in time are kept.
    Raises MediaError where the file cannot be written.
    """

    def __init__(self, path: str | Path, fps: float | None = None) -> None:
        """`fps` is the expected mean rate; it guides the encoder and changes no times."""
        self.path = Path(path)
        self._part = self.path.with_name(f".{self.path.name}.part")
        self._rate = Fraction(max(1.0, fps or 25)).limit_denominator(1001)
        self._stream: Any = None
        self._origin = 0.0
        self._last = -1
        if self.path.is_dir():
            raise MediaError(f"{self.path} cannot be written: it is a folder.")
        try:
            self._part.touch()
            self._container: Any = av.open(str(self._part), "w", format="mp4")
        except (av.FFmpegError, OSError) as error:
            raise _unwritable(self.path, error) from error

    def write(self, pixels: UInt8, time: float) -> None:
        """Add a frame (H, W, 3) BGR shown at `time` seconds; times must rise, all frames have the first one's size."""
        height, width = pixels.shape[:2]
        try:
            if self._stream is None:
                self._stream = self._add_stream(width + width % 2, height + height % 2)
                self._origin = time
            if width % 2 or height % 2:
                pixels = cv2.copyMakeBorder(pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)  # type: ignore[assignment]
            # the encoder's own form; FFmpeg would take four times as long to bring it there
            planes = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2YUV_I420), np.uint8)
            frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
            frame.time_base = Fraction(1, _CLOCK)
            frame.pts = self._last = max(self._last + 1, round((time - self._origin) * _CLOCK))
            self._container.mux(self._stream.encode(frame))
        except (av.FFmpegError, OSError) as error:
            raise _unwritable(self.path, error) from error

    def close(self) -> None:
        """Finish the file and give it its name; without a frame nothing is left."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            if self._stream is not None:
                container.mux(self._stream.encode())
            container.close()
            if self._stream is not None:
                os.replace(self._part, self.path)
        except (av.FFmpegError, OSError) as error:
            raise _unwritable(self.path, error) from error
        finally:
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add_stream(self, width: int, height: int) -> Any:
        if "libx264" in av.codecs_available:
            options = {"crf": "20", "preset": "superfast"}  # "veryfast": nearly twice the time, a third smaller
            stream = self._container.add_stream("libx264", rate=self._rate, options=options)
        else:
            stream = self._container.add_stream("mpeg4", rate=self._rate)
            stream.bit_rate = max(1_000_000, round(0.2 * width * height * self._rate))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _CLOCK)
        return stream


def _unwritable(path: Path, error: Exception) -> MediaError:
    return MediaError(f"{path} cannot be written ({getattr(error, 'strerror', None) or error}).")
