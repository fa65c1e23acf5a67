"""Edges written down by the CUDA kernels, on the host or a GPU: at once, in pieces, by many threads."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mge_gpu
from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cpu import CpuBackend
from mge_gpu.backends.cuda import CudaBackend, coo, resident
from mge_gpu.backends.cuda.runtime import Runtime
from mge_gpu.graph import MultipartiteGraph
from tests.backends.test_conformance import networks
from tests.graphs import random_masks
from tests.kernels.host_runtime import COMPILER, HostRuntime

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: the CUDA kernels are not run here")


Runtimes = Callable[[int], Runtime]  # of so many threads a block


def blocks_of(graph: MultipartiteGraph) -> list[Block]:
    return [b for _, _, b in graph.blocks]


def in_order(edges: Any) -> list[np.ndarray]:
    """Edges sorted by target and source."""
    order = np.lexsort((edges[0], edges[1]))
    return [x[order] for x in edges]


def on_host(edges: Any, ids: Any = np.int64, floats: Any = np.float32) -> list[np.ndarray]:
    assert [x.dtype for x in edges] == [ids, ids, floats]
    return [x.get() for x in edges]


def assert_equal(found: Any, blocks: list[Block]) -> None:
    """The very edges of the CPU backend; their weights, too, but for the order of a sum."""
    expected, given = in_order(CpuBackend().coo(blocks)), in_order(found)
    assert given[0].tolist() == expected[0].tolist() and given[1].tolist() == expected[1].tolist()
    np.testing.assert_allclose(given[2], expected[2], rtol=1e-6)


def assert_halves(found: Any, blocks: list[Block]) -> None:
    """The same edges with weights rounded to float16, after sums are formed."""
    expected, given = in_order(CpuBackend().coo(blocks)), in_order(found)
    assert given[0].tolist() == expected[0].tolist() and given[1].tolist() == expected[1].tolist()
    near = np.abs(given[2].astype(np.float64) - expected[2]) <= np.spacing(given[2]).astype(np.float64) * 0.51
    assert near.all()


@pytest.mark.parametrize("threads", [1, 3, 64])
def test_all_blocks_at_once(threads: int, runtime_of: Runtimes) -> None:
    backend = CudaBackend(runtime_of(threads))
    for _, graph in networks()[: 9 if threads == 64 else None]:
        blocks = blocks_of(graph)
        for ids in (np.int64, np.int32):
            assert_equal(on_host(backend.coo(blocks, ids), ids), blocks)
            assert_halves(on_host(backend.coo(blocks, ids, np.float16), ids, np.float16), blocks)


@pytest.mark.parametrize("limit", [1, 7, 64, 1001])
def test_pieces(limit: int, runtime_of: Runtimes) -> None:
    """Cut anywhere: amid the pairs of a nonzero, of a run, at odd numbers of edges."""
    backend = CudaBackend(runtime_of(2))
    for _, graph in networks()[3:11] + networks()[:3]:
        blocks = blocks_of(graph)
        if limit == 1 and graph.num_edges > 2000:
            continue
        ids, floats = (np.int32, np.float32) if limit % 2 else (np.int64, np.float16)
        check = assert_halves if floats is np.float16 else assert_equal
        pieces = [on_host(p, ids, floats) for p in backend.coo_chunks(blocks, limit, ids, floats)]
        assert all(0 < len(p[0]) <= limit for p in pieces)
        if pieces:
            check([np.concatenate([p[k] for p in pieces]) for k in range(3)], blocks)


@pytest.mark.parametrize("limits", [(1, 1), (300, 40)])
def test_some_blocks_at_a_time(
    limits: tuple[int, int], runtime_of: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coo, "TOGETHER", limits[0])
    monkeypatch.setattr(resident, "JOINED", limits[1])
    backend = CudaBackend(runtime_of(2))
    for _, graph in networks()[:8]:
        blocks = blocks_of(graph)
        assert_equal(on_host(backend.coo(blocks)), blocks)


class Pooled(nn.Module):
    """Blocks in which nonzeros meet beside blocks in which none do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
        self.c, self.d = nn.Conv2d(4, 3, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(self.a(x), 3, 1, 1)
        x = torch.nn.functional.adaptive_avg_pool2d(self.b(x) + self.c(x), 1)
        return self.d(x)


def with_idle_tap(b: Block) -> Block:
    """The block with a tap in front that pairs nothing, which some of its nonzeros have."""
    tap = np.where(np.arange(len(b.tap)) % 5 < 2, 0, b.tap + 1).astype(np.int32)
    return b._replace(tap=tap, run_ptr=np.r_[0, b.run_ptr], pair_count=np.r_[0, b.pair_count])


def test_nonzeros_that_meet_and_taps_that_pair_nothing(runtime_of: Runtimes) -> None:
    torch.manual_seed(0)
    model = Pooled()
    blocks = blocks_of(mge_gpu.encode(model, (2, 5, 6), random_masks(model, 0.3)))
    assert {b.overlaps for b in blocks} == {True, False}
    columns = ("target_channel", "source_channel", "tap", "weight")
    without = blocks[0]._replace(**{name: getattr(blocks[0], name)[:0] for name in columns})
    blocks = [with_idle_tap(b) for b in blocks] + [without]
    for threads in (1, 32):
        backend = CudaBackend(runtime_of(threads))
        assert_equal(on_host(backend.coo(blocks)), blocks)
        assert [len(x) for x in backend.coo([])] == [0, 0, 0]
        assert list(backend.coo_chunks([], 10)) == []


def test_more_than_four_billion_edges(runtime_of: Runtimes) -> None:
    """Eleven nonzeros whose tap has 2^9 runs of 2^20 pairs: only the ends of their pairs are written down."""
    runs, length, nonzeros = 1 << 9, 1 << 20, 11
    at, none = np.arange(runs), np.zeros(nonzeros, np.int32)
    block = Block(
        0, 10**9, 2, 50, 1, runs, np.arange(nonzeros, dtype=np.int32), none + 1, none,
        np.arange(nonzeros, dtype=np.float32), np.array([0, runs]),
        np.stack([at, 3 * at, length + 0 * at, 0 * at, 1 + 0 * at], 1), np.array([runs * length]), False,
    )  # fmt: skip
    filler = coo.Filler(runtime_of(4), [block])
    assert filler.size == nonzeros * runs * length > 1 << 32
    for first in (0, runs * length - 7, (1 << 32) - 9, 10 * runs * length - 1, filler.size - 3000):
        e = np.arange(first, first + 3000)
        k, run, j = e // (runs * length), e // length % runs, e % length
        found = on_host(filler.made(first, first + 3000))
        for x, expected in zip(found, (2 + 3 * run + j, 10**9 + 50 * k + run, k), strict=True):
            assert x.tolist() == expected.tolist()


class Counting(HostRuntime):
    """Counts what costs microseconds on a GPU: functions called, launches, slices."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        counted, inner = self, self.xp

        class Counted:
            ndarray = inner.ndarray

            def __getattr__(self, name: str) -> Callable[..., Any]:
                counted.operations += 1
                return getattr(inner, name)

        self.xp = Counted()

    def launch(self, source: str, kernel: str, blocks: int, *args: Any) -> None:
        """Count it and run it."""
        self.operations += 1
        super().launch(source, kernel, blocks, *args)


def test_operations_do_not_grow_with_the_layers() -> None:
    found = []
    for layers in (3, 12):
        model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(layers)))
        blocks = blocks_of(mge_gpu.encode(model, (3, 5, 4), random_masks(model, 0.3)))
        assert len(blocks) == layers
        runtime = Counting()
        assert_equal(on_host(CudaBackend(runtime).coo(blocks)), blocks)
        found.append(runtime.operations)
    assert found[0] == found[1] < 20


def test_nonzeros_stay_on_the_device_while_their_graph_lives() -> None:
    def network(seed: int) -> list[Block]:
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3))
        return blocks_of(mge_gpu.encode(model, (2, 7, 6), random_masks(model, 0.3, seed)))

    runtime, blocks, others = Counting(), network(0), network(1)
    backend = CudaBackend(runtime)
    first = on_host(backend.coo(blocks))
    made = runtime.operations
    assert [x.tolist() for x in on_host(backend.coo(blocks))] == [x.tolist() for x in first]
    assert runtime.operations - made <= 5  # three arrays, a kernel
    assert_equal(on_host(backend.coo(others)), others)
    assert_equal(on_host(backend.coo(blocks)), blocks)
    moved = [b._replace(source_offset=b.source_offset + 1) for b in blocks]
    assert_equal(on_host(backend.coo(moved)), moved)
    held = weakref.ref(backend._kept._filler)
    del blocks, moved
    gc.collect()
    assert held() is None
