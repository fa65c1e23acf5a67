"""When the GPU's memory is short: the same results, a warning, nothing kept; the kernels run on the host."""

import gc
import warnings
import weakref
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn

import mge_gpu
from mge_gpu.backends.cpu import CpuBackend
from mge_gpu.backends.cuda import CudaBackend
from mge_gpu.backends.cuda import coo as coo_module
from mge_gpu.backends.cuda.shortage import GpuMemoryWarning, Outcome, attempt
from mge_gpu.errors import NotEnoughMemoryError
from mge_gpu.metrics.base import METRICS, Measured, Workspace
from tests.graphs import DenseNet, random_masks
from tests.kernels.host_runtime import COMPILER, HostRuntime

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: the CUDA kernels are not run here")


class ShortRuntime(HostRuntime):
    """Memory is short at the first launches of some kernels (-1: at each); counts what was given back."""

    def __init__(self, short: dict[str, int]) -> None:
        super().__init__()
        self.short, self.released = dict(short), 0

    def run(self, source: str, kernel: str, blocks: int, *args: Any) -> None:
        """Run a kernel, or raise what torch's allocator raises."""
        if left := self.short.get(kernel, 0):
            self.short[kernel] = left - 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        super().run(source, kernel, blocks, *args)

    def release(self) -> None:
        """Count it."""
        self.released += 1


@pytest.fixture(autouse=True)
def scratch_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wedge is counted in a multiprocessor's own memory, of which nothing can be short."""
    monkeypatch.setattr("mge_gpu.backends.cuda.local.FEW", 0)


@pytest.fixture(scope="module")
def graph() -> mge_gpu.MultipartiteGraph:
    """A network with 4-cliques, so that no primitive is idle."""
    torch.manual_seed(0)
    model = DenseNet(growth=4, depth=4, channels=3)
    return mge_gpu.encode(model, (3, 4, 5), random_masks(model, 0.5))


def host(backend: CudaBackend, x: Any) -> Any:
    """What is on the device as NumPy arrays; everything else as it is."""
    if isinstance(x, tuple):
        return tuple(host(backend, y) for y in x)
    return backend.host(x) if isinstance(x, backend.xp.ndarray) else x


def values(backend: Any, graph: mge_gpu.MultipartiteGraph, primitive: str) -> Any:
    """One primitive's result, on the host."""
    adjacency, nodes = graph.adjacency, np.arange(graph.num_nodes)
    given: dict[str, Any] = {
        "path_counts": (nodes, False),
        "two_hop_sizes": (nodes, np.ones(len(nodes), np.int64)),
        "wedge_counts": (nodes, np.ones(len(nodes), np.int64)),
        "clique_counts": (nodes, np.ones(len(nodes), np.int64)),
    }
    if primitive == "neighbour_sums":
        x = np.arange(graph.num_nodes, dtype=np.int64)
        return (
            host(backend, backend.neighbour_sums(adjacency, backend.xp.asarray(x)))
            if isinstance(backend, CudaBackend)
            else backend.neighbour_sums(adjacency, x)
        )
    found = getattr(backend, primitive)(adjacency, *given.get(primitive, ()))
    if primitive == "components":
        found = found[0]  # the forests differ
    return host(backend, found) if isinstance(backend, CudaBackend) else found


PRIMITIVES = {
    "degrees": "degrees",
    "neighbour_sums": "neighbour_sums_i64",
    "coreness": "peel",
    "components": "hook",
    "path_counts": "path_counts",
    "two_hop_sizes": "two_hop_sizes",
    "wedge_counts": "wedge_counts",
    "clique_counts": "clique_counts",
}


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_a_shortage_that_passes_changes_nothing(graph: Any, primitive: str) -> None:
    runtime = ShortRuntime({PRIMITIVES[primitive]: 1})
    found = values(CudaBackend(runtime), graph, primitive)
    np.testing.assert_equal(found, values(CpuBackend(), graph, primitive))
    assert runtime.released and runtime.short[PRIMITIVES[primitive]] == 0


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_where_it_never_fits_the_cpu_does_it_and_says_so(graph: Any, primitive: str) -> None:
    backend = CudaBackend(ShortRuntime({PRIMITIVES[primitive]: -1}))
    with pytest.warns(GpuMemoryWarning, match=f"too short for {primitive}: it is computed on the CPU"):
        found = values(backend, graph, primitive)
    np.testing.assert_equal(found, values(CpuBackend(), graph, primitive))


@pytest.mark.parametrize("kernel, failures", [("gather_f64", 1), ("gather_f64", -1)])
def test_products(graph: Any, kernel: str, failures: int) -> None:
    backend = CudaBackend(ShortRuntime({kernel: failures}))
    blocks = [block for _, _, block in graph.blocks]
    x = np.random.default_rng(0).normal(size=graph.num_nodes)
    prepared: dict[Any, Any] = {}
    product = backend.operator(blocks, blocks, prepared=prepared)
    with pytest.warns(GpuMemoryWarning, match="operator"):
        first = backend.host(product(backend.xp.asarray(x)))
    again = backend.host(product(backend.xp.asarray(x), backend.xp.empty(len(x), np.float64)))
    expected = CpuBackend().operator(blocks, blocks)(x)
    np.testing.assert_allclose(first, expected, rtol=1e-12)
    np.testing.assert_allclose(again, expected, rtol=1e-12)
    assert "on the CPU" in product.how and not prepared


def test_weights_that_do_not_fit(graph: Any) -> None:
    backend = CudaBackend(ShortRuntime({"entries": -1}))
    blocks = [block for _, _, block in graph.blocks]
    x, prepared = np.random.default_rng(0).normal(size=graph.num_nodes), dict[Any, Any]()
    with pytest.warns(GpuMemoryWarning, match="operator"):
        product = backend.operator(blocks, blocks, prepared=prepared)
    found = backend.host(product(backend.xp.asarray(x), backend.xp.empty(len(x), np.float64)))
    np.testing.assert_allclose(found, CpuBackend().operator(blocks, blocks)(x), rtol=1e-12)
    assert not prepared


@pytest.mark.parametrize("failures", [1, -1])
def test_what_is_kept_of_blocks_is_given_back(graph: Any, failures: int) -> None:
    backend = CudaBackend(ShortRuntime({"power_sums": failures}))
    (s, t, block), *others = graph.blocks
    x = np.random.default_rng(0).random((1, graph.partitions[s].size))
    marks, size = backend.xp.asarray(np.ones(graph.num_nodes, np.bool_)), graph.partitions[t].size
    prepared: dict[Any, Any] = {}
    for _, _, other in others:
        backend.reach(other, marks, prepared=prepared)
    kept = {key for key in prepared if isinstance(key, int)}  # beside what is known of them
    assert len(kept) == len(others) > 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = backend.power_sums(block, backend.xp.asarray(x), [(0, 2, 0)], size, prepared=prepared)
    blocks = {key for key in prepared if isinstance(key, int)}  # beside what is known of them
    assert blocks == ({id(block)} if failures == 1 else set())
    assert any("short for power_sums" in str(w.message) for w in caught) == (failures == -1)
    expected = CpuBackend().power_sums(block, x, [(0, 2, 0)], size)
    np.testing.assert_allclose(backend.host(found), expected, rtol=1e-12)


def test_a_sort_that_memory_is_short_for(graph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy raises the interpreter's own error there."""
    runtime = HostRuntime()
    blocks = [block for _, _, block in graph.blocks]
    short = Mock(side_effect=MemoryError("std::bad_alloc"))
    monkeypatch.setattr(runtime.xp, "argsort", short, raising=False)
    x = np.random.default_rng(0).normal(size=graph.num_nodes)
    with pytest.warns(GpuMemoryWarning, match="operator"):
        found = CudaBackend(runtime).operator(blocks, blocks)(runtime.xp.asarray(x))
    assert short.call_count == 1
    np.testing.assert_allclose(found.get(), CpuBackend().operator(blocks, blocks)(x), rtol=1e-12)


@pytest.mark.parametrize("failures", [1, 2])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_what_a_metric_keeps_between_primitives(
    error: type[Exception], failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bases of eigenvectors, say: once more with all that is free, then on the CPU, and that is said."""
    backend = CudaBackend(HostRuntime())
    monkeypatch.setattr("mge_gpu.backends._cuda_backend", lambda index: backend)
    gap, seen = METRICS["spectral_gap"], []

    def short(w: Workspace) -> Measured:
        found = gap(w)
        seen.append((w.backend.name, w.prepared))
        if len(seen) <= failures:
            assert w.prepared and w.operators
            raise error("out of memory")
        return found

    monkeypatch.setitem(METRICS, "spectral_gap", short)
    model = DenseNet(growth=2, depth=3)
    keys = ["components", "spectral_gap", "k_core"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = mge_gpu.topometrics(model, (2, 4, 5), keys, device="cuda")
    texts = [str(w.message) for w in caught if w.category is GpuMemoryWarning]
    on_host = ["the GPU's memory is too short for spectral_gap: it is computed on the CPU"]
    assert texts == (on_host if failures == 2 else [])
    assert [name for name, _ in seen] == ["cuda", "cuda", "cpu"][: failures + 1]
    monkeypatch.setitem(METRICS, "spectral_gap", gap)
    expected = mge_gpu.topometrics(model, (2, 4, 5), keys)
    assert dict(found) == pytest.approx(dict(expected), rel=1e-6)


def test_edges_come_in_smaller_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coo_module, "FEWEST", 8)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(3, 1, 1), nn.Conv2d(4, 3, 3, padding=1))
    blocks = [b for _, _, b in mge_gpu.encode(model, (2, 6, 6), random_masks(model, 0.5)).blocks]
    assert {b.overlaps for b in blocks} == {True, False}
    backend = CudaBackend(ShortRuntime({"fill_i64_f32": 2}))
    expected = sorted(zip(*(a.tolist() for a in CpuBackend().coo(blocks)), strict=True))
    pieces = [host(backend, piece) for piece in backend.coo_chunks(blocks, 200)]
    found = sorted(edge for piece in pieces for edge in zip(*(a.tolist() for a in piece), strict=True))
    assert backend.runtime.short["fill_i64_f32"] == 0
    assert [e[:2] for e in found] == [e[:2] for e in expected]
    np.testing.assert_allclose([e[2] for e in found], [e[2] for e in expected], rtol=1e-6)


def test_all_edges_at_once_are_refused_with_the_way_out(graph: Any) -> None:
    backend = CudaBackend(ShortRuntime({"fill_i64_f32": -1}))
    with pytest.raises(NotEnoughMemoryError, match=r"coo\(chunks=True\)"):
        backend.coo([block for _, _, block in graph.blocks])


def test_what_failed_holds_nothing() -> None:
    class Big:
        pass

    kept: list[Any] = []

    def work() -> None:
        big = Big()
        kept.append(weakref.ref(big))
        raise torch.OutOfMemoryError("CUDA out of memory")

    class Runtime(ShortRuntime):
        def release(self) -> None:
            gc.collect()
            kept.append(kept[0]())

    assert attempt(Runtime({}), work) is Outcome.SHORT
    assert kept[1] is None


def test_other_errors_pass_through(graph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = CudaBackend(HostRuntime())
    monkeypatch.setattr(backend.runtime, "launch", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backend.degrees(graph.adjacency)
