"""COO on the GPU against its own copy bandwidth, and against torch and the CPU backend.

    python benchmarks/gpu_encode.py [--networks mge:conv6,torchvision:resnet50] [--sparsities 0.8,0.9,0.98]
                                    [--device cuda] [--out FILE]

``copy_share``: bytes written (20 an edge) against the bytes that a device-to-device copy reads and writes in
the same run. A run that does not fit the GPU's memory is named, not left out.
"""

import argparse
from collections.abc import Callable
from typing import Any

from _measure import machine, write

import mge_gpu
from mge_gpu import bench
from mge_gpu.errors import NotEnoughMemoryError
from mge_gpu.model_spec import load_model

SHAPES = {"mge": (3, 32, 32), "torchvision": (3, 224, 224)}


def one(name: str, sparsity: float, device: str, repeats: int) -> dict[str, Any]:
    """Figures of one network with ERK masks, on the device and on the CPU."""
    model = load_model(name)
    program = mge_gpu.trace(model, SHAPES[name.split(":")[0]])
    masks = mge_gpu.prune(model, "erk", sparsity, seed=0)
    found: dict[str, Any] = {"network": name, "sparsity": sparsity}
    for where in dict.fromkeys((device, "cpu")):
        graph = mge_gpu.encode(program, masks=masks, device=where)
        found |= {"nodes": graph.num_nodes, "edges": graph.num_edges}
        try:
            found[where] = bench.encode(graph, repeats)
        except NotEnoughMemoryError as error:
            found[where] = {"error": str(error)}
    return found


def command(
    benchmark: str,
    text: str,
    one: Callable[[str, float, str, int], dict[str, Any]],
    networks: str,
    sparsities: str,
    repeats: int,
) -> None:
    """Read the command line, measure each network at each sparsity, print; these are the defaults."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--networks", default=networks)
    parser.add_argument("--sparsities", default=sparsities)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--out", help="write the JSON here, too")
    args = parser.parse_args()
    rows = [
        one(name, sparsity, args.device, args.repeats)
        for name in args.networks.split(",")
        for sparsity in map(float, args.sparsities.split(","))
    ]
    write({"benchmark": benchmark, "rows": rows, "machine": machine(args.device)}, args.out)


if __name__ == "__main__":
    everything = "mge:conv6,mge:resnet20,torchvision:resnet50"
    command("gpu_encode", __doc__ or "", one, everything, "0.8,0.9,0.98", 9)
