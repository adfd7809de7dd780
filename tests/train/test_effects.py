"""Effects in torch beside OpenCV's, each alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from siammask.geometry import UInt8
from siammask.train import clips, effects
from siammask.train.clips import Look, Spoiling, spoiling


def pictures() -> UInt8:
    """Two photographs of a kind: clouds with some grain and a sharp edge, (2, 256, 256, 3)."""
    rng = np.random.default_rng(0)
    made = []
    for cells in (8, 40):
        clouds = cv2.resize(rng.random((cells, cells, 3)).astype(np.float32), (256, 256), interpolation=cv2.INTER_CUBIC)
        picture = 255 * clouds.clip(0, 1) + rng.normal(0, 4, (256, 256, 3))
        picture[100:160, 60:200] = 0.3 * picture[100:160, 60:200] + 120
        made.append(picture.clip(0, 255).astype(np.uint8))
    return np.stack(made)


def blob() -> UInt8:
    mask = np.zeros((128, 128), np.uint8)
    cv2.ellipse(mask, (70, 60), (30, 20), 10, 0, 360, 255, -1)
    return mask


@pytest.mark.parametrize(
    ("look", "mean"),
    [
        (Look(), 0.0),
        (Look(colour=(1.2, 0.9, 1.0, -7.0)), 0.01),
        (Look(gray=True), 0.05),
        (Look(turned=(2.0, 1.3)), 0.01),
        (Look(low=64), 0.3),
        (Look(low=101), 0.3),
        (Look(low=171), 0.3),
        (Look(motion=(3, 0.3)), 0.2),
        (Look(motion=(8, 1.3)), 0.2),
        (Look(motion=(11, 2.5)), 0.2),
        (Look(jpeg=15), 2.0),
        (Look(jpeg=55), 2.0),
        (Look(gamma=1.4), 0.05),
        (Look(gamma=2.3), 0.05),
        (Look((1.1, 1.0, 0.9, 3.0), True, None, 90, (5, 0.2), None, 1.5), 0.6),
    ],
    ids=str,
)
def test_looks_are_those_of_opencv(look: Look, mean: float) -> None:
    before = pictures()
    expected = np.stack([clips.finish(p, look) for p in before])
    found = effects.finish(torch.from_numpy(before).permute(0, 3, 1, 2).float(), [look] * 2).permute(0, 2, 3, 1).numpy()
    difference = np.abs(found - expected.astype(np.float32)).mean()
    assert difference <= mean
    if look != Look():
        assert np.abs(before.astype(np.float32) - expected).mean() > 1.5 * mean
    assert ((found >= 0) & (found <= 255) & (found == found.round())).all()


def test_each_picture_has_its_own_look() -> None:
    before = torch.from_numpy(pictures()).permute(0, 3, 1, 2).float()
    looks = [Look(motion=(7, 0.1), gamma=2.0), Look(jpeg=30)]
    together = effects.finish(before.clone(), looks)
    for i, look in enumerate(looks):
        torch.testing.assert_close(together[i : i + 1], effects.finish(before[i : i + 1].clone(), [look]))


@pytest.mark.parametrize(
    ("how", "least"),
    [
        (Spoiling(), 1.0),
        (Spoiling(lost=True), 1.0),
        (Spoiling(boxed=True), 1.0),
        (Spoiling(grow=0.06), 0.96),
        (Spoiling(grow=-0.06), 0.94),
        (Spoiling(grow=0.001), 0.98),
        (Spoiling(motion=(1.1, 0.1, -0.05, 0.95), shift=(0.1, -0.05)), 0.98),
        (Spoiling(blots=((0, 0.2, 0.1, 0.2, 0.1, 30.0), (255, -0.8, 0.4, 0.15, 0.2, 80.0))), 0.97),
        (Spoiling(half=(1.0, 0.1)), 1.0),
        (Spoiling(blur=3), 0.995),
        (Spoiling(blur=5), 0.995),
    ],
    ids=str,
)
def test_spoilt_masks_are_those_of_opencv(how: Spoiling, least: float) -> None:
    expected = clips.spoil(blob(), how) > 127
    found = effects.spoil(torch.from_numpy(blob())[None].float(), [how])[0].numpy() > 127
    union = (found | expected).sum()
    assert union == 0 or (found & expected).sum() / union >= least
    assert union == 0 or how in (Spoiling(),) or how.blur or (found != (blob() > 127)).any()


def test_many_masks_at_once() -> None:
    rng = np.random.default_rng(0)
    hows = [spoiling(rng) for _ in range(60)]
    expected = np.stack([clips.spoil(blob(), how) for how in hows]) > 127
    found = effects.spoil(torch.from_numpy(np.stack([blob()] * 60)).float(), hows).numpy() > 127
    union = (found | expected).sum((1, 2))
    overlap = np.where(union > 0, (found & expected).sum((1, 2)) / np.maximum(union, 1), 1.0)
    assert overlap.mean() > 0.97
    assert overlap.min() > 0.85


def test_an_empty_mask_stays_empty() -> None:
    hows = [Spoiling(), Spoiling(grow=0.05), Spoiling(boxed=True), Spoiling(blots=((255, 0.0, 0.0, 0.2, 0.2, 0.0),))]
    assert not effects.spoil(torch.zeros(4, 128, 128), hows).any()
    x0, y0, x1, y1, seen = effects.box_of(torch.zeros(1, 128, 128))
    assert not seen.any()
    assert x1 <= x0
    assert y1 <= y0


def test_box_of() -> None:
    masks = torch.zeros(1, 128, 128)
    masks[0, 20:50, 33:40] = 255.0
    assert [v.item() for v in effects.box_of(masks)] == [33, 20, 40, 50, True]
