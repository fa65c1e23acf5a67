"""Products: whole teams of threads, dense ones, blocks without tables, what operators share."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mge_gpu
from mge_gpu.backends.adjacency import FLAT, Block
from mge_gpu.backends.cpu import CpuBackend
from mge_gpu.backends.cuda import CudaBackend, collect, dense, positions
from mge_gpu.backends.cuda.gather import planned
from mge_gpu.graph import MultipartiteGraph
from mge_gpu.graph.union import union
from tests.backends.test_conformance import networks, tokens_net
from tests.backends.test_coo import Counting, Pooled, Runtimes, blocks_of, with_idle_tap
from tests.graphs import random_masks
from tests.kernels.host_runtime import COMPILER, HostRuntime

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: the CUDA kernels are not run here")


def matrix_product(blocks: list[Block], x: np.ndarray, ahead: bool) -> np.ndarray:
    """A^T x (``ahead``) or A x from the edges written down."""
    source, target, weight = CpuBackend().coo(blocks)
    near, far = (source, target) if ahead else (target, source)
    out = np.zeros(len(x))
    np.add.at(out, far, weight.astype(np.float64) * x[near])
    return out


def assert_products(
    backend: CudaBackend, blocks: list[Block], nodes: int, prepared: Any = None, single: bool = False
) -> None:
    """Forwards, backwards, both, and some blocks in each direction."""
    x = np.random.default_rng(0).standard_normal(nodes)
    expected = {b: [matrix_product([block], x, b) for block in blocks] for b in (True, False)}
    for forward, backward in (
        (range(len(blocks)), []),
        ([], range(len(blocks))),
        (range(len(blocks)), range(len(blocks))),
        (range(0, len(blocks), 2), range(1, len(blocks), 2)),
    ):
        apply = backend.operator(
            [blocks[k] for k in forward], [blocks[k] for k in backward], single, prepared
        )
        given = backend.xp.asarray(x)
        found = backend.host(apply(given))
        used = backend.xp.full(nodes, np.nan, np.float64)  # another precision where ``single``
        again = backend.host(apply(given, used))
        assert single or backend.host(used).tolist() == again.tolist()
        wanted = sum((expected[True][k] for k in forward), np.zeros(nodes))
        wanted = sum((expected[False][k] for k in backward), wanted)
        tolerance = (1e-4 if single else 1e-6) * max(np.abs(wanted).max(initial=0), 1)
        for product in (found, again):
            np.testing.assert_allclose(product, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("pairs", [positions.MOST_PAIRS, 0])
def test_weights_below_the_normal_range_are_weights(
    pairs: int, runtime_of: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gathered and by atomic additions, in sums of powers, and where several make one edge."""
    monkeypatch.setattr(positions, "MOST_PAIRS", pairs)
    layer = nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(1, 2, 2, bias=False))
    with torch.no_grad():
        layer[1].weight.copy_(torch.arange(1, 9).reshape(2, 1, 2, 2) * 1e-40)
    graph, backend = mge_gpu.encode(layer, (1, 7, 7)), CudaBackend(runtime_of(1))
    blocks, x = [b for _, _, b in graph.blocks], np.ones(graph.num_nodes)
    assert any(b.overlaps for b in blocks)
    here, there = CpuBackend(), backend.xp.asarray(x)
    expected = here.operator(blocks, blocks)(x)
    np.testing.assert_allclose(backend.host(backend.operator(blocks, blocks)(there)), expected, rtol=1e-12)
    sizes = [p.size for p in graph.partitions]
    given = blocks[0], np.ones((1, sizes[0])), [(0, 1, 0), (0, 2, 1)], sizes[1]
    found = backend.power_sums(given[0], backend.xp.asarray(given[1]), *given[2:])
    np.testing.assert_allclose(backend.host(found), here.power_sums(*given), rtol=1e-12)
    assert (expected > 0).any() and here.power_sums(*given)[0].max() > 0
    (_, _, one), (_, _, other) = backend.coo(blocks), here.coo(blocks)
    assert np.array_equal(np.sort(backend.host(one)), np.sort(other)) and 0 < other.max() < 1e-38


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("threads", [1, 3, 32])
def test_drawn_networks(threads: int, single: bool, runtime_of: Runtimes) -> None:
    backend = CudaBackend(runtime_of(threads))
    for _, graph in networks()[: 8 if threads == 32 else 20]:
        assert_products(backend, blocks_of(graph), graph.num_nodes, {}, single)


class Shapes(nn.Module):
    """Strides, dilation, groups, a transposed convolution, pools that overlap, tokens, a table of indices."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)
        self.c, self.d = nn.ConvTranspose2d(4, 3, 3, stride=2), nn.Conv2d(3, 6, 3, padding=1)
        self.tokens, self.table = nn.Linear(6, 5), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.d(torch.max_pool2d(self.c(self.b(self.a(x))), 3, 2))
        x = self.tokens(x.flatten(2).transpose(1, 2))
        return self.table(x.flatten(1).t().reshape(-1, 8))


def shapes() -> MultipartiteGraph:
    torch.manual_seed(0)
    model = Shapes()
    graph = mge_gpu.encode(model, (2, 8, 8), random_masks(model, 0.3))
    assert any(b.view == FLAT for b in blocks_of(graph)) and any(b.overlaps for b in blocks_of(graph))
    return graph


@pytest.mark.parametrize("threads", [1, 7, 48])
def test_every_kind_of_layer(threads: int, runtime_of: Runtimes) -> None:
    graph = shapes()
    blocks = [with_idle_tap(b) for b in blocks_of(graph)]
    columns = ("target_channel", "source_channel", "tap", "weight")
    first = blocks[0]
    blocks.append(first._replace(**{name: getattr(first, name)[:0] for name in columns}))
    few = (first.target_channel < 2) & (
        first.source_channel < 1
    )  # fewer channels than others that lead there
    blocks.append(first._replace(**{name: getattr(first, name)[few] for name in columns}))
    backend, prepared = CudaBackend(runtime_of(threads)), dict[Any, Any]()
    assert_products(backend, blocks, graph.num_nodes, prepared)
    assert_products(backend, blocks, graph.num_nodes, prepared)


def test_many_masks_together(runtime_of: Runtimes) -> None:
    model = Pooled()
    program = mge_gpu.trace(model, (2, 6, 7))
    together = union(
        [mge_gpu.encode(program, masks=random_masks(model, s, 1)) for s in (0.9, 0.0, 0.5)]
    ).graph
    assert_products(CudaBackend(runtime_of(5)), blocks_of(together), together.num_nodes)


@pytest.mark.parametrize("limits", [(0, 1, 1 << 23), (1 << 16, 8, 50), (0, 0, 1 << 23)])
def test_blocks_without_a_table_are_added_atomically(
    limits: tuple[int, int, int], runtime_of: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, limit in zip(("SMALL", "PADDING", "MOST_PAIRS"), limits, strict=True):
        monkeypatch.setattr(positions, name, limit)
    runtime, graph = runtime_of(2), shapes()
    assert_products(CudaBackend(runtime), blocks_of(graph), graph.num_nodes, {})
    if isinstance(runtime, HostRuntime):
        assert "product_f64" in runtime.launched and ("gather_f64" in runtime.launched) == any(limits[:2])


@pytest.fixture
def leading_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where cuBLASLt refuses a matrix that the CPU takes: a row that begins before the last one ends."""
    product = torch.Tensor.addmm_

    def checked(*matrices: torch.Tensor) -> torch.Tensor:
        for matrix in matrices:
            by_row = matrix.stride(1) == 1 and matrix.stride(0) >= max(matrix.shape[1], 1)
            by_column = matrix.stride(0) == 1 and matrix.stride(1) >= max(matrix.shape[0], 1)
            assert by_row or by_column, (matrix.shape, matrix.stride())
        return product(*matrices)

    monkeypatch.setattr(torch.Tensor, "addmm_", checked)


@pytest.mark.usefixtures("leading_dimensions")
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("largest", [1 << 28, 200])
def test_dense_products(
    largest: int, single: bool, runtime_of: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All blocks that have a table, or every second one; Z at once or a few positions at a time."""
    monkeypatch.setattr(dense, "pays", lambda leg, itemsize: True)
    monkeypatch.setattr(dense, "LARGEST", largest)
    backend = CudaBackend(runtime_of(3))
    for _, graph in networks():
        assert_products(backend, blocks_of(graph), graph.num_nodes, {}, single)
    graph = shapes()
    blocks = [with_idle_tap(b) for b in blocks_of(graph)]
    assert "dense products" in backend.operator(blocks, blocks, single).how
    assert_products(backend, blocks, graph.num_nodes, {}, single)
    halves = iter(range(1000))
    monkeypatch.setattr(dense, "pays", lambda leg, itemsize: next(halves) % 2 == 0)
    assert_products(backend, blocks, graph.num_nodes, None, single)


@pytest.mark.usefixtures("leading_dimensions")
@pytest.mark.parametrize("engine, single", [("sparse", False), ("dense", True)])
@pytest.mark.parametrize("shared, deep", [(0, 1), (0, 1 << 20), (2, 4), (1 << 40, 1)])
def test_sums_that_come_before_the_weights(
    shared: int, deep: int, engine: str, single: bool, runtime_of: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of pools, of all tokens, of tables of indices: always, where several weights share them, never."""
    monkeypatch.setattr(collect, "SHARED", shared)
    monkeypatch.setattr(collect, "DEEP", deep)
    monkeypatch.setattr(dense, "pays", lambda leg, itemsize: engine == "dense")
    for threads, graph in ((3, tokens_net()), (5, shapes()), *((3, graph) for _, graph in networks()[4:8])):
        blocks = [with_idle_tap(b) for b in blocks_of(graph)]
        backend = CudaBackend(runtime_of(threads))
        assert_products(backend, blocks, graph.num_nodes, {}, single)
        legs = [leg for g in planned(blocks, blocks, 4, {}).groups for leg in g.legs]
        if shared == 0 and engine == "sparse":
            assert all(leg.geometry.taps.single for leg in legs)


def test_attention_reads_each_token_once_for_all_weights(
    runtime_of: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is added up does not grow with weights times tokens squared."""
    monkeypatch.setattr(collect, "DEEP", 20)
    monkeypatch.setattr(collect, "LANES", 4)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inputs, self.outputs = nn.Linear(16, 48), nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.inputs(x).reshape(1, 20, 3, 2, 8).permute(2, 0, 3, 1, 4)
            return self.outputs((torch.softmax(q @ k.transpose(-2, -1), -1) @ v).transpose(1, 2).flatten(2))

    graph = mge_gpu.encode(Attention(), (20, 16))
    blocks = blocks_of(graph)
    plan = planned(blocks, blocks, 4, {}, "sparse")
    sums = sum(leg.edges for g in plan.groups for leg in g.legs)
    assert not plan.atomic and sums < 2 * graph.num_edges / 7
    assert_products(CudaBackend(runtime_of(9)), blocks, graph.num_nodes)


def test_what_keeps_most_of_its_weights_is_dense() -> None:
    """By its size and density; not what is sparse, small, in many groups, or would be too large."""

    def chosen(layer: nn.Module, shape: tuple[int, ...], sparsity: float) -> int:
        graph = mge_gpu.encode(layer, shape, random_masks(layer, sparsity))
        blocks = blocks_of(graph)
        return len(planned(blocks, blocks, 4, {}).dense)

    wide = nn.Conv2d(256, 256, 3, padding=1)
    assert [chosen(wide, (256, 14, 14), s) for s in (0.0, 0.5, 0.99)] == [2, 2, 0]
    assert chosen(nn.Conv2d(8, 8, 3), (8, 9, 9), 0.0) == 0
    assert chosen(nn.Conv2d(256, 256, 3, groups=64), (256, 14, 14), 0.0) == 0


def test_sums_are_the_same_each_time() -> None:
    """Whatever the order in which blocks of threads run."""
    graph = shapes()
    blocks, x = blocks_of(graph), np.random.default_rng(1).standard_normal(graph.num_nodes)
    found = []
    for seed in range(3):
        backend = CudaBackend(HostRuntime(8, seed=seed))
        found.append(backend.host(backend.operator(blocks, blocks)(backend.xp.asarray(x))))
    assert found[0].tolist() == found[1].tolist() == found[2].tolist()


def test_launches_do_not_grow_with_the_layers_and_weights_are_shared() -> None:
    found = []
    for layers in (3, 12):
        model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(layers)))
        graph = mge_gpu.encode(model, (3, 5, 4), random_masks(model, 0.3), pad_input=False)
        blocks, runtime, prepared = blocks_of(graph), Counting(), dict[Any, Any]()
        backend = CudaBackend(runtime)
        apply = backend.operator(blocks, blocks, prepared=prepared)
        made = runtime.operations
        x = np.ones(graph.num_nodes)
        there = runtime.xp.asarray(x)
        apply(there)
        after = runtime.operations
        assert after - made <= 4  # one of them is the asarray above
        backend.operator(blocks[1:], blocks[:-1], prepared=prepared)
        found.append((made, after, runtime.operations))
        assert runtime.operations - after <= 2
    assert found[0] == found[1] and found[0][0] <= 30
