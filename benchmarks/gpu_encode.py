"""COO on the GPU against its own copy bandwidth, and against the CPU backend.

    python benchmarks/gpu_encode.py [--networks mge:conv6,torchvision:resnet50] [--sparsities 0.8,0.9,0.98]
                                    [--device cuda] [--out FILE]

``copy_share``: bytes written (20 an edge; 10 in "narrow", with int32 ids and float16 weights) against the
bytes that a device-to-device copy reads and writes in the same run. A run that does not fit the GPU's memory
is named, not left out. ``sums`` of ids and weights are the same on both devices, but for the order in which
weights are added.
"""

from typing import Any

import torch
from _measure import SHAPES, command

import mge_gpu
from mge_gpu import bench
from mge_gpu.errors import NotEnoughMemoryError
from mge_gpu.model_spec import load_model


def sums(graph: mge_gpu.MultipartiteGraph) -> list[float]:
    """Number of edges, and sums of sources, targets and weights."""
    source, target, weight = graph.coo()
    return [len(source), int(source.sum()), int(target.sum()), float(weight.sum(dtype=torch.float64))]


def one(name: str, sparsity: float, device: str, repeats: int) -> dict[str, Any]:
    """Figures of one network with ERK masks, on the device and on the CPU."""
    model = load_model(name)
    program = mge_gpu.trace(model, SHAPES[name.split(":")[0]])
    masks = mge_gpu.prune(model, "erk", sparsity, seed=0)
    found: dict[str, Any] = {"network": name, "sparsity": sparsity}
    for where in dict.fromkeys((device, "cpu")):
        graph = mge_gpu.encode(program, masks=masks, device=where)
        found |= {"nodes": graph.num_nodes, "edges": graph.num_edges}
        for key, types in ((where, ()), (f"{where}_narrow", (torch.int32, torch.float16))):
            try:
                found[key] = bench.encode(graph, repeats, *types)
                if not types:
                    found[key]["sums"] = sums(graph)
            except NotEnoughMemoryError as error:
                found[key] = {"error": str(error)}
    return found


if __name__ == "__main__":
    everything = "mge:conv6,mge:resnet20,torchvision:resnet50"
    command("gpu_encode", __doc__ or "", one, everything, "0.8,0.9,0.98", 9)
