"""Every metric on the GPU against the CPU backend, ResNet-50 at several sparsities, and many small networks.

python benchmarks/gpu_topometrics.py metrics [--network torchvision:resnet50] [--sparsities 0.8,0.98]
python benchmarks/gpu_topometrics.py many [--count 100] [--one-by-one]   masks of ResNet-20, from the masks on
both: [--device cuda] [--repeats 3] [--skip-cpu] [--out FILE]

``difference``: of the values from those of the CPU, relative, where they are not the same; without it
(--skip-cpu) from those that `scale.py` wrote (metrics --against FILE), which draws the same weights.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from _measure import SHAPES, difference, machine, save, write

import mge_gpu
from mge_gpu import bench
from mge_gpu.metrics.together import TOGETHER
from mge_gpu.model_spec import load_model


def metrics(
    name: str, sparsity: float, devices: list[str], repeats: int, known: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """Seconds and peak memory of each metric and of all together, on each device; yields what it has."""
    model = load_model(name)
    program = mge_gpu.trace(model, SHAPES[name.split(":")[0]])
    masks = mge_gpu.prune(model, "erk", sparsity, seed=0)
    found: dict[str, Any] = {"network": name, "sparsity": sparsity}
    for device in devices:
        graph = mge_gpu.encode(program, masks=masks, device=device)
        found |= {"nodes": graph.num_nodes, "edges": graph.num_edges}
        for attempt in ("first", "again"):  # the first compiles kernels
            seconds, report = timed(mge_gpu.topometrics, graph)
            row = {"seconds": seconds, "of": report.seconds, "how": report.how()}
            print(device, sparsity, attempt, row, file=sys.stderr, flush=True)  # of a run that is stopped
            found[f"{device}_{attempt}"] = row
            yield found
            if report.interrupted:
                raise KeyboardInterrupt
        found[f"{device}_values"] = dict(report)
        against = found.get("cpu_values", known)
        found["difference"] = difference(found[f"{devices[0]}_values"], against) if against else "unknown"
        print(sparsity, "difference", found["difference"], file=sys.stderr, flush=True)
        found[device] = {}
        for row in bench.topometrics(graph, repeats):
            print(device, sparsity, row, file=sys.stderr, flush=True)  # of a run that is stopped
            found[device][row.pop("metric")] = row
            yield found
    if len(devices) == 2:
        gpu, cpu = (found[device] for device in devices)
        found["times_faster"] = {key: cpu[key]["seconds"] / gpu[key]["seconds"] for key in gpu}
        yield found


def many(count: int, devices: list[str], one_by_one: bool) -> dict[str, Any]:
    """Seconds for all metrics of many masks of ResNet-20, encoding but not tracing included, on each device.

    ``one_by_one``: also for those that a GPU computes of all masks together, and of one mask after the other.
    """
    model = load_model("mge:resnet20")
    kinds = [(m, s) for s in (0.9, 0.93, 0.95, 0.98) for m in ("uniform", "erk", "er")]
    masks = [mge_gpu.prune(model, *kinds[k % len(kinds)], seed=k) for k in range(count)]
    found: dict[str, Any] = {"masks": count}
    values: dict[str, list[mge_gpu.Report]] = {}
    program = mge_gpu.trace(model, (3, 32, 32))
    for device in devices:
        options = {"model": program, "device": device}
        mge_gpu.topometrics(masks[:2], **options)  # compiles what is compiled once
        seconds, reports = timed(mge_gpu.topometrics, masks, **options)
        values[device] = reports
        found[device] = {
            "seconds": seconds,
            "of": {key: sum(r.seconds.get(key, 0.0) for r in reports) for key in reports[0]},
            "how": reports[0].how(),
        }
        print(device, found[device], file=sys.stderr, flush=True)  # of a run that is stopped
        if one_by_one:
            found[device]["together"], _ = timed(mge_gpu.topometrics, masks, metrics=TOGETHER, **options)
            alone = [timed(mge_gpu.topometrics, [m], metrics=TOGETHER, **options)[0] for m in masks]
            found[device]["one_by_one"] = sum(alone)
    if len(devices) == 2:
        each = [difference(gpu, cpu) for gpu, cpu in zip(*values.values(), strict=True)]
        found["difference"] = {key: max(d.get(key, 0) for d in each) for key in reports[0]}
    return found


def timed(work: Callable[..., Any], *args: Any, **options: Any) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    begin = time.perf_counter()
    result = work(*args, **options)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin, result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("metrics", "many"))
    parser.add_argument("--network", default="torchvision:resnet50")
    parser.add_argument("--sparsities", default="0.6,0.8,0.9,0.98")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--one-by-one", action="store_true", help="many: what goes together one by one, too")
    parser.add_argument("--skip-cpu", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--against", help="metrics: what scale.py wrote of the same networks")
    parser.add_argument("--out", help="write the JSON here, too")
    args = parser.parse_args()
    devices = list(dict.fromkeys([args.device] if args.skip_cpu else [args.device, "cpu"]))
    rows: list[dict[str, Any]] = []
    result = {"benchmark": f"gpu_topometrics {args.what}", "rows": rows, "machine": machine(args.device)}
    if args.what == "many":
        rows.append(many(args.count, devices, args.one_by_one))
    else:
        known = values_of(args.against, args.network.split(":")[1]) if args.against else {}
        for sparsity in map(float, args.sparsities.split(",")):
            rows.append({})
            for row in metrics(args.network, sparsity, devices, args.repeats, known.get(sparsity, {})):
                rows[-1] = row
                save(result, args.out)
    write(result, args.out)


def values_of(path: str, network: str) -> dict[float, dict[str, float]]:
    """Values by sparsity of a network, from a file of `scale.py`."""
    rows = [r for r in json.loads(Path(path).read_text()) if r["network"] == network]
    return {r["sparsity"]: r["report"]["values"] for r in rows}


if __name__ == "__main__":
    main()
