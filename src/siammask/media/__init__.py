"""Frames in and out: `open_source` reads a video, pictures or a camera; `VideoWriter` writes an mp4; `draw` paints."""

from siammask.media.read import Frame, Source, TruncatedError, open_source
from siammask.media.write import VideoWriter

__all__ = ["Frame", "Source", "TruncatedError", "VideoWriter", "open_source"]
