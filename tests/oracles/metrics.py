"""Every topometric straight from its definition, by igraph, SciPy or brute force on a materialised graph."""

from collections.abc import Sequence
from itertools import combinations

import igraph
import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh

DENSE_LIMIT = 1200  # nodes up to which eigenvalues are computed on the dense matrix


def reference_metrics(
    num_nodes: int,
    src: ArrayLike,  # (E,) int
    dst: ArrayLike,  # (E,) int
    weight: ArrayLike,  # (E,) float
    partition_sizes: Sequence[int],
    output_partitions: Sequence[int],
    *,
    motifs: bool = True,
) -> dict[str, float]:
    """All metrics of the graph; partition 0 is the input, edges are distinct and directed.

    With ``motifs=False`` the motif count, the one slow item, is left out of the result.
    """
    src, dst = np.asarray(src, np.int64), np.asarray(dst, np.int64)
    weight = np.abs(np.asarray(weight, np.float64))
    if sum(partition_sizes) != num_nodes:
        raise ValueError(f"partitions hold {sum(partition_sizes)} nodes, the graph has {num_nodes}")
    if len(set(zip(src.tolist(), dst.tolist(), strict=True))) != len(src):
        raise ValueError("an edge is listed twice")
    membership = np.repeat(np.arange(len(partition_sizes)), partition_sizes)
    values: dict[str, float] = {"nodes": num_nodes, "edges": len(src)}
    values |= _degrees(num_nodes, src, dst, weight, membership, output_partitions)
    values["two_hop"] = two_hop(num_nodes, src, dst)
    values |= _undirected(num_nodes, src, dst, motifs)
    values |= _spectra(num_nodes, src, dst, weight)
    return values


def _degrees(
    n: int,
    src: NDArray[np.int64],
    dst: NDArray[np.int64],
    weight: NDArray[np.float64],
    membership: NDArray[np.int64],
    output_partitions: Sequence[int],
) -> dict[str, float]:
    out_degree, in_degree = np.bincount(src, minlength=n), np.bincount(dst, minlength=n)
    is_output = np.isin(membership, list(output_partitions))
    sink = (in_degree > 0) & (out_degree == 0) & ~is_output
    source = (in_degree == 0) & (out_degree > 0) & (membership != 0)
    incident = np.bincount(src, weight, n) + np.bincount(dst, weight, n)
    return {
        "sink_nodes": int(sink.sum()),
        "source_nodes": int(source.sum()),
        "disconnected_nodes": int(((in_degree == 0) & (out_degree == 0)).sum()),
        "removable_out": int(in_degree[sink].sum()),
        "removable_in": int(out_degree[source].sum()),
        "one_hop": float(np.mean(1 + out_degree)),
        "strength": float(incident.mean()),
    }


def two_hop(n: int, src: NDArray[np.int64], dst: NDArray[np.int64]) -> float:
    """Mean number of nodes within two directed steps, the node itself included."""
    adjacency = sp.csr_array((np.ones(len(src), np.int64), (src, dst)), shape=(n, n))
    reach = sp.eye_array(n, dtype=np.int64, format="csr") + adjacency + adjacency @ adjacency
    return reach.count_nonzero() / n


def _undirected(n: int, src: NDArray[np.int64], dst: NDArray[np.int64], motifs: bool) -> dict[str, float]:
    graph = igraph.Graph(n=n, edges=np.column_stack([src, dst]), directed=False).simplify()
    adjacency = sp.csr_array((np.ones(len(src), np.int8), (src, dst)), shape=(n, n))
    components, _ = connected_components(adjacency, directed=False)
    values = {
        "k_core": float(np.mean(graph.coreness())),
        "components": int(components),
        "component_size": n / components,
        "cut_edges": len(graph.bridges()),
        "cut_nodes": len(graph.articulation_points()),
    }
    if motifs:
        values["motifs"] = int(graph.motifs_randesu_no(4, cut_prob=[0.0] * 4))
    return values


def brute_force_motifs(n: int, src: ArrayLike, dst: ArrayLike) -> int:
    """Connected induced subgraphs on 4 nodes by trying every 4 nodes: for tiny graphs only.

    Four nodes are connected if three rounds of "absorb the neighbours" starting at one reach all.
    """
    near = np.zeros((n, n), bool)
    near[np.asarray(src), np.asarray(dst)] = True
    near |= near.T
    count = 0
    for four in combinations(range(n), 4):
        reached = {four[0]}
        for _ in range(3):
            reached |= {v for v in four if any(near[u, v] for u in reached)}
        count += len(reached) == 4
    return count


def motifs_by_counts(n: int, src: ArrayLike, dst: ArrayLike) -> int:
    """The same from what four nodes can have in common: for graphs on which listing them takes minutes."""
    near = np.zeros((n, n), bool)
    near[np.asarray(src), np.asarray(dst)] = True
    near |= near.T
    degree = near.sum(1)
    common = (near.astype(np.float64) @ near).astype(np.int64)  # integer products are slow
    np.fill_diagonal(common, 0)
    on_edges = common * near
    u, v = np.nonzero(np.triu(near))
    paths = int(((degree[u] - 1) * (degree[v] - 1)).sum()) - int(on_edges.sum()) // 2
    claws = int((degree * (degree - 1) * (degree - 2) // 6).sum())
    squares, diamonds = (int((x * (x - 1) // 2).sum()) for x in (common, on_edges))
    paws = int((on_edges.sum(1) // 2 * (degree - 2)).sum())
    cliques = len(igraph.Graph(n=n, edges=np.column_stack([u, v])).cliques(4, 4))
    return paths + claws - 3 * (squares // 4) - 2 * paws + 4 * (diamonds // 2) - 6 * cliques


def _spectra(
    n: int, src: NDArray[np.int64], dst: NDArray[np.int64], weight: NDArray[np.float64]
) -> dict[str, float]:
    """Eigenvalues that a graph of fewer than three nodes does not have count as zero."""
    directed = sp.csr_array((weight, (src, dst)), shape=(n, n))
    adjacency = directed + directed.T
    laplacian = sp.diags_array(np.asarray(adjacency.sum(axis=1)).ravel()) - adjacency
    magnitudes = np.zeros(3)
    if n <= DENSE_LIMIT:
        largest = np.sort(np.abs(np.linalg.eigvalsh(adjacency.toarray())))[::-1][:3]
        radius = np.linalg.eigvalsh(laplacian.toarray())[-1]
    else:
        # More values and vectors than asked for: ARPACK finds the copies of a multiple eigenvalue by
        # rounding alone, and a wide basis gives it room to.
        start = np.random.default_rng(0).standard_normal(n)
        found = eigsh(adjacency, k=6, which="LM", ncv=60, v0=start, tol=1e-10, return_eigenvectors=False)
        largest = np.sort(np.abs(found))[::-1][:3]
        radius = eigsh(laplacian, k=1, which="LA", ncv=40, v0=start, tol=1e-10, return_eigenvectors=False)[0]
    magnitudes[: len(largest)] = largest
    return {"spectral_gap": float(magnitudes[0] - magnitudes[2]), "spectral_radius": float(max(radius, 0.0))}
