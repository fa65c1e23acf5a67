"""Products and spectra on the GPU against cupyx.scipy.sparse and torch.sparse on the materialised graph.

    python benchmarks/gpu_spectral.py [--networks mge:conv6,mge:resnet20] [--sparsities 0.8,0.98]
                                      [--device cuda] [--out FILE]

Theirs multiply a CSR matrix in memory (its building is not timed) and ask for the same three eigenvalues at
the same tolerance (relative to the largest; cupyx's is a length). With --device cpu SciPy takes its place.
"""

from typing import Any

import numpy as np
import torch
from _measure import SHAPES, command

import mge_gpu
from mge_gpu import bench
from mge_gpu.linalg.largest import largest_eigenvalue
from mge_gpu.metrics.expansion import TOLERANCE
from mge_gpu.model_spec import load_model


def theirs(graph: mge_gpu.MultipartiteGraph, repeats: int) -> dict[str, float]:
    """Seconds of a product and of eigsh, by cupyx (or SciPy) and torch, on the symmetric matrix."""
    clock = bench.Clock(graph.device, repeats)
    source, target, weight = graph.coo()
    n = graph.num_nodes
    rows, columns = torch.cat([source, target]), torch.cat([target, source])
    both = torch.sparse_coo_tensor(torch.stack([rows, columns]), weight.repeat(2), (n, n)).coalesce()
    del source, target, weight, rows, columns
    matrix = both.to_sparse_csr()
    x = torch.ones(n, 1, device=graph.device)
    found = {"torch product, float32": clock.seconds(lambda: matrix @ x)}
    parts = matrix.values(), matrix.col_indices(), matrix.crow_indices()
    if graph.device.type == "cuda":
        import cupy
        import cupyx.scipy.sparse as sparse
        import cupyx.scipy.sparse.linalg as linalg

        arrays, ones = [cupy.from_dlpack(part) for part in parts], cupy.ones(n, cupy.float32)
    else:
        import scipy.sparse as sparse
        import scipy.sparse.linalg as linalg

        arrays, ones = [part.numpy() for part in parts], np.ones(n, np.float32)
    csr = sparse.csr_matrix(tuple(arrays), shape=(n, n))
    library = sparse.__name__.split(".")[0]
    largest, _ = largest_eigenvalue(lambda x: csr @ x, n, tol=0.01, dtype=np.float32, like=ones)
    tolerance = TOLERANCE * (largest if library == "cupyx" else 1)
    found[f"{library} product, float32"] = clock.seconds(lambda: csr @ ones)
    found[f"{library} eigsh"] = clock.seconds(
        lambda: linalg.eigsh(csr, k=3, which="LM", tol=tolerance, return_eigenvectors=False)
    )
    return found


def one(name: str, sparsity: float, device: str, repeats: int) -> dict[str, Any]:
    """Ours and theirs for one network with ERK masks."""
    model = load_model(name)
    masks = mge_gpu.prune(model, "erk", sparsity, seed=0)
    graph = mge_gpu.encode(model, SHAPES[name.split(":")[0]], masks=masks, device=device)
    return {
        "network": name,
        "sparsity": sparsity,
        "nodes": graph.num_nodes,
        "edges": graph.num_edges,
        "ours": {row.pop("what"): row for row in bench.spectral(graph, repeats)},
        "theirs": theirs(graph, repeats),
    }


if __name__ == "__main__":
    command("gpu_spectral", __doc__ or "", one, "mge:conv6,mge:resnet20", "0.8,0.98", 5)
