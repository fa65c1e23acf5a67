"""Spectral metrics: of one large network, and of many masks of a small one in a batch against one by one.

    python benchmarks/spectral.py --large 0.98 [--out FILE]      ResNet-50 at 224x224, ERK
    python benchmarks/spectral.py --batch 12 [--repeats 5] [--out FILE]      ResNet-20 at 32x32

One by one measures each graph alone with the same solver on all cores; "called" is the same from the model
on, by calls of `mge_gpu.topometrics`. The two take turns; medians.
"""

import argparse
import time
from typing import Any

import torch
from _measure import beside, machine, peak_rss, write

import mge_gpu
from mge_gpu.metrics.base import METRICS, Workspace
from mge_gpu.metrics.expansion import measure_batch

KEYS = ("spectral_gap", "spectral_radius")


def large(sparsity: float) -> dict[str, Any]:
    """Seconds, products, engines and added memory for ResNet-50."""
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.resnet50()
    masks = mge_gpu.prune(model, "erk", sparsity=sparsity, seed=0)
    graph = mge_gpu.encode(model, (3, 224, 224), masks=masks)
    workspace = Workspace(graph)
    before, out = peak_rss(), {}
    for key in KEYS:
        begin = time.perf_counter()
        measured = METRICS[key](workspace)
        out[key] = {
            "value": measured.value,
            "how": measured.how,
            "seconds": time.perf_counter() - begin,
        }
    return {
        "sparsity": sparsity,
        "nodes": graph.num_nodes,
        "metrics": out,
        "rss_before": before,
        "peak_rss": peak_rss(),
    }


def call_once(model: torch.nn.Module, masks: list[dict[str, torch.Tensor]]) -> Any:
    """All masks in one call of `topometrics`, from the model on."""
    return mge_gpu.topometrics(masks, (3, 32, 32), KEYS, model=model)


def call_each(model: torch.nn.Module, masks: list[dict[str, torch.Tensor]]) -> Any:
    """A call for each."""
    return [mge_gpu.topometrics(model, (3, 32, 32), KEYS, masks=m) for m in masks]


def batch(count: int, repeats: int) -> dict[str, Any]:
    """Median seconds in a batch and one by one, and the largest relative difference of values."""
    torch.manual_seed(0)
    model = mge_gpu.models.resnet20()
    program = mge_gpu.trace(model, (3, 32, 32))
    methods, sparsities = ("uniform", "erk", "er"), (0.9, 0.93, 0.95, 0.98)
    kinds = [(m, s) for s in sparsities for m in methods]
    graphs, masks = [], []
    for k in range(count):
        method, sparsity = kinds[k % len(kinds)]
        masks.append(mge_gpu.prune(model, method, sparsity=sparsity, seed=k // len(kinds)))
        graphs.append(mge_gpu.encode(program, masks=masks[-1]))
        _ = graphs[-1].adjacency

    def alone() -> list[dict[str, Any]]:
        workspaces = [Workspace(g) for g in graphs]
        return [{k: METRICS[k](w) for k in KEYS} for w in workspaces]

    def together() -> list[dict[str, Any]]:
        return measure_batch([Workspace(g) for g in graphs], KEYS)

    one, many = alone(), together()
    difference = max(
        abs(a[k].value - b[k].value) / a["spectral_radius"].value
        for a, b in zip(one, many, strict=True)
        for k in KEYS
    )
    found = beside(together, alone, repeats)
    calls = beside(lambda: call_once(model, masks), lambda: call_each(model, masks), repeats)
    return {
        "graphs": count,
        "one_by_one_seconds": found["reference_seconds"],
        "batch_seconds": found["seconds"],
        "times_faster": found["share"],
        "difference": difference,
        "called_one_by_one_seconds": calls["reference_seconds"],
        "called_batch_seconds": calls["seconds"],
        "called_times_faster": calls["share"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", type=float, help="sparsity of ResNet-50")
    parser.add_argument("--batch", type=int, help="how many masks of ResNet-20")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", help="write the JSON here, too")
    args = parser.parse_args()
    result: dict[str, Any] = {"benchmark": "spectral"}
    if args.large is not None:
        result["large"] = large(args.large)
    if args.batch:
        result["batch"] = batch(args.batch, args.repeats)
    write({**result, "machine": machine()}, args.out)


if __name__ == "__main__":
    main()
