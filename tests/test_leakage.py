"""No picture and no sequence of the evaluation set is trained on, by any config that ships.

Reads the same listing as training does. Skips where the data sets are absent.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra 'train'")
from siammask.train import config as configs
from siammask.train import pool

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))
# The official validation split of DAVIS-2016 (Perazzi et al., CVPR 2016): never trained or tuned on either.
DAVIS_VAL = frozenset(
    {
        "blackswan",
        "bmx-trees",
        "breakdance",
        "camel",
        "car-roundabout",
        "car-shadow",
        "cows",
        "dance-twirl",
        "dog",
        "drift-chicane",
        "drift-straight",
        "goat",
        "horsejump-high",
        "kite-surf",
        "libby",
        "motocross-jump",
        "paragliding-launch",
        "parkour",
        "scooter-black",
        "soapbox",
    }
)


@pytest.fixture(params=CONFIGS, ids=lambda file: file.stem)
def data(request: pytest.FixtureRequest) -> configs.DataConfig:
    data = configs.read(request.param).data
    for folder in (data.root, *data.more):
        if not (ROOT / folder).is_dir():
            pytest.skip(f"The training pool {folder} is absent, so there is nothing that could leak.")
    return data


@pytest.fixture(scope="module")
def evaluation(request: pytest.FixtureRequest) -> Path:
    folder = ROOT.parent / "shared" / "data" / "eval"
    if not folder.is_dir():
        pytest.skip("The evaluation set ../shared/data/eval is absent.")
    return folder


def test_there_are_configs() -> None:
    assert CONFIGS


def test_no_frame_of_the_evaluation_set_is_trained_on(data: configs.DataConfig, evaluation: Path) -> None:
    held_back = {_digest(p): p for p in sorted(evaluation.glob("*/*/frames/*"))}
    assert len(held_back) > 500
    read = _read(data)
    assert len(read) > 500
    leaked = {str(p): str(held_back[d]) for p in read if (d := _digest(p)) in held_back}
    assert leaked == {}


def test_no_sequence_of_the_evaluation_set_is_trained_on(data: configs.DataConfig, evaluation: Path) -> None:
    held_back = {p.parent.name.lower() for p in evaluation.glob("*/*/frames")} | DAVIS_VAL
    assert {"blackswan", "wakeboard7"} <= held_back
    names = {p.parent.parent.name.lower() for p in _read(data) if p.parent.name == "frames"}
    assert names
    # pool names may carry the data set's: "uav123_wakeboard7"
    leaked = {n for n in names if any(n == e or n.endswith(f"_{e}") for e in held_back)}
    assert leaked == set()


def _read(data: configs.DataConfig) -> list[Path]:
    """Every picture that training reads, and those that choose its checkpoint."""
    root = ROOT / data.root
    found = pool.listing(root, data.sources, data.validation, [ROOT / folder for folder in data.more])
    trained = [image for _, _, files, _ in found for image, _, _ in files]
    return trained + [image for name in data.validation for image in sorted((root / name / "frames").iterdir())]


@cache  # most configs read the same pool
def _digest(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()
