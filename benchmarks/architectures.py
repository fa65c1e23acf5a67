"""Which of torchvision's classifiers and timm's families can be traced and encoded, and at what cost?

    python benchmarks/architectures.py torchvision|timm [--sparsity 0.9] [--trace-only] [--models a,b]

Each model runs in a process of its own, at its default input size (of torchvision's that of its default
weights), with random weights, in evaluation mode: seconds of tracing, seconds of the graph (`mge_gpu.encode`
and `num_edges`), peak memory, nodes and edges; or the error, which names the op that has no handler. Of a
family (a module of timm.models) the member with the fewest parameters is taken. With --sparsity the weights
are masked by ERK. Progress goes to stderr.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections import defaultdict
from typing import Any

from _measure import classifier, machine, peak_rss, write

sys.path.pop(0)  # numba looks for a package called coverage: it is not to find this file
GIB = 2**30


def torchvision_models() -> dict[str, list[str]]:
    """Every classifier of torchvision, a family each."""
    import torchvision

    return {name: [name] for name in torchvision.models.list_models(module=torchvision.models)}


def timm_models() -> dict[str, list[str]]:
    """timm's models by the module that defines them."""
    import timm
    from timm.models import _registry

    families = defaultdict(list)
    for name in timm.list_models():
        families[_registry._model_to_module[name]].append(name)
    return dict(families)


def smallest(names: list[str]) -> str:
    """The member with the fewest parameters, counted without memory for them."""
    import timm
    import torch

    def size(name: str) -> int:
        try:
            with torch.device("meta"):
                return sum(p.numel() for p in timm.create_model(name, pretrained=False).parameters())
        except (RuntimeError, NotImplementedError, ValueError, TypeError):
            return 2**62  # cannot be made without memory: only if all others cannot either

    return min(names, key=lambda n: (size(n), n))


def build(library: str, name: str) -> tuple[Any, tuple[int, int, int]]:
    """The model in evaluation mode and its default input shape."""
    if library == "timm":
        import timm

        model = timm.create_model(name, pretrained=False)
        return model.eval(), tuple(timm.data.resolve_model_data_config(model)["input_size"])
    model, shape = classifier(name)
    return model.eval(), shape


def measure(library: str, family: str, name: str, sparsity: float | None, trace_only: bool) -> dict[str, Any]:
    """Trace and encode one model in this process."""
    import torch

    import mge_gpu
    from mge_gpu.pruning import prune

    warnings.simplefilter("ignore")
    row: dict[str, Any] = {"family": family, "model": name}
    torch.manual_seed(0)
    model, shape = build(library, name)
    row |= {"input": shape, "parameters": sum(p.numel() for p in model.parameters())}
    masks = None if sparsity is None else prune(model, "erk", sparsity, input_shape=shape, seed=0)
    row["rss_model"] = peak_rss()
    try:
        begin = time.perf_counter()
        program = mge_gpu.trace(model, shape)
        row |= {"trace_seconds": time.perf_counter() - begin, "nodes": program.num_nodes}
        row |= {
            "layers": len(program.layers),
            "tables": sum(u.table is not None for x in program.layers for u in x.uses),
        }
        if not trace_only:
            begin = time.perf_counter()
            graph = mge_gpu.encode(program, masks=masks)
            row["edges"] = graph.num_edges
            row["graph_seconds"] = time.perf_counter() - begin
    except (mge_gpu.errors.MGEError, MemoryError) as error:
        row["error"] = f"{type(error).__name__}: {error}"
    row["peak_rss"] = peak_rss()
    return row


def isolated(args: argparse.Namespace, family: str, name: str) -> dict[str, Any]:
    """One model in a process of its own."""
    command = [sys.executable, __file__, args.library, "--one", family, name]
    command += ["--memory", str(args.memory)]
    command += ["--sparsity", str(args.sparsity)] if args.sparsity is not None else []
    command += ["--trace-only"] if args.trace_only else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout)
    except subprocess.TimeoutExpired:
        return {"family": family, "model": name, "error": f"took more than {args.timeout} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if lines:
        return dict(json.loads(lines[-1]))
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return {"family": family, "model": name, "error": f"exit status {done.returncode}: {last[:300]}"}


def main() -> None:
    """Measure all models, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=["torchvision", "timm"])
    parser.add_argument("--sparsity", type=float, help="ERK masks at this sparsity; dense without")
    parser.add_argument("--trace-only", action="store_true", help="leave the graph out")
    parser.add_argument("--models", help="only these, separated by commas")
    parser.add_argument("--memory", type=float, default=8.0, help="GiB that a model's process may take")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds that a model may take")
    parser.add_argument("--out", help="write the JSON here, too")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        limit = int(args.memory * GIB)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        print(json.dumps(measure(args.library, *args.one, args.sparsity, args.trace_only)))
        return
    families = torchvision_models() if args.library == "torchvision" else timm_models()
    if args.models:
        families = {f: [n for n in names if n in args.models.split(",")] for f, names in families.items()}
    rows = []
    for family, names in sorted(families.items()):
        if names:
            rows.append(isolated(args, family, smallest(names) if len(names) > 1 else names[0]))
            print(_line(rows[-1]), file=sys.stderr, flush=True)
    failed = [row for row in rows if "error" in row]
    result = {
        "benchmark": "coverage",
        "library": args.library,
        "sparsity": args.sparsity,
        "models": len(rows),
        "encoded": len(rows) - len(failed),
        "slowest_seconds": max((_seconds(r) for r in rows), default=0),
        "largest_rss": max((r.get("peak_rss", 0) for r in rows), default=0),
        "failed": {r["model"]: r["error"] for r in failed},
        "rows": rows,
        "machine": machine(),
    }
    write(result, args.out)


def _seconds(row: dict[str, Any]) -> float:
    return float(row.get("trace_seconds", 0) + row.get("graph_seconds", 0))


def _line(row: dict[str, Any]) -> str:
    name = f"{row['family']:28} {row['model']:40}"
    if "error" in row:
        return f"{name} {row['error']}"
    seconds = f"{row['trace_seconds']:6.1f} + {row.get('graph_seconds', 0):6.1f} s"
    return f"{name} {seconds} {row['peak_rss'] / GIB:5.2f} GiB {row['nodes']:12,} {row.get('edges', 0):16,}"


if __name__ == "__main__":
    main()
