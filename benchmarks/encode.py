"""From a model to COO: edges and bytes a second, against the speed of filling as much memory.

    python benchmarks/encode.py [--model conv6] [--sparsity 0.8] [--out FILE]

An edge takes 20 bytes (int64 source, int64 target, float32 weight). Four figures, each against the
fill that it can be compared with in this run:

- write: into arrays that exist, against filling arrays that exist;
- coo: `graph.coo()`, which takes fresh memory, against filling fresh memory;
- masks to COO: `encode(program, masks=...)` and `coo()`, the model traced before;
- model to COO: `torch.export` included.
"""

import argparse

import numpy as np
import torch
from _measure import beside, machine, peak_rss, write

import mge_gpu
from mge_gpu import models
from mge_gpu.backends.cpu.coo import block_coo
from mge_gpu.pruning import prune


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="conv6", help="a network of mge_gpu.models")
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--out", help="write the JSON here, too")
    args = parser.parse_args()
    shape = (3, 32, 32)
    torch.manual_seed(0)
    model = getattr(models, args.model)()
    masks = prune(model, "uniform", args.sparsity, seed=0)
    program = mge_gpu.trace(model, shape)
    graph = mge_gpu.encode(program, masks=masks)
    edges = graph.num_edges
    size = 20 * edges
    before = peak_rss()
    blocks = [b for _, _, b in graph.blocks]
    counts = [int(b.pair_count[b.tap].sum()) for b in blocks]

    def rewrite(ready: list[np.ndarray]) -> None:
        at = 0
        for block, n in zip(blocks, counts, strict=True):
            block_coo(block, *(x[at : at + n] for x in ready))
            at += n

    def fresh() -> None:
        np.full(size // 8, 1.0)

    ready, filled = [x.numpy() for x in graph.coo()], np.empty(size // 8)
    figures = {"write": beside(lambda: rewrite(ready), lambda: filled.fill(1.0))}
    ready, filled = [], np.empty(0)
    figures["coo"] = beside(graph.coo, fresh)
    figures["masks to COO"] = beside(lambda: mge_gpu.encode(program, masks=masks).coo(), fresh)
    figures["model to COO"] = beside(lambda: mge_gpu.encode(model, shape, masks=masks).coo(), fresh)
    for figure in figures.values():
        figure["edges_per_second"] = edges / figure["seconds"]
        figure["bytes_per_second"] = size / figure["seconds"]
        figure["fill_bytes_per_second"] = size / figure["reference_seconds"]
    write(
        {
            "benchmark": "encode",
            "model": args.model,
            "sparsity": args.sparsity,
            "edges": edges,
            "coo_bytes": size,
            "compressed_bytes": graph.adjacency.nbytes,
            "figures": figures,
            "peak_rss_bytes": {"before COO": before, "with COO": peak_rss()},
            "machine": machine(),
        },
        args.out,
    )


if __name__ == "__main__":
    main()
