"""`masks/00000.png`: one indexed picture for each source frame, pixel value = object id, in the colours of DAVIS."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from siammask.errors import InputError, MediaError
from siammask.formats.base import Row, make_folder
from siammask.geometry import UInt8
from siammask.media import Frame
from siammask.media.draw import palette


class MaskWriter:
    """Writes one file for each frame; a file bears its name only when it is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path)

    def write(self, frame: Frame, rows: Sequence[Row]) -> None:
        data = encode_indexed(merge(rows, frame.pixels.shape[:2]))
        file = self.path / f"{frame.index:05d}.png"
        part = file.with_name(f".{file.name}.part")
        try:
            part.write_bytes(data)
            os.replace(part, file)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise MediaError(f"{file} cannot be written ({error.strerror}).") from error

    def close(self) -> None:
        pass


def merge(rows: Sequence[Row], shape: tuple[int, ...]) -> UInt8:
    """One picture (H, W) of object ids; where masks overlap the row with the higher score is on top."""
    ids = np.zeros(shape, np.uint8)
    for row in sorted(rows, key=lambda row: row.score):
        if not 0 < row.object < 256:
            raise InputError(f"Object id is {row.object}; an indexed mask holds 1 to 255.")
        ids[row.mask] = row.object
    return ids


def encode_indexed(ids: UInt8) -> bytes:
    """A PNG file with 8-bit palette indices (H, W): PNG specification (ISO/IEC 15948), colour type 3, no filter."""
    height, width = ids.shape
    lines = np.zeros((height, width + 1), np.uint8)  # each line begins with its filter type, 0 = none
    lines[:, 1:] = ids
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, data)
        for kind, data in (
            (b"IHDR", header),
            (b"PLTE", palette().tobytes()),
            (b"IDAT", zlib.compress(lines.tobytes(), 3)),
            (b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
