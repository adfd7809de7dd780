"""The published family's task: its steps, what of it learns when, where it begins, and a run from clips to tracking."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

import siammask
from siammask.engines.siamese import _window
from siammask.errors import InputError, WeightsError
from siammask.evaluate.sequences import find_sequences
from siammask.network import siamese as network_siamese
from siammask.network.resnet import ResNet50
from siammask.network.siamese import Siamese
from siammask.train import loop, publish, siamese
from siammask.train.clips import ClipSettings
from siammask.train.config import DataConfig, OptimConfig, SiameseConfig, TrainConfig
from siammask.train.pairs import PairGrid, Pairs, PairSettings
from siammask.train.pool import Pool
from siammask.train.siamese_losses import SiameseWeights
from siammask.variants import variant

TWINS = ("siamfc_light", "siamrpn_light", "siammask_2b_light", "siammask_base_light", "siammask_light")
OTHERS = ("siammask_2b_refined_light", "siamrpn_alexnet", "siamfc_alexnet")


def config(name: str, **optim: object) -> TrainConfig:
    return TrainConfig(name, "out", DataConfig("data", ("blobs",)), init="random", optim=OptimConfig(**optim))


def network_of(name: str, seed: int = 0) -> Siamese:
    torch.manual_seed(seed)
    return network_siamese.build(variant(name))


def batch_of(pool: Pool, name: str, settings: PairSettings | None = None, count: int = 2) -> dict[str, Tensor]:
    row = variant(name)
    cells = 17 if row.backbone == "alexnet" else 25
    grid = PairGrid(row.search, row.search.search_size, cells, row.locate == "rpn")
    settings = settings or PairSettings(negative=0.0, rows=2 if row.mask != "none" else 0)
    weights = ClipSettings(weights={"boxed": 0.0})
    return next(iter(Pairs(pool, weights, settings, grid, count, 0, 0, None, True)))


@pytest.mark.parametrize("name", TWINS + OTHERS)
def test_a_step_of_every_twin(pool: Pool, name: str) -> None:
    """Every branch that a variant has is told what it did; nothing else learns, and everything that learns is moved."""
    network, c = network_of(name), config(name)
    groups = siamese.groups(network, c)
    made = siamese.step(network.train(), batch_of(pool, name), c, 0)
    row = variant(name)
    has = {"score"} | ({"box"} if row.locate == "rpn" else set()) | ({"mask", "iou"} if row.mask != "none" else set())
    assert set(made.parts) == has
    assert all(np.isfinite(value) for value in made.parts.values())
    w = c.siamese.weights
    told = sum(getattr(w, name) * made.parts[name] for name in has - {"iou"})
    assert float(made.total.detach()) == pytest.approx(told, rel=1e-5)
    made.total.backward()
    learning = {id(p) for group in groups for p in group["params"]}
    for label, parameter in network.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in learning), label
    assert not any(p.requires_grad for p in network.backbone.parameters())


def test_steps_make_the_losses_fall(pool: Pool) -> None:
    network, c = network_of("siammask_light"), config("siammask_light", lr=2e-3)
    optimizer = loop.make_optimizer(siamese.groups(network, c), c)
    batch = batch_of(pool, "siammask_light", count=1)
    totals = []
    for number in range(6):
        made = siamese.step(network.train(), batch, c, number)
        optimizer.zero_grad()
        made.total.backward()
        optimizer.step()
        totals.append(float(made.total.detach()))
    assert totals[-1] < 0.8 * totals[0], totals


@pytest.mark.parametrize("name", ["siammask_light", "siammask_base_light"])
def test_masks_are_those_that_the_engine_draws(pool: Pool, name: str) -> None:
    network, c, row = network_of(name).eval(), config(name), variant(name)
    batch = batch_of(pool, name, count=1)
    engine = siamese.engine(network, c, "cpu")
    embedding = engine.embed(batch["exemplar"][0].numpy())
    response = engine.search((embedding,), batch["search"][0].numpy())
    with torch.inference_mode():
        planes = {n: batch[n].permute(0, 3, 1, 2).float() for n in ("exemplar", "search")}
        seen = network.search(network.embed(planes["exemplar"]), planes["search"])
        for cell in (12 * 25 + 12, 3, 24 * 25 + 24):  # the last two windows leave the crop
            batch["at"][0] = torch.tensor([cell, -1])
            drawn, truth = siamese.masks(network, seen, batch, row.backbone, 256)
            assert drawn.shape[0] == truth.shape[0] == 1
            patch = response.mask(*divmod(cell, 25))
            assert patch is not None
            np.testing.assert_allclose(torch.sigmoid(drawn[0]).numpy(), patch.values, atol=1e-4)


def test_windows_are_the_engines() -> None:
    features = torch.randn(2, 3, 20, 20)
    corners = [(0, 4, 5), (1, -3, -7), (1, 15, 18), (0, -7, 0)]
    which, top, left = (torch.tensor(column) for column in zip(*corners, strict=True))
    cut = siamese.windows(features, which, top, left, 8)
    for found, (i, y, x) in zip(cut, corners, strict=True):
        np.testing.assert_array_equal(found.numpy(), _window(features[i : i + 1].numpy(), y, x, 8)[0])


def test_pairs_without_an_object_teach_no_mask_but_give_gradients(pool: Pool) -> None:
    """In a run of several processes all must have gradients for the same parameters."""
    name = "siammask_light"
    network, c = network_of(name), config(name)
    groups = siamese.groups(network, c)
    made = siamese.step(network.train(), batch_of(pool, name, PairSettings(negative=1.0), 1), c, 0)
    assert made.parts["mask"] == 0.0
    assert np.isnan(made.parts["iou"])
    made.total.backward()
    assert all(p.grad is not None for group in groups for p in group["params"])


def test_the_backbone_learns_later_and_slower(pool: Pool) -> None:
    name = "siamfc_light"
    c = config(name, lr=1e-2, backbone_lr=1e-3, backbone_from=5, train_from=5)
    network = network_of(name)
    head, late = siamese.groups(network, c)
    assert (head["share"], late["share"]) == (1.0, pytest.approx(0.1))
    for number, learns in ((4, False), (5, True)):
        siamese.settle(network, c, number)
        blocks = network.backbone.light.blocks
        assert not any(p.requires_grad for p in blocks[:5].parameters())
        assert {p.requires_grad for p in blocks[5:].parameters()} == {learns}


def test_what_does_not_learn_counts_no_statistics() -> None:
    c = config("siammask_base", backbone_lr=1e-3, backbone_from=1)
    network = network_of("siammask_base")
    siamese.groups(network, c)
    counting = {}
    for number in (0, 1):
        siamese.settle(network.train(), c, number)
        counting[number] = {
            n.split(".")[1] for n, m in network.backbone.named_modules(prefix="b") if m.training and "bn" in n
        }
    assert counting[0] == set()
    assert counting[1] == {"layer2", "layer3"}
    assert network.neck[1].training


def test_the_refinement_stage_trains_only_masks() -> None:
    c = replace(config("siammask_light"), siamese=SiameseConfig(stage="refine"))
    network = network_of("siammask_light")
    siamese.groups(network, c)
    siamese.settle(network.train(), c, 0)
    learning = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert learning == {"mask", "refine"}
    assert not network.score.head[1].training
    assert network.mask.conv_search[1].training


def test_without_a_mask_loss_only_score_and_box_learn_and_are_tracked(pool: Pool) -> None:
    c = replace(config("siammask_light"), siamese=SiameseConfig(weights=SiameseWeights(mask=0.0)))
    network = network_of("siammask_light")
    siamese.groups(network, c)
    made = siamese.step(network.train(), batch_of(pool, "siammask_light"), c, 0)
    assert set(made.parts) == {"score", "box"}
    learning = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert learning == {"neck", "score", "box"}
    assert siamese.engine(network, c, "cpu").variant.mask == "none"


@pytest.mark.parametrize(
    ("name", "search", "expected"),
    [("siamrpn", 255, 25), ("siammask", 143, 11), ("siammask_light", 256, 25), ("siammask_light", 144, 11)],
)
def test_cells(name: str, search: int, expected: int) -> None:
    row = variant(name)
    assert siamese.cells(network_of(name), row.search.exemplar_size, search) == expected


def test_vector_masks_begin_as_a_disc_and_change_smoothly() -> None:
    """Before anything is learnt, every mask is near a disc in the middle; what changes it draws no single pixels."""
    network = siamese.initial(replace(config("siammask_base_light"), init="imagenet")).eval()
    with torch.inference_mode():
        drawn = network.vector(torch.rand(3, 128))
    assert drawn[:, 31, 31].min() > 0
    assert torch.stack((drawn[:, 0, 0], drawn[:, 0, -1], drawn[:, -1, 0], drawn[:, -1, -1])).max() < -2
    patterns = network.mask.head[-1].weight.detach().reshape(63, 63, -1)
    assert torch.linalg.matrix_rank(patterns.flatten(0, 1)) == patterns.shape[-1] // 2  # each with its negative
    assert patterns.diff(dim=0).abs().max() < 0.2 * patterns.abs().max()


def test_refinement_begins_from_the_base_stage(tmp_path: Path) -> None:
    base = network_of("siammask_base_light", 1)
    save_file(base.state_dict(), tmp_path / "base.safetensors")
    begun = siamese.initial(replace(config("siammask_light"), init=str(tmp_path / "base.safetensors")))
    own = begun.state_dict()
    assert all(torch.equal(own[name], value) for name, value in base.state_dict().items())
    assert any(name.startswith("refine.") for name in own)
    with pytest.raises(WeightsError, match=r"missing: .*box"):
        siamese.initial(replace(config("siammask_light"), init=_saved(network_of("siamfc_light"), tmp_path)))


def test_imagenet_weights_of_resnet50(tmp_path: Path) -> None:
    """Given for normalised RGB, they are made to take raw BGR: the same activations."""
    torch.manual_seed(0)
    backbone = ResNet50().eval()
    backbone.bn1.running_mean.normal_()
    given = {n: v for n, v in backbone.state_dict().items() if "downsample.0" not in n}
    torch.save(given | {"fc.weight": torch.zeros(3), "layer4.0.conv1.weight": torch.zeros(3)}, tmp_path / "r.pth")
    network = siamese.initial(replace(config("siammask"), init=str(tmp_path / "r.pth"))).eval()
    pixels = torch.randint(0, 256, (1, 3, 31, 31)).float()  # BGR
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        expected = backbone.bn1(backbone.conv1((pixels.flip(1) / 255 - mean) / std))
        found = network.backbone.bn1(network.backbone.conv1(pixels))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    for name in ("layer3.5.conv3.weight", "layer2.0.bn1.weight"):
        assert torch.equal(network.backbone.state_dict()[name], given[name])
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(WeightsError, match="Not the weights of a ResNet-50"):
        siamese.initial(replace(config("siammask"), init=str(tmp_path / "wrong.pth")))


def test_where_a_run_cannot_begin() -> None:
    with pytest.raises(InputError, match=r"'siammask' has no backbone weights at hand"):
        siamese.initial(replace(config("siammask"), init="imagenet"))
    with pytest.raises(WeightsError, match=r"none\.pth \(option `init`\) is missing"):
        siamese.initial(replace(config("siammask_light"), init="none.pth"))


@pytest.mark.parametrize("name", ["siammask_light", "siammask_2b_refined_light", "siamrpn_alexnet"])
def test_from_clips_to_tracking(root: Path, tmp_path: Path, name: str) -> None:
    """Two steps, the closed loop on what was held out, published, and tracked with by the engine that ships."""
    data = DataConfig(
        str(root), ("blobs", "stills"), str(tmp_path / "cache"), ("blobs/walk",), workers=0, pairs=PairSettings(rows=2)
    )
    c = TrainConfig(name, str(tmp_path / "out"), data, init="random")
    loop.run(replace(c, optim=OptimConfig(steps=2, batch=2, warmup=1)), console=Console(file=io.StringIO()))
    assert (tmp_path / "out" / "validation.jsonl").exists()
    folder = publish.publish(tmp_path / "out" / "best.safetensors", tmp_path / "weights")
    assert f"Weights of `{name}`" in (folder / "card.md").read_text()
    assert json.loads((folder / "certificate.json").read_text())["error_f32"]["search"]
    (sequence,) = (s for s in find_sequences(root / "blobs") if s.name.endswith("walk"))
    tracker = siammask.load(name, weights=folder, threads=1)
    results = list(tracker.follow((sequence.read_frame(i) for i in range(3)), sequence.box(0)))
    assert len(results) == 3
    assert all(0 <= r.score <= 1 for r in results)


def _saved(network: Siamese, folder: Path) -> str:
    save_file(network.state_dict(), folder / "other.safetensors")
    return str(folder / "other.safetensors")
