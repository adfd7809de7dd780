"""The loop, run for a few steps on the drawn pool: what it writes, how it goes on, and the pieces it is made of."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lively import guided_network
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from siammask.errors import InputError, WeightsError
from siammask.train import guided, loop
from siammask.train.config import DataConfig, OptimConfig, TrainConfig


@pytest.fixture(scope="module")
def config(root: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Three steps on two clips each, tracked once on a sequence held out."""
    folder = tmp_path_factory.mktemp("run")
    save_file(guided_network().state_dict(), folder / "start.safetensors")
    return TrainConfig(
        "guided",
        str(folder / "out"),
        DataConfig(str(root), ("blobs", "stills"), str(folder / "cache"), ("blobs/walk",), workers=0),
        init=str(folder / "start.safetensors"),
        save_every=2,
        validate_every=3,
        optim=OptimConfig(steps=3, batch=2, warmup=2, lr=1e-4),
    )


@pytest.fixture(scope="module")
def done(config: TrainConfig) -> Path:
    """The output folder of that run."""
    loop.run(config, console=Console(file=io.StringIO()))
    return Path(config.output)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_weights_on_the_way(config: TrainConfig, tmp_path: Path) -> None:
    """They are kept where asked for; and with validate_every 0 nothing is tracked."""
    c = replace(config, output=str(tmp_path / "out"), keep_every=2, validate_every=0)
    loop.run(c, console=Console(file=io.StringIO()))
    assert sorted(p.name for p in (tmp_path / "out").glob("*.safetensors")) == [
        "final.safetensors",
        "step-000002.safetensors",
    ]
    assert not (tmp_path / "out" / "validation.jsonl").exists()
    with safe_open(tmp_path / "out" / "step-000002.safetensors", "pt") as file:
        assert file.metadata()["step"] == "2"


def test_a_run_writes_its_log(done: Path) -> None:
    log = rows(done)
    assert [row["step"] for row in log] == ["1", "2", "3"]
    names = {f"{loss}_{which}" for loss in ("mask", "dice", "coarse", "score", "overlap", "iou") for which in "abc"}
    assert set(log[0]) == {"step", "rate", "norm", "seconds", "waited"} | names
    assert all(math.isfinite(float(row[name])) for row in log for name in names if not name.startswith("iou"))
    assert float(log[0]["rate"]) == pytest.approx(0.5e-4)


def test_a_run_is_tracked_on_what_was_held_out(done: Path) -> None:
    (line,) = (done / "validation.jsonl").read_text().splitlines()
    figures = json.loads(line)
    assert figures["step"] == 3
    assert all(0 <= figures[name] <= 1 for name in ("J", "F", "AUC"))
    assert figures["mean"] == pytest.approx((figures["J"] + figures["F"] + figures["AUC"]) / 3)


@pytest.mark.parametrize("name", ["best", "final"])
def test_checkpoints_carry_their_variant(done: Path, config: TrainConfig, name: str) -> None:
    with safe_open(done / f"{name}.safetensors", "pt") as file:
        header = file.metadata()
    assert header["variant"] == "guided"
    assert header["step"] == "3"
    assert json.loads(header["config"])["data"]["sources"] == list(config.data.sources)
    assert ("mean" in json.loads(header["validation"])) == (name == "best")
    network = guided_network(1)
    network.load_state_dict(load_file(done / f"{name}.safetensors"))


def test_the_head_learns_and_the_backbone_stays(done: Path, config: TrainConfig) -> None:
    before, after = load_file(config.init), load_file(done / "final.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not any(name.startswith("backbone.") for name in moved)
    assert {"fuse.weight", "to_mask.weight", "to_score.weight", "to_overlap.0.weight", "temperature"} <= moved


def test_a_held_out_sequence_is_not_trained_on(done: Path, config: TrainConfig) -> None:
    (index,) = Path(config.data.cache).glob("*.json")
    names = {(c["source"], c["name"]) for c in json.loads(index.read_text())["clips"]}
    assert ("blobs", "back") in names
    assert ("blobs", "walk") not in names


def test_a_run_goes_on_where_it_stopped(done: Path, config: TrainConfig, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "out")
    longer = replace(config, output=str(tmp_path / "out"), optim=replace(config.optim, steps=4))
    loop.run(longer, resume=True, console=Console(file=io.StringIO()))
    assert [row["step"] for row in rows(tmp_path / "out")] == ["1", "2", "3", "4"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "out" / "validation.jsonl").read_text().splitlines()]
    assert steps == [3, 4]
    assert torch.load(tmp_path / "out" / "last.pt", weights_only=True)["step"] == 4


def test_resuming_restores_all_that_counts(done: Path, config: TrainConfig) -> None:
    network, average = guided_network(1), guided_network(2)
    optimizer = loop.make_optimizer(guided.groups(network, config), config)
    assert loop.restore(loop.read_state(done / "last.pt"), network, average, optimizer) == 3
    final = load_file(done / "final.safetensors")
    assert all(torch.equal(t, final[n]) for n, t in average.state_dict().items())
    assert optimizer.state_dict()["state"]  # the moments
    assert not torch.equal(network.fuse.weight, average.fuse.weight)


def test_resuming_nothing(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"Nothing to resume: .*last\.pt is missing; start without --resume"):
        loop.run(replace(config, output=str(tmp_path / "new")), resume=True)


def test_main_reads_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        loop.main(tmp_path / "none.toml")


def test_stages_run_first_unless_they_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, before in (("one", "imagenet"), ("two", "one"), ("three", "two")):
        init = before if before == "imagenet" else f"{tmp_path}/{before}/best.safetensors"
        table = f'variant = "guided"\noutput = "{tmp_path}/{name}"\ninit = "{init}"\n'
        (tmp_path / f"{name}.toml").write_text(table + '[data]\nroot = "pool"\nsources = ["a"]\n')
    ran: list[tuple[str, bool]] = []
    monkeypatch.setattr(loop, "run", lambda c, resume: ran.append((Path(c.output).name, resume)))
    loop.main(tmp_path / "three.toml", stages=True)
    assert ran == [("one", False), ("two", False), ("three", False)]
    for file in ("one/final.safetensors", "two/last.pt"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    ran.clear()
    loop.main(tmp_path / "three.toml", stages=True)
    assert ran == [("two", True), ("three", False)]
    ran.clear()
    loop.main(tmp_path / "three.toml")
    assert ran == [("three", False)]
    ran.clear()
    loop.main(tmp_path / "three.toml", seed=7)
    assert ran == [("three-seed7", False)]


def test_the_rate_warms_up_and_falls(config: TrainConfig) -> None:
    c = replace(config, optim=OptimConfig(steps=100, warmup=10, lr=1.0, final=0.1))
    optimizer = loop.make_optimizer(guided.groups(guided_network(), c), c)
    rates = [loop.set_rate(optimizer, step, c) for step in (0, 4, 9, 10, 55, 100, 120)]
    assert rates == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.55, 0.1, 0.1], abs=0.01)


def test_the_published_schedule(config: TrainConfig) -> None:
    """Up from a fifth of the rate, then down evenly on a logarithmic scale."""
    o = OptimConfig(steps=100, warmup=10, warmup_from=0.2, lr=5e-3, final=0.5, schedule="log", method="sgd")
    c = replace(config, optim=o)
    optimizer = loop.make_optimizer([{"params": [torch.nn.Parameter(torch.zeros(1))], "share": 1.0}], c)
    assert type(optimizer) is torch.optim.SGD
    rates = [loop.set_rate(optimizer, step, c) for step in (0, 9, 10, 55, 100)]
    assert rates == pytest.approx([1.4e-3, 5e-3, 5e-3, 5e-3 * 0.5**0.5, 2.5e-3])


def test_the_average_follows(config: TrainConfig) -> None:
    slow, fast = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    expected = slow.weight.detach() * 0.9 + fast.weight.detach() * 0.1
    loop.follow(slow, fast, 0.9)
    torch.testing.assert_close(slow.weight.detach(), expected)


def test_running_statistics_are_taken_as_they_are() -> None:
    slow, fast = torch.nn.BatchNorm2d(1), torch.nn.BatchNorm2d(1)
    fast.running_mean += 3.0
    loop.follow(slow, fast, 0.9)
    assert float(slow.running_mean) == 3.0


def test_the_best_mean_is_remembered(tmp_path: Path) -> None:
    file = tmp_path / "validation.jsonl"
    assert loop.best_so_far(file) < 0
    file.write_text('{"step": 1, "mean": 0.4}\n{"step": 2, "mean": 0.6}\n{"step": 3, "mean": 0.5}\n')
    assert loop.best_so_far(file) == 0.6


def test_no_validation(config: TrainConfig) -> None:
    assert loop.validation_sequences(replace(config, data=replace(config.data, validation=()))) == ()


def test_validation_sequences_are_those_named(config: TrainConfig) -> None:
    (sequence,) = loop.validation_sequences(config)
    assert len(sequence) == 8
    assert sequence.masks is not None


def test_a_crash_leaves_the_last_good_file(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = guided_network()
    optimizer = loop.make_optimizer(guided.groups(network, config), config)
    loop.save(tmp_path / "last.pt", network, network, optimizer, 5)

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        loop.save(tmp_path / "last.pt", network, network, optimizer, 6)
    assert loop.restore(loop.read_state(tmp_path / "last.pt"), network, network, optimizer) == 5


def test_a_folder_that_holds_a_run_is_not_begun_again(done: Path, config: TrainConfig) -> None:
    before = (done / "log.csv").read_text()
    with pytest.raises(InputError, match=r"out holds a run already; go on with --resume, or give another `output`"):
        loop.run(config)
    assert (done / "log.csv").read_text() == before


def test_steps_that_are_done_again_are_logged_once(tmp_path: Path) -> None:
    """After a crash the log is ahead of the last checkpoint."""
    log = loop.Log(tmp_path / "log.csv")
    for step in (1, 2, 3):
        log.write(step, seconds=step, waited=0.0)
    log = loop.Log(tmp_path / "log.csv", 2)
    log.write(3, seconds=30, waited=0.0)
    assert [(row["step"], row["seconds"]) for row in rows(tmp_path)] == [("1", "1"), ("2", "2"), ("3", "30")]
    assert "waited 0%" in log.says()


@pytest.mark.parametrize(
    ("device", "says"), [("gpu", "device is 'gpu'; choose cpu or cuda"), ("cuda", "torch finds no CUDA device here")]
)
def test_devices_that_are_not_there(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, says: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=says):
        loop.run(replace(config, device=device, output=str(tmp_path / "none")))
    assert not (tmp_path / "none").exists()
