"""Released checkpoints in every layout become a weights folder, with their preset, or are refused."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="importing needs the extra 'train'")
import released  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

import siammask  # noqa: E402
from siammask import cli, weights  # noqa: E402
from siammask.engines import EngineOptions, open_engine  # noqa: E402
from siammask.errors import InputError, WeightsError  # noqa: E402
from siammask.network import checkpoint, importing, siamese  # noqa: E402
from siammask.network.importing import import_checkpoint, preset_for  # noqa: E402
from siammask.variants import PRESETS, variant  # noqa: E402

PARTS = {  # what the authors' checkpoints of each model hold
    "siammask": "",
    "siammask_base": "refine_model.",
    "siamrpn": ("refine_model.", "mask_model."),
}


def state_of(name: str) -> dict[str, torch.Tensor]:
    left_out = PARTS[name]
    return {k: v for k, v in released.released_state().items() if not left_out or not k.startswith(left_out)}


def as_pysot(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights under the keys of PySOT's siammask_r50_l3 (as its own conversion of the authors' file does)."""
    names = {
        "features.features.": "backbone.",
        "features.": "neck.",
        "rpn_model.": "rpn_head.",
        "mask_model.mask.": "mask_head.",
        "refine_model.": "refine_head.",
    }
    found = {}
    for key, value in state.items():
        theirs = next(prefix for prefix in names if key.startswith(prefix))
        found[names[theirs] + key.removeprefix(theirs)] = value
    return found


LAYOUTS = {
    "plain": lambda state: state,
    "wrapped": lambda state: {"epoch": 20, "state_dict": state},
    "module": lambda state: {"module." + key: value for key, value in state.items()},
    "wrapped module": lambda state: {"state_dict": {"module." + key: value for key, value in state.items()}},
    "pysot": as_pysot,
    "pysot wrapped": lambda state: {"state_dict": {"module." + k: v for k, v in as_pysot(state).items()}},
}


@pytest.fixture
def no_graphs(monkeypatch):
    """Without the conversion, which takes seconds and is tested once for each model below."""
    monkeypatch.setattr(importing, "export", lambda specs, folder: folder.mkdir(parents=True))
    monkeypatch.setattr(siamese, "graph_specs", lambda network, row: {})


CASES = [("siammask", layout) for layout in LAYOUTS]
CASES += [(name, layout) for name in ("siammask_base", "siamrpn") for layout in ("wrapped module", "pysot")]


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_every_layout_of_every_model_gives_the_same_tensors(tmp_path, no_graphs, name, layout):
    state = state_of(name)
    torch.save(LAYOUTS[layout](state), tmp_path / "model.pth")
    done = import_checkpoint(tmp_path / "model.pth", name, tmp_path / "out")
    assert done.tensors == len(state)
    saved = load_file(tmp_path / "out" / weights.CHECKPOINT)
    assert len(saved) == len(state)
    for key, value in state.items():
        np.testing.assert_array_equal(saved[checkpoint.ours(key)], value.numpy())
    assert done.preset == ("vot18_ld" if "pysot" in layout else "default")


@pytest.mark.parametrize(
    ("file", "preset"),
    [
        ("SiamMask_VOT.pth", "vot"),
        ("SiamMask_VOT_LD.pth", "vot18_ld"),
        ("SiamMask_DAVIS.pth", "davis"),
        ("siammask_davis.PTH", "davis"),
        ("checkpoint_e20.pth", "default"),
    ],
)
def test_the_preset_is_that_of_the_file(tmp_path, file, preset):
    assert preset_for(tmp_path / file) == preset


def test_a_preset_can_be_asked_for(tmp_path, no_graphs):
    torch.save(state_of("siamrpn"), tmp_path / "SiamMask_VOT.pth")
    assert import_checkpoint(tmp_path / "SiamMask_VOT.pth", "siamrpn", tmp_path / "a").preset == "vot"
    assert import_checkpoint(tmp_path / "SiamMask_VOT.pth", "siamrpn", tmp_path / "b", "davis").preset == "davis"
    assert weights.search("siamrpn", tmp_path / "b") == PRESETS["davis"]
    assert weights.search("siamrpn", tmp_path / "b" / weights.CHECKPOINT) == PRESETS["davis"]
    assert weights.search("siamrpn", tmp_path) == {}
    (tmp_path / "b" / weights.SEARCH).write_text("{}")
    with pytest.raises(WeightsError, match=r"search\.json holds no search settings"):
        weights.search("siamrpn", tmp_path / "b")


def test_the_command_says_what_it_did_and_what_comes_next(tmp_path, no_graphs, capsys):
    torch.save(state_of("siamrpn"), tmp_path / "SiamMask_VOT.pth")
    for words, said, status in (
        ([tmp_path / "SiamMask_VOT.pth", "siamrpn"], "as siamrpn, searched with preset vot.", 0),
        ([tmp_path / "SiamMask_VOT.pth", "siammask"], "", 1),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(["import", *map(str, words), "--out", str(tmp_path / words[1])])
        assert ended.value.code == status
        printed = capsys.readouterr()
        assert said in printed.out
        assert ("missing: " in printed.err) == bool(status)
    assert (tmp_path / "siamrpn" / weights.CHECKPOINT).is_file()


def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path):
    state = as_pysot(state_of("siammask"))
    state["rpn_head.cls.extra"] = state.pop("rpn_head.cls.head.0.weight")
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"missing: score\.head\.0\.weight; unknown: score\.extra\."):
        import_checkpoint(tmp_path / "model.pth", "siammask", tmp_path / "out")
    torch.save(state_of("siammask"), tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"missing: none; unknown: mask\..* more"):
        import_checkpoint(tmp_path / "model.pth", "siamrpn", tmp_path / "out")
    torch.save(state_of("siamrpn") | as_pysot(state_of("siamrpn")), tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"the same weights under two names"):
        import_checkpoint(tmp_path / "model.pth", "siamrpn", tmp_path / "out")
    for name, preset, words in (("guided", None, "own"), ("siamask", None, "choose"), ("siamrpn", "vot20", "vot18_ld")):
        with pytest.raises(InputError, match=words):
            import_checkpoint(tmp_path / "model.pth", name, tmp_path / "out", preset)
    assert not (tmp_path / "out").exists()


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_nothing_in_a_file_is_executed(tmp_path, capsys):
    torch.save({"state_dict": state_of("siamrpn"), "args": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil\.pth is damaged, or no checkpoint of tensors"):
        import_checkpoint(tmp_path / "evil.pth", "siamrpn", tmp_path / "out")
    assert capsys.readouterr().out == ""


# the smallest by default: converting takes its time
@pytest.mark.parametrize("name", PARTS if os.environ.get("SIAMMASK_LONG_TESTS") else ["siamrpn"])
def test_the_folder_runs_without_torch_and_says_what_the_checkpoint_said(tmp_path, name):
    file, out = tmp_path / "SiamMask_DAVIS.pth", tmp_path / "out"
    torch.save({"state_dict": {"module." + key: value for key, value in state_of(name).items()}}, file)
    import_checkpoint(file, name, out)
    assert json.loads((out / weights.SEARCH).read_text())["preset"] == "davis"
    tracker = siammask.load(name, weights=out, precision="f32", threads=1)
    assert tracker.variant.search == variant(name).searching(**PRESETS["davis"]).search
    golden = released.golden()
    engine = tracker.engine
    response = engine.search((engine.embed(golden["exemplar"], None, False),), golden["search"], None)
    logits = golden["score_logits"].reshape(2, 5, 25, 25)
    np.testing.assert_allclose(response.score, 1 / (1 + np.exp(logits[0] - logits[1])), atol=1e-2)  # float16 weights
    torch_engine = open_engine(variant(name), EngineOptions("torch", "f32", 1), out)
    exact = torch_engine.search((torch_engine.embed(golden["exemplar"], None, False),), golden["search"], None)
    np.testing.assert_allclose(exact.score, 1 / (1 + np.exp(logits[0] - logits[1])), atol=1e-4)
    if name == "siammask":
        row, col = golden["cells"][0]
        want = 1 / (1 + np.exp(-golden["refine_logits"][0]))
        np.testing.assert_allclose(exact.mask(row, col).values, want, atol=1e-4)
