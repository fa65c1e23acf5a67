"""Every conversion holds the edges of `coo`; one that cannot be made names the extra to install."""

import builtins
import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mge_gpu
from mge_gpu.errors import GraphError, MissingDependencyError
from mge_gpu.graph import MultipartiteGraph
from tests.graphs import DenseNet, random_masks

Edges = dict[tuple[int, int], float]


def _empty() -> nn.Module:
    layer = nn.Linear(2, 3)
    nn.init.zeros_(layer.weight)
    return layer


@pytest.fixture(params=["dense net", "overlap", "no edges"])
def graph(request: pytest.FixtureRequest) -> MultipartiteGraph:
    torch.manual_seed(0)
    if request.param == "no edges":
        return mge_gpu.encode(_empty(), (2,))
    if request.param == "overlap":
        model: nn.Module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(3, 2), nn.Conv2d(2, 2, 2))
        return mge_gpu.encode(model, (1, 9, 9))
    model = DenseNet()
    return mge_gpu.encode(model, (2, 4, 4), random_masks(model, 0.5))


def edges(graph: MultipartiteGraph) -> Edges:
    source, target, weight = (x.tolist() for x in graph.coo())
    return dict(zip(zip(source, target, strict=True), weight, strict=True))


def test_coo(graph: MultipartiteGraph) -> None:
    source, target, weight = graph.coo()
    assert (source.dtype, target.dtype, weight.dtype) == (torch.int64, torch.int64, torch.float32)
    assert {x.device.type for x in (source, target, weight)} == {"cpu"}
    assert len(edges(graph)) == len(source) == graph.num_edges
    assert (weight > 0).all() and (source < target).all()


def test_ids_of_32_bits(graph: MultipartiteGraph) -> None:
    wide, whole = graph.coo(), graph.coo(index_dtype=torch.int32)
    assert [x.dtype for x in whole] == [torch.int32, torch.int32, torch.float32]
    assert [x.tolist() for x in whole] == [x.tolist() for x in wide]
    pieces = list(graph.coo(7, index_dtype=torch.int32))
    assert all(x.dtype == torch.int32 for s, t, _ in pieces for x in (s, t))
    found = {(s, t) for piece in pieces for s, t in zip(*(x.tolist() for x in piece[:2]), strict=True)}
    assert found == edges(graph).keys()
    with pytest.raises(GraphError, match=r"got index_dtype=torch.int16, expected torch.int64 or torch.int32"):
        graph.coo(index_dtype=torch.int16)


def test_weights_of_16_bits(graph: MultipartiteGraph) -> None:
    source, target, weight = graph.coo()
    found = graph.coo(index_dtype=torch.int32, dtype=torch.float16)
    assert [x.dtype for x in found] == [torch.int32, torch.int32, torch.float16]
    assert found[0].tolist() == source.tolist() and found[1].tolist() == target.tolist()
    assert torch.equal(found[2], weight.half())
    pieces = list(graph.coo(7, dtype=torch.float16))
    assert all(x.dtype == torch.float16 for _, _, x in pieces)
    half = {(s, t): w for piece in pieces for s, t, w in zip(*(x.tolist() for x in piece), strict=True)}
    expected = zip(source.tolist(), target.tolist(), weight.half().tolist(), strict=True)
    assert half == {(s, t): w for s, t, w in expected}
    with pytest.raises(GraphError, match=r"got dtype=torch.float64, expected torch.float32 or torch.float16"):
        graph.coo(dtype=torch.float64)


def test_weights_too_large_for_16_bits() -> None:
    """A weight by itself; two that meet in one edge of overlapping windows."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.MaxPool2d(2, 1), nn.Conv2d(1, 1, 2, bias=False))
    for layer in (model[0], model[2]):
        nn.init.constant_(layer.weight, 40_000.0)
    graph = mge_gpu.encode(model, (1, 4, 4))
    for get in (lambda **k: graph.coo(**k), lambda **k: list(graph.coo(True, **k))):
        assert get(dtype=torch.float32)
        with pytest.raises(
            GraphError, match="got an edge whose weights add up to more, torch.float16 holds at"
        ):
            get(dtype=torch.float16)
    nn.init.constant_(model[0].weight, 1e6)
    graph = mge_gpu.encode(model, (1, 4, 4))
    with pytest.raises(GraphError, match=r"got a weight of 1e\+06 in '0', .*; use dtype=torch.float32"):
        graph.coo(True, dtype=torch.float16)


def test_scipy(graph: MultipartiteGraph) -> None:
    matrix = graph.to_scipy()
    assert matrix.format == "csr" and matrix.shape == (graph.num_nodes,) * 2 and matrix.dtype == np.float32
    source, target = matrix.nonzero()
    assert dict(
        zip(zip(source.tolist(), target.tolist(), strict=True), matrix.data.tolist(), strict=True)
    ) == edges(graph)


def test_torch_sparse_coo(graph: MultipartiteGraph) -> None:
    matrix = graph.to_torch_sparse_coo()
    assert matrix.layout == torch.sparse_coo and tuple(matrix.shape) == (graph.num_nodes,) * 2
    assert matrix._nnz() == graph.num_edges
    np.testing.assert_array_equal(matrix.to_dense().numpy(), graph.to_scipy().toarray())


def test_igraph(graph: MultipartiteGraph) -> None:
    other = graph.to_igraph()
    assert other.is_directed() and other.vcount() == graph.num_nodes
    assert dict(zip(other.get_edgelist(), other.es["weight"], strict=True)) == edges(graph)
    assert other.vs["partition"] == _owner(graph)


def test_networkx(graph: MultipartiteGraph) -> None:
    other = graph.to_networkx()
    assert other.is_directed() and sorted(other.nodes) == list(range(graph.num_nodes))
    assert {(u, v): w for u, v, w in other.edges(data="weight")} == edges(graph)
    assert [other.nodes[v]["partition"] for v in range(graph.num_nodes)] == _owner(graph)


def test_pyg(graph: MultipartiteGraph) -> None:
    pytest.importorskip("torch_geometric", reason="needs torch_geometric (extra pyg)")
    data = graph.to_pyg()
    assert data.validate() and data.num_nodes == graph.num_nodes and data.num_edges == graph.num_edges
    source, target, weight = graph.coo()
    assert torch.equal(data.edge_index, torch.stack([source, target]))
    assert torch.equal(data.edge_weight, weight)
    assert data.partition.tolist() == _owner(graph)


def test_torch_sparse(graph: MultipartiteGraph) -> None:
    if importlib.util.find_spec("torch_sparse") is None:
        with pytest.raises(MissingDependencyError, match=r"pip install 'mge_gpu\[torch-sparse\]'"):
            graph.to_torch_sparse()
        return
    row, col, value = graph.to_torch_sparse().coo()
    assert dict(zip(zip(row.tolist(), col.tolist(), strict=True), value.tolist(), strict=True)) == edges(
        graph
    )


def _owner(graph: MultipartiteGraph) -> list[int]:
    return [k for k, p in enumerate(graph.partitions) for _ in range(p.size)]


@pytest.mark.parametrize(
    ("method", "package", "extra"),
    [
        ("to_igraph", "igraph", "graphs"),
        ("to_networkx", "networkx", "graphs"),
        ("to_pyg", "torch_geometric", "pyg"),
        ("to_torch_sparse", "torch_sparse", "torch-sparse"),
    ],
)
def test_missing_package(method: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(f"No module named {name!r}")
        return original(name, *args, **kwargs)

    for loaded in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, loaded, None)  # importing it raises ImportError
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(builtins, "__import__", refuse)
    graph = mge_gpu.encode(nn.Linear(2, 2), (2,))
    with pytest.raises(MissingDependencyError) as caught:
        getattr(graph, method)()
    message = str(caught.value)
    assert f"{method}()" in message and repr(package) in message
    assert f"pip install 'mge_gpu[{extra}]'" in message
