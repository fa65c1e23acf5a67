"""Each primitive of each backend against SciPy and igraph; the CUDA kernels run on the host."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import Phase, given, settings
from scipy.sparse.csgraph import connected_components
from torch import nn

import mge_gpu
from mge_gpu.backends import Backend, Block, get_backend
from mge_gpu.backends.adjacency import CROSSED, FLAT
from mge_gpu.backends.cpu import CpuBackend
from mge_gpu.backends.cpu.cliques import clique_partitions
from mge_gpu.backends.cpu.kinds import arc_kinds
from mge_gpu.backends.cuda import CudaBackend, collect, local, positions
from mge_gpu.errors import GraphError
from mge_gpu.graph import MultipartiteGraph
from tests.as_large import as_large
from tests.graphs import DenseNet, Mixer, directed, edges_of, encoded, random_masks, undirected
from tests.kernels.host_runtime import COMPILER, KERNELS, HostRuntime
from tests.kernels.test_compile import kernels
from tests.oracles.networks import Case
from tests.oracles.strategies import cases

EXAMPLES = 30


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test of a backend for all of them; on the GPU where ``--device cuda`` asks for it."""
    if "backend" in metafunc.fixturenames:
        there = ["cuda-0"] if metafunc.config.getoption("--device") == "cuda" else []
        here = ["cpu-1", "cpu-2", "large-3", "kernels-1", "kernels-3", "kernels-64"]
        metafunc.parametrize("backend", [*here, *there], indirect=True)


class There:
    """A backend whose arrays go to the device and come back."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.xp = inner, inner.runtime.xp

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.inner, name)
        if name in ("path_counts", "two_hop_sizes", "wedge_counts", "clique_counts", "representatives"):
            return method  # few numbers, which are the host's
        if name == "within_memory":  # the work brings its arrays back
            return method
        return lambda *args, **kwargs: self._back(method(*map(self._there, args), **kwargs))

    def _there(self, x: Any) -> Any:
        if type(x) is list:
            return [self._there(y) for y in x]
        if not isinstance(x, np.ndarray):
            return x
        with self.inner.active():  # where memory is watched, that of arguments is torch's as well
            return self.xp.asarray(x)

    def _back(self, x: Any) -> Any:
        if isinstance(x, self.xp.ndarray):
            return self.xp.asnumpy(x)
        if callable(x):
            return lambda y: self._back(x(self._there(y)))
        return tuple(map(self._back, x)) if isinstance(x, tuple) else x


@pytest.fixture
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The CPU backend on so many threads, also as if graphs were large; or the kernels in such blocks."""
    kind, threads = request.param.split("-")
    if kind == "cuda":
        yield There(get_backend("cuda"))
    elif kind == "kernels":
        if COMPILER is None:
            pytest.skip("no C++ compiler: the CUDA kernels are not run here")
        if (
            int(threads) > 3
        ):  # threads of the host are slow: what two warps of a block do differently is seen soon
            some = networks()[:: 1 + len(networks()) // 6]
            monkeypatch.setattr(sys.modules[__name__], "networks", lambda: some)
        yield There(CudaBackend(HostRuntime(int(threads))))
    else:
        monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
        with as_large() if kind == "large" else nullcontext():
            yield CpuBackend()


def dense_net() -> MultipartiteGraph:
    """Cliques of many sizes, and enough nonzeros that work is spread over threads."""
    torch.manual_seed(0)
    model = DenseNet(growth=4, depth=5, channels=3)
    return mge_gpu.encode(model, (3, 4, 5), random_masks(model, 0.4))


def wide_net() -> MultipartiteGraph:
    """Thousands of nonzeros in a layer, strides, a pool that overlaps, a shortcut, a classifier."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 24, 3, 2, 1), nn.Conv2d(24, 24, 3, padding=1)
            self.c, self.d = nn.Conv2d(24, 24, 1), nn.Linear(24 * 4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.a(x))
            x = torch.max_pool2d(self.b(x) + self.c(x), 3, 2, 1)
            return self.d(x.flatten(1))

    torch.manual_seed(1)
    model = Wide()
    return mge_gpu.encode(model, (3, 8, 8), random_masks(model, 0.6))


def tokens_net() -> MultipartiteGraph:
    """Attention among all tokens (one is learned) and in windows, a gate, a global pool, a dense layer."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.first = nn.Conv2d(2, 6, 2, 2), nn.Parameter(torch.zeros(1, 1, 6))
            self.qkv, self.out = nn.Linear(6, 18), nn.Linear(6, 6)
            self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 6)
            self.local, self.squeeze = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 3, 1)
            self.gate, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 1)
            self.window, self.head = nn.Linear(5, 12), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.cat([self.first, self.patch(x).flatten(2).transpose(1, 2)], 1)
            q, k, v = self.qkv(x).reshape(1, 13, 3, 2, 3).permute(2, 0, 3, 1, 4)
            x = (torch.softmax(q @ k.transpose(-2, -1), -1) @ v).transpose(1, 2).reshape(1, 13, 6)
            x = self.down(torch.relu(self.up(self.out(x))))[:, 1:]
            x = self.local(x.transpose(1, 2).reshape(1, 6, 3, 4))
            gate = torch.sigmoid(self.gate(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
            x = self.last(x * gate)
            w = self.window(x.reshape(1, 5, 3, 2, 2).permute(0, 3, 2, 4, 1).reshape(2, 6, 5))
            q, k, v = w.split(4, -1)
            return self.head((torch.softmax(q @ k.transpose(-2, -1), -1) @ v).reshape(1, 12, 4))

    torch.manual_seed(2)
    model = Tokens()
    masks = random_masks(model, 0.4)
    del masks["up.weight"]  # all weights there: equal lists
    return mge_gpu.encode(model, (2, 6, 8), masks)


def mixer_net() -> MultipartiteGraph:
    """Layers that mix positions channel by channel, of a map and of tokens, beside ones that mix channels."""

    torch.manual_seed(3)
    model = Mixer(5, 12, 9, 12)
    graph = mge_gpu.encode(model, (2, 6, 8), random_masks(model, 0.4))
    assert any(b.view == CROSSED for _, _, b in graph.blocks)
    return graph


@cache
def networks() -> list[tuple[str, MultipartiteGraph]]:
    """Drawn networks and four of a kind each; drawn once for all primitives."""
    found = [
        ("DenseNet", dense_net()),
        ("Wide", wide_net()),
        ("Tokens", tokens_net()),
        ("Mixer", mixer_net()),
    ]

    @settings(max_examples=EXAMPLES, phases=[Phase.generate])
    @given(cases())
    def draw(case: Case) -> None:
        found.append((repr(case), encoded(case)))

    draw()
    assert len(found) >= EXAMPLES
    return found


def on_networks(check: Callable[[MultipartiteGraph], None]) -> None:
    """Run a check on all networks; a failure says on which."""
    for label, graph in networks():
        try:
            check(graph)
        except AssertionError as error:
            raise AssertionError(f"on the network\n{label}\n{error}") from error


def symmetric(graph: MultipartiteGraph) -> sp.csr_array:
    matrix = directed(graph)
    both = (matrix + matrix.T).tocsr()
    assert not both.nnz or both.max() == 1
    return both


@pytest.mark.parametrize("shape", [(0,), (1,), (70_001,), (3, 0), (3, 1_001), (2, 2, 5)])
def test_counts(shape: tuple[int, ...], backend: Any) -> None:
    flags = np.random.default_rng(0).random(shape) < 0.3
    found = np.asarray(backend.counts(flags))
    assert found.shape == shape[:-1] and found.tolist() == flags.sum(-1).tolist()


def test_degrees_and_edges(backend: Any) -> None:
    def check(graph: MultipartiteGraph) -> None:
        source, target, weight = edges_of(graph)
        indeg, outdeg = backend.degrees(graph.adjacency)
        assert indeg.dtype == outdeg.dtype == (np.int32 if backend.name == "cpu" else np.int64)
        assert indeg.tolist() == np.bincount(target, minlength=graph.num_nodes).tolist()
        assert outdeg.tolist() == np.bincount(source, minlength=graph.num_nodes).tolist()
        assert graph.num_edges == len(source) == len(np.unique(source * graph.num_nodes + target))
        blocks = [b for _, _, b in graph.blocks]
        assert backend.total_weight(blocks) == pytest.approx(weight.sum(dtype=np.float64), rel=1e-6)

    on_networks(check)


def test_edges_of_any_type(backend: Any) -> None:
    """Each edge once; weights of 16 bits are rounded after sums are formed."""

    def check(graph: MultipartiteGraph) -> None:
        blocks, (source, target, weight) = [b for _, _, b in graph.blocks], edges_of(graph)
        order = np.lexsort((source, target))
        for ids, floats in (
            (np.int64, np.float32),
            (np.int32, np.float32),
            (np.int64, np.float16),
            (np.int32, np.float16),
        ):
            whole = backend.coo(blocks, ids, floats)
            assert [x.dtype for x in whole] == [ids, ids, floats]
            again = np.lexsort((whole[0], whole[1]))
            assert np.array_equal(whole[0][again], source[order])
            assert np.array_equal(whole[1][again], target[order])
            spacing = np.spacing(weight[order].astype(floats)).astype(np.float64)
            assert (np.abs(whole[2][again] - weight[order].astype(np.float64)) <= 1.01 * spacing).all()

    on_networks(check)


def test_operator(backend: Any) -> None:
    """Each block applied forwards, backwards, or both, in any combination."""
    generator = np.random.default_rng(0)

    def check(graph: MultipartiteGraph) -> None:
        blocks = [b for _, _, b in graph.blocks]
        way = generator.integers(0, 4, len(blocks))
        forward = [b for b, w in zip(blocks, way, strict=True) if w & 1]
        backward = [b for b, w in zip(blocks, way, strict=True) if w & 2]
        x = generator.standard_normal(graph.num_nodes)
        expected, size = np.zeros((2, graph.num_nodes))
        for (s, t, block), w in zip(graph.blocks, way, strict=True):
            matrix = _matrix(backend, graph, block)
            u, v = matrix.nonzero()
            assert graph.in_partitions([s])[u].all() and graph.in_partitions([t])[v].all()
            for total, y in ((expected, x), (size, np.abs(x))):  # weights are positive
                total += (w & 1) * (matrix.T @ y) + (w & 2) / 2 * (matrix @ y)
        found = backend.operator(forward, backward)(x)
        assert (
            np.abs(found - expected) <= 1e-7 * (1 + size)
        ).all()  # sums of weights have 24 bits in the matrix

    on_networks(check)


@pytest.mark.parametrize("shared", [0, collect.SHARED])
def test_reach_and_between(shared: int, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks passed along the edges of a block, and the nonzeros that link two sets of marked nodes."""
    monkeypatch.setattr(collect, "SHARED", shared)
    generator = np.random.default_rng(0)

    def check(graph: MultipartiteGraph) -> None:
        for (_, _, block), share in zip(graph.blocks, generator.choice([0.02, 0.3, 0.9], 99), strict=False):
            x, y = generator.random((2, graph.num_nodes)) < share
            edges = [_pairs(block, k) for k in range(len(block.tap))]
            source, target = np.concatenate([np.zeros((2, 0), np.int64), *edges], 1)
            after, before = np.zeros((2, graph.num_nodes), bool)
            after[target[x[source]]], before[source[x[target]]] = True, True
            for found, expected in (
                (backend.reach(block, x.copy()), x | after),
                (backend.reach(block, x.copy(), True), x | before),
            ):
                assert found.dtype == bool and np.array_equal(found, expected)
            linked = [bool((x[s] & y[t]).any()) for s, t in edges]
            assert backend.between(block, x, y).tolist() == linked

    on_networks(check)


@pytest.mark.parametrize("shared", [0, collect.SHARED])
def test_power_sums(shared: int, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each term against the sum over all pairs of all nonzeros, both ways; twice with what is kept."""
    monkeypatch.setattr(collect, "SHARED", shared)
    generator = np.random.default_rng(0)
    terms = [(0, 1, 0), (1, 2, 1), (2, 2, 2), (1, 0, 2), (3, 1, 1)]

    def check(graph: MultipartiteGraph) -> None:
        for s, t, block in graph.blocks:
            near, far = graph.partitions[s], graph.partitions[t]
            edges = [_pairs(block, k) for k in range(len(block.tap))]
            source, target = np.concatenate([np.zeros((2, 0), np.int64), *edges], 1)
            weight = np.repeat(block.weight.astype(np.float64), [e.shape[1] for e in edges])
            ends = source - near.offset, target - far.offset
            prepared: dict[Any, Any] = {}
            for backward in (False, True, False):
                here, there = ends[::-1] if backward else ends
                x = generator.random((4, (far if backward else near).size))
                x[generator.integers(0, 4)] = 0
                size = (near if backward else far).size
                expected = np.zeros((3, size))
                for row, power, out in terms:
                    np.add.at(expected[out], there, weight**power * x[row, here])
                found = backend.power_sums(block, x, terms, size, backward, prepared=prepared)
                np.testing.assert_allclose(found, expected, rtol=1e-12)
            only = backend.power_sums(block, x[1:2], [(0, 2, 0)], far.size)
            expected = np.bincount(ends[1], weight**2 * x[1, ends[0]], far.size)
            np.testing.assert_allclose(only, expected[None], rtol=1e-12)

    on_networks(check)


def _pairs(b: Block, k: int) -> np.ndarray:
    """(2, pairs): sources and targets of one nonzero, run by run."""
    found = [np.zeros((2, 0), np.int64)]
    for t, s, n, dt, ds in b.runs[b.run_ptr[b.tap[k]] : b.run_ptr[b.tap[k] + 1]]:
        found.append(np.stack([s + np.arange(n) * ds, t + np.arange(n) * dt]))
    source = b.source_offset + b.source_channel[k] * b.source_channel_stride
    target = b.target_offset + b.target_channel[k] * b.target_channel_stride
    return np.concatenate(found, 1) + np.array([[source], [target]])


def _matrix(backend: Any, graph: MultipartiteGraph, block: Block) -> sp.csr_array:
    u, v, weight = backend.coo([block])
    return sp.csr_array((weight.astype(np.float64), (u, v)), shape=(graph.num_nodes, graph.num_nodes))


def test_hubs_are_those_of_nodes(backend: Any) -> None:
    """Each hub's neighbours lie in the partition at the other end; numbers that no node has lead nowhere."""

    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 1, 1, stride=(3, 2)), nn.Linear(6, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x.cumsum(-1)).flatten(1))

    def check(graph: MultipartiteGraph) -> None:
        g = graph.adjacency
        for h in np.flatnonzero(g.hub_list >= 0):
            arc, row = g.hub_arc[h], g.hub_list[h]
            q = g.arc_other[arc]
            span = g.span[g.span_ptr[arc] : g.span_ptr[arc + 1]].astype(np.int64)
            reached = g.hub_anchor[h] + span[:, None] + g.shifts[g.list_ptr[row] : g.list_ptr[row + 1]]
            assert ((g.offset[q] <= reached) & (reached < g.offset[q + 1])).all()

    on_networks(check)
    strided = mge_gpu.encode(Sums(), (2, 7, 4), pad_input=False)
    assert (strided.adjacency.hub_list < 0).any()
    check(strided)
    assert backend.neighbour_sums(strided.adjacency, np.ones(63, np.int64)).sum() == strided.num_edges


def test_neighbour_sums(backend: Any) -> None:
    generator = np.random.default_rng(0)

    def check(graph: MultipartiteGraph) -> None:
        whole = generator.integers(-(2**40), 2**40, graph.num_nodes)
        found = backend.neighbour_sums(graph.adjacency, whole)
        assert found.dtype == np.int64 and found.tolist() == (directed(graph) @ whole).tolist()
        real = generator.standard_normal(graph.num_nodes)
        np.testing.assert_allclose(
            backend.neighbour_sums(graph.adjacency, real), directed(graph) @ real, atol=1e-12
        )

    on_networks(check)


def test_components_and_parents(backend: Any) -> None:
    def check(graph: MultipartiteGraph) -> None:
        near = symmetric(graph)
        expected, label = connected_components(near, directed=False)
        count, parent = backend.components(graph.adjacency)
        assert count == expected == int((parent == -1).sum())
        child = np.flatnonzero(parent >= 0)
        assert len(np.unique(label[parent == -1])) == count
        assert set(zip(child.tolist(), parent[child].tolist(), strict=True)) <= set(
            zip(*near.nonzero(), strict=True)
        )
        level = _levels(parent)
        u, v = near.nonzero()  # of a BFS, no edge skips a level
        assert (np.abs(level[u] - level[v]) <= 1).all()
        assert (level[child] == level[parent[child]] + 1).all()

    on_networks(check)


def _levels(parent: np.ndarray) -> np.ndarray:
    """Steps from each node to its root; fails where the parents run in a circle."""
    level, at = np.zeros(len(parent), np.int64), np.arange(len(parent))
    for _ in range(len(parent)):
        moving = parent[at] >= 0
        if not moving.any():
            return level
        level += moving
        at = np.where(moving, parent[at], at)
    raise AssertionError("the parents hold a cycle")


def test_coreness(backend: Any) -> None:
    def check(graph: MultipartiteGraph) -> None:
        assert backend.coreness(graph.adjacency).tolist() == undirected(graph).coreness()

    on_networks(check)


def test_bridges_and_articulation_points(backend: Any) -> None:
    def check(graph: MultipartiteGraph) -> None:
        _, parent = backend.components(graph.adjacency)
        plain = undirected(graph)
        bridge, cut = backend.cut_marks(graph.adjacency, parent)
        assert bridge.dtype == cut.dtype == bool and len(bridge) == len(cut) == graph.num_nodes
        ends = [set(plain.es[e].tuple) for e in plain.bridges()]
        marked = np.flatnonzero(bridge).tolist()
        assert len(marked) == len(ends) and all(any(v in e for e in ends) for v in marked)
        assert np.flatnonzero(cut).tolist() == sorted(plain.articulation_points())

    on_networks(check)


def test_path_counts(backend: Any) -> None:
    """First and second steps, and one: fewer where nodes share neighbours, as many on all backends."""

    def check(graph: MultipartiteGraph) -> None:
        every, g = np.arange(graph.num_nodes), graph.adjacency
        shared = g.num_hubs > 0 or arc_kinds(g).whole.any()
        for one_way, matrix in ((True, directed(graph)), (False, symmetric(graph))):
            first = matrix @ np.ones(graph.num_nodes, np.int64)
            expected = 1 + first + matrix @ first
            found = backend.path_counts(graph.adjacency, every, one_way)
            if shared:
                assert (found >= 1).all() and (found[first > 0] > 1).all()
                assert found.tolist() == CpuBackend().path_counts(g, every, one_way).tolist()
            else:
                assert found.tolist() == expected.tolist()

    on_networks(check)


def test_two_hop_sizes_of_every_node(backend: Any) -> None:
    def check(graph: MultipartiteGraph) -> None:
        found = two_hop_sizes(backend, graph, np.arange(graph.num_nodes))
        source, target, _ = edges_of(graph)
        plain = graph.to_igraph()
        assert found.tolist() == plain.neighborhood_size(order=2, mode="out")

    on_networks(check)


def two_hop_sizes(backend: Any, graph: MultipartiteGraph, nodes: np.ndarray) -> np.ndarray:
    return backend.two_hop_sizes(graph.adjacency, nodes, backend.path_counts(graph.adjacency, nodes, True))


def local_counts(backend: Any, graph: MultipartiteGraph, nodes: np.ndarray) -> np.ndarray:
    """(R, 4): the wedge counts and the clique count."""
    cost = backend.path_counts(graph.adjacency, nodes, False)
    wedges = backend.wedge_counts(graph.adjacency, nodes, cost)
    return np.column_stack([wedges, backend.clique_counts(graph.adjacency, nodes, cost)])


@pytest.mark.parametrize("few", [0, local.FEW])
def test_squares_triangles_and_cliques_at_every_node(
    few: int, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU with counters for all nodes in its memory, and with a table of those that are met."""
    monkeypatch.setattr(local, "FEW", few)

    def check(graph: MultipartiteGraph) -> None:
        near = symmetric(graph).toarray()
        common = (near.astype(np.float64) @ near).astype(np.int64)  # integer products are slow
        pairs = common * (common - 1) // 2
        np.fill_diagonal(pairs, 0)
        on_edges = common * near
        expected = [pairs.sum(1), on_edges.sum(1), (on_edges * (on_edges - 1) // 2).sum(1)]
        cliques = Counter(v for four in undirected(graph).cliques(4, 4) for v in four)
        expected.append(np.array([6 * cliques[v] for v in range(graph.num_nodes)]))
        found = local_counts(backend, graph, np.arange(graph.num_nodes))
        assert found.tolist() == np.column_stack(expected).tolist()
        assert clique_partitions(graph.adjacency).any() or not cliques

    on_networks(check)


def test_wedges_of_nodes_that_meet_more_than_a_table_holds(backend: Any) -> None:
    """5,000 inputs of two outputs meet each other twice; and the other way round."""
    graph = mge_gpu.encode(nn.Linear(5000, 2), (5000,))
    nodes = np.array([7, 4999, 5000])
    inside, outside = [4999, 0, 0], [5000 * 4999 // 2, 0, 0]
    found = backend.wedge_counts(graph.adjacency, nodes, np.ones(3, np.int64))
    assert found.tolist() == [inside, inside, outside]


def test_some_nodes_in_any_order(backend: Any) -> None:
    """Counts do not depend on which nodes are asked for together."""
    graph = dense_net()
    nodes = np.arange(graph.num_nodes)
    every = local_counts(backend, graph, nodes), two_hop_sizes(backend, graph, nodes)
    some = np.random.default_rng(0).permutation(graph.num_nodes)[:37]
    assert (local_counts(backend, graph, some) == every[0][some]).all()
    assert (two_hop_sizes(backend, graph, some) == every[1][some]).all()
    none = some[:0]
    assert local_counts(backend, graph, none).shape == (0, 4)
    assert two_hop_sizes(backend, graph, none).shape == (0,)


def test_representatives_stand_for_all_nodes(backend: Any) -> None:
    """Multiplicities add up to N, and weigh the local counts as all nodes together have them."""

    on_networks(lambda graph: stand_for_all(backend, graph))


def test_representatives_whose_second_step_begins_in_an_irregular_partition(backend: Any) -> None:
    """A map and its mirror image: what the two share differs from position to position.

    They come from an input that another layer mixes position by position, so that nodes next to it stand
    for themselves, but not those after them.
    """

    class Mirror(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.last = nn.Linear(12, 12), nn.Conv1d(3, 2, 1)
            self.a, self.b = (nn.Conv1d(2, 3, 3, padding=1) for _ in range(2))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.last(self.a(x) * self.b(x).flip(-1)), self.mix(x)

    graph = mge_gpu.encode(Mirror(), (2, 12), pad_input=False)
    assert (graph.adjacency.arc_view == CROSSED).any()
    stand_for_all(backend, graph)


@pytest.mark.parametrize("view", [FLAT, CROSSED])
def test_representatives_near_what_is_seen_in_another_view_from_afar(view: int, backend: Any) -> None:
    """A map with a gate that reads the input by an index table, or across: pixels count for more or less."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.Conv1d(2, 2, 3, padding=1) for _ in range(2))
            self.gate = nn.Conv1d(2, 2, 3, padding=1) if view == FLAT else nn.Conv1d(40, 2, 1)
            self.last, self.order, self.kept = nn.Conv1d(2, 2, 1), torch.randperm(80), torch.rand(2, 40) < 0.5

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = (
                x.flatten(1)[:, self.order].reshape(x.shape) * self.kept
                if view == FLAT
                else x.transpose(1, 2)
            )
            return self.last(self.b(self.a(x) * self.gate(y).mean(-1, keepdim=True)))

    torch.manual_seed(0)
    model = Gated()
    model.gate.weight.data *= torch.rand_like(model.gate.weight) < 0.5
    graph = mge_gpu.encode(model, (2, 40), pad_input=False)
    assert (graph.adjacency.arc_view == view).any()
    stand_for_all(backend, graph)


def stand_for_all(backend: Any, graph: MultipartiteGraph) -> None:
    """Representatives have the local counts of all nodes, as often as these have them."""
    every = np.arange(graph.num_nodes)
    for one_way in (True, False):
        node, times = backend.representatives(graph.adjacency, one_way)
        assert times.sum() == graph.num_nodes and (times > 0).all()
        assert len(np.unique(node)) == len(node) and (len(node) == 0 or 0 <= node.min())
        count: Callable[[np.ndarray], np.ndarray]
        count = (
            (lambda v: two_hop_sizes(backend, graph, v)[:, None])
            if one_way
            else (lambda v: local_counts(backend, graph, v))
        )
        whole = Counter(map(tuple, np.column_stack([count(every), partition_of(graph, every)]).tolist()))
        weighed: Counter[tuple[int, ...]] = Counter()
        for row, m in zip(
            np.column_stack([count(node), partition_of(graph, node)]).tolist(), times, strict=True
        ):
            weighed[tuple(row)] += int(m)
        assert weighed == whole


def partition_of(graph: MultipartiteGraph, nodes: np.ndarray) -> np.ndarray:
    return np.searchsorted([p.offset for p in graph.partitions], nodes, side="right") - 1


def test_representatives_are_few_where_positions_repeat(backend: Any) -> None:
    """Two 3 x 3 convolutions on a 40 x 40 map: classes grow with the border, not with the map."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1))
    sizes = []
    for n in (20, 40):
        graph = mge_gpu.encode(model, (1, n, n), pad_input=False)
        sizes.append([len(backend.representatives(graph.adjacency, way)[0]) for way in (True, False)])
    assert sizes[0] == sizes[1] and max(sizes[0]) <= 5 * 9 * 9


def test_backend_of_a_device(backend: Any) -> None:
    assert get_backend("cpu").name == "cpu"
    names = [n for n in vars(Backend) if not n.startswith("_")]
    assert len(names) >= 12 and all(callable(getattr(backend, n)) for n in names)
    with pytest.raises(GraphError, match="got device 'xpu', expected 'cpu' or 'cuda'"):
        get_backend("xpu")


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: the CUDA kernels are not run here")
def test_the_suite_runs_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel but those of the primitives, and each of them in its turn."""
    runtime = HostRuntime()
    backend, graph = There(CudaBackend(runtime)), dense_net()
    g, n = graph.adjacency, graph.num_nodes
    nodes, blocks = np.arange(n), [b for _, _, b in graph.blocks]
    network = tokens_net()
    tokens, blocks_of_tokens = network.adjacency, [b for _, _, b in network.blocks]
    for dtype in (np.int64, np.float64):
        backend.neighbour_sums(g, np.ones(n, dtype))
    for pairs in (positions.MOST_PAIRS, 0):  # with tables and without
        monkeypatch.setattr(positions, "MOST_PAIRS", pairs)
        for single in (False, True):
            backend.operator(blocks, blocks, single)(np.ones(n))
            backend.operator(blocks_of_tokens, blocks_of_tokens, single)(np.ones(tokens.num_nodes))
    marks = np.ones(n, np.bool_)
    backend.reach(blocks[0], marks), backend.between(blocks[0], marks, marks)
    backend.power_sums(blocks[0], np.ones((1, n)), [(0, 1, 0)], n)
    backend.scaled_sum([np.ones((1, 1, 1, n))], [np.zeros((1, 1), np.int64)])
    _, parent = backend.components(g)
    backend.coreness(g), backend.cut_marks(g, parent), backend.coo(blocks), backend.coo(blocks, np.int32)
    backend.coo(blocks, np.int64, np.float16), backend.coo(blocks, np.int32, np.float16)
    local_counts(backend, graph, nodes), two_hop_sizes(backend, graph, nodes)
    monkeypatch.setattr(local, "FEW", 0)
    local_counts(backend, graph, nodes)
    every = np.arange(tokens.num_nodes)
    local_counts(backend, network, every), two_hop_sizes(backend, network, every)
    backend.neighbour_sums(tokens, np.ones(tokens.num_nodes, np.int64))
    backend.neighbour_sums(tokens, np.ones(tokens.num_nodes))
    backend.coreness(tokens)
    assert runtime.launched == {k for p in KERNELS.glob("*.cu") for k in kernels(p.stem)}
