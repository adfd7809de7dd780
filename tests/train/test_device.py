"""Plans drawn in torch look as OpenCV draws them; on "cpu" here, by the same code as on "cuda"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from lively import guided_network
from torch import Tensor

from siammask.errors import InputError
from siammask.network.guided import CROP
from siammask.train import batches, device, guided
from siammask.train.batches import Batch, Guides
from siammask.train.clips import FIRST, FRAMES, Chooser, ClipSettings, Look, Plan, Rendered, plan, render
from siammask.train.config import DataConfig, OptimConfig, TrainConfig
from siammask.train.pool import Pool

CPU = torch.device("cpu")
NUMBERS = {"crops", "drawn", "start", "boxed", "drifted"}  # chosen, not drawn
STILLS = {"blobs": 0.0, "boxed": 0.0, "stills": 1.0}
QUIET = ClipSettings(absent=0, part=0, lookalike=0, occluder=0, elastic=0, start=0)


def planned(pool: Pool, settings: ClipSettings, seed: int = 0) -> Iterator[tuple[Plan, Rendered, Guides]]:
    """Usable plans as OpenCV draws them, with guides, and with the crops as they are."""
    rng = np.random.default_rng(seed)
    chooser = Chooser.make(pool, settings)
    while True:
        made = plan(rng, pool, chooser, settings)
        if made is None:
            continue
        made = replace(made, looks=(Look(),) * FRAMES)
        drawn = render(pool, made)
        if drawn is not None:
            yield made, drawn, batches.guides(rng, made.start or made.boxed)


def both(pool: Pool, made: list[tuple[Plan, Rendered, Guides]]) -> tuple[Batch, Batch]:
    """The same plans drawn by OpenCV and by torch."""
    plans, drawn, given = zip(*made, strict=True)
    expected = batches.collate([batches.guided_sample(d, g) for d, g in zip(drawn, given, strict=True)])
    found = device.draw(device.on_device(pool, CPU), device.pack(plans, given), len(plans))
    assert found is not None
    return found, expected


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Of masks (..., H, W) at one half; 1 where both are empty."""
    a, b = a > 127, b > 127
    union = (a | b).sum((-2, -1))
    return torch.where(union > 0, (a & b).sum((-2, -1)) / union.clamp(min=1), 1.0)


CASES = {
    "video": replace(QUIET, weights={"blobs": 1.0, "boxed": 0.0, "stills": 0.0}),
    "boxes": replace(QUIET, weights={"blobs": 0.0, "boxed": 1.0, "stills": 0.0}),
    "pasted video": replace(QUIET, weights={"blobs": 1.0, "boxed": 0.0, "stills": 0.0}, video_paste=1.0, turned=1.0),
    "start": replace(QUIET, start=1.0),
    "still": replace(QUIET, weights=STILLS, paste=0.0),
    "pasted": replace(QUIET, weights=STILLS, paste=1.0),
    "bent": replace(QUIET, weights=STILLS, elastic=1.0),
    "part": replace(QUIET, weights=STILLS, part=1.0),
    "drifted part": replace(QUIET, weights=STILLS, part=1.0, part_drift=1.0),
    "drifted": replace(QUIET, lookalike=1.0, dressed=1.0, drift=1.0),
    "crowd": replace(QUIET, weights=STILLS, lookalike=1.0, occluder=1.0),
    "absent": replace(QUIET, absent=1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_torch_draws_what_opencv_draws(pool: Pool, case: str) -> None:
    found, expected = both(pool, list(islice(planned(pool, CASES[case]), 3)))
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].shape == tensor.shape, name
        assert found[name].dtype == tensor.dtype, name
        if name in NUMBERS:
            torch.testing.assert_close(found[name], tensor)
    difference = (found["pixels"].float() - expected["pixels"].float()).abs().mean((1, 2, 3))
    assert difference.max() < 1.5, difference
    assert iou(found["masks"], expected["masks"]).min() > 0.98
    assert iou(found["box"], expected["box"]).min() > 0.98
    for name in ("first", "guide", "teacher"):  # swollen by octagons for discs
        assert iou(found[name], expected[name]).mean() > 0.93, name


def test_pictures_seen_from_afar_are_averaged(pool: Pool) -> None:
    """The large still shown small: a smaller copy is read, and no texture flickers."""
    settings = replace(QUIET, weights=STILLS, paste=0.0)
    made = []
    for one, _, given in islice(planned(pool, settings), 40):
        if one.layers[0].pictures[0].width < 640:
            continue
        x, y, side = one.crops[FIRST]
        for wider in (1.4, 2.3):
            more = (wider - 1) / 2 * side
            wide = replace(one, crops=((x - more, y - more, wider * side),) * FRAMES)
            drawn = render(pool, wide)
            if drawn is not None and len(made) < 6:
                made.append((wide, drawn, given))
    packed = device.pack([m[0] for m in made], [m[2] for m in made])
    assert {2, 4} <= set(packed.factors)
    found, expected = both(pool, made)
    assert (found["pixels"].float() - expected["pixels"].float()).abs().mean() < 1.5
    assert iou(found["masks"], expected["masks"]).min() > 0.98


def test_unknown_pixels_are_half_true(pool: Pool) -> None:
    made = next(
        m for m in planned(pool, replace(QUIET, weights=STILLS, paste=0.0)) if m[0].layers[0].pictures[0].ignore
    )
    found, expected = both(pool, [made])
    for batch in (found, expected):
        share = ((batch["masks"] > 100) & (batch["masks"] < 150)).float().mean()
        assert 0.01 < share < 0.5
    assert (found["masks"].float() - expected["masks"].float()).abs().mean() < 1.0


def test_mirrored_indices() -> None:
    index = torch.arange(-7, 12)
    expected = np.pad(np.arange(4), 24, mode="reflect")[24 - 7 : 24 + 12]
    assert device._mirrored(index, torch.tensor(4)).tolist() == expected.tolist()
    assert device._mirrored(index, torch.tensor(1)).unique().tolist() == [0]


def test_clips_whose_target_cannot_be_seen_are_passed_over(pool: Pool) -> None:
    made = list(islice(planned(pool, QUIET), 3))
    away = replace(made[1][0], crops=((5000.0, 5000.0, 100.0),) * FRAMES, fill=(9, 9, 9))
    plans, given = [made[0][0], away, made[2][0]], [m[2] for m in made]
    flat = device.on_device(pool, CPU)
    found = device.draw(flat, device.pack(plans, given), 2)
    expected = device.draw(flat, device.pack(plans[::2], given[::2]), 2)
    assert found is not None
    assert expected is not None
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    repeated = device.draw(flat, device.pack(plans[:2], given[:2]), 2)
    assert repeated is not None
    assert torch.equal(repeated["pixels"][:4], repeated["pixels"][4:])
    assert device.draw(flat, device.pack([away], given[1:2]), 2) is None


def test_batches_are_those_of_the_data_process(pool: Pool) -> None:
    """The same names, shapes and types, whoever draws."""
    (expected,) = islice(batches.Clips(pool, ClipSettings(), 2, 0, 0), 1)
    (found,) = islice(device.batches(pool, ClipSettings(), 2, 0, 0, 0, CPU), 1)
    assert {n: (t.shape, t.dtype) for n, t in found.items() if n != "seconds"} == {
        n: (t.shape, t.dtype) for n, t in expected.items() if n != "seconds"
    }
    assert found["pixels"].is_contiguous()


def test_a_seed_gives_the_same_batches(pool: Pool) -> None:
    def make(seed: int, step: int, workers: int = 0) -> Batch:
        (batch,) = islice(device.batches(pool, ClipSettings(), 1, seed, step, workers, CPU), 1)
        return batch

    once, again, apart = make(1, 5), make(1, 5), make(1, 5, workers=1)
    for name in set(once) - {"seconds"}:
        assert torch.equal(once[name], again[name]), name
        assert torch.equal(once[name], apart[name]), name
    assert not torch.equal(once["pixels"], make(2, 5)["pixels"])
    assert not torch.equal(once["pixels"], make(1, 6)["pixels"])


def test_packing_reads_no_pixel(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "pixels", None)
    monkeypatch.setattr(Pool, "mask", None)
    (packed,) = islice(device.Plans(pool, ClipSettings(), 5, 0, 0), 1)
    assert len(packed.starts) == 5
    assert len(packed.looks) == 20


def test_the_pool_lies_on_the_device_as_it_is(pool: Pool) -> None:
    flat = device.on_device(pool, CPU)
    picture = pool.clips[-1].pictures[0]
    start = picture.offset + 3 * picture.width * picture.height
    ids = flat[start : start + picture.width * picture.height].view(picture.height, picture.width)
    np.testing.assert_array_equal(ids.numpy(), pool.mask(picture))


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_loop_asks_the_device(pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: object, kind: str) -> None:
    """On CUDA batches are drawn on the device and carry pixels; on the CPU they come from the data process."""
    c = TrainConfig("guided", "out", DataConfig("data", ("blobs",), workers=0), optim=OptimConfig(batch=2))
    monkeypatch.setattr(DataConfig, "pool", lambda _: pool)
    asked = []

    def drawn(*arguments: object) -> Iterator[Batch]:
        asked.append(arguments)
        return iter(())

    monkeypatch.setattr(device, "batches", drawn)
    guided.make_batches(c, guided_network(), 7, torch.device(kind))
    if kind == "cpu":
        assert asked == []
    else:
        assert asked == [(pool, c.data.clips, 2, 0, 7, 0, torch.device("cuda"))]


def test_followed_clips_are_of_the_cpu(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    c = TrainConfig("guided", "out", DataConfig("data", ("blobs",), clips=ClipSettings(followed=0.25)))
    monkeypatch.setattr(DataConfig, "pool", lambda _: pool)
    with pytest.raises(InputError, match=r"followed is 0\.25.*give 0"):
        guided.make_batches(c, guided_network(), 0, torch.device("cuda"))


def test_a_step_on_what_was_drawn_here(pool: Pool) -> None:
    """The network takes the batch as it comes, the frozen part in bfloat16."""
    network = guided_network()
    c = TrainConfig("guided", "out", DataConfig("data", ("blobs",)))
    guided.groups(network, c)
    (batch,) = islice(device.batches(pool, ClipSettings(), 1, 0, 0, 0, CPU), 1)
    made = guided.guided_step(network, batch, c, 0)
    assert torch.isfinite(made.total)
    with torch.no_grad():
        quick, plain = (guided.features(network, batch, OptimConfig(amp=amp))[0] for amp in (True, False))
    assert quick.feat.dtype == torch.float32
    scale = plain.feat.abs().max()
    assert 0 < (quick.feat - plain.feat).abs().max() < 0.1 * scale


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_draws_what_the_cpu_draws(pool: Pool) -> None:
    cuda = torch.device("cuda")
    (packed,) = islice(device.Plans(pool, ClipSettings(), 6, 0, 0), 1)
    here = device.draw(device.on_device(pool, CPU), packed, 4)
    there = device.draw(device.on_device(pool, cuda), packed.to(cuda), 4)
    assert here is not None
    assert there is not None
    for name, tensor in here.items():
        assert there[name].device.type == "cuda"
        assert (there[name].cpu().float() - tensor.float()).abs().mean() < 0.5, name
    assert here["pixels"].shape == (12, CROP, CROP, 3)
