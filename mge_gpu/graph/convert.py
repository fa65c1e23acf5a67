"""Conversions: the edges written down for other libraries."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mge_gpu._optional import require

if TYPE_CHECKING:
    from mge_gpu.graph.multipartite import MultipartiteGraph


def coo(graph: "MultipartiteGraph") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(source, target, weight) of every edge: int64, int64, float32, each (E,)."""
    source, target, weight = graph.backend.coo([b for _, _, b in graph.blocks])
    return torch.from_numpy(source), torch.from_numpy(target), torch.from_numpy(weight)


def partition_of_nodes(graph: "MultipartiteGraph") -> np.ndarray:
    """Index of each node's partition, (N,) int64."""
    return np.repeat(np.arange(len(graph.partitions)), [p.size for p in graph.partitions])


def to_scipy(graph: "MultipartiteGraph") -> Any:
    """``scipy.sparse.csr_array`` (N, N) float32 with A[source, target] = weight."""
    import scipy.sparse

    source, target, weight = (x.numpy() for x in coo(graph))
    n = graph.num_nodes
    return scipy.sparse.coo_array((weight, (source, target)), shape=(n, n)).tocsr()


def to_torch_sparse_coo(graph: "MultipartiteGraph") -> torch.Tensor:
    """``torch.sparse_coo_tensor`` (N, N) float32, not coalesced (its entries are distinct)."""
    source, target, weight = coo(graph)
    n = graph.num_nodes
    return torch.sparse_coo_tensor(torch.stack([source, target]), weight, (n, n), check_invariants=False)


def to_igraph(graph: "MultipartiteGraph") -> Any:
    """Directed ``igraph.Graph`` with edge attribute weight and vertex attribute partition."""
    igraph = require("igraph", "graphs", "to_igraph()")
    source, target, weight = (x.numpy() for x in coo(graph))
    out = igraph.Graph(n=graph.num_nodes, edges=np.stack([source, target], 1), directed=True)
    out.es["weight"] = weight.tolist()
    out.vs["partition"] = partition_of_nodes(graph).tolist()
    return out


def to_networkx(graph: "MultipartiteGraph") -> Any:
    """``networkx.DiGraph`` with edge attribute weight and node attribute partition."""
    networkx = require("networkx", "graphs", "to_networkx()")
    out = networkx.DiGraph()
    out.add_nodes_from((v, {"partition": p}) for v, p in enumerate(partition_of_nodes(graph).tolist()))
    source, target, weight = (x.tolist() for x in coo(graph))
    out.add_weighted_edges_from(zip(source, target, weight, strict=True))
    return out


def to_pyg(graph: "MultipartiteGraph") -> Any:
    """``torch_geometric.data.Data``: edge_index (2, E), edge_weight (E,), partition (N,), num_nodes."""
    data = require("torch_geometric.data", "pyg", "to_pyg()")
    source, target, weight = coo(graph)
    return data.Data(
        edge_index=torch.stack([source, target]),
        edge_weight=weight,
        partition=torch.from_numpy(partition_of_nodes(graph)),
        num_nodes=graph.num_nodes,
    )


def to_torch_sparse(graph: "MultipartiteGraph") -> Any:
    """``torch_sparse.SparseTensor`` with row = source, col = target."""
    torch_sparse = require("torch_sparse", "torch-sparse", "to_torch_sparse()")
    source, target, weight = coo(graph)
    n = graph.num_nodes
    return torch_sparse.SparseTensor(row=source, col=target, value=weight, sparse_sizes=(n, n))
