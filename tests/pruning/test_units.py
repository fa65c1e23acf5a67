"""The unit graph against Jacobians on drawn networks, and by name on the patterns that matter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mge_gpu.errors import PruningError
from mge_gpu.pruning._copy import dense_copy
from mge_gpu.pruning._units import UnitGraph, unit_graph
from mge_gpu.tracing import trace
from tests.oracles.jacobian import reference_graph
from tests.oracles.networks import Case
from tests.oracles.strategies import cases


def units_of(model: nn.Module, shape: tuple[int, ...]) -> tuple[UnitGraph, dict[str, slice]]:
    """The unit graph, and where each prunable weight is in its flat vector."""
    network, weights = dense_copy(model)
    ends = np.cumsum([0, *(w.numel() for w in weights.values())])
    return unit_graph(network, weights, shape), {
        name: slice(a, b) for name, a, b in zip(weights, ends, ends[1:], strict=False)
    }


def unit_pairs(graph: UnitGraph, kept: np.ndarray) -> set[tuple[int, int]]:
    """(unit, unit) of all edges over kept weights, written as plainly as can be."""
    found = set()
    for layer in graph.layers:
        inside, width = layer.weights.shape[1], len(layer.weights) // layer.groups
        for i in range(len(layer.ptr) - 1):
            for row in range(layer.ptr[i], layer.ptr[i + 1]):
                for o in range(i // inside * width, (i // inside + 1) * width):
                    live = kept[layer.weights[o, i % inside]] & (layer.pairs[row] >= 0)
                    if live.any():
                        found.add((int(layer.unit[row]), layer.first + o))
    return found


def keep_only(case: Case, density: float, seed: int) -> tuple[UnitGraph, np.ndarray]:
    """Give a drawn network nonzero weights, zero some at random; its unit graph and which are left."""
    generator = torch.Generator().manual_seed(seed)
    for step in case.steps:
        if step.kind == "layer":
            step.module.weight.data = torch.rand(step.module.weight.shape, generator=generator) + 0.1
    graph, where = units_of(case.module(), case.input_shape)
    kept = np.ones(graph.prunable + len(graph.fixed), bool)
    kept[: graph.prunable] = np.random.default_rng(seed).random(graph.prunable) < density
    parameters = dict(case.module().named_parameters())
    with torch.no_grad():
        for name, at in where.items():
            parameters[name].mul_(torch.from_numpy(kept[at]).reshape(parameters[name].shape))
    return graph, kept


@settings(max_examples=15, deadline=None)
@given(case=cases(), density=st.sampled_from([1.0, 0.5, 0.2]), seed=st.integers(0, 999))
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_units_are_linked_as_the_jacobian_says(case: Case, density: float, seed: int) -> None:
    graph, kept = keep_only(case, density, seed)
    program = trace(case.module(), case.input_shape, pad_input=False)
    unit = np.empty(program.num_nodes, int)
    for k, p in enumerate(program.partitions):
        index = np.unravel_index(np.arange(p.size), p.shape)
        unit[p.offset : p.offset + p.size] = index[p.channel_dim] + graph.offset[k]
    reference = reference_graph(case, pad_input=False, identity_skips=True)
    expected = {(int(unit[a]), int(unit[b])) for a, b in reference.edges}
    assert unit_pairs(graph, kept) == expected


def producers(graph: UnitGraph, layer: str) -> list[list[str]]:
    """What each input channel of a layer reads, as "partition:channel"."""
    (found,) = [x for x in graph.layers if x.name == layer]
    part = np.searchsorted(graph.offset, found.unit, "right") - 1
    names = [f"{p}:{u - graph.offset[p]}" for p, u in zip(part, found.unit, strict=True)]
    return [names[a:b] for a, b in zip(found.ptr, found.ptr[1:], strict=False)]


class Patterns(nn.Module):
    """A residual block, a concatenation, a depthwise and a transposed convolution, a flattened classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3, padding=1)  # partition 1
        self.conv = nn.Conv2d(2, 2, 3, padding=1)  # 2
        self.main, self.side = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)  # 3, together
        self.depth = nn.Conv2d(4, 4, 3, padding=1, groups=4)  # 4
        self.up = nn.ConvTranspose2d(4, 2, 2, 2)  # 5
        self.fc = nn.Linear(2 * 4 * 4, 3)  # 6

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = torch.relu(self.conv(x) + x)
        z = self.main(y) + self.side(x)
        z = self.up(self.depth(torch.cat([z, x], 1)))
        return self.fc(nn.functional.avg_pool2d(z, 2).flatten(1))


def test_patterns() -> None:
    graph, where = units_of(Patterns(), (1, 4, 4))
    assert producers(graph, "conv") == [["1:0"], ["1:1"]]
    assert [x.name for x in graph.layers if x.target == 2] == ["conv", "conv.skip"]
    assert producers(graph, "conv.skip") == [["1:0"], ["1:1"]]
    assert producers(graph, "main") == [["2:0"], ["2:1"]] and producers(graph, "side") == [["1:0"], ["1:1"]]
    assert {x.target for x in graph.layers if x.name in ("main", "side")} == {3}
    assert producers(graph, "depth") == [["3:0"], ["3:1"], ["1:0"], ["1:1"]]
    assert producers(graph, "fc") == [["5:0"]] * 16 + [["5:1"]] * 16
    by_name = {x.name: x for x in graph.layers}
    assert by_name["depth"].weights.shape == (4, 1, 9) and by_name["depth"].groups == 4
    up = by_name["up"]  # stored (C_in, C_out, 2, 2)
    assert up.weights.shape == (2, 4, 4)
    stored = np.arange(where["up.weight"].start, where["up.weight"].stop).reshape(4, 2, 4)
    assert (up.weights == stored.transpose(1, 0, 2)).all()
    assert len(graph.fixed) == 2  # the identity skip


def test_structural_sums_list_all_their_producers() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(2, 2, bias=False) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.sigmoid(self.a(x)) * self.b(x))

    graph, _ = units_of(Gated(), (2,))
    assert producers(graph, "c") == [["1:0", "2:0"], ["1:1", "2:1"]]


def test_a_tap_that_only_sees_padding_has_no_pairs() -> None:
    graph, _ = units_of(nn.Conv2d(1, 1, 3, padding=1), (1, 1, 1))
    assert (graph.layers[0].pairs[0] >= 0).tolist() == [t == 4 for t in range(9)]


def test_slices_of_one_parameter_are_told_apart() -> None:
    attention = nn.MultiheadAttention(4, 2, kdim=4, vdim=4, batch_first=True)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: Tensor) -> Tensor:
            query, key, value = (nn.functional.linear(x, w) for w in self.attention.in_proj_weight.chunk(3))
            y = nn.functional.scaled_dot_product_attention(query, key, value)
            return self.attention.out_proj(y)

    graph, where = units_of(Model(), (3, 4))
    start = where["attention.in_proj_weight"].start
    slices = [x.weights.ravel() - start for x in graph.layers[:3]]
    assert [s.tolist() for s in slices] == [list(range(16 * k, 16 * k + 16)) for k in range(3)]


def test_a_weight_computed_from_others_is_refused_or_taken_element_by_element() -> None:
    class Computed(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            w = (self.weight - self.weight.mean(1, keepdim=True)) / self.weight.std(1, keepdim=True)
            return nn.functional.linear(x, w @ w if self.square else w)

    model = Computed(3, 3)
    model.square = False
    graph, _ = units_of(model, (3,))
    assert (graph.layers[0].weights.ravel() == np.arange(9)).all()

    class Outer(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight.T @ self.weight)

    before = Outer(3, 2)
    values = before.weight.detach().clone()
    with pytest.raises(PruningError, match="which of these is which weight cannot be told"):
        units_of(before, (3,))
    assert torch.equal(before.weight, values)


def test_effective_weights_are_those_on_paths() -> None:
    graph, where = units_of(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), (2,))
    kept = np.ones(graph.prunable, bool)
    kept[where["0.weight"].start : where["0.weight"].start + 2] = False  # nothing enters hidden unit 0
    kept[where["1.weight"].start + np.array([1, 4])] = False  # nothing leaves hidden unit 1
    found = graph.effective(kept)
    expected = kept.copy()
    expected[where["0.weight"].start + np.array([2, 3])] = False
    expected[where["1.weight"].start + np.array([0, 3])] = False
    assert (found == expected).all()
