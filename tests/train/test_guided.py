"""The guided network's task: its steps, what of it learns, and masks carried from crop to crop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lively import guided_network
from safetensors.torch import save_file

from siammask.errors import InputError, WeightsError
from siammask.geometry import Crop, Patch
from siammask.train import batches, guided, loop
from siammask.train.batches import Clips, Frozen
from siammask.train.clips import ClipSettings
from siammask.train.config import DataConfig, OptimConfig, TrainConfig
from siammask.train.pool import Pool


@pytest.fixture
def config() -> TrainConfig:
    """Nothing of it is read from a disk."""
    return TrainConfig("guided", "out", DataConfig("data", ("blobs",)), optim=OptimConfig(steps=3, warmup=2, lr=1e-4))


def test_a_missing_start(config: TrainConfig) -> None:
    with pytest.raises(WeightsError, match=r"none\.safetensors \(option `init`\) is missing"):
        guided.initial(replace(config, init="none.safetensors"))


def test_steps_make_the_losses_fall(pool: Pool, config: TrainConfig) -> None:
    """Six steps on one and the same batch; guides are drawn anew each time, so the sum may shake."""
    network = guided_network().train()
    c = replace(config, optim=replace(config.optim, lr=1e-3, guide_drop=0.0, teacher=(1.0, 1.0)))
    optimizer = loop.make_optimizer(guided.groups(network, c), c)
    batch = next(iter(Clips(pool, ClipSettings(absent=0), 2, 0, 0)))
    with torch.no_grad():  # the frozen part runs once
        found = network.backbone.begin(batch.pop("pixels").permute(0, 3, 1, 2).float(), 11)
    batch |= {n: f.permute(0, 2, 3, 1) for n, f in zip(batches.FEATURES, found, strict=True)}
    totals = []
    for step in range(6):
        made = guided.guided_step(network, batch, c, step)
        optimizer.zero_grad()
        made.total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        totals.append(float(made.total.detach()))
    assert min(totals[-2:]) < 0.8 * totals[0], totals


def test_a_sister_begins_with_what_fits(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = guided_network(3)
    file = tmp_path / "default.safetensors"
    save_file(theirs.state_dict(), file)
    small = replace(config, variant="guided_small", init=str(file))
    with pytest.raises(WeightsError, match=r"of another architecture; missing: .*from2"):
        guided.initial(small)
    network = guided.initial(replace(small, partial=True))
    own, given = network.state_dict(), theirs.state_dict()
    fit = [name for name in own if name in given and own[name].shape == given[name].shape]
    assert f"{len(fit)} of the network's {len(own)} tensors" in capsys.readouterr().out
    assert {"mix.weight", "fuse.weight", "temperature", "backbone.blocks.8.project.bias"} < set(fit)
    for name in fit:
        torch.testing.assert_close(own[name], given[name], rtol=0, atol=0)


def test_a_step_of_the_sister(config: TrainConfig, pool: Pool) -> None:
    """Its crops are smaller than those that clips are drawn in; what it is given shrinks with them."""
    network = guided_network(name="guided_small").train()
    c = replace(config, variant="guided_small")
    guided.groups(network, c)
    batch = next(iter(Clips(pool, ClipSettings(absent=0), 1, 0, 0)))
    made = guided.guided_step(network, batch, c, 0)
    made.total.backward()
    idle = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert torch.isfinite(made.total)
    assert idle == []


@pytest.mark.parametrize(
    ("name", "rate", "begin", "end"),
    [("guided", 0.0, 5, 11), ("guided", 1e-4, 5, 5), ("guided", 1e-4, 3, 3), ("guided_small", 0.0, 5, 9)],
)
def test_features_from_pixels_and_from_the_data_process(
    config: TrainConfig, pool: Pool, name: str, rate: float, begin: int, end: int
) -> None:
    """The frozen part may run anywhere: the loop finishes what it is given."""
    network = guided_network(name=name)
    guided.groups(network, replace(config, optim=replace(config.optim, backbone_lr=rate, train_from=begin)))
    assert guided.network_begins(network) == end
    pixels = next(iter(Clips(pool, ClipSettings(), 1, 0, 0)))["pixels"]
    with torch.no_grad():
        frozen = Frozen(network.backbone, end, network.shape.crop)(pixels)
        whole, sized = guided.features(network, {"pixels": pixels}, OptimConfig(amp=False))
        assert sized is network
        for a, b in zip(whole, guided.features(network, frozen, OptimConfig(amp=False))[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_crops_of_a_clip_lack_the_same_channels() -> None:
    torch.manual_seed(3)
    whole = torch.ones(8, 400, 2, 2)
    found = guided.thinned(whole, 0.25).view(2, 4, 400, 4)
    torch.testing.assert_close(found, found[:, :1, :, :1].expand_as(found))
    kept = found[:, 0, :, 0] > 0
    assert (kept[0] != kept[1]).any()
    torch.testing.assert_close(found[found > 0], torch.tensor(4 / 3).expand(int((found > 0).sum())))
    torch.testing.assert_close(kept.float().mean(), torch.tensor(0.75), atol=0.06, rtol=0)


def test_only_the_chosen_blocks_of_the_backbone_learn(config: TrainConfig) -> None:
    network = guided_network()
    c = replace(config, optim=replace(config.optim, backbone_lr=1e-5, train_from=5))
    optimizer = loop.make_optimizer(guided.groups(network, c), c)
    learning = {n for n, p in network.named_parameters() if p.requires_grad and n.startswith("backbone.")}
    assert {int(n.split(".")[2]) for n in learning} == set(range(5, 11))
    rate = loop.set_rate(optimizer, 2, c)
    assert rate == pytest.approx(1e-4)
    assert [g["lr"] for g in optimizer.param_groups] == [pytest.approx(1e-5), pytest.approx(1e-4)]


def test_only_the_named_parts_learn(config: TrainConfig, pool: Pool) -> None:
    network = guided_network(name="guided_lean").train()
    config = replace(config, variant="guided_lean")
    (group,) = guided.groups(network, replace(config, learn=("to_box",)))
    assert {id(p) for p in group["params"]} == {id(p) for p in network.to_box.parameters()}
    guided.guided_step(network, next(iter(Clips(pool, ClipSettings(), 1, 0, 0))), config, 0).total.backward()
    learnt = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert learnt == {"to_box"}
    with pytest.raises(InputError, match=r"learn names 'to_bax', .* to_box"):
        guided.groups(network, replace(config, learn=("to_bax",)))


@pytest.mark.parametrize(
    ("source", "goal"),
    [
        ((10, 20, 100), (10, 20, 100)),
        ((10, 20, 100), (30, 5, 80)),
        ((0, 0, 64), (-40, 10, 90)),
        ((0, 0, 64), (300, 0, 64)),
    ],
)
def test_carried_masks_agree_with_the_tracker(source: tuple[int, int, int], goal: tuple[int, int, int]) -> None:
    """Training moves a mask from crop to crop as `Patch.seen_by` does while tracking."""
    values = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    values = np.kron(values, np.ones((16, 16), np.float32))
    a, b = (Crop(*crop, 256) for crop in (source, goal))
    expected = Patch(values, a.place).seen_by(b, 128)
    found = guided.carried(
        torch.from_numpy(values)[None, None], torch.tensor([source]).float(), torch.tensor([goal]).float()
    )[0, 0]
    assert np.abs(found.numpy() - expected).mean() < 2e-3
    assert np.abs(found.numpy() - expected).max() < 0.05  # OpenCV's bilinear weights have five bits


@pytest.mark.parametrize("without", ["give_last", "remember_score", "keep_first", "nothing"])
def test_what_is_left_out_of_tracking_is_left_out_of_training(
    config: TrainConfig, pool: Pool, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    """Which memories and guides the three drawings of a clip see."""
    network = guided_network(name="guided_small").eval()
    settings = {"give_last": 0.0, "remember_score": 2.0, "keep_first": 0.0}
    search: dict[str, float | str] = {} if without == "nothing" else {without: settings[without]}
    c = replace(config, variant="guided_small", search=search, optim=replace(config.optim, guide_drop=0.0))
    if without in ("nothing", "keep_first"):
        c = replace(c, search=search | {"remember_score": 0.0})  # whatever it scored
    seen = []
    draw = network.draw
    monkeypatch.setattr(network, "draw", lambda *given: seen.append(given) or draw(*given))  # type: ignore[func-returns-value]
    batch = next(iter(Clips(pool, ClipSettings(absent=0, start=0), 2, 0, 0)))
    with torch.no_grad():
        guided.guided_step(network, batch, c, 0)
    firsts, lasts, guides = ([given[i] for given in seen] for i in (1, 2, 3))
    assert len(seen) == 3, "a, b and c"
    assert any(bool(g.any()) for g in guides) == (without != "give_last")
    assert [firsts[i] is lasts[i] for i in (1, 2)] == [without in ("remember_score", "keep_first")] * 2
    assert torch.equal(firsts[2].value, firsts[1].value) == (without != "keep_first")


def test_a_step_in_crops_of_another_size(pool: Pool, config: TrainConfig) -> None:
    """The same parameters learn from whatever size the batch has."""
    network = guided_network().train()
    guided.groups(network, config)
    batch = next(iter(Clips(pool, ClipSettings(absent=0), 1, 0, 0)))
    with torch.no_grad():
        frozen = Frozen(network.backbone, 11, 192)(batch.pop("pixels"))
    made = guided.guided_step(network, batch | frozen, config, 0)
    made.total.backward()
    assert torch.isfinite(made.total)
    assert network.fuse.weight.grad is not None
    assert network.shape.crop == 256


def test_a_step_in_bfloat16(pool: Pool, config: TrainConfig) -> None:
    """Losses are taken in float32 and come out much the same; so do gradients."""
    network = guided_network().train()
    guided.groups(network, config)
    batch = next(iter(Clips(pool, ClipSettings(absent=0, start=0), 1, 0, 0)))
    c = replace(config, optim=replace(config.optim, guide_drop=0.0, teacher=(1.0, 1.0)))
    totals = []
    for half in (False, True):
        torch.manual_seed(0)
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            made = guided.guided_step(network, batch, c, 0)
        made.total.backward()
        assert made.total.dtype == torch.float32
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())
        totals.append(float(made.total.detach()))
    assert totals[1] == pytest.approx(totals[0], rel=0.1)


def test_of_the_backbone_only_what_mixes_channels_learns(config: TrainConfig) -> None:
    network = guided_network()
    optim = replace(config.optim, backbone_lr=1e-5, pointwise=True, method="muon", backbone_adamw=True)
    optimizer = loop.make_optimizer(guided.groups(network, replace(config, optim=optim)), replace(config, optim=optim))
    learning = [n for n, p in network.named_parameters() if p.requires_grad and n.startswith("backbone.")]
    assert {n.split(".")[3] for n in learning} == {"expand", "project"}
    assert [g["matrices"] for g in optimizer.param_groups] == [False, True, False]  # the backbone's by AdamW, in one
    assert guided.network_begins(network) == 5
