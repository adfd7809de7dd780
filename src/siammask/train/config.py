"""One TOML file a run: every option is a field here, and an unknown one fails at once.

A file may begin with `extends = "FILE"` (relative to itself): what it does not say is as in that file. One that names
its own sources has their weights of its own, too.
"""

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
from siammask.train.pairs import PairSettings
from siammask.train.pool import Pool, build
from siammask.train.siamese_losses import SiameseWeights


@dataclass(frozen=True, slots=True)
class DataConfig:
    root: str  # the pool's folder; relative to the working directory
    sources: tuple[str, ...]
    cache: str = "runs/cache"
    validation: tuple[str, ...] = ()  # "source/sequence": never trained on, tracked to choose the checkpoint
    harder: bool = False  # also track harder versions of those: fast, parts, behind poles, beside a double
    workers: int = 1
    clips: ClipSettings = field(default_factory=ClipSettings)
    pairs: PairSettings = field(default_factory=PairSettings)  # the published family's, drawn from such clips
    more: tuple[str, ...] = ()  # further pools: where a source is that is not in `root`
    crops: tuple[int, ...] = ()  # guided: sides of the crops, each batch in one of them by chance; none: the variant's
    follow: str | None = None  # weights of the tracker whose clips `clips.followed` asks for; none: the package's
    echo: int = 1  # guided, on the CPU: how often a drawn clip is used, each time with other faults in its masks

    def pool(self) -> Pool:
        """What is trained on, decoded. Raises MediaError for what is missing or cannot be read."""
        return build(Path(self.root), Path(self.cache), self.sources, self.validation, [Path(p) for p in self.more])


@dataclass(frozen=True, slots=True)
class OptimConfig:
    steps: int = 2000
    batch: int = 16  # of all processes of a run together
    lr: float = 1.5e-3
    backbone_lr: float = 0.0  # 0: the backbone stays as it is and runs in the data process
    train_from: int = 5  # first block of the light backbone that learns where backbone_lr > 0: 3 or 5
    pointwise: bool = False  # guided: only their 1 x 1 convolutions learn: most of the weights, a fifth of the time
    backbone_adamw: bool = False  # the backbone learns by AdamW, whatever `method` says
    backbone_from: int = 0  # step from which on it learns (published family)
    method: str = "adamw"  # or "sgd", with momentum .9; or "muon" (optim.py)
    schedule: str = "cosine"  # after the warm-up; or "log": evenly on a logarithmic scale down to `final`
    warmup: int = 200
    warmup_from: float = 0.0  # share of the learning rate at which the warm-up begins
    decay_from: float = 0.0  # share of the steps at the full rate; then a cosine down to `final`
    final: float = 0.05  # share of the learning rate at the last step
    weight_decay: float = 1e-3
    clip: float = 2.0
    ema: float = 0.998
    teacher: tuple[float, float] = (0.6, 0.1)  # share of clips whose b is guided by the truth: at first, at last
    guide_drop: float = 0.12
    channel_drop: float = 0.0  # guided: share of the backbone's channels that a clip is learnt without
    amp: bool = True  # bfloat16: on CUDA the frozen part of the backbone; on CPUs with AMX all but the losses


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Weights of the losses; boundary is the extra weight of pixels at the mask's edge."""

    mask: float = 1.0
    dice: float = 1.0
    extent: float = 0.0  # of true masks too: thin ends that carry the box count as rows and columns
    coarse: float = 0.3
    score: float = 0.3
    overlap: float = 0.2
    box: float = 0.5  # of networks that say one
    boundary: float = 3.0


@dataclass(frozen=True, slots=True)
class SiameseConfig:
    """The published family's own options."""

    stage: str = "all"  # everything the variant has learns; "refine": only the mask branch and the refinement
    smooth: bool = False  # smooth L1 for boxes, as the paper has it; the released code takes L1
    weights: SiameseWeights = field(default_factory=SiameseWeights)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    variant: str
    output: str
    data: DataConfig
    seed: int = 0
    init: str = "imagenet"  # or a checkpoint (*.safetensors); published family: "random" too
    partial: bool = False  # the checkpoint may be of another variant: of it is taken what agrees in name and shape
    learn: tuple[str, ...] = ()  # guided: the parts of the head that learn, as they are called there; none named: all
    threads: int | None = None
    device: str = "cpu"
    save_every: int = 100
    validate_every: int = 300  # and after the last step; 0: never
    keep_every: int = 0  # averaged weights are kept as step-NNNNNN.safetensors; 0: never
    search: dict[str, float | str] = field(default_factory=dict)  # what the validating tracker changes
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    siamese: SiameseConfig = field(default_factory=SiameseConfig)


def read(file: Path) -> TrainConfig:
    """The run described by a TOML file. Raises InputError that names the missing, unknown or ill-typed option."""
    made: TrainConfig = _make(TrainConfig, _values(file), str(file))
    for where, value, known in (
        ("optim: method", made.optim.method, ("adamw", "muon", "sgd")),
        ("optim: schedule", made.optim.schedule, ("cosine", "log")),
        ("siamese: stage", made.siamese.stage, ("all", "refine")),
    ):
        if value not in known:
            raise InputError(f"{file}: {where} is {value!r}; choose {' or '.join(known)}.")
    return made


def seeded(c: TrainConfig, seed: int) -> TrainConfig:
    """The same run with another seed, in a folder beside its own: runs/NAME-seedN for runs/NAME."""
    return dataclasses.replace(c, seed=seed, output=f"{c.output}-seed{seed}")


def stages(file: Path) -> tuple[Path, ...]:
    """The configs of a run's stages, the first one first and `file` last: each begins (`init`) with weights in the
    output folder of the one before, a file in the same folder.
    """
    outputs = {read(other).output: other for other in sorted(file.parent.glob("*.toml")) if other != file}
    before = outputs.get(str(Path(read(file).init).parent))
    return (file,) if before is None else (*stages(before), file)


def _values(file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a file and those it extends say; `above` are the files that led here."""
    if file.resolve() in above:
        raise InputError(f"Config {file} extends itself; give `extends` another file.")
    try:
        values = tomllib.loads(file.read_text())
    except OSError as error:
        raise InputError(f"Config {file} cannot be read: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"Config {file} is not TOML: {error}.") from error
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise InputError(f"{file}: extends is {base!r}; expected the path of a file.")
    below = _values(file.parent / base, (*above, file.resolve()))
    data = values.get("data")
    if isinstance(data, dict) and "sources" in data:
        below.get("data", {}).get("clips", {}).pop("weights", None)
    return _over(below, values)


def _over(below: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """`values` laid over `below`, table by table."""
    merged = dict(below)
    for name, value in values.items():
        both = isinstance(value, dict) and isinstance(below.get(name), dict)
        merged[name] = _over(below[name], value) if both else value
    return merged


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
        kinds = [k for k in typing.get_args(kind) if k is not type(None)]
        kind = next((k for k in kinds if isinstance(value, k)), kinds[0])
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{where} is {value!r}; expected {kind.__name__}.")
    return value
