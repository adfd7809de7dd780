"""The members of the family as rows of values: what each is made of and how it searches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from siammask.errors import InputError
from siammask.geometry import Alignment

Backbone = Literal["alexnet", "resnet50", "light"]
LocateHead = Literal["score", "rpn", "guided"]
MaskHead = Literal["none", "vector", "refined", "guided"]


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How the tracking loop uses what the network says.

    The penalties are those of SiamRPN (section 4.3); the presets are those of the released code.
    """

    follow: Literal["box", "mask", "peak"] = "box"  # what the next search region is centred on
    exemplar_size: int = 127
    search_size: int = 255
    context: float = 0.5
    penalty_k: float = 0.09
    window: float = 0.39
    lr: float = 0.38
    mask_threshold: float = 0.30
    scales: tuple[float, ...] = (1.0,)  # search regions looked at in one step, as factors of the side
    alignment: Alignment = "released"
    # guided variants only
    window_factor: float = 1.45  # side of the search region, in units of sqrt((w+c)(h+c))
    remember_score: float = 0.5  # the last frame is remembered only when it scored at least this
    lost_score: float = 0.3  # below this the target is reported as not visible


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the table: backbone x locate head x mask head, with its search settings."""

    name: str
    backbone: Backbone
    locate: LocateHead
    mask: MaskHead
    search: SearchSettings
    paper: str

    def __str__(self) -> str:
        return f"{self.name} ({self.backbone} + {self.locate} + {self.mask})"


_SIAMFC = SearchSettings(follow="peak", scales=(0.9745, 1.0, 1.0375), lr=0.59, window=0.176)

_ROWS = (
    Variant(
        "guided",
        "light",
        "guided",
        "guided",
        SearchSettings(
            follow="mask", exemplar_size=256, search_size=256, mask_threshold=0.5, alignment="exact", lr=1.0, window=0.0
        ),
        "this project; SiamMask with the last mask and a memory of frames as inputs",
    ),
    Variant("siammask", "resnet50", "rpn", "refined", SearchSettings(), "SiamMask, three branches, refined"),
    Variant("siammask_base", "resnet50", "rpn", "vector", SearchSettings(), "SiamMask, three branches"),
    Variant("siammask_2b", "resnet50", "score", "vector", SearchSettings(follow="mask"), "SiamMask, two branches"),
    Variant("siamrpn", "resnet50", "rpn", "none", SearchSettings(), "SiamRPN (Li et al., CVPR 2018)"),
    Variant("siamfc", "resnet50", "score", "none", _SIAMFC, "SiamFC (Bertinetto et al., ECCVW 2016)"),
)

VARIANTS: dict[str, Variant] = {row.name: row for row in _ROWS}
VARIANTS |= {
    f"{row.name}_light": replace(row, name=f"{row.name}_light", backbone="light")
    for row in _ROWS
    if row.backbone == "resnet50"
}

DEFAULT = "guided"

# The released presets: search settings that differ from the default by data set.
PRESETS: dict[str, dict[str, float]] = {
    "default": {"penalty_k": 0.09, "window": 0.39, "lr": 0.38, "mask_threshold": 0.30},
    "vot": {"penalty_k": 0.04, "window": 0.42, "lr": 0.25, "mask_threshold": 0.30},
    "vot18_ld": {"penalty_k": 0.10, "window": 0.41, "lr": 0.32, "mask_threshold": 0.15},
    "davis": {"penalty_k": 0.04, "window": 0.40, "lr": 1.0, "mask_threshold": 0.35},
}


def variant(name: str) -> Variant:
    """The row called `name`; raise InputError, naming the rows there are, where there is none."""
    try:
        return VARIANTS[name]
    except KeyError:
        raise InputError(f"No model is called {name!r}; choose one of: {', '.join(VARIANTS)}.") from None
