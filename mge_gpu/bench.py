"""How fast is it here? Edges written down, metrics and products of a network, beside the memory's own speed.

Medians of repeated calls after one that does not count. On a GPU seconds are those between two events of the
stream, and peak memory is what torch's allocator gave out, CuPy's arrays included.
"""

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mge_gpu._memory import peak_rss_bytes

if TYPE_CHECKING:
    from mge_gpu.graph.multipartite import MultipartiteGraph

PACKAGES = ("torch", "numpy", "numba", "scipy", "cupy-cuda13x", "cupy-cuda12x")


@dataclass(frozen=True)
class Clock:
    """Median seconds and peak memory on a device."""

    device: torch.device
    repeats: int = 5

    def seconds(self, call: Callable[[], Any]) -> float:
        """Median seconds of a call.

        >>> Clock(torch.device("cpu"), 3).seconds(lambda: None) < 1
        True
        """
        call()
        return statistics.median(self._once(call) for _ in range(self.repeats))

    def _once(self, call: Callable[[], Any]) -> float:
        if self.device.type != "cuda":
            begin = time.perf_counter()
            call()
            return time.perf_counter() - begin
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(torch.cuda.current_stream(self.device))
        call()
        end.record(torch.cuda.current_stream(self.device))
        end.synchronize()
        return start.elapsed_time(end) / 1000

    def copy_bandwidth(self, size: int) -> float:
        """Bytes a second that a copy of ``size`` bytes on the device reads and writes."""
        source = torch.zeros(max(size, 1) // 8 + 1, dtype=torch.int64, device=self.device)
        target = torch.empty_like(source)
        return 2 * 8 * len(source) / self.seconds(lambda: target.copy_(source))

    def reset_peak(self) -> None:
        """Peak memory of the GPU counts from now on; that of a process cannot be reset."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> dict[str, int]:
        """``peak_rss`` of the process and, on a GPU, ``peak_gpu``, in bytes."""
        found = {"peak_rss": peak_rss_bytes() or 0}
        if self.device.type == "cuda":
            found["peak_gpu"] = torch.cuda.max_memory_allocated(self.device)
        return found


def encode(
    graph: "MultipartiteGraph",
    repeats: int = 5,
    index_dtype: torch.dtype = torch.int64,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Writing all edges down (`coo`): seconds, edges and bytes a second, share of the copy bandwidth.

    A copy reads and writes each byte; edges are only written. ``copy_share`` counts the bytes that move.
    """
    clock = Clock(graph.device, repeats)
    edge_bytes = 2 * index_dtype.itemsize + dtype.itemsize
    size = edge_bytes * graph.num_edges
    bandwidth = clock.copy_bandwidth(min(size, 1 << 30))
    clock.reset_peak()
    seconds = clock.seconds(partial(graph.coo, index_dtype=index_dtype, dtype=dtype))
    return {
        "edges": graph.num_edges,
        "bytes_per_edge": edge_bytes,
        "seconds": seconds,
        "edges_per_second": graph.num_edges / seconds,
        "bytes_per_second": size / seconds,
        "copy_bytes_per_second": bandwidth,
        "copy_share": size / seconds / bandwidth,
        **clock.peak(),
    }


def topometrics(
    graph: "MultipartiteGraph", repeats: int = 5, metrics: str | Sequence[str] = "all"
) -> Iterator[dict[str, Any]]:
    """Each metric alone, from the compressed adjacency on; a dict a metric, and one for all together."""
    from mge_gpu.metrics import topometrics as measure
    from mge_gpu.metrics.base import METRICS, Workspace, wanted

    clock = Clock(graph.device, repeats)
    _ = graph.adjacency
    asked = wanted(metrics)
    for key in asked:
        clock.reset_peak()
        with graph.backend.active():
            seconds = clock.seconds(lambda key=key: METRICS[key](Workspace(graph)))  # type: ignore[misc]
        yield {"metric": key, "seconds": seconds, **clock.peak()}
    clock.reset_peak()
    yield {
        "metric": "together",
        "seconds": clock.seconds(lambda: measure(graph, metrics=asked)),
        **clock.peak(),
    }


def spectral(graph: "MultipartiteGraph", repeats: int = 5) -> Iterator[dict[str, Any]]:
    """One product with the symmetric adjacency in either precision, then the two spectral metrics."""
    from mge_gpu.metrics.base import METRICS, Workspace

    clock, backend = Clock(graph.device, repeats), graph.backend
    blocks = [block for _, _, block in graph.blocks]
    with backend.active():
        for dtype in (np.float32, np.float64):
            clock.reset_peak()
            apply = backend.operator(blocks, blocks, dtype == np.float32)
            x = np.ones_like(backend.prototype(), dtype, shape=graph.num_nodes)
            seconds = clock.seconds(partial(apply, x))
            name = f"product, {np.dtype(dtype)}"
            how = str(getattr(apply, "how", ""))
            yield {
                "what": name,
                "seconds": seconds,
                "edges_per_second": 2 * graph.num_edges / seconds,
                "how": how,
                **clock.peak(),
            }
    for key in ("spectral_gap", "spectral_radius"):
        clock.reset_peak()
        with backend.active():
            measured = METRICS[key](Workspace(graph))
            seconds = clock.seconds(lambda key=key: METRICS[key](Workspace(graph)))  # type: ignore[misc]
        yield {"what": key, "seconds": seconds, "how": measured.how, **clock.peak()}


def machine(device: torch.device) -> dict[str, Any]:
    """Date, processor, versions and, for a GPU, its name, driver and CUDA."""
    from mge_gpu.backends.cpu.threads import num_threads

    found: dict[str, Any] = {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "threads": num_threads(),
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
    }
    if device.type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda, "driver": _driver()}
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _driver() -> str:
    """The version of the GPU's driver, where its tool is on the path."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()[
            0
        ]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"
