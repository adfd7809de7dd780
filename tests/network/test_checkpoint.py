"""Checkpoints load strictly or not at all, ours and the released ones, and say what they are."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="checkpoints need the extra 'train'")
import released  # noqa: E402
from torch import nn  # noqa: E402

from siammask.errors import WeightsError  # noqa: E402
from siammask.network import checkpoint, siamese  # noqa: E402
from siammask.variants import variant  # noqa: E402


def tiny(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_round_trip_keeps_tensors_and_words(tmp_path):
    written, read = tiny(0), tiny(1)
    about = {"variant": "siammask", "licence": "MIT"}
    checkpoint.save(written, tmp_path / "new" / "net.safetensors", about)
    assert not same(written, read)
    assert checkpoint.load(read, tmp_path / "new" / "net.safetensors") == about
    assert same(written, read)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_released_files_load_strictly(tmp_path, prefix, wrapped):
    state = {prefix + key: value for key, value in released.released_state().items()}
    torch.save({"epoch": 20, "state_dict": state} if wrapped else state, tmp_path / "SiamMask.pth")
    network = siamese.build(variant("siammask"))
    checkpoint.load(network, tmp_path / "SiamMask.pth")
    assert same(network, released.network())


def test_every_released_key_has_a_place_and_every_place_a_key():
    keys = {checkpoint.ours(key) for key in released.released_state()}
    assert keys == set(siamese.build(variant("siammask")).state_dict())


def test_keys_that_do_not_fit_are_named_and_nothing_is_copied():
    network, before = tiny(), tiny()
    state = {key: torch.zeros_like(value) for key, value in network.state_dict().items()}
    state["0.scale"] = state.pop("0.weight")
    with pytest.raises(WeightsError, match=r"missing: 0\.weight; unknown: 0\.scale\. Choose the model"):
        checkpoint.load_state(network, state)
    state["0.weight"] = torch.zeros(4, 3, 5, 5)
    del state["0.scale"]
    with pytest.raises(WeightsError, match=r"shapes: 0\.weight \(4, 3, 5, 5\) instead of \(4, 3, 3, 3\)"):
        checkpoint.load_state(network, state)
    assert same(network, before)


def test_weights_of_another_variant():
    with pytest.raises(WeightsError, match=r"missing: none; unknown: .*refine\..* more"):
        checkpoint.load_state(siamese.build(variant("siammask_base")), released.released_state(), "SiamMask.pth")


def test_only_the_step_counter_may_be_missing():
    network, state = tiny(1), tiny(0).state_dict()
    del state["1.num_batches_tracked"]
    checkpoint.load_state(network, state)
    assert same(network, tiny(0))


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_files_that_are_no_weights(tmp_path, capsys):
    with pytest.raises(WeightsError, match=r"No checkpoint at .*gone\.safetensors"):
        checkpoint.read(tmp_path / "gone.safetensors")
    for name in ("broken.safetensors", "broken.pth", "empty.pth"):
        (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"not weights at all")
        with pytest.raises(WeightsError, match=rf"{name} is damaged"):
            checkpoint.read(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"list\.pth holds no state_dict"):
        checkpoint.read(tmp_path / "list.pth")
    torch.save({"state_dict": {"a": Evil()}}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil\.pth is damaged"):
        checkpoint.read(tmp_path / "evil.pth")
    assert capsys.readouterr().out == ""


def test_truncated_file(tmp_path):
    checkpoint.save(tiny(), tmp_path / "net.safetensors", {})
    data = (tmp_path / "net.safetensors").read_bytes()
    (tmp_path / "net.safetensors").write_bytes(data[:-20])
    with pytest.raises(WeightsError, match=r"net\.safetensors is damaged"):
        checkpoint.load(tiny(), tmp_path / "net.safetensors")
