"""Small videos for the tests, made on the spot: the frame's number can be read off its grey level."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from siammask.geometry import UInt8


def numbered(count: int, size: tuple[int, int] = (64, 48)) -> list[UInt8]:
    """Plain frames (H, W, 3) whose grey level is 20 + 10 x number, with a white block in the upper left corner."""
    frames = []
    for number in range(count):
        frame = np.full((size[1], size[0], 3), 20 + 10 * number, np.uint8)
        frame[: size[1] // 4, : size[0] // 4] = 255
        frames.append(frame)
    return frames


def number_of(pixels: UInt8) -> int:
    """Which of the `numbered` frames this is."""
    return round((float(np.median(pixels)) - 18) / 10)  # FFmpeg's quick conversions lose up to 4 levels


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    times: Sequence[float] | None = None,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    source_format: str = "bgr24",
    options: dict[str, str] | None = None,
) -> Path:
    """Encode frames, shown at `times` seconds (25 a second where none are given). The index is at the front (mp4)."""
    place = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=place) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format=source_format)
            frame.time_base = Fraction(1, 1000)
            frame.pts = number * 40 if times is None else round(times[number] * 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn_mp4(path: Path, quarters: int) -> Path:
    """Write into the header of an mp4 that it is shown turned clockwise by so many quarters (ISO 14496-12, tkhd)."""
    a, b, c, d = ((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))[quarters]
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes from after the name to the matrix
    one = 1 << 16
    struct.pack_into(">9i", data, matrix, a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
