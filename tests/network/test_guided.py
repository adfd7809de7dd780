"""The guided network: shapes, no state, no mixing within a batch, and its quick forms beside the plain ones."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="the networks need the extra 'train'")
import torch.nn.functional as F  # noqa: E402
from lively import guided_network  # noqa: E402
from torch import Tensor  # noqa: E402

from siammask.network import guided  # noqa: E402
from siammask.network.guided import Drawing, Features, Guided, Memory  # noqa: E402
from siammask.variants import VARIANTS, Shape  # noqa: E402

ROWS = [name for name, row in VARIANTS.items() if row.mask == "guided"]


@pytest.fixture(scope="module", params=ROWS)
def network(request: pytest.FixtureRequest) -> Guided:
    return guided_network(name=request.param)


@pytest.fixture(scope="module")
def pixels(network: Guided) -> Tensor:
    """Three crops of smooth colours."""
    coarse = torch.rand((3, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    size = (network.shape.crop, network.shape.crop)
    return F.interpolate(coarse, size=size, mode="bilinear", align_corners=False) * 255


@pytest.fixture(scope="module")
def features(network: Guided, pixels: Tensor) -> Features:
    with torch.no_grad():
        return network.features(pixels)


@pytest.fixture(scope="module")
def masks(network: Guided) -> Tensor:
    """Three squares that differ."""
    side = network.shape.mask
    made = torch.zeros(3, 1, side, side)
    for i in range(3):
        made[i, :, side // 4 + side * i // 16 : side * 5 // 8, side // 3 : side * 2 // 3 - side * i // 20] = 1.0
    return made


def remember(network: Guided, f: Features, mask: Tensor, drawn: float = 1.0) -> Memory:
    return network.memorise(*network.kept(f), mask, torch.full((len(mask), 1, 1, 1), drawn))


def one(values: tuple[Tensor, ...], i: int) -> list[Tensor]:
    return [v[i : i + 1] for v in values]


def said(drawing: Drawing) -> list[Tensor]:
    """All that a network says: some say no box."""
    return [tensor for tensor in drawing if tensor is not None]


def test_the_default_has_the_sizes_it_was_trained_in() -> None:
    assert VARIANTS["guided"].shape == Shape(256, 11, 64, 32, 96, 2, False, ridge=0.1)
    assert Shape().memory == {"key": (256, 36), "value": (256, 64), "mask": (256,), "kernel": (64, 3, 3)}


def test_the_sister_takes_over_most_of_the_default() -> None:
    """It is trained from the default's weights: what is called the same has the same size, but for the last layers."""
    ours, theirs = (guided.build(VARIANTS[name]).state_dict() for name in ("guided_small", "guided"))
    own = {name.split(".")[0] for name, t in ours.items() if name not in theirs or theirs[name].shape != t.shape}
    assert own == {"body", "up64", "at64", "from2", "to_mask"}


def test_features(network: Guided, features: Features) -> None:
    s, crop = network.shape, network.shape.crop
    assert [tuple(f.shape) for f in features] == [
        (3, channels, crop // stride, crop // stride)
        for channels, stride in ((16, 2), (24, 4), (s.width, 8), (s.key, 8), (s.width, 16))
    ]
    torch.testing.assert_close(features.key.norm(dim=1), torch.ones(3, crop // 8, crop // 8), rtol=0, atol=1e-2)


def test_memory(network: Guided, features: Features, masks: Tensor) -> None:
    with torch.no_grad():
        memory = remember(network, features, masks)
        box = remember(network, features, masks, drawn=0.0)
    assert {name: tuple(t.shape[1:]) for name, t in memory._asdict().items()} == network.shape.memory
    torch.testing.assert_close(memory.mask.mean(1), masks.mean((1, 2, 3)))
    assert (memory.value != box.value).any()  # a box is not taken for a drawing
    torch.testing.assert_close(memory.key, box.key)


@pytest.mark.parametrize("train", [False, True])
def test_drawing(network: Guided, features: Features, train: bool, masks: Tensor) -> None:
    with torch.set_grad_enabled(train):
        memory = remember(network, features, masks)
        drawing = network.draw(features, memory, memory, masks)
    crop = network.shape.crop
    box = [(3, 4)] if network.shape.boxed else []
    assert [tuple(d.shape) for d in said(drawing)] == [*((3, 1, crop // s, crop // s) for s in (2, 8, 16)), (3,), *box]
    assert all(torch.isfinite(d).all() for d in said(drawing))
    assert drawing.mask.requires_grad == train


def test_a_target_is_drawn_alike_alone_and_in_a_batch(network: Guided, features: Features, masks: Tensor) -> None:
    with torch.no_grad():
        memory = remember(network, features, masks)
        together = network.draw(features, memory, memory, masks)
        for i in range(3):
            mine = Memory(*one(memory, i))
            alone = network.draw(Features(*one(features, i)), mine, mine, masks[i : i + 1])
            for a, b in zip(said(alone), said(together), strict=True):
                torch.testing.assert_close(a[0], b[i], rtol=1e-3, atol=5e-4)


def test_every_input_counts(network: Guided, features: Features, masks: Tensor) -> None:
    with torch.no_grad():
        memory = remember(network, features, masks)
        other = remember(network, features, masks.flip(3))
        plain = network.draw(features, memory, memory, masks).mask
        for drawing in (
            network.draw(features, other, memory, masks),
            network.draw(features, memory, other, masks),
            network.draw(features, memory, memory, torch.zeros_like(masks)),
        ):
            assert (drawing.mask - plain).abs().max() > 1e-4


def test_the_targets_own_classifier_counts_once_learned(network: Guided, features: Features, masks: Tensor) -> None:
    if not network.shape.ridge:
        pytest.skip("this network has none")
    network = copy.deepcopy(network)
    with torch.no_grad():
        memory = remember(network, features, masks)
        classifier = network.fit(network.kept(features)[0], masks)
        assert classifier.shape == (3, network.shape.width + 1)
        silent = network.draw(features, memory, memory, masks).mask  # none: no opinion
        assert (network.draw(features, memory, memory, masks, classifier).mask - silent).abs().max() > 1e-2
        network.from_classifier.weight.zero_()  # as it begins
        torch.testing.assert_close(network.draw(features, memory, memory, masks, classifier).mask, silent)


def test_nothing_is_remembered_between_calls(network: Guided, features: Features, masks: Tensor) -> None:
    with torch.no_grad():
        memory, other = remember(network, features, masks), remember(network, features, masks.flip(2))
        before = network.draw(features, memory, memory, masks).mask
        network.draw(features, other, other, masks.flip(2))
        torch.testing.assert_close(network.draw(features, memory, memory, masks).mask, before, rtol=0, atol=0)


@pytest.mark.parametrize("value", [0.0, 1.0], ids=["empty", "full"])
def test_a_mask_without_an_edge(network: Guided, features: Features, value: float) -> None:
    mask = torch.full((3, 1, network.shape.mask, network.shape.mask), value)
    memory = remember(network, features, mask)
    drawing = network.draw(features, memory, memory, mask)
    assert all(torch.isfinite(t).all() for t in (*memory, *said(drawing)))
    (drawing.mask.sum() + drawing.overlap.sum()).backward()
    for name, p in network.named_parameters():
        assert p.grad is None or torch.isfinite(p.grad).all(), name
    network.zero_grad(set_to_none=True)


def test_every_part_of_the_head_learns(network: Guided, features: Features, masks: Tensor) -> None:
    first = remember(network, features, masks)
    last = remember(network, features, masks.flip(3))
    found = network.neck(*network.backbone(torch.rand(3, 3, network.shape.crop, network.shape.crop) * 255))
    drawing = network.draw(found, first, last, masks)
    sum(d.square().mean() for d in said(drawing)).backward()
    idle = [n for n, p in network.named_parameters() if not n.startswith("backbone.") and p.grad is None]
    network.zero_grad(set_to_none=True)
    assert idle == []


def test_a_box_lies_where_its_edges_are_seen() -> None:
    edges = guided.Edges(8)
    maps = torch.full((1, 4, 28, 28), -30.0)
    for edge, (row, column) in enumerate(((9, 3), (2, 12), (20, 25), (27, 8))):  # left, top, right, bottom
        maps[0, edge, row, column] = 30.0
    edges.maps.register_forward_hook(lambda *_: maps)
    box = edges(torch.zeros(1, 8, 28, 28))
    assert torch.allclose(box, torch.tensor([[3, 2, 25, 27]]) / 27 - 0.5, atol=1e-5)


def test_correlation_is_a_grouped_convolution() -> None:
    """Nine shifted products = a depth-wise convolution with a 3 x 3 kernel dilated by 4, of the smoothed features."""
    torch.manual_seed(0)
    low, kernel = torch.randn(2, 5, 16, 16), torch.randn(2, 5, 3, 3)
    smooth = F.avg_pool2d(F.pad(low, (2, 1, 2, 1)), 4, 1)
    plain = F.conv2d(
        smooth.reshape(1, 10, 16, 16), kernel.reshape(10, 1, 3, 3), padding=4, dilation=4, groups=10
    ).reshape(2, 5, 16, 16)
    torch.testing.assert_close(guided._correlate(low, kernel, 4), plain / 9, rtol=1e-4, atol=1e-5)


def test_correlation_is_highest_where_the_exemplar_is() -> None:
    torch.manual_seed(0)
    low = torch.zeros(1, 8, 16, 16)
    low[:, :, 2:14, 2:14] = torch.randn(1, 8, 12, 12)
    kernel = F.avg_pool2d(low[:, :, 2:14, 2:14], 4)
    found = guided._correlate(low, kernel, 4).sum(1)[0]
    row, col = divmod(int(found.argmax()), 16)
    assert abs(row - 7.5) <= 1
    assert abs(col - 7.5) <= 1


def test_the_highest_product_and_its_gradient() -> None:
    torch.manual_seed(0)
    query, keys = torch.randn(2, 20, 6, requires_grad=True), torch.randn(2, 11, 6, requires_grad=True)
    plain = (query @ keys.transpose(1, 2)).amax(2)
    quick = guided._highest(query, keys)
    torch.testing.assert_close(quick, plain)
    goal = torch.randn_like(plain)
    for a, b in zip(
        torch.autograd.grad((quick * goal).sum(), (query, keys)),
        torch.autograd.grad((plain * goal).sum(), (query, keys)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_places_are_in_units_of_the_object() -> None:
    mask = torch.zeros(1, 32, 32)
    mask[0, 8:16, 16:24] = 1.0  # centre (20, 12) of 32, size 8
    places = guided._places(mask.flatten(1), 32).view(32, 32, 2)
    torch.testing.assert_close(places[12, 20], torch.tensor([0.5 / 8, 0.5 / 8]), rtol=0, atol=0.05)
    torch.testing.assert_close(places[12, 28] - places[12, 20], torch.tensor([1.0, 0.0]), rtol=0, atol=0.05)
    torch.testing.assert_close(places[20, 20] - places[12, 20], torch.tensor([0.0, 1.0]), rtol=0, atol=0.05)


def test_places_of_nothing_stand_in_the_middle() -> None:
    places = guided._places(torch.zeros(1, 256), 16).view(16, 16, 2)
    torch.testing.assert_close(places.mean((0, 1)), torch.zeros(2), rtol=0, atol=1e-3)
    assert torch.isfinite(places).all()
    assert places[8, 15, 0] == pytest.approx(0.97, abs=0.1)  # the crop's edge: one object size from its middle


def test_reading_a_memory_the_plain_way() -> None:
    """Longer inner products = softmax(sharp * cosine - near * squared distance) over the memory's positions."""
    torch.manual_seed(0)
    query = F.normalize(torch.randn(2, 9, 4), dim=2)
    place = torch.randn(2, 9, 2)
    look, mask = F.normalize(torch.randn(2, 256, 4), dim=2), torch.rand(2, 256)
    there = guided._places(mask, 16)
    memory = Memory(guided._keys(look, there), torch.randn(2, 256, 5), mask, torch.ones(1))
    sharp, near = torch.tensor(6.0), torch.tensor(0.3)
    cosine = query @ look.transpose(1, 2)
    distance = (place[:, :, None] - there[:, None]).square().sum(3)
    longer = guided._query(query, place, near / sharp)
    read = guided._read(longer, memory, sharp)
    plain = torch.softmax(sharp * cosine - near * distance, 2) @ memory.value
    torch.testing.assert_close(read, plain, rtol=1e-3, atol=1e-4)
    off, on = 2 * (1 - memory.mask)[:, None], 2 * memory.mask[:, None]
    close = cosine - near / sharp * distance
    for exponent, alike in ((cosine, (query, look)), (close, (longer, memory.key))):
        expected = torch.stack([(exponent - m).amax(2) for m in (off, on)], 2).clamp(-2, 1)
        with torch.no_grad():
            torch.testing.assert_close(guided._likeness(*alike, memory.mask), expected, rtol=1e-3, atol=1e-4)
        learnt = guided._likeness(alike[0].clone().requires_grad_(), alike[1], memory.mask)
        assert learnt.requires_grad
        torch.testing.assert_close(learnt, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_a_single_channel_is_drawn_four_values_at_a_time(bias: bool) -> None:
    conv, x = torch.nn.Conv2d(12, 1, 3, padding=1, bias=bias), torch.randn(2, 12, 20, 16)
    torch.testing.assert_close(guided._single(conv, x), conv(x))


def test_graphs_are_the_network(network: Guided, pixels: Tensor, features: Features, masks: Tensor) -> None:
    """What an engine runs gives what training saw, as probabilities."""
    made = guided.graphs(network)
    with torch.no_grad():
        kept = map(guided._rows, network.kept(features))
        memory = made["memorise"](*kept, masks[:, 0], torch.ones(3))
        named = {f"{which}_{n}": memory[f"memory_{n}"] for which in ("first", "last") for n in network.shape.memory}
        crops = pixels.round().to(torch.uint8).permute(0, 2, 3, 1)
        found = made["search"](crops, masks[:, 0], **named)
        remembered = remember(network, features, masks)
        seen = network.features(crops.permute(0, 3, 1, 2).float())
        drawing = network.draw(seen, remembered, remembered, masks)
    torch.testing.assert_close(found["mask"], torch.sigmoid(drawing.mask[:, 0]))
    torch.testing.assert_close(found["score"], torch.sigmoid(drawing.score))
    torch.testing.assert_close(found["overlap"], torch.sigmoid(drawing.overlap))


def test_specs_describe_the_graphs(network: Guided) -> None:
    for name, spec in guided.graph_specs(network).items():
        with torch.no_grad():
            outputs = spec.module(**spec.example)
        assert set(spec.outputs) <= set(outputs), name
        assert all(t.shape[0] == 1 for t in spec.example.values())


def test_the_same_parameters_in_another_size() -> None:
    network = guided_network()
    small = network.sized(192)
    assert small.fuse.weight is network.fuse.weight
    assert (small.shape.crop, network.shape.crop, network.sized(256)) == (192, 256, network)
    pixels = torch.rand((1, 3, 192, 192)) * 255
    mask = torch.zeros(1, 1, 96, 96)
    mask[..., 30:60, 30:60] = 1
    with torch.no_grad():
        seen = small.features(pixels)
        memory = remember(small, seen, mask)
        assert small.draw(seen, memory, memory, mask).mask.shape == (1, 1, 96, 96)


def test_the_winner_is_found_by_its_last_bits() -> None:
    products = torch.randn((2, 40, 150), generator=torch.Generator().manual_seed(0)) * 3
    products[0, 0] = -products[0, 0].abs()
    expected = products.argmax(2)
    assert torch.equal(guided._winner(products.clone()), expected)
