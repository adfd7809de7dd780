"""The ablation's table, from fakes and from weights drawn at random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fakes import RED, FakeEngine, FakeResponse, scene
from safetensors.torch import save_file

from siammask import cli
from siammask.engines import EngineOptions
from siammask.errors import MediaError, WeightsError
from siammask.evaluate import ablation
from siammask.evaluate.ablation import ROWS, ablate, find_weights
from siammask.formats.masks import encode_indexed
from siammask.geometry import Box, Float32, UInt8
from siammask.network import siamese
from siammask.variants import VARIANTS, variant

RUNS = {row.run for row in ROWS}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A red square that walks, with masks."""
    for part in ("frames", "masks"):
        (tmp_path / "set" / "walk" / part).mkdir(parents=True)
    for k in range(5):
        frame = scene((Box(140 + 4 * k, 120, 50, 50), RED))
        mask = (frame == RED).all(axis=2)
        cv2.imwrite(str(tmp_path / "set" / "walk" / "frames" / f"{k:05d}.png"), frame)
        (tmp_path / "set" / "walk" / "masks" / f"{k:05d}.png").write_bytes(encode_indexed(mask.astype(np.uint8)))
    return tmp_path / "set"


def trained(runs: Path, *names: str) -> Path:
    """Runs whose best weights are there by name; the fakes do not read them."""
    for name in names:
        (runs / name).mkdir(parents=True)
        (runs / name / "best.safetensors").touch()
    return runs


def faked(row: Any, path: Path | None) -> FakeEngine:
    return FakeEngine(row)


def test_every_row_is_a_variant_there_is() -> None:
    for row in ROWS:
        assert row.model in VARIANTS
        assert row.variant.mask == ("none" if row.boxes else variant(row.model).mask)
    kinds = [row.question for row in ROWS]
    assert all(kinds.count(kind) == 2 for kind in kinds)  # each question compares two


def test_figures_of_what_is_trained_and_names_of_what_is_not(folder: Path, tmp_path: Path) -> None:
    runs, opened = trained(tmp_path / "runs", "siamrpn_light", "siammask_light"), []

    def opener(row: Any, path: Path | None) -> FakeEngine:
        opened.append((row.name, path))
        return FakeEngine(row)

    found = ablate(folder, runs, opener=opener)
    assert set(found.missing) == RUNS - {"siamrpn_light", "siammask_light"}
    for tracked in found.rows:
        assert (tracked.figures is None) == (tracked.row.run in found.missing)
        if tracked.figures is not None:
            assert tracked.figures["success_auc"] > 0.6
    # the same weights are opened once for each way to search with them, and once for the boxes of their masks
    assert len(opened) == 1 + 3 + 1
    assert all(path == runs / name / "best.safetensors" for name, path in opened)
    assert list(found.strategies) == ["true masks", "siammask_light"]
    assert found.strategies["true masks"]["min_max"] == pytest.approx(1)
    told = json.loads(json.dumps(found.to_json()))
    assert told["not_trained"] == list(found.missing)
    assert told["rows"][2]["figures"] == found.rows[2].figures


def test_several_seeds_of_a_run_are_one_row(folder: Path, tmp_path: Path) -> None:
    runs = trained(tmp_path / "runs", "siamrpn_light", "siamrpn_light-seed2", "siamrpn_light-seed3", "siammask_light")

    class Blind(FakeEngine):
        def search(self, memory: tuple[Any, ...], pixels: UInt8, guide: Float32 | None) -> FakeResponse:
            return super().search(memory, np.zeros_like(pixels), guide)

    def opener(row: Any, path: Path | None) -> FakeEngine:
        """Only the third seed has learned to see."""
        assert path is not None
        return FakeEngine(row) if path.parent.name.endswith("seed3") else Blind(row)

    found = ablate(folder, runs, opener=opener)
    tracked = next(t for t in found.rows if t.row.run == "siamrpn_light")
    low, again, high = (seed["success_auc"] for seed in tracked.seeds)
    assert low == again < high
    assert tracked.figures is not None
    assert tracked.figures["success_auc"] == pytest.approx((2 * low + high) / 3)
    text = found.markdown()
    assert f" {100 * tracked.figures['success_auc']:.1f} ({100 * low:.1f}-{100 * high:.1f}) |" in text
    assert json.loads(json.dumps(found.to_json()))["rows"][2]["seeds"] == list(tracked.seeds)
    (alone,) = next(t for t in found.rows if t.row.run == "siammask_light").seeds
    assert f"| {100 * alone['success_auc']:.1f} |" in text


def test_a_row_of_boxes_draws_no_mask(folder: Path, tmp_path: Path) -> None:
    """Its mask is the filled box, which is right for a square, and wrong where the box is."""
    found = ablate(folder, trained(tmp_path / "runs", "siammask_light"), opener=faked)
    by_label = {(t.row.question, t.row.label): t.figures for t in found.rows}
    boxes = by_label["mask loss", "on, boxes of the anchors"]
    assert boxes is not None
    assert boxes["J"] == pytest.approx(boxes["success_auc"], abs=0.15)


def test_the_tables(folder: Path, tmp_path: Path) -> None:
    found = ablate(folder, trained(tmp_path / "runs", "siammask_light"), opener=faked)
    text = found.markdown()
    lines = text.splitlines()
    widths = [line.count("|") for line in lines if line.startswith("|")]
    assert set(widths[: 2 + len(ROWS)]) == {widths[0]}
    assert "| refinement | with |" in text
    assert "| J 71.7, F 67.8 |" in text
    assert text.count("not trained") == sum(row.run != "siammask_light" for row in ROWS)
    assert "| opt | 100.00 |" in text
    assert lines[-1].startswith("Not trained: siamfc_light,")


def test_nothing_trained_at_all(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation.weights, "shipped", lambda: ())
    found = ablate(folder, tmp_path, opener=faked)
    assert all(tracked.figures is None for tracked in found.rows)
    assert set(found.missing) == RUNS
    assert list(found.strategies) == ["true masks"]


def test_where_weights_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation.weights, "shipped", lambda: ("siammask_light",))
    assert find_weights("siammask_light", "siammask_light", tmp_path) == (True, None)
    assert find_weights("siammask_light", "another", tmp_path) == (False, None)  # never another run's
    assert find_weights("siamfc_light", "siamfc_light", None) == (False, None)
    (tmp_path / "siamfc_light").mkdir()
    assert not find_weights("siamfc_light", "siamfc_light", tmp_path)[0]
    (tmp_path / "siamfc_light" / "search.xml").touch()
    assert find_weights("siamfc_light", "siamfc_light", tmp_path) == (True, tmp_path / "siamfc_light")
    (tmp_path / "siamfc_light" / "best.safetensors").touch()
    assert find_weights("siamfc_light", "siamfc_light", tmp_path)[1] == tmp_path / "siamfc_light" / "best.safetensors"


def test_a_checkpoint_of_training_is_tracked_with_its_mask_branch_off(folder: Path, tmp_path: Path) -> None:
    """Random weights of the very network, read by the real engine."""
    torch.manual_seed(0)
    row = next(row for row in ROWS if row.run == "siammask_light" and row.boxes)
    state = siamese.build(variant("siammask_light")).state_dict()
    file = trained(tmp_path / "runs", row.run) / row.run / "best.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    options = EngineOptions("openvino", "f32", threads=1)
    tracker = ablation._tracker(row, ablation._open(variant(row.model), file, options))
    assert tracker.engine.name == "torch"
    frame = cv2.imread(str(folder / "walk" / "frames" / "00000.png"))
    state, _ = tracker.start(frame, Box(140, 120, 50, 50))
    assert tracker.step(state, frame)[1].patch is None
    file.write_bytes(b"")
    with pytest.raises(WeightsError):
        ablation._open(variant(row.model), file, options)


def test_a_folder_without_sequences(tmp_path: Path) -> None:
    with pytest.raises(MediaError):
        ablate(tmp_path, opener=faked)


def test_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablation, "_open", lambda row, path, options: FakeEngine(row))
    runs = trained(tmp_path / "runs", "siammask_light")
    files = ("--markdown", str(tmp_path / "t.md"), "--json", str(tmp_path / "t.json"))
    with pytest.raises(SystemExit) as end:
        cli.main(["ablate", str(folder), "--runs", str(runs), *files])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith((tmp_path / "t.md").read_text())
    assert json.loads((tmp_path / "t.json").read_text())["sequences"] == ["walk"]
