"""The members of the family as rows of values: what each is made of and how it searches."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

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
    stride: int = 8  # search-crop pixels from one score cell to the next
    context: float = 0.5
    penalty_k: float = 0.09
    window: float = 0.39
    lr: float = 0.38
    mask_threshold: float = 0.30
    score_scale: float = 1.0  # the score told is sigmoid(scale * logit(score) + shift); all settings here mean
    score_shift: float = 0.0  # the network's own (`python -m siammask.train.calibrate` finds both)
    lost_score: float = 0.3  # below this the target is reported as not visible
    alignment: Alignment = "released"
    # peak search only (SiamFC, section 4.1)
    scales: tuple[float, ...] = (1.0,)  # search regions looked at in one step, as factors of the side
    scale_penalty: float = 1.0  # factor on the score of every scale but 1
    # guided variants only
    window_factor: float = 1.45  # side of the search region, in units of sqrt((w+c)(h+c))
    exemplar_factor: float = 0.0  # the same of the first frame's crop; 0: as a search region at rest
    guide_size: int = 0  # the exemplar's mask and the last mask are given on a grid of this size; 0: not given
    give_last: bool = True  # the last mask is given to a search; else an empty one
    redraw_first: bool = False  # given only a box: draw the first frame and remember that instead of the filled box
    redraw_keep: float = 0.2  # ... unless less than this share of the box is left of it
    remember_score: float = 0.5  # the last frame is remembered only when it scored at least this; above 1: never
    remember_every: int = 1  # ... and at most once in so many frames
    keep_first: bool = True  # the first frame stays in memory; else the last one takes its place there too
    # which part of the mask is the target (follow = "mask")
    overlap_weight: float = 1.0  # weight of a part: its mass x (share seen in the last mask x this
    peak_weight: float = 0.5  # ... + this where the best score cell lies on it
    mass_weight: float = 0.1  # ... + this)
    part_area: float = 0.25  # another part stays when it has at least this share of the chosen one's area ...
    part_gap: float = 0.25  # ... is no farther from it than this share of its longer side ...
    part_certainty: float = 0.0  # ... and is on average at least this times as probable
    box_share: float = 0.0  # the box is in this share the one the network says (where it does), else the mask's
    max_size_step: float = 1.6  # no side of the box that is looked around grows or shrinks more in a step (a factor)
    # where to look next
    widen_per_frame: float = 0.08  # the search region grows by this share for each frame the target is not seen
    max_widen: float = 1.6  # ... up to this factor
    speed_gain: float = 0.0  # ... and by this share for a target that moves by its own size a frame
    second_score: float = 0.0  # where the score is below this, the same frame is searched again ...
    second_factor: float = 2.0  # ... in a region this many times as wide (guided variants)
    patience: int = 3  # frames after which a lost target is looked for elsewhere on the frame ...
    places: int = 1  # ... in so many such regions a frame ...
    found_score: float = 0.6  # ... and the score it needs there
    velocity_gain: float = 0.0  # the search region and the last mask move on by this many frames of the target's motion
    velocity_smooth: float = 0.5  # share of the newest displacement in the velocity


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a guided network; left as they are, those of the default.

    A lean one writes and reads its memories at stride 16 instead of 8, and its last layer, at stride 4, draws the mask
    at stride 2: four values a cell.
    """

    crop: int = 256  # side of the exemplar and search crops in pixels, a multiple of 16
    blocks: int = 11  # of the backbone, at least 9
    width: int = 64  # channels of features and of what is read of a memory
    key: int = 32
    fused: int = 96  # channels in which features, memories and last mask meet
    residuals: int = 2
    lean: bool = False
    boxed: bool = False  # it also says the target's box
    ridge: float = 0.0  # of the target's own classifier (`siammask.classifier.fit`); 0: there is none

    @property
    def mask(self) -> int:
        """Side of the mask drawn, and of the masks given: one value for 2 x 2 pixels."""
        return self.crop // 2

    @property
    def cells(self) -> int:
        """Side of the grid, of stride 16, that memory and score lie on."""
        return self.crop // 16

    @property
    def kept(self) -> int:
        """Side of the grid of features that a memory is made of."""
        return self.cells if self.lean else 2 * self.cells

    @property
    def memory(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what is kept of a frame, by name, without the batch."""
        positions = self.cells**2
        return {
            "key": (positions, self.key + 4),  # and where each lies
            "value": (positions, self.width),
            "mask": (positions,),
            "kernel": (self.width, 3, 3),
        }


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the table: backbone x locate head x mask head, with its search settings."""

    name: str
    backbone: Backbone
    locate: LocateHead
    mask: MaskHead
    search: SearchSettings
    paper: str
    shape: Shape = Shape()  # guided variants only

    def __str__(self) -> str:
        return f"{self.name} ({self.backbone} + {self.locate} + {self.mask})"

    def searching(self, **changes: Any) -> Variant:
        """The same network with other search settings; raise InputError for a setting there is not.

        >>> variant("siammask").searching(**PRESETS["vot"]).search.lr
        0.25
        """
        known = {field.name for field in fields(SearchSettings)}
        unknown = sorted(set(changes) - known)
        if unknown:
            raise InputError(f"No search setting is called {unknown[0]!r}; there are: {', '.join(sorted(known))}.")
        return replace(self, search=replace(self.search, **changes))


# SiamFC, 3 scales: steps of 1.0375 either way; .9745 is the penalty on a change of scale, not a scale.
_SIAMFC = SearchSettings(follow="peak", scales=(1 / 1.0375, 1.0, 1.0375), scale_penalty=0.9745, lr=0.59, window=0.176)


def _guided(name: str, shape: Shape, paper: str, **settings: Any) -> Variant:
    """A guided row; `settings` are its own, beside those that all of them share."""
    search = SearchSettings(
        follow="mask",
        exemplar_size=shape.crop,
        search_size=shape.crop,
        mask_threshold=0.5,
        alignment="exact",
        lr=1.0,
        window=0.0,
        guide_size=shape.mask,
        redraw_first=True,
        window_factor=1.2,
        velocity_gain=0.5,
        second_score=0.6,
        places=3,
        part_area=0.03,
        part_gap=1.0,
        part_certainty=0.85,
        remember_every=3,
        max_size_step=1.15,
        box_share=0.5,
    )
    return Variant(name, "light", "guided", "guided", replace(search, **settings), paper, shape)


_SMALL = Shape(crop=160, blocks=9, residuals=1, lean=True)

_ROWS = (
    _guided(
        "guided",
        Shape(ridge=0.1),
        "this project; SiamMask with the last mask and a memory of frames as inputs",
        window_factor=1.0,
        exemplar_factor=1.25,
        second_factor=2.5,
        speed_gain=1.0,
        max_size_step=1.05,
        score_scale=1.165,
        score_shift=-0.327,
    ),
    _guided(
        "guided_small",
        _SMALL,
        "this project; a small sister of the default",
        score_scale=1.014,
        score_shift=-0.412,
    ),
    _guided(
        "guided_free",
        _SMALL,
        "this project; guided_small, learned from data whose licences allow commercial use",
        score_scale=1.149,
        score_shift=-0.253,
    ),
    _guided(
        "guided_fast",
        Shape(crop=192, ridge=0.1),
        "this project; nearly the default, in smaller crops",
        window_factor=1.05,
        exemplar_factor=1.25,
        second_factor=2.5,
        speed_gain=1.0,
        max_size_step=1.1,
        score_scale=1.101,
        score_shift=-0.333,
    ),
    _guided(
        "guided_lean",
        Shape(crop=224, blocks=9, residuals=3, lean=True, boxed=True),
        "this project; half of the default's time",
    ),
    Variant("siammask", "resnet50", "rpn", "refined", SearchSettings(), "SiamMask, three branches, refined"),
    Variant("siammask_base", "resnet50", "rpn", "vector", SearchSettings(), "SiamMask, three branches"),
    Variant("siammask_2b", "resnet50", "score", "vector", SearchSettings(follow="mask"), "SiamMask, two branches"),
    Variant(
        "siammask_2b_refined",
        "resnet50",
        "score",
        "refined",
        SearchSettings(follow="mask"),
        "SiamMask, two branches, refined",
    ),
    Variant("siamrpn", "resnet50", "rpn", "none", SearchSettings(), "SiamRPN (Li et al., CVPR 2018)"),
    Variant("siamfc", "resnet50", "score", "none", _SIAMFC, "SiamFC (Bertinetto et al., ECCVW 2016)"),
)

VARIANTS: dict[str, Variant] = {row.name: row for row in _ROWS}
# The two that the paper has on AlexNet as well; 17 x 17 cells.
VARIANTS |= {
    f"{name}_alexnet": replace(VARIANTS[name], name=f"{name}_alexnet", backbone="alexnet")
    for name in ("siamrpn", "siamfc")
}
# `light` pads its convolutions, so its crops are whole multiples of its stride: 128 and 256 give 25 x 25 cells as well.
# Trained here and not by the released code, the twins meet frame and crop exactly, and where they draw a mask the next
# search region follows it (SiamMask, section 4.3, has both ways; a mask's box is the tighter one). At this threshold
# boxes of masks are about as large as the true ones: what one step loses of the size, the next search region loses too.
VARIANTS |= {
    f"{row.name}_light": replace(row, name=f"{row.name}_light", backbone="light").searching(
        exemplar_size=128,
        search_size=256,
        alignment="exact",
        **({} if row.mask == "none" else {"follow": "mask", "mask_threshold": 0.35}),
    )
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


def parse_setting(text: str) -> tuple[str, float | int | bool | str]:
    """A search setting as `NAME=VALUE`, both as they are written; of the settings that are numbers or words.

    >>> parse_setting("lr=0.25"), parse_setting("alignment=exact")
    (('lr', 0.25), ('alignment', 'exact'))
    """
    name, _, value = text.partition("=")
    kinds = {f.name: type(f.default) for f in fields(SearchSettings) if isinstance(f.default, (bool, int, float, str))}
    if name not in kinds:
        raise InputError(f"{text!r}: no search setting that takes a value is called {name!r}; try {', '.join(kinds)}.")
    if kinds[name] is str:
        words = get_args(get_type_hints(SearchSettings)[name])
        if value not in words:
            raise InputError(f"{text!r}: {name} takes {' or '.join(words)}.")
        return name, value
    try:
        return name, kinds[name](float(value))
    except ValueError:
        raise InputError(f"{text!r}: {value!r} is no number.") from None


def variant(name: str) -> Variant:
    """The row called `name`; raise InputError, naming the rows there are, where there is none."""
    try:
        return VARIANTS[name]
    except KeyError:
        raise InputError(f"No model is called {name!r}; choose one of: {', '.join(VARIANTS)}.") from None
