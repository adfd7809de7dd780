"""What is published opens on both engines and draws the same; the card says where it comes from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from lively import guided_network
from safetensors.torch import load_file, save_file

from siammask.engines import EngineOptions, open_engine
from siammask.errors import InputError, WeightsError
from siammask.train import publish as publishing
from siammask.train.config import DataConfig, TrainConfig
from siammask.variants import variant

CONFIG = TrainConfig("guided", "out", DataConfig("data", ("blobs", "stills"), validation=("blobs/walk",)))
HEADER = {
    "variant": "guided",
    "step": "70",
    "config": json.dumps(asdict(CONFIG)),
    "validation": json.dumps({"J": 0.5, "mean": 0.25}),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights folder of a random network."""
    root = tmp_path_factory.mktemp("published")
    save_file(guided_network().state_dict(), root / "best.safetensors", metadata=HEADER)
    (root / "notes.md").write_text("Seen to fail: night.\n")
    return publishing.publish(root / "best.safetensors", root / "weights", root / "notes.md")


def test_the_folder(published: Path) -> None:
    assert published.name == "guided"
    assert {p.name for p in published.iterdir()} == {
        "weights.safetensors",
        "card.md",
        "certificate.json",
        *(f"{graph}.{kind}" for graph in ("search", "memorise") for kind in ("xml", "bin")),
    }
    assert (published / "weights.safetensors").stat().st_size < 3e6


def test_both_engines_draw_the_same(published: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = np.repeat(np.repeat(rng.integers(0, 255, (16, 16, 3), np.uint8), 16, 0), 16, 1)
    mask = np.zeros((128, 128), np.float32)
    mask[40:80, 50:90] = 1
    drawn = []
    for name in ("openvino", "torch"):
        engine = open_engine(variant("guided"), EngineOptions(name, "f32", threads=1), published)  # type: ignore[arg-type]
        memory = engine.embed(pixels, mask, drawn=True)
        found = engine.search((memory, memory), pixels, mask)
        patch = found.mask(0, 0)
        assert patch is not None
        drawn.append((patch.values, found.score, found.confidence))
    for a, b in zip(*drawn, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)
    assert drawn[0][0].std() > 0.02


def test_weights_are_halved_and_keep_their_header(published: Path) -> None:
    weights = load_file(published / "weights.safetensors")
    assert {str(t.dtype) for t in weights.values()} == {"torch.float16"}
    for name, tensor in guided_network().state_dict().items():
        assert (weights[name].float() - tensor).abs().max() <= 1e-3 * tensor.abs().max()


def test_the_card(published: Path) -> None:
    card = (published / "card.md").read_text()
    for part in ("step 70", "| blobs | 1 | not stated |", "validation: blobs/walk", "J 0.500", '"lr": 0.0015'):
        assert part in card
    assert "Research use" in card
    assert card.endswith("Seen to fail: night.\n")


def test_licences_come_from_the_manifest(tmp_path: Path) -> None:
    video = {"name": "video", "sequences": [{"licence": "CC0"}, {"licence": "CC BY-NC 4.0"}, {"licence": "CC0"}]}
    sources = [{"name": "pets", "licence": "CC BY-SA 4.0"}, video, {"name": "stills"}]
    (tmp_path / "manifest.json").write_text(json.dumps({"sources": sources}))
    found = publishing.licences_of(tmp_path, ["pets", "video", "stills", "others"])
    assert found == {
        "pets": "CC BY-SA 4.0",
        "video": "CC0; CC BY-NC 4.0",
        "stills": "not stated",
        "others": "not stated",
    }
    assert [publishing.is_free(text) for text in found.values()] == [True, False, False, False]
    (tmp_path / "more").mkdir()
    sources = [{"name": "others", "licence": "MIT"}, {"name": "pets", "licence": "of another pool"}]
    (tmp_path / "more/manifest.json").write_text(json.dumps({"sources": sources}))
    found = publishing.licences_of(tmp_path, ["pets", "others"], [tmp_path / "more"])
    assert found == {"pets": "CC BY-SA 4.0", "others": "MIT"}


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        ("Public Domain (a tag)", True),
        ("annotations CC BY 4.0; images under their Flickr licences", False),
        ("BSDS images: non-commercial research and education", False),
        ("none stated (academic)", False),
        ("some text", False),
    ],
)
def test_which_licences_are_free(licence: str, free: bool) -> None:
    assert publishing.is_free(licence) is free


@pytest.mark.parametrize(
    ("header", "error", "says"),
    [
        (None, WeightsError, "does not say its variant"),
        ({"variant": "guided"}, WeightsError, "of another architecture; missing: .*unknown: a"),
        ({"variant": "none"}, InputError, "No model is called 'none'"),
    ],
)
def test_what_cannot_be_published(
    tmp_path: Path, header: dict[str, str] | None, error: type[Exception], says: str
) -> None:
    save_file({"a": guided_network().temperature.detach()}, tmp_path / "x.safetensors", metadata=header)
    with pytest.raises(error, match=says):
        publishing.publish(tmp_path / "x.safetensors", tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.safetensors is missing"):
        publishing.publish(tmp_path / "none.safetensors", tmp_path)
