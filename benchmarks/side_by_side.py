"""Ours beside igraph, SciPy, networkit and NetworkX: time per metric and bytes per edge, in one run.

    python benchmarks/side_by_side.py [--rungs 0,1,2] [--memory 6] [--build 120] [--metric 60] [--out FILE]

Each library is a process of its own with its default number of threads. It builds the smallest graph of the
ladder, from which follows what it needs an edge, then the largest that should fit the limits of memory and
time, and each metric there. We measure the same graph, and the largest of all. Bytes an edge are the growth
of the process's own (anonymous) memory from the edges, which all read from the same files, to the graph;
ours is built from the traced network and reads no edges. A metric that is not ready in time has no figure.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LADDER = (
    ("resnet20", 32, "uniform", 0.98),
    ("resnet20", 32, "uniform", 0.9),
    ("conv6", 32, "uniform", 0.98),
    ("conv6", 32, "uniform", 0.8),
    ("torchvision:resnet18", 224, "erk", 0.98),
    ("torchvision:resnet50", 224, "erk", 0.98),
)
LIBRARIES = ("igraph", "scipy", "networkit", "networkx")
STORED = {
    "degrees": "stored with the graph or one pass over an array; ours are counted from the compressed form"
}
REASONS = dict.fromkeys(LIBRARIES, STORED)
TOLERANCE = 3e-5
"""Of SciPy's eigenvalues; that of mge_gpu.metrics.expansion, whose import would count as SciPy's memory."""

MODULES = {"scipy": ("scipy.sparse.linalg", "scipy.sparse.csgraph")}
EDGEWISE = (
    "strength", "components", "cut_edges", "cut_nodes", "k_core", "spectral_radius", "spectral_gap",
    "two_hop", "motifs",
)  # fmt: skip
Calls = dict[str, Callable[[], Any]]


def anonymous() -> int:
    """Memory of this process that is no file's, bytes (Linux)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def our_graph(rung: int) -> tuple[Any, float, float]:
    """The graph of a rung, seconds to trace and to encode it."""
    import torch
    from _references import timed

    import mge_gpu
    from mge_gpu.model_spec import load_model

    name, side, method, sparsity = LADDER[rung]
    torch.manual_seed(0)
    model = load_model(name if ":" in name else f"mge:{name}", seed=0)
    masks = mge_gpu.prune(model, method, sparsity, seed=0)
    program, trace_seconds = timed(mge_gpu.trace, model, (3, side, side))

    def build() -> Any:
        graph = mge_gpu.encode(program, masks=masks)
        _ = graph.blocks, graph.adjacency
        return graph

    before = anonymous()
    graph, seconds = timed(build)
    graph.info["bytes"] = anonymous() - before
    return graph, trace_seconds, seconds


def our_calls(graph: Any) -> Calls:
    """Each metric with nothing computed before."""
    from mge_gpu.metrics.base import METRICS, Workspace

    keys = {"degrees": "disconnected_nodes"} | {key: key for key in EDGEWISE}
    return {name: lambda key=key: METRICS[key](Workspace(graph)) for name, key in keys.items()}


def igraph_calls(n: int, source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> tuple[Any, Calls]:
    import igraph

    g = igraph.Graph(n=n, edges=np.stack([source, target], 1), directed=True)
    return g, {
        "degrees": lambda: (g.indegree(), g.outdegree()),
        "components": lambda: len(g.connected_components(mode="weak")),
        "cut_edges": lambda: len(g.bridges()),
        "cut_nodes": lambda: len(g.articulation_points()),
        "k_core": lambda: np.mean(g.coreness()),
        "two_hop": lambda: np.mean(g.neighborhood_size(order=2, mode="out")),
        "motifs": lambda: g.motifs_randesu_no(size=4),
    }


def scipy_calls(n: int, source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> tuple[Any, Calls]:
    import scipy.sparse as sp
    from scipy.sparse.csgraph import connected_components
    from scipy.sparse.linalg import eigsh

    half = sp.csr_array((weight.astype(np.float64), (source, target)), shape=(n, n))
    full = (half + half.T).tocsr()
    start = np.random.default_rng(0).standard_normal(n)
    options: dict[str, Any] = {"v0": start, "tol": TOLERANCE, "return_eigenvectors": False}

    def radius() -> Any:
        laplacian = sp.csr_array(sp.diags_array(np.asarray(full.sum(axis=1)).ravel()) - full)
        return eigsh(laplacian, k=1, which="LA", **options)

    def two_hop() -> float:
        near = (half.astype(bool) + sp.eye_array(n, dtype=bool)).tocsr()
        return sum((near[k : k + 1024] @ near).nnz for k in range(0, n, 1024)) / n

    return full, {
        "degrees": lambda: (np.diff(half.indptr), np.bincount(half.indices, minlength=n)),
        "strength": lambda: full.sum() / n,
        "components": lambda: connected_components(full, directed=False)[0],
        "spectral_radius": radius,
        "spectral_gap": lambda: eigsh(full, k=3, which="LM", **options),
        "two_hop": two_hop,
    }


def networkit_calls(n: int, source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> tuple[Any, Calls]:
    import networkit as nk

    g = nk.GraphFromCoo((weight.astype(np.float64), (source, target)), n, True, False)

    def articulation() -> int:
        found = nk.components.BiconnectedComponents(g)
        found.run()
        return sum(len(found.getComponentsOfNode(v)) > 1 for v in range(n))

    return g, {
        "degrees": lambda: nk.centrality.DegreeCentrality(g).run().scores(),
        "components": lambda: nk.components.ConnectedComponents(g).run().numberOfComponents(),
        "k_core": lambda: np.mean(nk.centrality.CoreDecomposition(g).run().scores()),
        "cut_nodes": articulation,
    }


def networkx_calls(n: int, source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> tuple[Any, Calls]:
    import networkx as nx

    g = nx.Graph()
    g.add_nodes_from(range(n))
    for k in range(0, len(source), 1 << 20):
        part = slice(k, k + (1 << 20))
        rows = zip(source[part].tolist(), target[part].tolist(), weight[part].tolist(), strict=True)
        g.add_weighted_edges_from(rows)
    return g, {
        "degrees": lambda: dict(g.degree()),
        "strength": lambda: sum(d for _, d in g.degree(weight="weight")) / n,
        "components": lambda: nx.number_connected_components(g),
        "k_core": lambda: sum(nx.core_number(g).values()) / n,
        "cut_nodes": lambda: sum(1 for _ in nx.articulation_points(g)),
        "cut_edges": lambda: sum(1 for _ in nx.bridges(g)),
    }


CALLS = {
    "igraph": igraph_calls, "scipy": scipy_calls, "networkit": networkit_calls, "networkx": networkx_calls,
}  # fmt: skip


def worker(library: str, rung: int, folder: str, only_build: bool) -> None:
    """Build a graph and time its metrics; a JSON line for each thing that is ready."""

    def say(**what: Any) -> None:
        print(json.dumps(what), flush=True)

    if library == "ours":
        import torch

        import mge_gpu

        warm_up = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Conv2d(2, 1, 2))
        mge_gpu.topometrics(warm_up, (1, 160, 160))  # large enough for the kernels of large graphs
        graph, trace_seconds, seconds = our_graph(rung)
        say(edges=graph.num_edges, nodes=graph.num_nodes, bytes=graph.info["bytes"], build=seconds,
            trace=trace_seconds)  # fmt: skip
        if folder and not all((Path(folder) / f"{rung}.{k}.npy").exists() for k in range(3)):
            for k, column in enumerate(graph.coo()):
                values = column.numpy()
                np.save(Path(folder) / f"{rung}.{k}.npy", values.astype(np.int32) if k < 2 else values)
            (Path(folder) / f"{rung}.n").write_text(str(graph.num_nodes))
            say(written=True)
        calls = {} if only_build else our_calls(graph)
    else:
        for module in MODULES.get(library, (library,)):
            importlib.import_module(module)
        n = int((Path(folder) / f"{rung}.n").read_text())
        columns = [np.load(Path(folder) / f"{rung}.{k}.npy", mmap_mode="r") for k in range(3)]
        before, begin = anonymous(), time.perf_counter()
        kept, calls = CALLS[library](n, *columns)
        seconds = time.perf_counter() - begin
        say(edges=len(columns[0]), nodes=n, bytes=anonymous() - before, build=seconds)
        if only_build:
            return
    for name, call in calls.items():
        say(begin=name)
        begin = time.perf_counter()
        call()
        say(metric=name, seconds=time.perf_counter() - begin)


def watched(
    library: str, rung: int, folder: str, args: argparse.Namespace, only_build: bool = False, skip: str = ""
) -> dict[str, Any]:
    """Run a worker within the limits; what it said until it ended or was ended."""
    command = [sys.executable, __file__, "--worker", library, "--rung", str(rung), "--folder", folder]
    process = subprocess.Popen(
        [*command, *(["--only-build"] if only_build else [])], stdout=subprocess.PIPE, text=True
    )
    said: dict[str, Any] = {"library": library, "rung": rung, "metrics": {}, "ended": "", "peak": 0}
    state = {"since": time.monotonic(), "in": "build"}

    def guard() -> None:
        while process.poll() is None:
            try:
                rss = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf(
                    "SC_PAGE_SIZE"
                )
            except (OSError, IndexError):
                break
            said["peak"] = max(said["peak"], rss)
            limit = args.metric if state["in"] != "build" else args.build
            if rss > args.memory * 1e9:
                said["ended"] = f"over {args.memory:g} GB in {state['in']}"
            elif time.monotonic() - state["since"] > limit:
                said["ended"] = f"over {limit:g} s in {state['in']}"
            if said["ended"]:
                process.send_signal(signal.SIGKILL)
                return
            time.sleep(0.05)

    watcher = threading.Thread(target=guard)
    watcher.start()
    assert process.stdout is not None
    for line in process.stdout:
        what = json.loads(line)
        state["since"] = time.monotonic()
        if "begin" in what:
            state["in"] = what["begin"]
        elif "metric" in what:
            said["metrics"][what["metric"]] = what["seconds"]
        else:
            said |= what
    process.wait()
    watcher.join()
    if process.returncode and not said["ended"]:
        said["ended"] = f"failed in {state['in']} (status {process.returncode})"
    return said


def main() -> None:
    """Climb the ladder with each library, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rungs", default=",".join(map(str, range(len(LADDER)))))
    parser.add_argument("--memory", type=float, default=6.0, help="GB a process")
    parser.add_argument("--build", type=float, default=120.0, help="seconds to build a graph")
    parser.add_argument("--metric", type=float, default=60.0, help="seconds for one metric")
    parser.add_argument("--out", help="write the JSON here, too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--rung", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    parser.add_argument("--only-build", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.rung, args.folder, args.only_build)
        return
    from _measure import machine, write

    rungs = sorted(map(int, args.rungs.split(",")))
    with tempfile.TemporaryDirectory() as folder:
        ours: dict[int, dict[str, Any]] = {}

        def mine(rung: int, edges: bool) -> dict[str, Any]:
            if rung not in ours:
                ours[rung] = watched("ours", rung, folder if edges else "", args)
            return ours[rung]

        largest = mine(rungs[-1], edges=len(rungs) < len(LADDER) and rungs[-1] < len(LADDER) - 1)
        found = []
        for library in LIBRARIES:
            mine(rungs[0], edges=True)
            small = watched(library, rungs[0], folder, args, only_build=True)
            for rung in reversed(rungs):
                if rung == len(LADDER) - 1:
                    continue  # 0.3 G edges: none of them holds it in 6 GB
                edges = mine(rung, edges=True).get("edges", 0)
                scale = edges / max(small.get("edges", 1), 1)
                fits = small.get("bytes", 0) * scale < 0.8 * args.memory * 1e9
                if rung > rungs[0] and not (fits and small.get("build", 0) * scale < args.build):
                    continue
                there = watched(library, rung, folder, args)
                print(library, LADDER[rung], json.dumps(there), file=sys.stderr, flush=True)
                if "build" in there or rung == rungs[0]:
                    found.append(there)
                    break
    rows = compared(ours, found)
    print(as_text(rows, largest))
    write(
        {
            "benchmark": "side_by_side",
            "limits": {"memory_gb": args.memory, "build_seconds": args.build, "metric_seconds": args.metric},
            "ladder": [dict(zip(("model", "side", "method", "sparsity"), r, strict=True)) for r in LADDER],
            "rows": rows,
            "ours": {str(k): v for k, v in ours.items()},
            "theirs": found,
            "machine": machine(),
        },
        args.out,
    )


def compared(ours: dict[int, dict[str, Any]], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each library and metric: seconds of both on the same graph, and why we are not first."""
    rows = []
    for other in found:
        mine, library = ours[other["rung"]], other["library"]
        name = "{} {}x{} {} {:g}".format(*(lambda m, s, p, q: (m, s, s, p, q))(*LADDER[other["rung"]]))
        per_edge = [x.get("bytes", 0) / max(x.get("edges", 1), 1) for x in (mine, other)]
        rows.append({"library": library, "graph": name, "edges": other.get("edges"), "what": "bytes an edge",
                     "ours": per_edge[0], "theirs": per_edge[1], "why": other["ended"]})  # fmt: skip
        rows.append({"library": library, "graph": name, "edges": other.get("edges"), "what": "build",
                     "ours": mine.get("build"), "theirs": other.get("build"), "why": ""})  # fmt: skip
        for metric, seconds in mine["metrics"].items():
            theirs = other["metrics"].get(metric)
            late = theirs is not None and theirs < seconds
            why = REASONS.get(library, {}).get(metric, "not explained") if late else ""
            rows.append({"library": library, "graph": name, "edges": other.get("edges"), "what": metric,
                         "ours": seconds, "theirs": theirs, "why": why})  # fmt: skip
    return rows


def as_text(rows: list[dict[str, Any]], largest: dict[str, Any]) -> str:
    """The rows as a table, and the largest graph that we measured."""

    def number(x: float | None) -> str:
        return "-" if x is None else f"{x:.4g}"

    lines = [
        f"{'library':10} {'graph':38} {'edges':>12} {'what':16} {'ours':>9} {'theirs':>9}  "
        "why not first, how it ended"
    ]
    for r in rows:
        size = f"{r['edges'] or 0:,}"
        first = f"{r['library']:10} {r['graph']:38} {size:>12} {r['what']:16}"
        lines.append(f"{first} {number(r['ours']):>9} {number(r['theirs']):>9}  {r['why']}")
    each = largest.get("bytes", 0) / max(largest.get("edges", 1), 1)
    lines.append(f"largest of ours: {LADDER[largest['rung']]}, {largest.get('edges', 0):,} edges, {each:.2f} "
                 f"bytes an edge, {largest['ended'] or 'complete'}: {largest['metrics']}")  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
