"""Training clips: what to show (`plan`, pure choices by one random generator) and how it looks (`render`, with OpenCV).

A clip has four crops - first, a, b, c - and one place more, p, where the target was before a. A `Plan` is made of
layers on a canvas: the picture itself, cut-outs of other pictures (look-alikes, occluders), each with one affine a
frame. In a real video the lowest layer's picture changes from frame to frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from siammask.errors import InputError
from siammask.geometry import Float32, UInt8
from siammask.network.guided import CROP, MASK
from siammask.regions import Mask
from siammask.train.pool import IGNORE, Clip, Picture, Pool

FIRST, P, A, B, C = range(5)  # frames of a plan; p is never rendered, only its mask is
FRAMES = 5
SHOWN = (FIRST, A, B, C)  # the frames that are drawn, in the order of a clip's crops
LEAST_SIDE, LEAST_AREA = (
    12,
    0.015,
)  # what must be seen of the target in the first crop: pixels a side, share of the crop
Affine = np.ndarray  # (2, 3) float64, source pixels -> canvas pixels
Boxed = tuple[float, float, float, float]  # x, y, w, h
HalfPlane = tuple[float, float, float]  # n and d: where n . (x, y) < d, in source pixels
Cut = tuple[HalfPlane, ...]  # of a part target: kept where it lies in every one of them (one or two)


@dataclass(frozen=True, slots=True)
class ClipSettings:
    """How training clips are made. Shares are probabilities."""

    weights: dict[str, float] = field(default_factory=dict)  # per source; others get 1
    max_gap: int = 3  # stored frames between p, a, b and c
    window: tuple[float, float] = (1.25, 3.0)  # range of the search window's factor
    usual_window: float = 1.45
    first_window: float = 0.0  # the factor of the first frame's; 0: the usual one
    start: float = 0.22  # clips whose a is the first frame itself, drawn from its box
    absent: float = 0.06  # clips whose b or c looks elsewhere
    seek: float = 0.0  # clips whose b and c are wide and show the target anywhere, as a second look does
    seek_window: tuple[float, float] = (2.0, 3.0)  # range of their windows' factor
    part: float = 0.07  # of stills
    video_part: float = 0.07
    small: float = 0.0  # of parts: heads, tips, 10 to 30 % of the whole
    drift: float = 0.0  # clips whose last mask shows more than the target, less, or something else
    part_drift: float = 0.0  # the same of parts: it shows more of the object
    dressed: float = 0.5  # masked videos that get look-alikes and occluders pasted on, as stills do
    paste: float = 0.5  # of stills: shown as a cut-out on another picture
    video_paste: float = 0.0  # the same of masked videos
    stretch: float = 0.0  # masked videos that are turned (three in ten) are also stretched and sheared: sigma, log
    turned: float = 0.0  # clips whose colours are turned about grey, and made paler or stronger, in all frames alike
    lookalike: float = 0.4
    occluder: float = 0.25
    elastic: float = 0.35
    passing: float = 0.5  # of occluders: stand still or cross while the target passes, half of them as poles
    fast: float = 0.25  # large motion between p, a, b and c
    min_side: float = 14.0  # px; objects below are not targets
    error: float = 0.08  # of the box a tracker looks around: sigma, in sides
    coloured: float = 0.0  # of followed parts: of one colour, with a border of their own
    followed: float = 0.0  # clips of where the tracker got to (`followed.py`; on the CPU)
    camera: float = 1.0  # factor on how often frames differ in light and lack sharpness, or are compressed, or dark


@dataclass(frozen=True, slots=True)
class Layer:
    """One thing to draw: a picture (object None) or a cut-out of it, with its place on the canvas in each frame."""

    pictures: tuple[Picture, ...]  # one a frame
    object_id: int | None
    places: tuple[Affine, ...]
    target: int | None = None  # id of the target within this layer's masks
    cuts: tuple[Cut, ...] | None = None  # of a part target, one a frame
    shown: tuple[bool, ...] = (True,) * FRAMES
    colour: tuple[float, ...] = (1.0, 1.0, 1.0, 0.0)  # gains b, g, r and offset
    bend: int | None = None  # seed of an elastic field

    def cut(self, frame: int) -> Cut | None:
        """What the target is cut to in a frame."""
        return None if self.cuts is None else self.cuts[frame]


@dataclass(frozen=True, slots=True)
class Look:
    """What a camera does to a crop; as it is by default."""

    colour: tuple[float, ...] = (1.0, 1.0, 1.0, 0.0)  # gains b, g, r and offset
    gray: bool = False
    turned: tuple[float, float] | None = None  # colours turned about grey by radians, and their strength
    low: int | None = None  # seen with only so many pixels a side: out of focus, or low resolution
    motion: tuple[int, float] | None = None  # length of the blur in pixels, its direction in radians
    jpeg: int | None = None  # quality
    gamma: float | None = None  # low light


@dataclass(frozen=True, slots=True)
class Plan:
    """A clip before it is drawn. `crops` are (x, y, side) on the canvas of each frame (floats)."""

    layers: tuple[Layer, ...]
    crops: tuple[tuple[float, float, float], ...]
    start: bool  # a is the first frame itself
    source: str
    looks: tuple[Look, ...]  # of each frame
    box_error: tuple[float, ...]  # of the first frame's box: left, top, right, bottom as shares of its sides
    fill: tuple[int, int, int] | None  # colour around the picture; None: its mirror image
    boxed: bool = False  # only boxes are known: the masks are filled boxes
    drift: tuple[Layer, ...] = ()  # what the tracker is taken to have drawn at p and a, where not the target


@dataclass(frozen=True, slots=True)
class Rendered:
    """A clip as arrays, for first, a, b, c."""

    pixels: UInt8  # (4, 256, 256, 3) BGR
    masks: UInt8  # (4, 128, 128), 255 = object
    before: UInt8  # (128, 128) the mask at p as the crop of a sees it, or what was drawn instead
    after: UInt8  # (128, 128) the same of a
    crops: Float32  # (4, 3) x, y, side
    box: UInt8  # (128, 128) the filled box of the first frame, as its crop sees it
    start: bool
    boxed: bool
    drifted: bool
    followed: bool = False  # `before` and `after` are what a tracker drew, the first mask too


def plan(rng: np.random.Generator, pool: Pool, chooser: Chooser, settings: ClipSettings) -> Plan | None:
    """Choose a clip; None where the choice fell on something unusable (try again)."""
    clip = chooser.clip(rng)
    made = _video(rng, chooser, clip, settings) if clip.is_video else _still(rng, chooser, clip, settings)
    if made is None:
        return None
    layers, boxes = made  # boxes: of the target on the canvas, per frame, x, y, w, h; None = not visible
    start = rng.random() < settings.start
    absent = not start and rng.random() < settings.absent
    if start:
        order = (A, A, A, B, C)
        layers = tuple(_frames(layer, order) for layer in layers)
        boxes = tuple(boxes[i] for i in order)
    if boxes[FIRST] is None or boxes[P] is None or boxes[A] is None:
        return None
    drift = () if start or not clip.pictures[0].mask else _drift(rng, layers, settings)
    first = _window(boxes[FIRST], settings.first_window or settings.usual_window, rng, 0.02)
    a = first if start else _window(_box_of_layers(drift, P) or boxes[P], _factor(rng, settings), rng, settings.error)
    b = _window(boxes[A], _factor(rng, settings), rng, settings.error)
    c = _window(boxes[B] or boxes[A], _factor(rng, settings), rng, settings.error)
    if absent and rng.random() < 0.5:
        b = _elsewhere(rng, b)
    elif absent:
        c = _elsewhere(rng, c)
    whole_target = all(layer.cuts is None for layer in layers)
    if settings.seek and whole_target and not start and rng.random() < settings.seek:
        b, c = (_wide(rng, boxes[i] or boxes[A], settings.seek_window) for i in (B, C))
    seeds = seeds_of(rng, settings, FRAMES)
    whole = layers[0].target is not None and _touches_edge(layers[0].pictures[FIRST], layers[0].target)
    plain = 0.6 if clip.is_video else 0.25  # the tracker fills with a colour; a mirror image is one more look-alike
    fill = (
        tuple(int(v) for v in rng.integers(60, 180) + rng.normal(0, 12, 3)) if whole or rng.random() < plain else None
    )
    colours = colours_of(rng, settings)
    looks = tuple(look(seed, *colours, settings.camera) for seed in seeds)
    error = tuple(float(v) for v in rng.normal(0, 0.025, 4))
    boxed = not clip.pictures[0].mask
    return Plan(layers, (first, first, a, b, c), start, clip.source, looks, error, fill, boxed, drift)


@dataclass(frozen=True)
class Chooser:
    """Draws clips by source weight, and other objects to paste."""

    clips: tuple[Clip, ...]
    by_source: dict[str, tuple[int, ...]]
    shares: np.ndarray
    cutouts: tuple[tuple[int, int, str], ...]  # clip, object id, category
    by_category: dict[str, tuple[int, ...]]
    grounds: tuple[int, ...]  # stills to paste on: all that are no cut-outs themselves

    @classmethod
    def make(cls, pool: Pool, settings: ClipSettings) -> Chooser:
        """Raises InputError where the pool has nothing to train on, or a weight names a source it has not."""
        by_source: dict[str, list[int]] = {}
        cutouts: list[tuple[int, int, str]] = []
        by_category: dict[str, list[int]] = {}
        grounds: list[int] = []
        for i, clip in enumerate(pool.clips):
            masked = clip.pictures[0].mask
            if masked or clip.is_video:
                by_source.setdefault(clip.source, []).append(i)
            if clip.is_video or not masked:
                continue
            if not clip.cutout:
                grounds.append(i)
            for k, area in clip.pictures[0].areas.items():
                if area > 1200 and not _touches_edge(clip.pictures[0], k):
                    name = clip.categories.get(k, clip.source)
                    by_category.setdefault(name, []).append(len(cutouts))
                    cutouts.append((i, k, name))
        if not by_source:
            raise InputError("The pool has nothing to train on; add a source to `data.sources`.")
        for source in settings.weights:
            if source not in by_source:
                have = ", ".join(by_source)
                raise InputError(
                    f"data.clips.weights names {source!r}, which has no clip to train on; there are {have}."
                )
        if any(not pool.clips[i].is_video for found in by_source.values() for i in found) and not cutouts:
            raise InputError("No still of the pool has an object that can be cut out (1200 pixels, whole); add some.")
        if not grounds and any(clip.cutout for clip in pool.clips):
            raise InputError("The pool has cut-outs but no still to paste them on; add a source of ordinary pictures.")
        shares = np.array([settings.weights.get(s, 1.0) for s in by_source], np.float64)
        return cls(
            pool.clips,
            {s: tuple(v) for s, v in by_source.items()},
            shares / shares.sum(),
            tuple(cutouts),
            {c: tuple(v) for c, v in by_category.items()},
            tuple(grounds),
        )

    def clip(self, rng: np.random.Generator) -> Clip:
        source = list(self.by_source)[int(rng.choice(len(self.shares), p=self.shares))]
        return self.clips[int(rng.choice(self.by_source[source]))]

    def cutout(self, rng: np.random.Generator, category: str | None = None) -> tuple[Picture, int]:
        """A cut-out, of `category` where there is one."""
        among = self.by_category.get(category or "")
        i, k, _ = self.cutouts[int(rng.choice(among)) if among else int(rng.integers(len(self.cutouts)))]
        return self.clips[i].pictures[0], k

    def ground(self, rng: np.random.Generator) -> Picture:
        """A still to paste on."""
        return self.clips[self.grounds[int(rng.integers(len(self.grounds)))]].pictures[0]


def _video(
    rng: np.random.Generator, chooser: Chooser, clip: Clip, settings: ClipSettings
) -> tuple[tuple[Layer, ...], tuple[Boxed | None, ...]] | None:
    """Five frames of a real video: first anywhere, then p, a, b, c near each other, forwards or backwards."""
    n = len(clip.pictures)
    gap = gap_of(rng, settings)
    gap = max(1, min(gap, (n - 1) // 3))
    p, turn = int(rng.integers(0, max(1, n - 3 * gap))), gap
    if rng.random() < 0.5:
        p, turn = n - 1 - p, -gap
    picks = [int(rng.integers(0, n)), p, p + turn, p + 2 * turn, p + 3 * turn]
    masked = clip.pictures[0].mask
    part = masked and rng.random() < settings.video_part
    if part:  # of the first frame the same part, in much the same pose
        picks[FIRST] = p + int(rng.integers(-9, 10))
    pictures = tuple(clip.pictures[min(max(i, 0), n - 1)] for i in picks)
    common = [k for k in pictures[FIRST].boxes if k in pictures[P].boxes and k in pictures[A].boxes]
    common = [k for k in common if min(pictures[FIRST].boxes[k][2:]) >= settings.min_side / 2]
    if not common:
        return None
    k = int(rng.choice(common))
    size = pictures[0].width, pictures[0].height
    if any((p.width, p.height) != size for p in pictures):
        return None
    flip = rng.random() < 0.5
    zoom = math.exp(rng.uniform(-0.2, 0.2))
    place = np.array([[-zoom if flip else zoom, 0, zoom * size[0] if flip else 0.0], [0, zoom, 0]])
    if masked and rng.random() < 0.3:  # a turned box would be no box
        place = about(place, np.array(size) * zoom / 2, _motion(rng, 15, 0.0, 0.1, settings.stretch))
    known = [p.boxes.get(k) for p in pictures]
    cuts = None
    if part:
        how = part_of(rng, settings.small)
        cuts = tuple(_cut(box or (0.0, 0.0, 1.0, 1.0), how) for box in known)
        known = [box and _cut_box(box, cut) for box, cut in zip(known, cuts, strict=True)]
    pasted = masked and settings.video_paste and rng.random() < settings.video_paste
    below: tuple[Layer, ...] = ()
    if pasted and chooser.grounds and not any(k in p.boxes and _touches_edge(p, k) for p in pictures):
        ground, places = _transplanted(rng, chooser, pictures, k, place, settings.fast)
        below = (ground,)
        layer = Layer(pictures, k, places, k, cuts, colour=_colour(rng))
    else:
        layer = Layer(pictures, None, (place,) * FRAMES, target=k, cuts=cuts, colour=_colour(rng))
    boxes = tuple(moved(box, where) for box, where in zip(known, layer.places, strict=True))
    if not masked or not chooser.cutouts or rng.random() >= settings.dressed:
        return (*below, layer), boxes
    again = clip.pictures[int(rng.integers(0, n))]
    double = (again, k) if k in again.areas and not _touches_edge(again, k) and rng.random() < 0.6 else None
    return (*below, layer, *_dress(rng, chooser, settings, boxes, None, double)), boxes


def gap_of(rng: np.random.Generator, settings: ClipSettings) -> int:
    """Stored frames from one frame of a clip to the next; more than one in fast clips."""
    return 1 + int(rng.integers(0, settings.max_gap)) if rng.random() < settings.fast else 1


def targets_of(picture: Picture, settings: ClipSettings) -> list[int]:
    """The objects of a still that are large enough to be targets."""
    return [k for k, box in picture.boxes.items() if min(box[2:]) >= settings.min_side and picture.areas[k] > 150]


def _transplanted(
    rng: np.random.Generator,
    chooser: Chooser,
    pictures: tuple[Picture, ...],
    k: int,
    place: Affine,
    fast: float,
) -> tuple[Layer, tuple[Affine, ...]]:
    """Another picture to show a video's object on, seen by a moving camera, and the object's places there.

    The object moves on the canvas as it does in its video (whose pixels lie at `place`), and a little more.
    """
    ground = chooser.ground(rng)
    seen = moved(pictures[P].boxes[k], place)
    assert seen is not None
    spot = np.array([seen[0] + seen[2] / 2, seen[1] + seen[3] / 2])
    size = math.sqrt(max(1.0, seen[2] * seen[3]))
    there = np.array([rng.uniform(0.15, 0.85) * ground.width, rng.uniform(0.15, 0.85) * ground.height])
    base = np.array([[1.0, 0, spot[0] - there[0]], [0, 1.0, spot[1] - there[1]]])
    speed = bool(rng.random() < fast)
    below = Layer((ground,) * FRAMES, None, _path(rng, base, spot, size, speed, 0.5), colour=_colour(rng))
    return below, _path(rng, place, spot, size, False, 0.5)


def _still(
    rng: np.random.Generator, chooser: Chooser, clip: Clip, settings: ClipSettings
) -> tuple[tuple[Layer, ...], tuple[Boxed | None, ...]] | None:
    """A still set in motion: as it is with a moving camera, or cut out and moved over another picture."""
    picture = clip.pictures[0]
    ids = targets_of(picture, settings)
    if not ids:
        return None
    k = int(rng.choice(ids))
    box = picture.boxes[k]
    category = clip.categories.get(k, clip.source)
    cuttable = not _touches_edge(picture, k)
    paste = clip.cutout or (cuttable and rng.random() < settings.paste)
    cut = _cut(box, part_of(rng, settings.small)) if rng.random() < settings.part else None
    cuts = (cut,) * FRAMES if cut is not None else None
    bend = int(rng.integers(2**31)) if rng.random() < settings.elastic else None
    fast = rng.random() < settings.fast
    centre = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2])
    size = math.sqrt(box[2] * box[3])
    layers: list[Layer] = []
    if paste:
        ground = chooser.ground(rng)
        goal = math.exp(rng.uniform(math.log(24), math.log(260)))  # size of the target on the canvas
        zoom = goal / size
        spot = np.array([rng.uniform(0.15, 0.85) * ground.width, rng.uniform(0.15, 0.85) * ground.height])
        layers.append(
            Layer((ground,) * FRAMES, None, _path(rng, np.eye(2, 3), spot, goal, fast, 0.5), colour=_colour(rng))
        )
        base = np.array([[zoom, 0, spot[0] - zoom * centre[0]], [0, zoom, spot[1] - zoom * centre[1]]])
        if rng.random() < 0.5:
            base = about(base, spot, np.array([[-1.0, 0, 0], [0, 1.0, 0]]))
        places = _path(rng, base, spot, goal, fast, 1.0)
        layers.append(Layer((picture,) * FRAMES, k, places, k, cuts, colour=_colour(rng), bend=bend))
    else:
        zoom = math.exp(rng.uniform(-0.5, 0.5))
        spot, goal = centre * zoom, size * zoom
        base = np.array([[zoom, 0, 0], [0, zoom, 0.0]])
        if rng.random() < 0.5:
            base = about(base, spot, np.array([[-1.0, 0, 0], [0, 1.0, 0]]))
        places = _path(rng, base, spot, goal, fast, 1.0)
        layers.append(Layer((picture,) * FRAMES, None, places, k, cuts, colour=_colour(rng), bend=bend))
    boxes = tuple(moved(box if cut is None else _cut_box(box, cut), place) for place in places)
    double = (picture, k) if cuttable and rng.random() < 0.35 else None
    dress = _dress(rng, chooser, settings, boxes, category, double)
    if paste and dress and dress[0].shown[FIRST] and rng.random() < 0.5:  # a look-alike behind the target
        layers.insert(1, dress[0])
        dress = dress[1:]
    return (*layers, *dress), boxes


def _dress(
    rng: np.random.Generator,
    chooser: Chooser,
    settings: ClipSettings,
    boxes: tuple[Boxed | None, ...],
    category: str | None,
    double: tuple[Picture, int] | None,
) -> tuple[Layer, ...]:
    """Look-alikes (the target's own `double` where there is one) and an occluder, to lie over the other layers."""
    seen = next(box for box in boxes[P:] if box is not None)
    size = math.sqrt(seen[2] * seen[3])
    layers = []
    if rng.random() < settings.lookalike:
        for _ in range(1 + int(rng.integers(2))):
            other, j = double or chooser.cutout(rng, category)
            places = _beside(rng, other.boxes[j], boxes, size, 0.7, 1.6)
            layers.append(Layer((other,) * FRAMES, j, places, colour=_colour(rng)))
    if rng.random() < settings.occluder:
        other, j = chooser.cutout(rng)
        if rng.random() < settings.passing:
            places, shown = _passing(rng, other.boxes[j], boxes, size), (True,) * FRAMES
        else:
            places = _beside(rng, other.boxes[j], boxes, size, 0.15, 0.8, rng.uniform(0.35, 0.9))
            shown = tuple(bool(v) for v in rng.random(FRAMES) < 0.75)
        shown = (bool(rng.random() < 0.15), *shown[1:])
        layers.append(Layer((other,) * FRAMES, j, places, shown=shown, colour=_colour(rng)))
    return tuple(layers)


def _path(
    rng: np.random.Generator, base: Affine, spot: np.ndarray, size: float, fast: bool, share: float
) -> tuple[Affine, ...]:
    """Places in the frames: first far from the rest, then three steps of ordinary motion (or of fast motion)."""
    far = about(base, spot, _motion(rng, 18 * share, 0.25 * share, 0.3 * share, 0.12))
    step = 2.2 if fast else 1.0
    places = [far]
    here, spot = base, spot.copy()
    places.append(here)
    drift = rng.normal(0, 0.08 * size * step * share, 2)
    for _ in range(3):
        shift = drift + rng.standard_t(3, 2) * 0.05 * size * step * share
        here = about(here, spot, _motion(rng, 3.5 * step * share, 0.035 * step * share, 0.02, 0.015))
        here = here + np.array([[0, 0, shift[0]], [0, 0, shift[1]]])
        spot = spot + shift
        places.append(here)
    return tuple(places)


def _motion(rng: np.random.Generator, degrees: float, log_zoom: float, shift: float, shear: float = 0.0) -> Affine:
    """A random linear map about the origin, (2, 3)."""
    turn = math.radians(rng.normal(0, degrees)) if degrees else 0.0
    zoom = math.exp(rng.normal(0, log_zoom)) if log_zoom else 1.0
    aspect = math.exp(rng.normal(0, shear)) if shear else 1.0
    c, s = zoom * math.cos(turn), zoom * math.sin(turn)
    skew = rng.normal(0, shear) if shear else 0.0
    m = np.array([[c, -s], [s, c]]) @ np.array([[aspect, skew], [0, 1 / aspect]])
    return np.hstack([m, np.zeros((2, 1))])


def about(place: Affine, spot: np.ndarray, motion: Affine) -> Affine:
    """`place` followed by `motion` about the canvas point `spot`."""
    m = motion[:, :2]
    return np.hstack([m @ place[:, :2], (m @ (place[:, 2] - spot) + spot + motion[:, 2])[:, None]])


def _beside(
    rng: np.random.Generator,
    box: Boxed,
    targets: tuple[Boxed | None, ...],
    size: float,
    near: float,
    far: float,
    rel: float | None = None,
) -> tuple[Affine, ...]:
    """Places of another cut-out that keeps near the target: at `near`..`far` of its size from its centre."""
    own = math.sqrt(max(1.0, box[2] * box[3]))
    zoom = size / own * (rel if rel is not None else math.exp(rng.normal(0, 0.2)))
    turn, distance = rng.uniform(0, 2 * math.pi), size * rng.uniform(near, far)
    offset = distance * np.array([math.cos(turn), math.sin(turn)])
    sway = rng.normal(0, 0.15 * size, (FRAMES, 2)).cumsum(0)
    m = zoom * rotation(rng.normal(0, 0.15))
    return tuple(_put(m, box, spot + offset + off) for spot, off in zip(_spots(targets), sway, strict=True))


def _passing(
    rng: np.random.Generator, box: Boxed, targets: tuple[Boxed | None, ...], size: float
) -> tuple[Affine, ...]:
    """Places of another cut-out that the target passes behind, at a, b or c; half of them are drawn out to poles."""
    way = rng.uniform(0, 2 * math.pi)
    if rng.random() < 0.5:
        wide, long = size * rng.uniform(0.08, 0.4), size * rng.uniform(1.5, 4.0)
        m = rotation(way + rng.normal(0, 0.2)) @ np.diag([wide / max(1.0, box[2]), long / max(1.0, box[3])])
    else:
        own = math.sqrt(max(1.0, box[2] * box[3]))
        m = size / own * rng.uniform(0.4, 1.2) * rotation(rng.normal(0, 0.3))
    along = np.array([math.cos(way), math.sin(way)])
    speed, aside = size * rng.uniform(0.15, 0.9), size * rng.normal(0, 0.2, 2)
    meets = rng.uniform(A - 0.5, C + 0.5)
    return tuple(_put(m, box, spot + aside + along * speed * (i - meets)) for i, spot in enumerate(_spots(targets)))


def rotation(angle: float) -> np.ndarray:
    """(2, 2) rotation."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])


def _put(m: np.ndarray, box: Boxed, spot: np.ndarray) -> Affine:
    """The linear map `m`, moved so that the middle of `box` comes to `spot`."""
    return np.hstack([m, (spot - m @ (box[0] + box[2] / 2, box[1] + box[3] / 2))[:, None]])


def _spots(targets: tuple[Boxed | None, ...]) -> list[np.ndarray]:
    """Middles of the boxes; where there is none, of the one before."""
    spots: list[np.ndarray] = []
    for t in targets:
        spots.append(np.array([t[0] + t[2] / 2, t[1] + t[3] / 2]) if t else spots[-1] if spots else np.zeros(2))
    return spots


def _frames(layer: Layer, order: tuple[int, ...]) -> Layer:
    return replace(
        layer,
        pictures=tuple(layer.pictures[i] for i in order),
        places=tuple(layer.places[i] for i in order),
        shown=tuple(layer.shown[i] for i in order),
        cuts=layer.cuts and tuple(layer.cuts[i] for i in order),
    )


def moved(box: Boxed | None, place: Affine) -> Boxed | None:
    """Bounding box of a moved box (its inscribed ellipse, so that turning does not inflate it)."""
    if box is None:
        return None
    m = place[:, :2]
    centre = m @ np.array([box[0] + box[2] / 2, box[1] + box[3] / 2]) + place[:, 2]
    half = np.sqrt((m * m) @ np.array([box[2] ** 2, box[3] ** 2])) / 2
    return (centre[0] - half[0], centre[1] - half[1], 2 * half[0], 2 * half[1])


def _window(box: Boxed | None, factor: float, rng: np.random.Generator, jitter: float) -> tuple[float, float, float]:
    """Crop (x, y, side) around a box, as the tracker takes it, with the error a tracker's box has."""
    assert box is not None
    w, h = (v * math.exp(rng.normal(0, jitter)) for v in box[2:])
    side = _side(w, h, factor)
    cx = box[0] + box[2] / 2 + rng.normal(0, jitter) * box[2]
    cy = box[1] + box[3] / 2 + rng.normal(0, jitter) * box[3]
    return (cx - side / 2, cy - side / 2, side)


def _side(w: float, h: float, factor: float) -> float:
    """Side of the crop around a box, as the tracker takes it."""
    c = (w + h) / 2
    return max(16.0, factor * math.sqrt((w + c) * (h + c)))


def _factor(rng: np.random.Generator, settings: ClipSettings) -> float:
    low, high = settings.window
    if rng.random() < 0.65:
        return settings.usual_window * math.exp(rng.normal(0, 0.06))
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _colour(rng: np.random.Generator) -> tuple[float, ...]:
    gains = np.exp(rng.normal(0, 0.06, 3) + rng.normal(0, 0.15))
    return (*(float(g) for g in gains), float(rng.normal(0, 10)))


def _touches_edge(picture: Picture, k: int) -> bool:
    x, y, w, h = picture.boxes[k]
    edges = (x < 2) + (y < 2) + (x + w > picture.width - 2) + (y + h > picture.height - 2)
    return edges > 0


def _wide(rng: np.random.Generator, box: Boxed | None, window: tuple[float, float]) -> tuple[float, float, float]:
    """A crop (x, y, side) with the box anywhere in it."""
    assert box is not None
    x, y, w, h = box
    side = _side(w, h, math.exp(rng.uniform(*np.log(window))))
    fx, fy = rng.uniform(0, 1, 2)
    return (x - fx * max(0.0, side - w), y - fy * max(0.0, side - h), side)


def _elsewhere(rng: np.random.Generator, crop: tuple[float, float, float]) -> tuple[float, float, float]:
    """A crop beside the one given."""
    x, y, side = crop
    turn, away = rng.uniform(0, 2 * math.pi), side * rng.uniform(0.9, 1.3)
    return (x + away * math.cos(turn), y + away * math.sin(turn), side)


def part_of(rng: np.random.Generator, small: float = 0.0) -> tuple[tuple[float, float], ...]:
    """Which part: mostly level (torsos, legs), 30 to 70 % of the whole, some cut once more; as `cut_box` takes it.

    Of a share `small` of them, heads above all, 10 to 30 % of the whole.
    """
    way = rng.choice([0.0, 0.0, 0.0, math.pi, math.pi / 2, -math.pi / 2]) + rng.normal(0, 0.15)
    once = (way, rng.uniform(-0.4, 0.4))
    if small and rng.random() < small:
        once = (way, rng.uniform(-0.8, -0.4))
    if rng.random() < 0.65:
        return (once,)
    return once, (way + rng.choice([-0.5, 0.5]) * math.pi + rng.normal(0, 0.15), rng.uniform(-0.2, 0.5))


def _cut(box: Boxed, how: tuple[tuple[float, float], ...]) -> Cut:
    """Half-planes through a box, each from (turn, share): what lies above (turn 0) is kept, up to `share` of the box's
    reach from its middle.
    """
    centre = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2])
    made = []
    for turn, share in how:
        n = np.array([math.sin(turn), math.cos(turn)])
        made.append((float(n[0]), float(n[1]), float(n @ centre + _reach(n, box) * share)))
    return tuple(made)


def _reach(n: np.ndarray, box: Boxed) -> float:
    """How far a box reaches from its middle in the direction `n`."""
    return float(abs(n[0]) * box[2] / 2 + abs(n[1]) * box[3] / 2)


def _cut_box(box: Boxed, cut: Cut) -> Boxed:
    """Bounding box of what a cut leaves of a box."""
    x, y, w, h = box
    grid = np.stack(np.meshgrid(np.linspace(x, x + w, 17), np.linspace(y, y + h, 17)), -1).reshape(-1, 2)
    kept = grid[np.all([grid @ half[:2] < half[2] for half in cut], 0)]
    if len(kept) < 2:
        return box
    low, high = kept.min(0), kept.max(0)
    return (float(low[0]), float(low[1]), float(max(high[0] - low[0], 1)), float(max(high[1] - low[1], 1)))


def _drift(rng: np.random.Generator, layers: tuple[Layer, ...], settings: ClipSettings) -> tuple[Layer, ...]:
    """What a tracker may have come to draw, against what the first frame says: more of a part's object, a piece of the
    target, something that stands beside it or before it, alone or with the target. Empty: it has drawn the target.
    """
    target = next(layer for layer in layers if layer.target is not None)
    if target.cuts is not None:
        if rng.random() >= settings.part_drift:
            return ()
        more = rng.uniform(0.2, 0.8) if rng.random() < 0.5 else None
        return (replace(target, cuts=more and _looser(target, more)),)
    if rng.random() >= settings.drift:
        return ()
    others = [layer for layer in layers if layer.target is None and layer.object_id is not None and layer.shown[P]]
    if others and rng.random() < 0.6:
        other = others[int(rng.integers(len(others)))]
        wrong = replace(other, target=other.object_id)
        double = other.pictures[P].offset in {picture.offset for picture in target.pictures}
        return (wrong,) if not double and rng.random() < 0.35 else (target, wrong)
    how = part_of(rng)
    boxes = (picture.boxes.get(target.target or 0, (0.0, 0.0, 1.0, 1.0)) for picture in target.pictures)
    return (replace(target, cuts=tuple(_cut(box, how) for box in boxes)),)


def _looser(layer: Layer, more: float) -> tuple[Cut, ...]:
    """The cuts of a part target, each half-plane moved outwards by `more` of the object's reach."""
    made = []
    for picture, cut in zip(layer.pictures, layer.cuts or (), strict=True):
        box = picture.boxes.get(layer.target or 0, (0.0, 0.0, 1.0, 1.0))
        made.append(tuple((x, y, d + more * _reach(np.array((x, y)), box)) for x, y, d in cut))
    return tuple(made)


def _box_of_layers(layers: tuple[Layer, ...], frame: int) -> Boxed | None:
    """Bounding box on the canvas of the layers' targets in a frame; None where there are none."""
    found = []
    for layer in layers:
        box = layer.pictures[frame].boxes.get(layer.target or 0)
        cut = layer.cut(frame)
        if box is not None and cut is not None:
            box = _cut_box(box, cut)
        place = moved(box, layer.places[frame])
        if place is not None:
            found.append((place[0], place[1], place[0] + place[2], place[1] + place[3]))
    if not found:
        return None
    corners = np.array(found)
    (left, top), (right, bottom) = corners[:, :2].min(0).tolist(), corners[:, 2:].max(0).tolist()
    return left, top, right - left, bottom - top


def render(pool: Pool, p: Plan) -> Rendered | None:
    """Draw a plan; None where the target cannot be seen in the first frame."""
    first, first_mask = draw(pool, p, FIRST, p.crops[FIRST])
    box = _box_of(first_mask)
    if box is None or min(box[2] - box[0], box[3] - box[1]) < LEAST_SIDE or (first_mask > 127).mean() < LEAST_AREA:
        return None
    if p.start:
        a, a_mask, before = first, first_mask, first_mask
    else:
        a, a_mask = draw(pool, p, A, p.crops[A])
        before = _drawn(pool, p, P)
    after = _drawn(pool, p, A) if p.drift else a_mask
    rest = [draw(pool, p, frame, p.crops[frame]) for frame in (B, C)]
    masks = (first_mask, a_mask, *(mask for _, mask in rest))
    *small, small_before, small_after = (
        cv2.resize(m, (MASK, MASK), interpolation=cv2.INTER_AREA) for m in (*masks, before, after)
    )
    filled = np.zeros((CROP, CROP), np.uint8)
    error = np.array(p.box_error) * np.array([box[2] - box[0], box[3] - box[1]] * 2)
    x0, y0, x1, y1 = np.clip(np.array(box) + error, 0, CROP).round().astype(int)
    filled[y0:y1, x0:x1] = 255
    return Rendered(
        np.stack([first, a, *(pixels for pixels, _ in rest)]),
        np.stack(small),
        small_before,
        small_after,
        np.array([p.crops[i] for i in SHOWN], np.float32),
        cv2.resize(filled, (MASK, MASK), interpolation=cv2.INTER_AREA),
        p.start,
        p.boxed,
        bool(p.drift),
    )


def draw(
    pool: Pool, p: Plan, frame: int, crop: tuple[float, float, float], colours: bool = True
) -> tuple[UInt8, UInt8]:
    """Pixels (256, 256, 3) and the target's visible mask (256, 256) of one frame's crop.

    Without `colours` the pixels are left undefined, at less cost.
    """
    canvas = np.empty((CROP, CROP, 3), np.uint8)
    truth = np.zeros((CROP, CROP), np.uint8)
    for i, layer in enumerate(p.layers):
        if not layer.shown[frame]:
            continue
        picture = layer.pictures[frame]
        colour = canvas
        if colours:
            colour = _warp(pool.pixels(picture), layer, frame, crop, p.fill if i == 0 else None)
            colour = _tint(colour, layer.colour)
        if layer.object_id is None:
            canvas = colour
            if layer.target is not None:
                alpha = _alpha(pool, picture, layer.target, layer.cut(frame), soft=True)
                truth = _warp(alpha, layer, frame, crop, 0)
            continue
        alpha = _warp(_alpha(pool, picture, layer.object_id), layer, frame, crop, 0)
        if not alpha.any():
            continue
        if colours:
            canvas = _blend(canvas, colour, cv2.GaussianBlur(alpha, (3, 3), 0))
        if layer.target is None:
            truth = cv2.min(truth, 255 - alpha)
        elif layer.cuts is None:
            truth = alpha
        else:
            truth = _warp(_alpha(pool, picture, layer.target, layer.cut(frame)), layer, frame, crop, 0)
    return finish(canvas, p.looks[frame]) if colours else canvas, truth


def _drawn(pool: Pool, p: Plan, frame: int) -> UInt8:
    """Mask (256, 256) that the tracker is taken to have drawn in a frame, as the crop of a sees it: the target's,
    occluders not counted, or what the plan has in its place.
    """
    mask = np.zeros((CROP, CROP), np.uint8)
    for layer in drawn_layers(p):
        assert layer.target is not None
        alpha = _alpha(pool, layer.pictures[frame], layer.target, layer.cut(frame))
        mask = cv2.max(mask, _warp(alpha, layer, frame, p.crops[A], 0))
    return mask


def drawn_layers(p: Plan) -> tuple[Layer, ...]:
    """The layers whose targets the tracker is taken to have drawn before a."""
    return p.drift or tuple(layer for layer in p.layers if layer.target is not None)


def _alpha(pool: Pool, picture: Picture, k: int, cut: Cut | None = None, soft: bool = False) -> UInt8:
    """Mask (H, W) of object k: 255 inside, 0 outside and, where `soft`, 128 on its rim where the truth is not known.

    Of a picture that has only boxes, the filled box.
    """
    if not picture.mask:
        filled = np.zeros((picture.height, picture.width), np.uint8)
        x, y, w, h = picture.boxes.get(k, (0.0, 0.0, 0.0, 0.0))
        filled[round(max(0.0, y)) : round(y + h), round(max(0.0, x)) : round(x + w)] = 255
        return filled
    ids = np.ascontiguousarray(pool.mask(picture))
    alpha = cv2.compare(ids, k, cv2.CMP_EQ)
    if soft and picture.ignore:
        near = cv2.dilate(alpha, np.ones((13, 13), np.uint8))
        alpha = cv2.max(alpha, cv2.min(near, cv2.compare(ids, IGNORE, cv2.CMP_EQ)) // 2)
    return alpha if cut is None else _kept(alpha, cut)


def object_mask(pool: Pool, picture: Picture, k: int) -> Mask:
    """Where object k is seen, (H, W) bool; of a picture that has masks."""
    return np.asarray(pool.mask(picture) == k)


def cut_box(mask: Mask, box: Boxed, how: tuple[tuple[float, float], ...]) -> Mask:
    """What a part, as `part_of` says it, leaves of a mask with that box."""
    return np.asarray(_kept(mask.view(np.uint8), _cut(box, how)) > 0)


def _kept(alpha: UInt8, cut: Cut) -> UInt8:
    """The mask (H, W) where it lies in every half-plane of a cut, else 0."""
    y, x = np.ogrid[: alpha.shape[0], : alpha.shape[1]]
    for across, down, reach in cut:
        alpha = np.where(across * x + down * y < reach, alpha, 0).astype(np.uint8)
    return alpha


def _warp(
    image: UInt8,
    layer: Layer,
    frame: int,
    crop: tuple[float, float, float],
    fill: int | tuple[int, int, int] | None,
) -> UInt8:
    """The layer's picture as the crop sees it, (256, 256[, 3]); outside it is `fill`, or its mirror image for None."""
    matrix, factor = view(layer.places[frame], crop)
    if factor > 1:
        size = max(1, round(image.shape[1] / factor)), max(1, round(image.shape[0] / factor))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    border = cv2.BORDER_CONSTANT if fill is not None else cv2.BORDER_REFLECT_101
    value = fill if fill is not None else 0
    if layer.bend is None or frame == FIRST:
        return cv2.warpAffine(image, matrix, (CROP, CROP), flags=cv2.INTER_LINEAR, borderMode=border, borderValue=value)
    maps = _bent(matrix, layer.bend, frame)
    return cv2.remap(image, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=border, borderValue=value)


def view(place: Affine, crop: tuple[float, float, float]) -> tuple[Affine, int]:
    """Where a crop sees the pixels of a picture at `place`: pixel index -> crop pixel index.

    Also the factor 1, 2 or 4 by which the picture is to be shrunk first, or fine texture turns into noise; the indices
    are then the small copy's.
    """
    x, y, side = crop
    s = CROP / side
    m, t = s * place[:, :2], s * (place[:, 2] - (x, y))
    shrink = 1.0 / max(1e-6, math.sqrt(abs(np.linalg.det(m))))
    factor = 1 if shrink <= 2.5 else 2 if shrink < 5 else 4
    m = m * factor
    t = t + m @ (0.5, 0.5) - 0.5  # pixel centres
    return np.hstack([m, t[:, None]]), factor


def bend_field(seed: int, frame: int) -> Float32:
    """A smooth field (2, 5, 5) in crop pixels, x and y, to be stretched over the crop; it grows from frame to frame."""
    field_ = np.random.default_rng(seed).normal(0, 1, (2, 5, 5)).astype(np.float32) * CROP * 0.022
    more = np.random.default_rng(seed + frame).normal(0, 1, (2, 5, 5)).astype(np.float32) * CROP * 0.007
    return np.asarray(field_ + more, np.float32)


def _bent(matrix: Affine, seed: int, frame: int) -> tuple[Float32, Float32]:
    """Sampling maps of a view with a smooth field on top."""
    bend = [cv2.resize(f, (CROP, CROP), interpolation=cv2.INTER_CUBIC) for f in bend_field(seed, frame)]
    m, t = matrix[:, :2], matrix[:, 2]
    inverse = np.linalg.inv(m)
    xs, ys = np.meshgrid(np.arange(CROP, dtype=np.float32), np.arange(CROP, dtype=np.float32))
    xs, ys = xs + bend[0] - np.float32(t[0]), ys + bend[1] - np.float32(t[1])
    i = inverse.astype(np.float32)
    return i[0, 0] * xs + i[0, 1] * ys, i[1, 0] * xs + i[1, 1] * ys


def _tint(image: UInt8, colour: tuple[float, ...]) -> UInt8:
    """Gains b, g, r about the middle grey, and an offset; a matrix, because a table takes OpenCV five times as long."""
    *gains, offset = colour
    turn = np.diag([*gains, 0.0])[:3]
    turn[:, 3] = [128 - 128 * gain + offset for gain in gains]
    return cv2.transform(image, turn.astype(np.float32))


def _blend(below: UInt8, above: UInt8, alpha: UInt8) -> UInt8:
    a = (alpha.astype(np.float32) / 255.0)[..., None]
    return cv2.convertScaleAbs(below + (above.astype(np.float32) - below) * a)


def seeds_of(rng: np.random.Generator, settings: ClipSettings, count: int) -> tuple[int, ...]:
    """Seeds of the looks of so many frames; all the same where the light stays as it is."""
    seeds = tuple(int(v) for v in rng.integers(0, 2**31, count))
    return (seeds[0],) * count if rng.random() < 1.0 - 0.4 * settings.camera else seeds


def colours_of(rng: np.random.Generator, settings: ClipSettings) -> tuple[bool, tuple[float, float] | None]:
    """Of all frames of a clip: are they grey, and how their colours are turned; see `Look`."""
    gray = bool(rng.random() < 0.08)
    if not settings.turned or rng.random() >= settings.turned:
        return gray, None
    return gray, (float(rng.uniform(-math.pi, math.pi)), float(rng.uniform(0.3, 1.5)))


def look(seed: int, gray: bool, turned: tuple[float, float] | None, often: float) -> Look:
    """One frame's look; `often` is `ClipSettings.camera`."""
    rng = np.random.default_rng(seed)
    colour = _colour(rng)
    dice = rng.random(4)
    return Look(
        colour,
        gray,
        turned,
        int(CROP * rng.uniform(0.25, 0.7)) if dice[0] < 0.12 * often else None,
        (int(rng.integers(3, 12)), float(rng.uniform(0, math.pi))) if dice[1] < 0.12 * often else None,
        int(rng.integers(15, 60)) if dice[2] < 0.06 * often else None,
        float(rng.uniform(1.3, 2.4)) if dice[3] < 0.08 * often else None,
    )


def finish(image: UInt8, look: Look) -> UInt8:
    """A crop as a camera shows it: light, blur, compression, low light."""
    image = _tint(image, look.colour)
    if look.turned is not None:
        image = cv2.transform(image, turning(*look.turned))
    if look.gray:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if look.low is not None:
        small = cv2.resize(image, (look.low, look.low), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (CROP, CROP))
    if look.motion is not None:
        image = cv2.filter2D(image, -1, motion_kernel(*look.motion))
    if look.jpeg is not None:
        _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, look.jpeg])
        image = cv2.imdecode(code, cv2.IMREAD_COLOR)
    if look.gamma is not None:
        image = cv2.LUT(image, (255 * (np.arange(256) / 255.0) ** look.gamma).astype(np.uint8))
    return image


def turning(angle: float, strength: float) -> Float32:
    """Matrix (3, 3) that turns colours by `angle` radians about the axis of greys; of `strength` 0 all become grey."""
    c, s = strength * math.cos(angle), strength * math.sin(angle) / math.sqrt(3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    return np.asarray(c * np.eye(3) + (1 - c) / 3 + s * cross, np.float32)


def motion_kernel(length: int, turn: float) -> Float32:
    """A line through the middle of (length, length) at `turn` radians, summing to 1."""
    kernel = np.zeros((length, length), np.float32)
    c = (length - 1) / 2
    end = (c * math.cos(turn), c * math.sin(turn))
    cv2.line(kernel, (round(c - end[0]), round(c - end[1])), (round(c + end[0]), round(c + end[1])), 1.0)
    return kernel / kernel.sum()


def _box_of(mask: UInt8) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of what is above half; None where nothing is."""
    x, y, w, h = cv2.boundingRect((mask > 127).astype(np.uint8))
    return (x, y, x + w, y + h) if w and h else None


@dataclass(frozen=True, slots=True)
class Spoiling:
    """What is to be wrong with a mask; lengths in units of the mask's size, the root of its box's area."""

    lost: bool = False
    boxed: bool = False  # only its box is left
    grow: float = 0.0  # swollen by this much, and a pixel; shrunk where negative
    motion: tuple[float, float, float, float] | None = None  # linear map about its middle, row by row
    shift: tuple[float, float] = (0.0, 0.0)
    blots: tuple[tuple[int, float, float, float, float, float], ...] = ()  # value, x, y from the middle, axes, degrees
    half: tuple[float, float] | None = None  # only what lies less than so far from the middle in this direction
    blur: int = 0  # pixels: 0, 3 or 5


def spoiling(rng: np.random.Generator, strength: float = 1.0) -> Spoiling:
    """What a tracker might have drawn: a mask bent, swollen, shrunk, with holes, with false blobs, or none at all."""
    dice = rng.random()
    if dice < 0.10 * strength:
        return Spoiling(lost=True)
    if dice < 0.18 * strength:
        return Spoiling(boxed=True)
    grow = rng.uniform(-0.06, 0.06) * strength if rng.random() < 0.6 else 0.0
    motion, shift = None, (0.0, 0.0)
    if rng.random() < 0.5:
        m = _motion(rng, 5 * strength, 0.06 * strength, 0, 0.04)
        motion = (float(m[0, 0]), float(m[0, 1]), float(m[1, 0]), float(m[1, 1]))
        x, y = rng.normal(0, 0.05 * strength, 2)
        shift = (float(x), float(y))
    blots = []
    for value, share, spread in ((0, 0.25, 0.35), (255, 0.25, 0.8)):
        if rng.random() < share * strength:
            for _ in range(int(rng.integers(1, 4))):
                x, y = rng.normal(0, spread, 2)
                wide, high = rng.uniform(0.03, 0.22, 2)
                blots.append((value, float(x), float(y), float(wide), float(high), float(rng.uniform(0, 180))))
    half = None
    if rng.random() < 0.15 * strength:
        half = (float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(-0.2, 0.4)))
    return Spoiling(
        grow=float(grow), motion=motion, shift=shift, blots=tuple(blots), half=half, blur=int(rng.choice([0, 0, 3, 5]))
    )


def spoil(mask: UInt8, how: Spoiling) -> UInt8:
    """A mask (128, 128) spoiled; 255 = object."""
    box = _box_of(mask)
    if how.lost:
        return np.zeros_like(mask)
    if box is None:
        return mask
    size = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    middle = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    if how.boxed:
        filled = np.zeros_like(mask)
        filled[box[1] : box[3], box[0] : box[2]] = 255
        return filled
    if how.grow:
        k = 3 + 2 * int(abs(how.grow) * size)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (k, k))
        mask = cv2.dilate(mask, kernel) if how.grow > 0 else cv2.erode(mask, kernel)
    if how.motion is not None:
        m = np.array(how.motion).reshape(2, 2)
        place = np.hstack([m, (middle - m @ middle + np.array(how.shift) * size)[:, None]])
        mask = cv2.warpAffine(mask, place, mask.shape[::-1])
    if how.blots:
        mask = mask.copy()
        for value, x, y, wide, high, degrees in how.blots:
            spot = (middle + size * np.array([x, y])).astype(int)
            axes = (int(1 + size * wide), int(1 + size * high))
            cv2.ellipse(mask, (int(spot[0]), int(spot[1])), axes, degrees, 0, 360, value, -1)
    if how.half is not None:
        turn, reach = how.half
        ys, xs = np.ogrid[: mask.shape[0], : mask.shape[1]]
        side = math.cos(turn) * (xs - middle[0]) + math.sin(turn) * (ys - middle[1])
        mask = np.where(side < reach * size, mask, 0).astype(np.uint8)
    return cv2.GaussianBlur(mask, (how.blur, how.blur), 0) if how.blur else mask
