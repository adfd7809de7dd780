"""The cache folder: where it is, that it can be chosen or left out, and that a start uses it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from siammask import weights
from siammask.cache import VARIABLE, cache_folder
from siammask.engines import open_engine
from siammask.engines.base import EngineOptions
from siammask.variants import DEFAULT, VARIANTS


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="These rules are those of Linux.")
def test_the_platform_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("a") == tmp_path / "siammask" / "a"
    assert (tmp_path / "siammask" / "a").is_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder("a") == tmp_path / "home" / ".cache" / "siammask" / "a"


def test_it_can_be_chosen_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
    assert cache_folder("a") == tmp_path / "mine" / "a"
    monkeypatch.setenv(VARIABLE, "off")
    assert cache_folder("a") is None


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    assert cache_folder("a") is None


def test_compiled_networks_are_kept_and_damaged_ones_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if DEFAULT not in weights.shipped():
        pytest.skip("The package holds no weights of the default model yet.")
    pytest.importorskip("openvino")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    variant, options = VARIANTS[DEFAULT], EngineOptions(precision="f32", threads=1)
    size = variant.search.exemplar_size
    pixels = np.random.default_rng(0).integers(0, 255, (size, size, 3), np.uint8)
    mask = np.ones((variant.search.guide_size,) * 2, np.float32)
    first = open_engine(variant, options).embed(pixels, mask, False)
    blobs = sorted((tmp_path / "openvino").glob("*.blob"))
    assert blobs
    for blob in blobs:
        blob.write_bytes(blob.read_bytes()[: blob.stat().st_size // 2])
    again = open_engine(variant, options).embed(pixels, mask, False)
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
