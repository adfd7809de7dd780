"""Batches: what a step of training gets, made alike with and without a process of their own."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
import torch

from siammask.engines import pick_precision
from siammask.network.light import Light
from siammask.train import batches
from siammask.train.batches import FEATURES, Clips, Frozen
from siammask.train.clips import Chooser, ClipSettings, Rendered
from siammask.train.pool import Pool

SHAPES = {
    "pixels": (8, 256, 256, 3),
    "masks": (2, 4, 128, 128),
    "crops": (2, 4, 3),
    "box": (2, 128, 128),
    "first": (2, 128, 128),
    "drawn": (2,),
    "guide": (2, 128, 128),
    "teacher": (2, 128, 128),
    "start": (2,),
    "boxed": (2,),
    "drifted": (2,),
    "seconds": (),
}
TIMES = {"seconds", "frozen"}


def first(pool: Pool, seed: int = 0, step: int = 0, frozen: Frozen | None = None) -> batches.Batch:
    return next(iter(Clips(pool, ClipSettings(), 2, seed, step, () if frozen is None else (frozen,))))


def sample(rng: np.random.Generator, drawn: Rendered) -> batches.Batch:
    return batches.guided_sample(drawn, batches.guides(rng, drawn.start or drawn.boxed))


def test_keys_and_shapes(pool: Pool) -> None:
    batch = first(pool)
    assert {name: tuple(t.shape) for name, t in batch.items()} == SHAPES
    kinds = {name: t.dtype for name, t in batch.items()}
    assert {kinds[n] for n in ("pixels", "masks", "box", "first", "guide", "teacher")} == {torch.uint8}
    assert {kinds[n] for n in ("crops", "drawn")} == {torch.float32}
    assert kinds["start"] == kinds["boxed"] == kinds["drifted"] == torch.bool


def test_the_same_seed_and_step_give_the_same_batch(pool: Pool) -> None:
    a, b = first(pool, 1, 5), first(pool, 1, 5)
    assert all(torch.equal(a[name], b[name]) for name in SHAPES.keys() - TIMES)
    assert not torch.equal(a["pixels"], first(pool, 2, 5)["pixels"])
    assert not torch.equal(a["pixels"], first(pool, 1, 6)["pixels"])  # a resumed run sees new clips


def test_crops_of_a_clip_follow_each_other(pool: Pool) -> None:
    rng = np.random.default_rng(0)
    chooser = Chooser.make(pool, ClipSettings())
    samples = [sample(rng, batches.clip(rng, pool, chooser, ClipSettings())) for _ in range(2)]
    pixels = batches.collate(samples)["pixels"]
    for n in range(2):
        for frame in range(4):
            np.testing.assert_array_equal(pixels[4 * n + frame].numpy(), samples[n]["pixels"][frame])


def test_a_start_clip_is_given_its_box(pool: Pool) -> None:
    rng = np.random.default_rng(0)
    settings = ClipSettings(start=1.0)
    chooser = Chooser.make(pool, settings)
    for _ in range(4):
        made = sample(rng, batches.clip(rng, pool, chooser, settings))
        assert made["start"]
        assert made["drawn"] == 0
        np.testing.assert_array_equal(made["first"], made["box"])
        np.testing.assert_array_equal(made["guide"], made["box"])


def test_frozen_features_are_those_of_torch(pool: Pool) -> None:
    """OpenVINO computes what torch computes, up to the precision of bf16, in which features travel."""
    torch.manual_seed(0)
    backbone = Light().eval()
    frozen = Frozen(backbone, 5)
    pixels = first(pool)["pixels"]
    batch = first(pool, frozen=frozen)
    assert "pixels" not in batch
    with torch.no_grad():
        expected = backbone.begin(pixels.permute(0, 3, 1, 2).float(), 5)
    found = [batch[name] for name in FEATURES if name in batch]
    assert len(found) == len(expected) == 3
    tolerance = 0.05 if pick_precision(None) == "bf16" else 0.008  # of the largest value
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.bfloat16
        b = b.permute(0, 2, 3, 1)
        assert a.shape == b.shape
        assert (a.float() - b).abs().max() < tolerance * b.abs().max()
        assert b.abs().max() > 0


@pytest.mark.parametrize(("before", "side"), [(256, 160), (256, 176), (128, 80), (12, 4), (8, 8)])
def test_averaged_is_the_mean_over_areas(before: int, side: int) -> None:
    x = torch.rand(2, before, before, generator=torch.Generator().manual_seed(0))
    wanted = [cv2.resize(picture.numpy(), (side, side), interpolation=cv2.INTER_AREA) for picture in x]
    np.testing.assert_allclose(batches.averaged(x, side).numpy(), np.stack(wanted), atol=1e-4)


def test_a_worker_gives_the_same_clips_after_openvino_has_run_here(pool: Pool) -> None:
    """A worker that was forked then would wait for ever; and the pool goes to it as a path, not as its bytes."""
    torch.manual_seed(0)
    frozen = Frozen(Light().eval(), 3)
    alone = first(pool, 3, frozen=frozen)
    clips = Clips(pool, ClipSettings(), 2, 3, 0, (frozen,))
    assert len(pickle.dumps(Clips(pool, ClipSettings(), 2, 3, 0))) < 2000
    assert isinstance(pickle.loads(pickle.dumps(clips)).pool.bytes, np.memmap)
    loader = torch.utils.data.DataLoader(clips, batch_size=None, timeout=300, **batches.processes(1))
    apart = next(iter(loader))
    assert alone.keys() == apart.keys() >= {"f2", "f4", "masks"} | TIMES
    assert 0 < float(alone["frozen"]) < float(alone["seconds"])
    assert all(torch.equal(alone[name], apart[name]) for name in alone.keys() - TIMES)


def test_without_workers_batches_are_made_here(pool: Pool) -> None:
    loader = torch.utils.data.DataLoader(Clips(pool, ClipSettings(), 2, 3, 0), batch_size=None, **batches.processes(0))
    assert torch.equal(next(iter(loader))["pixels"], first(pool, 3)["pixels"])


def test_an_echo_is_the_same_clip_with_other_faults(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once enough clips wait, half of a batch is drawn anew and half of it was seen before, guided in another way."""
    drawn = []

    def clip(*arguments: object) -> Rendered:
        drawn.append(original(*arguments))  # type: ignore[arg-type]
        return drawn[-1]

    original = batches.clip
    monkeypatch.setattr(batches, "clip", clip)
    made = iter(Clips(pool, ClipSettings(), 2, 0, 0, echo=2))
    counts, masks = [], []
    for _ in range(batches.DEPTH + 4):
        before = len(drawn)
        masks += list(next(made)["masks"])
        counts.append(len(drawn) - before)
    assert counts == [2] * batches.DEPTH + [1] * 4
    for mask in masks:  # nothing is shown that was not drawn, nothing more than twice
        assert any(np.array_equal(mask, one.masks) for one in drawn)
        assert sum(torch.equal(mask, other) for other in masks) <= 2


def test_batches_come_in_several_sizes(pool: Pool) -> None:
    torch.manual_seed(0)
    backbone = Light().eval()
    made = iter(Clips(pool, ClipSettings(), 1, 0, 0, (Frozen(backbone, 3, 64), Frozen(backbone, 3, 32)), echo=3))
    sides = {tuple(next(made)["f2"].shape) for _ in range(8)}
    assert sides == {(4, 32, 32, 16), (4, 16, 16, 16)}
