"""Every metric on the GPU against the CPU backend, ResNet-50 at several sparsities, and many small networks.

python benchmarks/gpu_topometrics.py metrics [--network torchvision:resnet50] [--sparsities 0.8,0.98]
python benchmarks/gpu_topometrics.py many [--count 100]           masks of ResNet-20, from the masks on
both: [--device cuda] [--repeats 3] [--skip-cpu] [--out FILE]
"""

import argparse
import time
from typing import Any

import torch
from _measure import machine, write
from gpu_encode import SHAPES

import mge_gpu
from mge_gpu import bench
from mge_gpu.model_spec import load_model


def metrics(name: str, sparsity: float, devices: list[str], repeats: int) -> dict[str, Any]:
    """Seconds and peak memory of each metric and of all together, on each device."""
    model = load_model(name)
    program = mge_gpu.trace(model, SHAPES[name.split(":")[0]])
    masks = mge_gpu.prune(model, "erk", sparsity, seed=0)
    found: dict[str, Any] = {"network": name, "sparsity": sparsity}
    for device in devices:
        graph = mge_gpu.encode(program, masks=masks, device=device)
        found |= {"nodes": graph.num_nodes, "edges": graph.num_edges}
        found[device] = {row.pop("metric"): row for row in bench.topometrics(graph, repeats)}
    if len(devices) == 2:
        gpu, cpu = (found[device] for device in devices)
        found["times_faster"] = {key: cpu[key]["seconds"] / gpu[key]["seconds"] for key in gpu}
    return found


def many(count: int, devices: list[str]) -> dict[str, Any]:
    """Seconds for all metrics of many masks of ResNet-20, encoding included, on each device."""
    model = load_model("mge:resnet20")
    kinds = [(m, s) for s in (0.9, 0.93, 0.95, 0.98) for m in ("uniform", "erk", "er")]
    masks = [mge_gpu.prune(model, *kinds[k % len(kinds)], seed=k) for k in range(count)]
    found: dict[str, Any] = {"masks": count}
    for device in devices:
        begin = time.perf_counter()
        reports = mge_gpu.topometrics(masks, (3, 32, 32), model=model, device=device)
        if device == "cuda":
            torch.cuda.synchronize()
        found[device] = {"seconds": time.perf_counter() - begin, "reports": len(reports)}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("metrics", "many"))
    parser.add_argument("--network", default="torchvision:resnet50")
    parser.add_argument("--sparsities", default="0.6,0.8,0.9,0.98")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--skip-cpu", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", help="write the JSON here, too")
    args = parser.parse_args()
    devices = list(dict.fromkeys([args.device] if args.skip_cpu else [args.device, "cpu"]))
    if args.what == "many":
        rows = [many(args.count, devices)]
    else:
        rows = [
            metrics(args.network, s, devices, args.repeats) for s in map(float, args.sparsities.split(","))
        ]
    write(
        {"benchmark": f"gpu_topometrics {args.what}", "rows": rows, "machine": machine(args.device)}, args.out
    )


if __name__ == "__main__":
    main()
