"""Where dense matrix products overtake the compressed nonzeros in a product with one layer.

    python benchmarks/crossover.py [--device cuda] [--repeats 5] [--out FILE]

For several layer shapes and densities: milliseconds of x -> (A + A^T) x by either engine on all cores (or
the GPU), measured in turn, which of the two `mge_gpu` chooses by its estimate, and the density at which the
measured times cross (interpolated between the densities tried; null where one engine wins throughout).
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _measure import machine, save, write
from torch import nn

import mge_gpu
from mge_gpu import bench
from mge_gpu.backends.cpu import product

LAYERS = {
    "3x3, 64 -> 64 at 56x56": (lambda: nn.Conv2d(64, 64, 3, padding=1), (64, 56, 56)),
    "1x1, 64 -> 256 at 56x56": (lambda: nn.Conv2d(64, 256, 1), (64, 56, 56)),
    "3x3 stride 2, 128 -> 128 at 56x56": (lambda: nn.Conv2d(128, 128, 3, 2, 1), (128, 56, 56)),
    "3x3, 256 -> 256 at 14x14": (lambda: nn.Conv2d(256, 256, 3, padding=1), (256, 14, 14)),
    "1x1, 256 -> 1024 at 14x14": (lambda: nn.Conv2d(256, 1024, 1), (256, 14, 14)),
    "1x1, 512 -> 2048 at 7x7": (lambda: nn.Conv2d(512, 2048, 1), (512, 7, 7)),
    "depthwise 3x3, 384 at 14x14": (lambda: nn.Conv2d(384, 384, 3, padding=1, groups=384), (384, 14, 14)),
    "linear 96 -> 384 on 3136 tokens": (lambda: nn.Linear(96, 384), (3136, 96)),
    "linear 768 -> 3072 on 197 tokens": (lambda: nn.Linear(768, 3072), (197, 768)),
    "linear 2048 -> 1000": (lambda: nn.Linear(2048, 1000), (2048,)),
}
ENGINES = ("sparse", "dense")
DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)


Apply = Callable[[Any], Any]


def engines(graph: mge_gpu.MultipartiteGraph) -> tuple[dict[str, Apply], str]:
    """Products by either engine, and which of them is chosen, at least in one direction."""
    blocks = [b for _, _, b in graph.blocks]
    if graph.device.type == "cpu":
        made = {e: product.operator(blocks, blocks, np.float32, e) for e in ENGINES}
        return made, "dense" if product.operator(blocks, blocks, np.float32).dense else "sparse"
    from mge_gpu.backends.cuda import product as on_gpu
    from mge_gpu.backends.cuda.gather import planned

    backend: Any = graph.backend
    with backend.active():
        there = {e: on_gpu.operator(backend.runtime, blocks, blocks, True, None, None, e) for e in ENGINES}
    return there, "dense" if planned(blocks, blocks, 4, {}).dense else "sparse"


def seconds(
    operators: dict[str, Apply], graph: mge_gpu.MultipartiteGraph, repeats: int
) -> tuple[dict[str, float], float]:
    """Median seconds of each, called in turn, and the largest difference of their results."""
    backend, clock = graph.backend, bench.Clock(graph.device, 1)
    x = np.random.default_rng(0).standard_normal(graph.num_nodes).astype(np.float32)
    with backend.active():
        there = np.asarray(x, like=backend.prototype())
        a, b = (backend.host(apply(there)) for apply in operators.values())
        times: dict[str, list[float]] = {name: [] for name in operators}
        for _ in range(repeats):
            for name, apply in operators.items():
                times[name].append(clock.seconds(lambda apply=apply: apply(there)))  # type: ignore[misc]
    scale = max(float(np.abs(a).max()), 1e-30)
    return {n: statistics.median(t) for n, t in times.items()}, float(np.abs(a - b).max()) / scale


def crossing(rows: list[dict[str, float]]) -> float | None:
    """The density at which dense / sparse passes 1, interpolated in logarithms."""
    for before, after in zip(rows, rows[1:], strict=False):
        a, b = (np.log(r["dense_ms"] / r["sparse_ms"]) for r in (before, after))
        if a > 0 >= b:
            low, high = np.log(before["density"]), np.log(after["density"])
            return round(float(np.exp(low + (high - low) * a / (a - b))), 3)
    return None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", help="write the JSON here, too")
    args = parser.parse_args()
    curves: dict[str, Any] = {}
    result = {"benchmark": "crossover", "layers": curves, "machine": machine(args.device)}
    for name, (make, shape) in LAYERS.items():
        torch.manual_seed(0)
        layer = make()
        rows = []
        for density in DENSITIES:
            generator = torch.Generator().manual_seed(1)
            mask = torch.rand(layer.weight.shape, generator=generator) < density
            graph = mge_gpu.encode(layer, shape, masks={"weight": mask}, pad_input=False, device=args.device)
            operators, chosen = engines(graph)
            found, difference = seconds(operators, graph, args.repeats)
            rows.append(
                {
                    "density": density,
                    "sparse_ms": 1e3 * found["sparse"],
                    "dense_ms": 1e3 * found["dense"],
                    "chosen": chosen,
                    "relative_difference": difference,
                }
            )
        curves[name] = {"crossover": crossing(rows), "curve": rows}
        save(result, args.out)
    write(result, args.out)


if __name__ == "__main__":
    main()
