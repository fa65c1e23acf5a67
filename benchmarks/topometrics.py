"""Every metric against igraph and SciPy computing it on a graph that they have built already.

    python benchmarks/topometrics.py [--model resnet20] [--sparsity 0.9] [--skip-motifs] [--out FILE]

Our times start from the compressed adjacency, nothing computed before; theirs from an igraph.Graph or a
SciPy CSR matrix in memory. Building those is timed apart. igraph's exact motif count takes minutes at 90 %.
The eigenvalues are asked for at the same tolerance of the residual.
"""

import argparse
import time

import igraph
import numpy as np
import scipy.sparse
import scipy.sparse.linalg as sla
import torch
from _measure import machine, median_seconds, peak_rss, write

import mge_gpu
from mge_gpu import models
from mge_gpu.metrics import METRIC_KEYS
from mge_gpu.metrics.base import METRICS, Workspace
from mge_gpu.metrics.expansion import TOLERANCE
from mge_gpu.pruning import prune


def ours(graph: mge_gpu.MultipartiteGraph, repeats: int) -> dict[str, float]:
    """Seconds of each metric from a workspace in which nothing has been computed yet."""
    return {k: median_seconds(lambda k=k: METRICS[k](Workspace(graph)), repeats) for k in METRIC_KEYS}


def theirs(
    graph: mge_gpu.MultipartiteGraph, repeats: int, motifs: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of each metric in igraph or SciPy, and of building their graphs."""
    source, target, weight = (x.numpy() for x in graph.coo())
    n, pairs = graph.num_nodes, np.stack([source, target], 1)
    build: dict[str, float] = {}
    begin = time.perf_counter()
    plain = igraph.Graph(n=n, edges=pairs, directed=False)
    build["igraph"] = time.perf_counter() - begin
    directed = igraph.Graph(n=n, edges=pairs, directed=True)
    directed.es["weight"] = weight
    plain.es["weight"] = weight
    begin = time.perf_counter()
    half = scipy.sparse.coo_array((weight.astype(np.float64), (source, target)), shape=(n, n)).tocsr()
    full = (half + half.T).tocsr()
    build["scipy"] = time.perf_counter() - begin
    laplacian = scipy.sparse.csr_array(scipy.sparse.diags_array(full.sum(1)) - full)

    def degrees() -> None:
        np.array(directed.indegree()), np.array(directed.outdegree())

    calls = {
        **dict.fromkeys(
            ("sink_nodes", "source_nodes", "disconnected_nodes", "removable_out", "removable_in"), degrees
        ),
        "one_hop": lambda: np.mean(directed.neighborhood_size(order=1, mode="out")),
        "two_hop": lambda: np.mean(directed.neighborhood_size(order=2, mode="out")),
        "strength": lambda: full.sum() / n,
        "k_core": lambda: np.mean(plain.coreness()),
        "components": lambda: scipy.sparse.csgraph.connected_components(full, directed=False),
        "component_size": lambda: scipy.sparse.csgraph.connected_components(full, directed=False),
        "cut_edges": lambda: len(plain.bridges()),
        "cut_nodes": lambda: len(plain.articulation_points()),
        "spectral_gap": lambda: sla.eigsh(full, k=3, which="LM", tol=TOLERANCE, return_eigenvectors=False),
        "spectral_radius": lambda: sla.eigsh(
            laplacian, k=1, which="LA", tol=TOLERANCE, return_eigenvectors=False
        ),
    }
    seconds = {k: median_seconds(call, repeats, 1) for k, call in calls.items()}
    if motifs:
        begin = time.perf_counter()
        plain.motifs_randesu_no(size=4)
        seconds["motifs"] = time.perf_counter() - begin
    return seconds, build


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20", help="a network of mge_gpu.models")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip-motifs", action="store_true", help="leave igraph's motif count out")
    parser.add_argument("--out", help="write the JSON here, too")
    args = parser.parse_args()
    shape = (3, 32, 32)
    torch.manual_seed(0)
    model = getattr(models, args.model)()
    graph = mge_gpu.encode(model, shape, masks=prune(model, "uniform", args.sparsity, seed=0))
    mine = ours(graph, args.repeats)
    together = median_seconds(lambda: mge_gpu.topometrics(graph), args.repeats)
    rss = {"ours": peak_rss()}
    other, build = theirs(graph, args.repeats, not args.skip_motifs)
    rss["with igraph and SciPy"] = peak_rss()
    write(
        {
            "benchmark": "topometrics",
            "model": args.model,
            "sparsity": args.sparsity,
            "nodes": graph.num_nodes,
            "edges": graph.num_edges,
            "seconds": {k: {"ours": mine[k], "theirs": other.get(k)} for k in METRIC_KEYS},
            "times_faster": {k: other[k] / mine[k] for k in METRIC_KEYS if k in other},
            "all_together_seconds": together,
            "their_build_seconds": build,
            "peak_rss_bytes": rss,
            "machine": machine(),
        },
        args.out,
    )


if __name__ == "__main__":
    main()
