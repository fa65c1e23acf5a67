"""Edges in chunks: those of `coo`, each once, in pieces; and refusals for lack of memory."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mge_gpu
from mge_gpu._memory import available_memory
from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cpu import coo
from mge_gpu.errors import GraphError, MGEError
from mge_gpu.graph import MultipartiteGraph
from mge_gpu.graph.convert import PEAK_BYTES
from tests.graphs import DenseNet, encoded, random_masks
from tests.oracles.networks import Case
from tests.oracles.strategies import cases


def assert_chunks_hold_the_edges(graph: MultipartiteGraph, limit: int) -> None:
    """Sorted by edge, the chunks are bitwise what `coo` gives."""
    chunks = list(graph.coo(chunks=limit))
    assert all(0 < len(source) == len(target) == len(weight) <= limit for source, target, weight in chunks)
    whole = graph.coo()
    parts = [torch.cat(column) for column in zip(*chunks, strict=True)] if chunks else [x[:0] for x in whole]
    assert [x.dtype for x in parts] == [x.dtype for x in whole] == [torch.int64, torch.int64, torch.float32]
    left, right = (
        [x.numpy()[np.lexsort((edges[0].numpy(), edges[1].numpy()))] for x in edges]
        for edges in (whole, parts)
    )
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)
    pairs = set(zip(left[0].tolist(), left[1].tolist(), strict=True))
    assert len(pairs) == len(left[0]) == graph.num_edges, "an edge comes twice"


@settings(max_examples=30)
@given(cases(), st.integers(1, 60))
def test_drawn_networks(case: Case, limit: int) -> None:
    assert_chunks_hold_the_edges(encoded(case), limit)


@pytest.mark.parametrize("limit", [1, 7, 1000, 10**9])
def test_nonzeros_that_meet(limit: int) -> None:
    """Overlapping pools: up to nine nonzeros of a filter meet in one edge, and their weights are added."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.MaxPool2d(3, 1), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(98, 3)
    )
    graph = mge_gpu.encode(model, (1, 13, 13))
    assert any(block.overlaps for _, _, block in graph.blocks)
    assert_chunks_hold_the_edges(graph, limit)


def test_a_large_graph_on_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coo, "SERIAL", 100)
    monkeypatch.setattr(coo, "SCRATCH", 500)
    torch.manual_seed(0)
    model = DenseNet(growth=4, depth=4, channels=3)
    graph = mge_gpu.encode(model, (3, 12, 12), random_masks(model, 0.3))
    for limit in (999, 20_000):
        assert_chunks_hold_the_edges(graph, limit)


def test_one_nonzero_with_many_pairs() -> None:
    """All positions with all positions, as in attention: a chunk may end amid the pairs of one nonzero."""
    n = 40
    at = np.arange(n)
    runs = np.stack([at, 0 * at, n + 0 * at, 0 * at, 1 + 0 * at], 1)  # target t reads sources 0..n-1
    whole = np.array([n * n])
    two = np.zeros(2, np.int32)
    block = Block(
        0, 2 * n, n, n, 1, n,
        two, np.arange(2, dtype=np.int32), two, np.ones(2, np.float32), np.array([0, n]), runs, whole, False,
    )  # fmt: skip
    for limit in (1, 39, 1000, 5000):
        pieces = list(coo.coo_chunks([block], limit))
        assert max(len(p[0]) for p in pieces) == min(limit, 2 * n * n)
        source, target = (np.concatenate([p[k] for p in pieces]) for k in (0, 1))
        assert sorted(zip(source.tolist(), target.tolist(), strict=True)) == [
            (s, 2 * n + t) for s in range(2 * n) for t in range(n)
        ]


@pytest.mark.parametrize("chunks", [0, -3, 2.5, "all", False])
def test_a_size_that_is_none(chunks: Any) -> None:
    graph = mge_gpu.encode(nn.Linear(2, 2), (2,))
    with pytest.raises(GraphError, match=r"got chunks=.*expected True or the most edges"):
        graph.coo(chunks=chunks)  # at once, not when the first chunk is asked for
    assert [len(s) for s, _, _ in graph.coo(chunks=True)] == [4]


# graphs that are too large


@pytest.fixture(scope="module")
def large() -> MultipartiteGraph:
    """3.8 G edges in a compressed adjacency of a few MB."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))
    return mge_gpu.encode(model, (64, 228, 228), pad_input=False)


def test_more_than_two_billion_edges(large: MultipartiteGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    side = 3 * 228 - 2  # sum over positions of the taps that are not padding, along one axis
    assert large.num_edges == 2 * 64 * 64 * side**2 > 2**31
    report = mge_gpu.topometrics(large, metrics="cheap")
    assert report["edges"] == large.num_edges and report["one_hop"] == 1 + large.num_edges / large.num_nodes
    weights = sum(b.weight.reshape(64 * 64, 9).sum(0, dtype=np.float64) for _, _, b in large.blocks)
    axis = np.array([227, 228, 227])  # target positions at which a tap is not padding
    total = (weights.reshape(3, 3) * axis * axis[:, None]).sum()
    assert report["strength"] == pytest.approx(2 * total / large.num_nodes, rel=1e-6)
    monkeypatch.setattr("mge_gpu.backends.cpu.backend.available_memory", lambda: 20 * 10**9)
    with pytest.raises(MGEError) as caught:
        large.coo()
    assert isinstance(caught.value, MemoryError)
    assert str(caught.value).startswith(
        f"coo() of {large.num_edges:,} edges takes 76.2 GB, 20 GB of memory is available; coo(chunks=True)"
    )
    chunks = large.coo(chunks=1_000_000)
    found = list(itertools.islice(chunks, 3))
    assert [len(source) for source, _, _ in found] == [1_000_000] * 3
    source, target, _ = (torch.cat(column) for column in zip(*found, strict=True))
    assert len(torch.unique(source * large.num_nodes + target)) == 3_000_000
    assert int(source.max()) < large.partitions[1].offset <= int(target.min())


def test_the_last_edges_of_a_large_block(large: MultipartiteGraph) -> None:
    """Numbers beyond 2**31 within a block."""
    block = large.blocks[1][2]
    columns = ("target_channel", "source_channel", "tap", "weight")
    twice = block._replace(**{name: np.tile(getattr(block, name), 2) for name in columns})
    assert coo.count_pairs(twice) == 2 * coo.count_pairs(block) > 2**31
    found = []
    for b in (block, twice):
        found.append(coo.empty(500))
        coo.fill(coo._writer(b)[1], coo.count_pairs(b) - 500, found[-1])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("method", [m for m in PEAK_BYTES if m not in ("coo", "to_torch_sparse", "to_pyg")])
def test_conversions_refuse(method: str, large: MultipartiteGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mge_gpu.backends.cpu.backend.available_memory", lambda: 10**9)
    with pytest.raises(MemoryError, match=rf"^{method}\(\) of 3,.* edges takes .*B, 1 GB of memory"):
        getattr(large, method)()


def test_no_refusal_where_it_fits_or_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = mge_gpu.encode(nn.Linear(30, 20), (30,))
    for available, fits in ((600 * 20, True), (600 * 20 - 1, False), (None, True)):
        monkeypatch.setattr("mge_gpu.backends.cpu.backend.available_memory", lambda a=available: a)
        if fits:
            assert len(graph.coo()[0]) == 600
        else:
            with pytest.raises(MemoryError):
                graph.coo()


# how much memory there is


def files(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_available_memory(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
    files(tmp_path, proc__meminfo="MemTotal:  9000 kB\nMemAvailable:  8000 kB\n")
    assert available_memory(tmp_path) == 8_192_000
    # version 2: the group of this process has no limit, the one around it has
    files(tmp_path, proc__self__cgroup="0::/outer/inner\n")
    group = {"memory_DOT_max": "max", "memory_DOT_current": "5"}
    files(tmp_path / "sys/fs/cgroup/outer/inner", **group)
    files(tmp_path / "sys/fs/cgroup/outer", memory_DOT_max="5000000", memory_DOT_current="1000000")
    assert available_memory(tmp_path) == 4_000_000
    files(tmp_path / "sys/fs/cgroup/outer", memory_DOT_stat="anon 9\ninactive_file 250000\n")
    assert available_memory(tmp_path) == 4_250_000
    # version 1, in a container: the path is the host's, the files lie at the mount
    files(tmp_path, proc__self__cgroup="5:cpu:/x\n4:cpuset,memory:/docker/abc\n")
    limits = {"memory_DOT_limit_in_bytes": "3000000", "memory_DOT_usage_in_bytes": "3500000"}
    files(tmp_path / "sys/fs/cgroup/memory", **limits)
    assert available_memory(tmp_path) == 0


def test_available_memory_of_this_machine() -> None:
    available = available_memory()
    if not Path("/proc/meminfo").exists():
        assert available is None
    else:
        assert 2**20 < available < 2**50
