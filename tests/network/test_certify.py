"""The certificate of an exported model says how far it tracks from its source."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs the extra 'train'")

import siammask
from siammask import demo
from siammask.errors import InputError, WeightsError
from siammask.network.certify import export_model, recorded
from siammask.weights import shipped


@pytest.mark.skipif("guided" not in shipped(), reason="The package holds no weights of the guided model.")
def test_an_exported_model_tracks_as_its_source(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """To ONNX and back into the tracker: masks, boxes and hashes are as the certificate says."""
    pytest.importorskip("onnx", reason="export to ONNX needs the extra 'onnx'")
    pytest.importorskip("onnxruntime", reason="export to ONNX needs the extra 'onnx'")
    said = export_model("guided", "onnx", "f32", tmp_path, frames=4, threads=1)
    assert json.loads((tmp_path / "certificate.json").read_text()) == said
    assert said["files"].keys() == {"search.onnx", "memorise.onnx"}
    assert said["files"]["search.onnx"] == hashlib.sha256((tmp_path / "search.onnx").read_bytes()).hexdigest()
    assert said["versions"].keys() >= {"onnx", "onnxruntime", "torch", "siammask"}
    assert said["parity"]["frames"] == 4
    assert said["parity"]["mask_iou"]["min"] > 0.999
    assert said["parity"]["box_px"]["max"] < 0.05
    frames = [frame.pixels for _, frame in zip(range(4), demo.bunny(), strict=False)]
    runs = [
        list(siammask.load(engine=engine, precision="f32", threads=1, weights=weights).follow(frames, demo.BUNNY_BOX))
        for engine, weights in (("onnxruntime", tmp_path), ("openvino", None))
    ]
    for ours, theirs in zip(*runs, strict=True):
        np.testing.assert_allclose(ours.box.xywh, theirs.box.xywh, atol=0.5)  # openvino's weights are in float16
        assert ours.score == pytest.approx(theirs.score, abs=5e-3)


@pytest.mark.skipif("guided" not in shipped(), reason="The package holds no weights of the guided model.")
def test_inputs_are_recorded_as_they_come() -> None:
    tracker = siammask.load("guided", precision="f32", threads=1)
    frames = [demo.draw_frame(index)[0] for index in range(4)]
    found = recorded(tracker, frames, demo.drawn_box())
    assert found.keys() == {"search", "memorise"}
    assert len(found["search"]) >= 6  # embedding and drawing the first frame, three steps, and the last one again
    assert {value.shape[0] for value in found["search"][0].values()} == {1}
    assert not found["search"][0]["first_key"].any()
    assert found["search"][-1]["first_key"].any()


def test_what_cannot_be_certified_is_said(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="at least 2"):
        export_model("guided", "onnx", "f32", tmp_path, frames=1)
    with pytest.raises(WeightsError, match="'siammask'"):
        export_model("siammask", "onnx", "f32", tmp_path)
