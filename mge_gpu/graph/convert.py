"""Conversions: the edges written down for other libraries."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mge_gpu._memory import bytes_text
from mge_gpu._optional import require
from mge_gpu.errors import GraphError, NotEnoughMemoryError

if TYPE_CHECKING:
    from mge_gpu.graph.multipartite import MultipartiteGraph


Edges = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

CHUNK = 1 << 22
"""Edges of a chunk where nobody says how many: 84 MB."""

IDS: dict[torch.dtype, type[np.signedinteger[Any]]] = {torch.int64: np.int64, torch.int32: np.int32}
"""Types of node ids. There are fewer than 2^31 nodes."""

FLOATS: dict[torch.dtype, type[np.floating[Any]]] = {torch.float32: np.float32, torch.float16: np.float16}
"""Types of weights."""

PEAK_BYTES = {
    "coo": 20,
    "to_scipy": 32,
    "to_torch_sparse_coo": 36,
    "to_pyg": 36,
    "to_torch_sparse": 48,
    "to_igraph": 93,
    "to_networkx": 420,
}
"""Bytes an edge that each conversion takes at its peak (measured; the graph it returns is smaller)."""


MERGE_SCRATCH = 120_000_000
"""Bytes for merging where several nonzeros meet in one edge."""


def check_memory(graph: "MultipartiteGraph", method: str, less: int = 0) -> None:
    """Refuse what would not fit the memory that is available, before any of it is taken.

    ``less``: bytes an edge that are spared.

    Raises:
        NotEnoughMemoryError: with the size it would take, what is available, and what to do instead.
    """
    available = graph.backend.available_memory()
    if available is None:
        return
    each = PEAK_BYTES[method] - less + (12 if method == "to_scipy" and graph.num_edges >= 2**31 else 0)
    blocks = [b for _, _, b in graph.blocks]
    scratch = MERGE_SCRATCH if any(b.overlaps for b in blocks) else 0
    most = sum(len(b.tap) * int(b.pair_count.max(initial=0)) for b in blocks)  # no less than E
    if most * each + scratch <= available:
        return
    most = sum(int(b.pair_count[b.tap].sum()) for b in blocks)  # nearer to E, still cheaper than E
    if most * each + scratch <= available:
        return
    need = graph.num_edges * each + scratch
    if need > available:
        raise NotEnoughMemoryError(
            f"{method}() of {graph.num_edges:,} edges takes {bytes_text(need)}, {bytes_text(available)} of "
            "memory is available; coo(chunks=True) yields the edges in pieces, and topometrics() needs none"
        )


def _types(index_dtype: torch.dtype, dtype: torch.dtype) -> tuple[Any, Any]:
    if index_dtype not in IDS:
        raise GraphError(f"got index_dtype={index_dtype!r}, expected torch.int64 or torch.int32")
    if dtype not in FLOATS:
        raise GraphError(f"got dtype={dtype!r}, expected torch.float32 or torch.float16")
    return IDS[index_dtype], FLOATS[dtype]


def _check_range(graph: "MultipartiteGraph", dtype: torch.dtype) -> None:
    """Refuse weights beyond the range of their type, before any edge is written."""
    if dtype is torch.float32:
        return
    most = torch.finfo(dtype).max
    for _, target, block in graph.blocks:
        largest = float(block.weight.max(initial=0))
        if largest > most:
            raise GraphError(_beyond(f"a weight of {largest:g} in {graph.partitions[target].name!r}", dtype))


def _beyond(what: str, dtype: torch.dtype) -> str:
    return f"got {what}, {dtype} holds at most {torch.finfo(dtype).max:g}; use dtype=torch.float32"


def _checked(weight: torch.Tensor, sums: bool) -> torch.Tensor:
    """The weights. Of those that are sums each must lie in the range of its type, too."""
    if sums and weight.dtype is torch.float16 and len(weight) and bool(weight.max().isinf()):
        raise GraphError(_beyond("an edge whose weights add up to more", weight.dtype))
    return weight


def coo(
    graph: "MultipartiteGraph",
    method: str = "coo",
    index_dtype: torch.dtype = torch.int64,
    dtype: torch.dtype = torch.float32,
) -> Edges:
    """(source, target, weight) of every edge, each (E,), for a conversion."""
    ids, floats = _types(index_dtype, dtype)
    _check_range(graph, dtype)
    spared = 2 * (8 - np.dtype(ids).itemsize) + 4 - np.dtype(floats).itemsize
    check_memory(graph, method, spared)
    backend = graph.backend
    blocks = [b for _, _, b in graph.blocks]
    source, target, weight = map(backend.tensor, backend.coo(blocks, ids, floats))
    return source, target, _checked(weight, any(b.overlaps for b in blocks))


def coo_chunks(
    graph: "MultipartiteGraph",
    chunks: int,
    index_dtype: torch.dtype = torch.int64,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Edges]:
    """The edges of `coo` in pieces of at most ``chunks`` edges; True stands for `CHUNK`.

    Raises GraphError at once where ``chunks`` is not a number of edges.
    """
    limit = CHUNK if chunks is True else chunks
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise GraphError(f"got chunks={chunks!r}, expected True or the most edges of a chunk, at least 1")
    backend, (ids, floats) = graph.backend, _types(index_dtype, dtype)
    _check_range(graph, dtype)
    blocks = [b for _, _, b in graph.blocks]
    sums = any(b.overlaps for b in blocks)
    pieces = backend.coo_chunks(blocks, limit, ids, floats)
    return ((backend.tensor(s), backend.tensor(t), _checked(backend.tensor(w), sums)) for s, t, w in pieces)


def partition_of_nodes(graph: "MultipartiteGraph") -> np.ndarray:
    """Index of each node's partition, (N,) int64."""
    return np.repeat(np.arange(len(graph.partitions)), [p.size for p in graph.partitions])


def to_scipy(graph: "MultipartiteGraph") -> Any:
    """``scipy.sparse.csr_array`` (N, N) float32 with A[source, target] = weight."""
    import scipy.sparse

    source, target, weight = (x.cpu().numpy() for x in coo(graph, "to_scipy"))
    n = graph.num_nodes
    return scipy.sparse.coo_array((weight, (source, target)), shape=(n, n)).tocsr()


def to_torch_sparse_coo(graph: "MultipartiteGraph") -> torch.Tensor:
    """``torch.sparse_coo_tensor`` (N, N) float32, not coalesced (its entries are distinct)."""
    source, target, weight = coo(graph, "to_torch_sparse_coo")
    n = graph.num_nodes
    return torch.sparse_coo_tensor(torch.stack([source, target]), weight, (n, n), check_invariants=False)


def to_igraph(graph: "MultipartiteGraph") -> Any:
    """Directed ``igraph.Graph`` with edge attribute weight and vertex attribute partition."""
    igraph = require("igraph", "graphs", "to_igraph()")
    source, target, weight = (x.cpu().numpy() for x in coo(graph, "to_igraph"))
    out = igraph.Graph(n=graph.num_nodes, edges=np.stack([source, target], 1), directed=True)
    out.es["weight"] = weight.tolist()
    out.vs["partition"] = partition_of_nodes(graph).tolist()
    return out


def to_networkx(graph: "MultipartiteGraph") -> Any:
    """``networkx.DiGraph`` with edge attribute weight and node attribute partition."""
    networkx = require("networkx", "graphs", "to_networkx()")
    source, target, weight = (x.tolist() for x in coo(graph, "to_networkx"))
    out = networkx.DiGraph()
    out.add_nodes_from((v, {"partition": p}) for v, p in enumerate(partition_of_nodes(graph).tolist()))
    out.add_weighted_edges_from(zip(source, target, weight, strict=True))
    return out


def to_pyg(graph: "MultipartiteGraph") -> Any:
    """``torch_geometric.data.Data``: edge_index (2, E), edge_weight (E,), partition (N,), num_nodes."""
    data = require("torch_geometric.data", "pyg", "to_pyg()")
    source, target, weight = coo(graph, "to_pyg")
    return data.Data(
        edge_index=torch.stack([source, target]),
        edge_weight=weight,
        partition=torch.from_numpy(partition_of_nodes(graph)).to(weight.device),
        num_nodes=graph.num_nodes,
    )


def to_torch_sparse(graph: "MultipartiteGraph") -> Any:
    """``torch_sparse.SparseTensor`` with row = source, col = target."""
    torch_sparse = require("torch_sparse", "torch-sparse", "to_torch_sparse()")
    source, target, weight = coo(graph, "to_torch_sparse")
    n = graph.num_nodes
    return torch_sparse.SparseTensor(row=source, col=target, value=weight, sparse_sizes=(n, n))
