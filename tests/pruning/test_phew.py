"""PHEW: complete paths only, transition frequencies against the formula, exact counts."""

import warnings
from collections import Counter
from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mge_gpu
from mge_gpu.graph import MultipartiteGraph
from mge_gpu.pruning import _walks, prune
from mge_gpu.pruning._copy import dense_copy
from mge_gpu.pruning._units import unit_graph
from mge_gpu.pruning._walk_tables import walk_tables
from mge_gpu.pruning.phew import PathWarning, _walked
from mge_gpu.tracing import trace
from tests.oracles.networks import Case
from tests.oracles.strategies import cases

Masks = dict[str, Tensor]


def paths(model: nn.Module, shape: tuple[int, ...], forth: bool, count: int, start: int = 0) -> Counter:
    """How often walks from unit ``start`` of the inputs or outputs take each path, as places of weights."""
    network, weights = dense_copy(model)
    graph = unit_graph(network, weights, shape)
    size = torch.cat([w.detach().flatten().abs().double() for w in weights.values()]).numpy()
    size = np.concatenate([size, graph.fixed])
    tables, rng = walk_tables(graph, size), np.random.default_rng(5)
    sets = np.zeros((2, graph.positions.max()), np.uint8)
    path, names = (np.zeros(len(graph.layers) + 1, np.int64) for _ in range(2))
    found: Counter = Counter()
    unit = int((graph.inputs if forth else graph.outputs)[start])
    for _ in range(count):
        sets[0] = 1
        n = _walks.walk(
            tables, size, np.ones(len(size), bool), names, _walks.NO_LIMIT, unit, forth, sets, path, names,
            _walks.START, rng,
        )  # fmt: skip
        found[tuple(p for p in path[:n].tolist() if p < graph.prunable)] += 1
    return found


def assert_drawn_from(found: Counter, expected: dict[tuple[int, ...], float]) -> None:
    assert sum(expected.values()) == pytest.approx(1)
    assert set(found) <= {path for path, p in expected.items() if p > 0}
    likely = [path for path, p in expected.items() if p > 0]
    total = sum(found.values())
    test = scipy.stats.chisquare([found[p] for p in likely], [total * expected[p] for p in likely])
    assert test.pvalue > 1e-3


def test_forward_and_backward_transitions() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    model[0].weight.data[1, 0] = 0
    a, b = (model[k].weight.detach().double().abs().numpy() for k in (0, 2))
    forth = {
        (h * 2 + 1, 6 + o * 3 + h): a[h, 1] / a[:, 1].sum() * b[o, h] / b[:, h].sum()
        for h, o in product(range(3), range(2))
    }
    assert_drawn_from(paths(model, (2,), True, 4000, start=1), forth)
    back = {
        (6 + 0 * 3 + h, h * 2 + i): b[0, h] / b[0].sum() * a[h, i] / a[h].sum()
        for h, i in product(range(3), range(2))
    }
    assert_drawn_from(paths(model, (2,), False, 4000), back)


def test_kernels_by_their_norm_and_taps_by_their_size() -> None:
    """A flattened channel is one kernel of the classifier, however many features it has."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 2, (1, 2), padding=(0, 1), bias=False), nn.Flatten(), nn.Linear(6, 2, bias=False)
    )
    a = model[0].weight.detach().double().abs().numpy().reshape(2, 2)
    b = model[2].weight.detach().double().abs().numpy().reshape(2, 2, 3)  # output, channel, position
    expected = {}
    for c, t in product(range(2), range(2)):
        # tap 0 reads the input's two pixels at positions 1 and 2 of the output, tap 1 at 0 and 1
        reached = (1, 2) if t == 0 else (0, 1)
        norm = b[:, c].sum(1)
        for o, x in product(range(2), reached):
            expected[c * 2 + t, 4 + o * 6 + c * 3 + x] = (
                a[c].sum() / a.sum() * a[c, t] / a[c].sum() * norm[o] / norm.sum() * b[o, c, x]
            )
    for o, c, t in product(range(2), range(2), range(2)):  # of the taps that meet the walk's positions
        mine = [k for k in expected if k[0] == c * 2 + t and 4 + o * 6 <= k[1] < 10 + o * 6]
        total = b[o, c, [k[1] - 4 - o * 6 - c * 3 for k in mine]].sum()
        # one draw over all taps, and where that meets nothing another one over those that do
        for k in mine:
            expected[k] /= total
    assert_drawn_from(paths(model, (1, 1, 2), True, 6000), expected)


class Residual(nn.Module):
    """x + conv(x) between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = (nn.Conv2d(1, 1, 1, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.relu(self.conv(x) + x))


@pytest.mark.parametrize("forth", [True, False])
def test_block_and_shortcut_are_equally_likely(forth: bool) -> None:
    found = paths(Residual(), (1, 2, 2), forth, 2000)
    through, past = ((0, 1, 2), (0, 2)) if forth else ((2, 1, 0), (2, 0))
    assert set(found) == {through, past} and abs(found[through] - 1000) < 4 * 500**0.5


def test_zero_kernels_are_no_nan() -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    for layer in model:
        nn.init.zeros_(layer.weight)
    found = paths(model, (3,), True, 4000)
    assert_drawn_from(found, {(h * 3, 12 + o * 4 + h): 1 / 8 for h in range(4) for o in range(2)})
    masks = prune(model, "phew", 0.5, input_shape=(3,))
    assert sum(int(m.sum()) for m in masks.values()) == 10
    model[0].weight.data[:, 1] = 1.0  # some kernels are zero: weights that are not come first
    assert prune(model, "phew", 0.7, input_shape=(3,))["0.weight"].any(0).tolist()[1]


def reach(graph: MultipartiteGraph) -> tuple[np.ndarray, np.ndarray]:
    """Nodes that an input reaches, and nodes that reach an output, by steps over the written-down edges."""
    source, target, _ = (x.numpy() for x in graph.coo())
    ahead = sp.csr_array((np.ones(len(source)), (target, source)), shape=(graph.num_nodes,) * 2)
    forth = graph.in_partitions(graph.input_partitions)
    back = graph.in_partitions(graph.output_partitions)
    for _ in graph.partitions:
        forth = forth | (ahead @ forth > 0)
        back = back | (ahead.T @ back > 0)
    return forth, back


def off_path(model: nn.Module, shape: tuple[int, ...], masks: Masks, most: int = 60) -> int:
    """Kept weights (of ``most``) of which no edge of the unrolled graph is on a path from input to output."""
    program = trace(model, shape, pad_input=False, identity_skips=True)
    masks = {name: m for name, m in masks.items() if name in program.weight_shapes()}
    forth, back = reach(mge_gpu.encode(program, masks=masks))
    nothing = {name: torch.zeros_like(m) for name, m in masks.items()}

    def edges(kept: Masks) -> dict[tuple[int, int], float]:
        source, target, weight = (x.tolist() for x in mge_gpu.encode(program, masks=kept).coo())
        return dict(zip(zip(source, target, strict=True), weight, strict=True))

    free = edges(nothing)  # those of identity skips, which may coincide with a weight's
    places = [(name, int(k)) for name, m in masks.items() for k in m.flatten().nonzero().ravel()]
    found = 0
    for k in np.random.default_rng(0).permutation(len(places))[:most]:
        name, place = places[k]
        alone = torch.zeros(masks[name].numel(), dtype=torch.bool)
        alone[place] = True
        own = edges({**nothing, name: alone.reshape(masks[name].shape)})
        found += not any(forth[a] and back[b] for (a, b), w in own.items() if w != free.get((a, b)))
    return found


def walked(model: nn.Module, shape: tuple[int, ...], sparsity: float, seed: int = 0) -> tuple[Masks, int]:
    """Masks of PHEW, checked for their count, and how many weights it says are on no path."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        masks = prune(model, "phew", sparsity, input_shape=shape, seed=seed)
    total = sum(m.numel() for m in masks.values())
    assert sum(int(m.sum()) for m in masks.values()) == round((1 - sparsity) * total)
    said = [str(w.message) for w in caught if issubclass(w.category, PathWarning)]
    return masks, int(said[0].split()[1].replace(",", "")) if said else 0


@settings(max_examples=8, deadline=None)
@given(case=cases(), sparsity=st.sampled_from([0.0, 0.3, 0.6, 0.8, 0.9]), seed=st.integers(0, 99))
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_kept_weights_are_on_paths_of_drawn_networks(case: Case, sparsity: float, seed: int) -> None:
    torch.manual_seed(seed)
    for step in case.steps:
        if step.kind == "layer":
            step.module.weight.data.uniform_(0.1, 1)
    masks, astray = walked(case.module(), case.input_shape, sparsity, seed)
    assert off_path(case.module(), case.input_shape, masks) <= astray
    if sparsity == 0:
        assert all(m.all() for m in masks.values())


class Narrow(nn.Module):
    """Residual and depthwise blocks down to maps of one pixel, where most taps see only padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.down = nn.Conv2d(4, 6, 3, 2, 1, bias=False)
        self.side = nn.Conv2d(4, 6, 1, 2, bias=False)
        self.depth = nn.Conv2d(6, 6, 3, 2, 1, groups=6, bias=False)
        self.last = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.depth(torch.relu(self.down(x) + self.side(x)))
        y = torch.relu(self.last(x) + x)
        return self.fc(torch.cat([x, y], 1).flatten(1))


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.9, 0.95])
def test_kept_weights_are_on_paths_where_taps_see_only_padding(sparsity: float) -> None:
    torch.manual_seed(3)
    model = Narrow()
    masks, astray = walked(model, (2, 4, 4), sparsity)
    assert astray == 0 and off_path(model, (2, 4, 4), masks, 10**6) == 0


@pytest.mark.parametrize("seed", range(3))
def test_walks_do_not_leave_the_map(seed: int) -> None:
    """On 2x2 pixels two taps that shift the same way lead out: the channels have a path, the pixels none."""
    torch.manual_seed(seed)
    model = nn.Sequential(*(nn.Conv2d(2, 2, 3, padding=1, bias=False) for _ in range(5)))
    masks, astray = walked(model, (2, 2, 2), 0.9, seed)
    assert astray == 0 and off_path(model, (2, 2, 2), masks) == 0


def test_what_fits_on_no_path_is_counted_and_drawn() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(1, 4, 3, padding=1, bias=False)
    masks, astray = walked(model, (1, 1, 1), 0.5)  # 4 of 36 weights meet the only pixel
    assert astray == 14 and masks["weight"][:, :, 1, 1].all()
    chain = nn.Sequential(*(nn.Linear(3, 3) for _ in range(6)))
    _, astray = walked(chain, (3,), 1 - 4 / 54)  # a path has six weights
    assert astray == 4


def test_every_count_is_hit_by_complete_paths() -> None:
    torch.manual_seed(0)
    network, weights = dense_copy(nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(5))))
    graph = unit_graph(network, weights, (4,))
    size = torch.cat([w.detach().flatten().abs().double() for w in weights.values()]).numpy()
    for count in range(5, 81):
        kept, astray = _walked(graph, size, count, np.random.default_rng(count))
        assert kept.sum() == count and astray == 0 and (graph.effective(kept) == kept).all()
