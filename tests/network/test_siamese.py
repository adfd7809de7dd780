"""The released network gives the released numbers; every row of the table composes and has the shapes it says."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need the extra 'train'")
import released  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from siammask.engines.siamese import WINDOWS  # noqa: E402
from siammask.errors import InputError  # noqa: E402
from siammask.network import siamese  # noqa: E402
from siammask.network.heads import Correlation, correlated  # noqa: E402
from siammask.variants import VARIANTS, Variant, variant  # noqa: E402

ROWS = [row for row in VARIANTS.values() if row.mask != "guided"]


def planes(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float()


def close(have: Tensor | np.ndarray, want: np.ndarray, tolerance: float = 1e-4) -> None:
    """Largest difference, relative to the largest value."""
    have = np.asarray(have)
    assert have.shape == want.shape
    assert np.abs(have - want).max() <= tolerance * np.abs(want).max()


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return released.golden()


@pytest.fixture(scope="module")
def network() -> siamese.Siamese:
    return released.network()


@pytest.fixture(scope="module")
def outputs(network, golden) -> dict[str, Tensor]:
    with torch.inference_mode():
        return network.search(network.embed(planes(golden["exemplar"])), planes(golden["search"]))


def test_released_score_and_box(outputs, golden):
    close(outputs["score_logits"][0], golden["score_logits"])
    close(outputs["delta"][0], golden["delta"])


@pytest.mark.parametrize("cell", range(3))
def test_released_mask_of_a_cell(network, outputs, golden, cell):
    row, col = golden["cells"][cell]
    vector = outputs["correlation"][:, :, row, col]
    close(vector[0], golden["correlation"][cell])
    # windows by padding the whole maps, as the paper's code does: pads 16, 8, 4
    padded = [nn.functional.pad(outputs[f"p{i}"], [pad] * 4) for i, pad in enumerate((16, 8, 4))]
    windows = [
        p[:, :, step * row : step * row + size, step * col : step * col + size]
        for p, step, size in zip(padded, (4, 2, 1), WINDOWS["resnet50"], strict=True)
    ]
    with torch.inference_mode():
        close(network.vector(vector).flatten(), golden["mask_vector"][cell])
        close(network.refine(vector, *windows)[0], golden["refine_logits"][cell])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_has_the_parts_and_shapes_it_says(row: Variant):
    network = siamese.build(row).eval()
    with torch.inference_mode():
        kernels = network.embed(torch.rand(1, 3, row.search.exemplar_size, row.search.exemplar_size) * 255)
        seen = network.search(kernels, torch.rand(1, 3, row.search.search_size, row.search.search_size) * 255)
        rpn, width = row.locate == "rpn", 128 if row.backbone == "light" else 256
        cells = 17 if row.backbone == "alexnet" else 25
        assert seen["score_logits"].shape == (1, 10 if rpn else 1, cells, cells)
        assert ("delta" in seen) == rpn
        assert ("correlation" in seen) == (row.mask != "none")
        assert ("p0" in seen) == (row.mask == "refined")
        if row.mask == "vector":
            assert network.vector(seen["correlation"][:, :, 3, 4]).shape == (1, 63, 63)
        if row.mask == "refined":
            parts = [seen[f"p{i}"][:, :, :n, :n] for i, n in enumerate(WINDOWS[row.backbone])]
            drawn = network.refine(torch.rand(1, width), *parts)
            assert drawn.shape == (1, row.search.exemplar_size, row.search.exemplar_size)


@pytest.mark.parametrize(("locate", "mask"), [("score", "none"), ("rpn", "none"), ("rpn", "vector")])
@pytest.mark.parametrize(("size", "cells"), [(255, 17), (271, 19)])
def test_alexnet_carries_the_same_heads(locate, mask, size, cells):
    row = replace(variant("siamrpn"), backbone="alexnet", locate=locate, mask=mask)
    network = siamese.build(row).eval()
    with torch.inference_mode():
        seen = network.search(network.embed(torch.rand(1, 3, 127, 127)), torch.rand(1, 3, size, size))
    assert seen["score_logits"].shape[-2:] == (cells, cells)


def test_batches_are_independent(network, golden):
    exemplar, search = planes(golden["exemplar"]), planes(golden["search"])
    first, second = torch.cat((exemplar, exemplar.flip(3))), torch.cat((search, search.flip(2)))
    with torch.inference_mode():
        together = network.search(network.embed(first), second)
        alone = network.search(network.embed(first[1:]), second[1:])
    for name, values in alone.items():
        close(together[name][1:], values.numpy(), 1e-5)


@pytest.mark.parametrize("row", ["siammask_light", "siammask_2b_light", "siamfc_light"])
def test_nothing_is_kept_between_calls(row):
    """No tensor on the network changes by running it: targets can share it."""
    network = siamese.build(variant(row)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    attributes = {id(module): set(vars(module)) for module in network.modules()}
    with torch.inference_mode():
        network.search(network.embed(torch.rand(1, 3, 128, 128)), torch.rand(1, 3, 256, 256))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(attributes[id(module)] == set(vars(module)) for module in network.modules())


def test_gradients_reach_every_trained_part():
    network = siamese.build(variant("siammask_light")).train()
    kernels = network.embed(torch.rand(2, 3, 128, 128) * 255)
    seen = network.search(kernels, torch.rand(2, 3, 256, 256) * 255)
    parts = [seen[f"p{i}"][:, :, :n, :n] for i, n in enumerate(WINDOWS["light"])]
    vector = seen["correlation"][:, :, 12, 12]
    loss = sum(
        out.square().mean()
        for out in (seen["score_logits"], seen["delta"], network.vector(vector), network.refine(vector, *parts))
    )
    loss.backward()
    without = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert without == []


def test_parts_that_do_not_fit():
    with pytest.raises(InputError, match=r"backbone alexnet has no features to refine"):
        siamese.build(replace(variant("siammask"), backbone="alexnet"))
    with pytest.raises(InputError, match="no siamese network"):
        siamese.build(variant("guided"))


def test_graph_specs_name_inputs_and_outputs_of_each_graph():
    row = variant("siammask_light")
    specs = siamese.graph_specs(siamese.build(row), row)
    assert {name: (tuple(spec.example), spec.outputs) for name, spec in specs.items()} == {
        "embed": (("pixels",), ("kernel_score", "kernel_box", "kernel_mask")),
        "search": (
            ("pixels", "kernel_score", "kernel_box", "kernel_mask"),
            ("score_logits", "delta", "correlation", "p0", "p1", "p2"),
        ),
        "refine": (("correlation", "w0", "w1", "w2"), ("mask",)),
    }
    assert set(siamese.graphs(siamese.build(variant("siammask_2b_light")))) == {"embed", "search", "vector"}


def test_margin_keeps_the_middle_of_the_exemplar():
    """A change in the outermost cells of the exemplar's features does not reach the kernels."""

    class Cells(nn.Module):
        def forward(self, x: Tensor) -> tuple[tuple[()], Tensor]:
            return (), x

    row = variant("siamfc_light")
    network = siamese.build(row).eval()
    network.backbone, network.neck = Cells(), nn.Identity()
    inside = torch.rand(1, 128, 15, 15)
    outside = inside.clone()
    for side, k in itertools.product((2, 3), (0, 1, 2, 3, 11, 12, 13, 14)):
        outside.index_fill_(side, torch.tensor([k]), 9.0)
    with torch.inference_mode():
        assert torch.equal(network.embed(inside)["score"], network.embed(outside)["score"])


def test_the_correlation_learns_as_torch_would_have_it() -> None:
    """Its own backward, on a CPU, gives the gradients of the convolution that it is."""
    torch.manual_seed(0)
    pixels, kernel = torch.randn(2, 3, 9, 8, dtype=torch.float32), torch.randn(2, 3, 4, 3)
    found = []
    for function in (Correlation(), correlated):
        a, b = pixels.clone().requires_grad_(), kernel.clone().requires_grad_()
        out = function(a, b)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        found.append((out.detach(), a.grad, b.grad))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
