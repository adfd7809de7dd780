"""A drawn pool in the layout of the training data: a textured blob that walks over a textured ground, and stills.

`blobs` is video with masks, `boxed` the same with boxes only, `stills` three pictures with masks.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train'")
from siammask.formats.masks import encode_indexed
from siammask.geometry import Box, UInt8
from siammask.train import pool as pools
from siammask.train.pool import Pool

SIZE = (160, 120)  # width, height
FRAMES = 8
SOURCES = ("blobs", "boxed", "stills")


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the drawn pool."""
    root = tmp_path_factory.mktemp("data")
    for source, with_masks in (("blobs", True), ("boxed", False)):
        for number, name in enumerate(("back", "walk")):
            _video(root / source / name, with_masks, -5 if name == "back" else 5, number)
    _stills(root / "stills")
    return root


@pytest.fixture(scope="session")
def pool(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """That pool, decoded."""
    return pools.build(root, tmp_path_factory.mktemp("cache"), SOURCES)


def texture(seed: int, size: tuple[int, int], low: int, high: int) -> UInt8:
    """Coloured clouds (H, W, 3) with values in low..high."""
    coarse = np.random.default_rng(seed).random((size[1] // 10 + 2, size[0] // 10 + 2, 3)).astype(np.float32)
    clouds = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    return (low + clouds * (high - low)).astype(np.uint8)


def blob(size: tuple[int, int], centre: tuple[float, float], axes: tuple[int, int]) -> np.ndarray:
    """Mask (H, W) bool of an ellipse."""
    mask = np.zeros((size[1], size[0]), np.uint8)
    cv2.ellipse(mask, (round(centre[0]), round(centre[1])), axes, 20, 0, 360, 1, -1)
    return mask > 0


def _video(folder: Path, with_masks: bool, speed: int, seed: int) -> None:
    (folder / "frames").mkdir(parents=True)
    ground, skin = texture(seed, SIZE, 20, 110), texture(seed + 50, SIZE, 150, 250)
    boxes = []
    for i in range(FRAMES):
        mask = blob(SIZE, (80 + speed * (i - FRAMES / 2), 60 + i), (26, 18))
        frame = np.where(mask[..., None], skin, ground)
        cv2.imwrite(str(folder / "frames" / f"{i:05d}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 95])
        if with_masks:
            (folder / "masks").mkdir(exist_ok=True)
            (folder / "masks" / f"{i:05d}.png").write_bytes(encode_indexed(mask.astype(np.uint8)))
        box = Box.from_mask(mask)
        assert box is not None
        boxes.append(box.xywh if i != FRAMES - 1 else (0, 0, 0, 0))  # not visible in the last frame
    if not with_masks:
        (folder / "boxes.txt").write_text("".join(",".join(f"{v:g}" for v in b) + "\n" for b in boxes))


def _stills(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    items = []

    def write(key: str, ids: UInt8, seed: int, categories: dict[int, str]) -> None:
        size = ids.shape[1], ids.shape[0]
        pixels = np.where((ids > 0)[..., None], texture(seed, size, 150, 250), texture(seed + 1, size, 20, 110))
        cv2.imwrite(str(folder / "images" / f"{key}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
        (folder / "masks" / f"{key}.png").write_bytes(encode_indexed(ids))
        objects = [{"id": k, "category": category} for k, category in categories.items()]
        items.append({"image": f"images/{key}.jpg", "mask": f"masks/{key}.png", "objects": objects})

    two = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    two[blob(SIZE, (45, 60), (28, 20))] = 1
    two[blob(SIZE, (115, 60), (24, 22))] = 2
    write("two", two, 10, {1: "cat", 2: "cat"})
    rim = np.zeros_like(two)
    rim[blob(SIZE, (80, 60), (38, 28))] = pools.IGNORE
    rim[blob(SIZE, (80, 60), (32, 22))] = 1
    write("rim", rim, 20, {1: "dog"})
    large = np.zeros((400, 800), np.uint8)  # to be shrunk
    large[blob((800, 400), (400, 200), (150, 100))] = 1
    write("large", large, 30, {})
    (folder / "items.json").write_text(json.dumps(items))
