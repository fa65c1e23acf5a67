"""What do whole networks take? Every topometric of torchvision classifiers at their size, pruned with ERK.

    python benchmarks/scale.py --networks resnet50,vgg16 --sparsities 0.98,0.9 --out scale.json
    python benchmarks/scale.py --table scale.json

Each network and sparsity runs in a process of its own, whose peak memory is reported; a run that is in the
file already is kept.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NETWORKS = (
    "resnet50 resnet152 vgg16 mobilenet_v2 efficientnet_b0 convnext_tiny densenet121 vit_b_16 swin_t".split()
)
SPARSITIES = (0.98, 0.9, 0.8, 0.6)


def one(name: str, sparsity: float) -> dict[str, Any]:
    """Measure one network in this process."""
    import torch

    import mge_gpu
    from benchmarks._measure import classifier, machine, peak_rss

    torch.manual_seed(0)
    model, shape = classifier(name)
    masks = mge_gpu.prune(model, "erk", sparsity=sparsity, seed=0)
    begin = time.perf_counter()
    program = mge_gpu.trace(model, shape)
    traced = time.perf_counter()
    graph = mge_gpu.encode(program, masks=masks)
    edges = graph.num_edges
    encoded = time.perf_counter()
    before = peak_rss()
    del model, masks
    report = mge_gpu.topometrics(graph)
    done = time.perf_counter()
    return {
        "network": name,
        "sparsity": sparsity,
        "input": shape,
        "nodes": graph.num_nodes,
        "edges": edges,
        "trace_seconds": round(traced - begin, 2),
        "encode_seconds": round(encoded - traced, 2),
        "metrics_seconds": round(done - encoded, 2),
        "peak_rss": peak_rss(),
        "peak_rss_before_metrics": before,
        "adjacency_bytes": graph.adjacency.nbytes,
        "report": json.loads(report.to_json()),
        "machine": machine(),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table, with the metrics that take most of the time."""
    lines = [
        "| network | sparsity | nodes | edges | trace + encode | metrics | peak RSS | slowest | products "
        "| estimated |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        seconds = r["report"]["seconds"]
        slow = sorted(seconds, key=lambda k: -seconds[k])[:3]
        most = ", ".join(f"{k} {seconds[k]:.0f} s" for k in slow)
        products = r["report"]["how"]["spectral_radius"].split("; ")[-1]
        errors, values = r["report"]["standard_errors"], r["report"]["values"]
        estimated = (
            ", ".join(f"{k} ± {errors[k] / abs(values[k]):.2%}" for k in errors if values[k]) or "none"
        )
        side = r["input"][-1]
        name = r["network"] + (f" at {side}²" if side != 224 else "")
        lines.append(
            f"| {name} | {r['sparsity']:.0%} | {r['nodes'] / 1e6:.1f} M | {r['edges'] / 1e9:.2f} G | "
            f"{r['trace_seconds'] + r['encode_seconds']:.1f} s | {r['metrics_seconds']:.0f} s | "
            f"{r['peak_rss'] / 1e9:.2f} GB | {most} | {products} | {estimated} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is asked for, writing after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--sparsities", default=",".join(map(str, SPARSITIES)))
    parser.add_argument("--timeout", type=float, default=900, help="seconds a run may take")
    parser.add_argument("--out")
    parser.add_argument("--table", help="print the table of a file that was written before")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(Path(args.table).read_text())))
        return
    if args.one:
        print(json.dumps(one(args.one[0], float(args.one[1]))))
        return
    rows = json.loads(Path(args.out).read_text()) if args.out and Path(args.out).exists() else []
    known = {(r["network"], r["sparsity"]) for r in rows}
    for name in args.networks.split(","):
        for sparsity in map(float, args.sparsities.split(",")):
            if (name, sparsity) in known:
                continue
            command = [sys.executable, __file__, "--one", name, str(sparsity)]
            try:
                run = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout)
            except subprocess.TimeoutExpired:
                print(f"{name} at {sparsity}: not done after {args.timeout:.0f} s", flush=True)
                continue
            if run.returncode:
                print(f"{name} at {sparsity}: {run.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            rows.append(json.loads(run.stdout.splitlines()[-1]))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
            if args.out:
                Path(args.out).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
