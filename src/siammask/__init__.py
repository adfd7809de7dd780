"""Track one object through video: box in, mask, rotated box and score out for every frame.

>>> import siammask
>>> sorted(siammask.VARIANTS)[0]
'guided'
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from siammask.boxes import Strategy, box_of
from siammask.errors import InputError, MediaError, MissingExtra, SiamMaskError, WeightsError
from siammask.geometry import Box, Patch, RotatedBox
from siammask.multi import MultiTracker
from siammask.tracker import Tracker, TrackerState, TrackResult
from siammask.variants import DEFAULT, VARIANTS, Variant, variant
from siammask.weights import search

__version__ = "0.1.0"

__all__ = [
    "VARIANTS",
    "Box",
    "InputError",
    "MediaError",
    "MissingExtra",
    "MultiTracker",
    "Patch",
    "RotatedBox",
    "SiamMaskError",
    "TrackResult",
    "Tracker",
    "TrackerState",
    "Variant",
    "WeightsError",
    "box_of",
    "load",
    "variant",
]


def load(
    name: str = DEFAULT,
    *,
    engine: Literal["openvino", "onnxruntime", "torch"] = "openvino",
    precision: Literal["f32", "bf16", "f16"] | None = None,
    threads: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    weights: str | Path | None = None,
    rotated: Strategy = "mbr",
) -> Tracker:
    """A tracker with the model `name` (see VARIANTS), ready for `start`, `step` and `follow`.

    `weights` is a file or folder, whose own search settings (of `siammask import`) are taken; None takes those that
    ship with the package. `precision` None takes the model's
    default for this CPU, `threads` None the runtime's; `device` cuda is for torch and onnxruntime. `rotated` is how a
    mask becomes a rotated box (see `box_of`). Raises InputError for an unknown name or option, WeightsError for weights
    that are missing or do not fit, MissingExtra for an engine that is not installed.
    """
    from siammask.engines import open_engine  # here, so that `import siammask` loads no engine
    from siammask.engines.base import EngineOptions

    path = None if weights is None else Path(weights)
    chosen = variant(name)
    chosen = chosen.searching(**search(name, path))
    options = EngineOptions(engine, precision, threads, device)
    return Tracker(chosen, open_engine(chosen, options, path), rotated)
