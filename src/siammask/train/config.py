"""One TOML file a run: every option is a field here, and an unknown one fails at once."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siammask.errors import InputError
from siammask.train.clips import ClipSettings


@dataclass(frozen=True, slots=True)
class DataConfig:
    root: str  # the pool's folder; relative to the working directory
    sources: tuple[str, ...]
    cache: str = "runs/cache"
    validation: tuple[str, ...] = ()  # "source/sequence": never trained on, tracked to choose the checkpoint
    workers: int = 1
    clips: ClipSettings = field(default_factory=ClipSettings)


@dataclass(frozen=True, slots=True)
class OptimConfig:
    steps: int = 2000
    batch: int = 16
    lr: float = 1.5e-3
    backbone_lr: float = 0.0  # 0: the backbone stays as it is and runs in the data process
    train_from: int = 5  # first block of the backbone that learns where backbone_lr > 0: 3 or 5
    warmup: int = 200
    decay_from: float = 0.0  # share of the steps at the full rate; then a cosine down to `final`
    final: float = 0.05  # share of the learning rate at the last step
    weight_decay: float = 1e-3
    clip: float = 2.0
    ema: float = 0.998
    teacher: tuple[float, float] = (0.6, 0.1)  # share of clips whose b is guided by the truth: at first, at last
    guide_drop: float = 0.12
    amp: bool = True  # on CUDA the frozen part of the backbone computes in bfloat16


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Weights of the losses; boundary is the extra weight of pixels at the mask's edge."""

    mask: float = 1.0
    dice: float = 1.0
    coarse: float = 0.3
    score: float = 0.3
    overlap: float = 0.2
    boundary: float = 3.0


@dataclass(frozen=True, slots=True)
class TrainConfig:
    variant: str
    output: str
    data: DataConfig
    seed: int = 0
    init: str = "imagenet"  # or a checkpoint (*.safetensors)
    threads: int | None = None
    device: str = "cpu"
    save_every: int = 100
    validate_every: int = 300
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)


def read(file: Path) -> TrainConfig:
    """The run described by a TOML file. Raises InputError that names the missing, unknown or ill-typed option."""
    try:
        values = tomllib.loads(file.read_text())
    except OSError as error:
        raise InputError(f"Config {file} cannot be read: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"Config {file} is not TOML: {error}.") from error
    made: TrainConfig = _make(TrainConfig, values, str(file))
    return made


def _make(kind: Any, value: Any, where: str) -> Any:
    """`value`, as read from TOML, as an object of type `kind`."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise InputError(f"{where} is {value!r}; expected a table.")
        hints = typing.get_type_hints(kind)
        fields = {f.name: f for f in dataclasses.fields(kind)}
        for name in value:
            if name not in fields:
                raise InputError(f"{where}: unknown option {name!r}; there are {', '.join(fields)}.")
        for name, f in fields.items():
            missing = dataclasses.MISSING
            if name not in value and f.default is missing and f.default_factory is missing:
                raise InputError(f"{where}: option {name!r} is missing.")
        return kind(**{name: _make(hints[name], v, f"{where}: {name}") for name, v in value.items()})
    if origin is tuple:
        inner = typing.get_args(kind)
        if not isinstance(value, list) or (inner[-1] is not Ellipsis and len(value) != len(inner)):
            raise InputError(f"{where} is {value!r}; expected a list{'' if inner[-1] is ... else f' of {len(inner)}'}.")
        return tuple(_make(inner[0], v, where) for v in value)
    if origin is dict:
        return {str(k): _make(typing.get_args(kind)[1], v, f"{where}.{k}") for k, v in value.items()}
    if origin is types.UnionType:
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{where} is {value!r}; expected {kind.__name__}.")
    return value
