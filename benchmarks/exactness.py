"""Every topometric of a large graph beside igraph, SciPy and a plain CSR loop on its edges.

    python benchmarks/exactness.py [--side 64] [--sparsity 0.9] [--out FILE]

torchvision's ResNet-18 with ERK masks. At 64x64 and 90 % (58 M edges) it takes minutes and about 6 GB, most
of it for the others. Exit status 1 where a value differs: counts must be equal, means agree to 1e-9,
eigenvalues to 1e-4.
"""

import argparse
import gc
import sys
import time

import numpy as np
import torch
import torchvision
from _measure import machine, peak_rss, write
from _references import degree_metrics, igraph_metrics, motifs, scipy_metrics

import mge_gpu
from mge_gpu.metrics import METRIC_KEYS

TOLERANCE = {"spectral_gap": 1e-4, "spectral_radius": 1e-4, "strength": 1e-6}


def main() -> None:
    """Measure, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--out", help="write the JSON here, too")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    masks = mge_gpu.prune(model, "erk", args.sparsity, seed=0)
    graph = mge_gpu.encode(model, (3, args.side, args.side), masks=masks)
    report = mge_gpu.topometrics(graph, exact=True)
    rss = {"ours": peak_rss()}
    source, target, weight = (x.numpy() for x in graph.coo())
    edges = source.astype(np.int32), target.astype(np.int32), weight
    del source, target, weight
    n = graph.num_nodes
    inputs, outputs = (graph.in_partitions(p) for p in (graph.input_partitions, graph.output_partitions))
    owner = np.repeat(np.arange(len(graph.partitions)), [p.size for p in graph.partitions])
    reference: dict[str, tuple[float, str, float | None]] = {}
    for key, value in degree_metrics(n, edges, inputs, outputs).items():
        reference[key] = value, "NumPy", None
    for name, found in (("SciPy", scipy_metrics(n, edges)), ("igraph", igraph_metrics(n, edges))):
        for key, value, seconds in found:
            reference[key] = value, name, seconds
            print(f"{name}: {key} {value} in {seconds:.1f} s", file=sys.stderr, flush=True)
        gc.collect()
    begin = time.perf_counter()
    reference["motifs"] = motifs(n, edges, owner), "CSR loop", time.perf_counter() - begin
    rows, bad = {}, []
    for key in METRIC_KEYS:
        value, by, seconds = reference[key]
        mine = report[key]
        difference = abs(mine - value) / max(abs(value), 1e-300) if mine != value else 0.0
        allowed = 0.0 if isinstance(mine, int) else TOLERANCE.get(key, 1e-9)
        if difference > allowed:
            bad.append(key)
        rows[key] = {
            "ours": mine,
            "reference": value,
            "relative_difference": difference,
            "by": by,
            "our_seconds": report.seconds[key],
            "reference_seconds": seconds,
            "how": report.how()[key],
        }
    write(
        {
            "benchmark": "exactness",
            "model": "torchvision:resnet18",
            "input_shape": [3, args.side, args.side],
            "sparsity": args.sparsity,
            "nodes": n,
            "edges": graph.num_edges,
            "metrics": rows,
            "different": bad,
            "peak_rss_bytes": rss | {"with the others": peak_rss()},
            "machine": machine(),
        },
        args.out,
    )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
